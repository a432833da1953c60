"""Where a training starts: a bundle's detector as it is, sorted channels, and what is told when there is no start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.detection.roi_heads import RoIHeads

import slimdet
from scenes import make_scenes
from scenes_detector import small_settings
from slimdet.bundle import card
from slimdet.cli.verbs import main
from slimdet.errors import BundleError, ConfigError, WeightsError
from slimdet.models.suppression import ExclusiveRoIHeads
from slimdet.training.runs import train
from slimdet.training.start import resolved, starting_model


def test_fine_tuning_on_other_classes_keeps_what_fits(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    single = make_scenes(tmp_path / "single", classes=1)
    caplog.set_level("INFO", "slimdet")
    settings = small_settings(single, weights=trained / "model", lr=1e-9, weight_decay=0.0)
    train(settings, out=tmp_path / "second")
    assert "new heads for red, in place of red, green" in caplog.text
    assert "dropped 4: roi_heads.box_predictor.bbox_pred.bias" in caplog.text
    before, after = slimdet.load(trained / "model"), slimdet.load(tmp_path / "second" / "model")
    assert card.read(tmp_path / "second" / "model").classes == ("red",)
    key = "backbone.body.1.conv.0.0.weight"
    torch.testing.assert_close(before.state_dict()[key], after.state_dict()[key])
    narrow = "twins.0_5.backbone.body.0.1.weight"
    torch.testing.assert_close(before.state_dict()[narrow], after.state_dict()[narrow])
    assert after.state_dict()["roi_heads.box_predictor.cls_score.weight"].shape[0] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet18"}, "--backbone resnet18: .*, with backbone mobilenet_v2"),
        ({"head_norm": "group"}, "--head-norm group: .*, with head_norm batch"),
        ({"freeze_backbone_norm": True}, "--freeze-backbone-norm: .*, with freeze_backbone_norm False"),
        ({"model": "mask_rcnn"}, "is a Faster R-CNN, not a mask_rcnn; say --model faster_rcnn"),
    ],
)
def test_a_bundle_keeps_its_parts(trained: Path, scenes: Path, changes: dict[str, Any], message: str) -> None:
    settings = small_settings(scenes, weights=trained / "model", **changes)
    with pytest.raises(ConfigError, match=message):
        starting_model(settings, ("red", "green"))


@pytest.mark.parametrize("weights", ["none", "a bundle"])
def test_suppression_is_that_of_the_settings(trained: Path, scenes: Path, weights: str) -> None:
    start = "none" if weights == "none" else trained / "model"
    for nms, heads in (("all", ExclusiveRoIHeads), ("class", RoIHeads)):
        model = starting_model(small_settings(scenes, weights=start, nms=nms), ("red", "green"))
        assert all(type(model.twin(width).get_submodule("roi_heads")) is heads for width in model.widths)


def test_a_bundle_keeps_its_suppression_where_none_is_asked_for(scenes: Path, tmp_path: Path) -> None:
    model = starting_model(small_settings(scenes, nms="all"), ("red", "green"))
    start = slimdet.save(model, tmp_path / "all", card.Card(("red", "green")))
    settings = small_settings(scenes, weights=start)
    tuned = starting_model(settings, ("blue", "black"))
    assert type(tuned.twin(0.5).get_submodule("roi_heads")) is ExclusiveRoIHeads
    assert resolved(settings, tuned).nms == "all"


def test_a_bundles_parts_need_not_be_asked_for(trained: Path, scenes: Path) -> None:
    not_asked = {"backbone": "resnet50", "neck": "full", "head_norm": "none", "imgsz": None}
    settings = small_settings(scenes, weights=trained / "model", **not_asked)
    model = starting_model(settings, ("red", "green"))
    decided = resolved(settings, model)  # what is stored, and what a resumed run starts from
    assert (decided.backbone, decided.neck, decided.head_norm, decided.imgsz) == ("mobilenet_v2", "light", "batch", 64)
    assert resolved(decided, starting_model(decided, ("red", "green"))) == decided
    before = slimdet.load(trained / "model").state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_trained_wide_detector_is_sorted_a_slimmable_one_is_not(
    scenes: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = train(small_settings(scenes, widths=(1.0,)), out=tmp_path / "wide").model
    caplog.set_level("INFO", logger="slimdet")
    train(small_settings(scenes, weights=wide, sort=True), out=tmp_path / "sorted")
    assert "sorted the channels of" in caplog.text
    with pytest.raises(ConfigError, match="are in order already"):
        train(small_settings(scenes, weights=trained / "model", sort=True), out=tmp_path / "twice")


def test_weights_that_are_not_there_are_named(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or bundle"):
        train(small_settings(scenes, weights="resnet.pth"), out=tmp_path / "run")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    with pytest.raises(BundleError):
        train(small_settings(scenes, weights=tmp_path / "broken"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing is written before everything is known to be usable


def test_the_command_line_says_how_to_start_without_a_network(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    assert main(["train", "--data", str(scenes), "--backbone", "resnet18", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--weights FILE" in error
    assert "--weights none" in error
    assert not (tmp_path / "run").exists()
