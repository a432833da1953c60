"""Ordinary detectors are read from wherever they come, and their outputs put into the order of the data's classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection, get_model_weights

import slimdet
from scenes_detector import tiny_model
from slimdet.bundle.card import Card
from slimdet.bundle.extraction import extract
from slimdet.errors import ConfigError, WeightsError
from slimdet.training.ordinary import Ordinary, read_ordinary

KIND = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("files") / "detector.pth"
    torch.manual_seed(0)
    torch.save(_torchvision(3).state_dict(), file)
    return file


def _torchvision(classes: int) -> nn.Module:
    return detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=classes
    ).eval()


def _same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_state_dict_of_torchvision(torchvision_file: Path) -> None:
    read = read_ordinary(torchvision_file, KIND)
    state = torch.load(torchvision_file, weights_only=True)
    own = read.detector.state_dict()
    assert read.classes is None
    assert all(torch.equal(own[key], state[key]) for key in state)
    assert read.of_classes(["a", "b"]) is read.detector
    with pytest.raises(ConfigError, match="outputs for 2 classes, and the data 3"):
        read.of_classes(["a", "b", "c"])


def test_a_state_dict_of_frozen_norms_stays_frozen(tmp_path: Path) -> None:
    state = {key: value for key, value in _torchvision(3).state_dict().items() if "num_batches_tracked" not in key}
    torch.save(state, tmp_path / "frozen.pth")
    kinds = {type(module).__name__ for module in read_ordinary(tmp_path / "frozen.pth", KIND).detector.modules()}
    assert "FrozenBatchNorm2d" in kinds
    assert "BatchNorm2d" not in kinds


def test_a_bundle_of_one_width_and_what_was_extracted(tmp_path: Path) -> None:
    one = slimdet.slim(tiny_model().extract(1.0), (1.0,))
    bundle = slimdet.save(one, tmp_path / "one", Card(("cat", "dog")))
    read = read_ordinary(bundle)
    assert read.classes == ("cat", "dog")
    assert _same(read.detector, one.extract(1.0))
    extract(bundle, 1.0, tmp_path / "plain")
    again = read_ordinary(tmp_path / "plain")
    assert again.classes == ("cat", "dog")
    assert _same(again.detector, read.detector)


def test_sources_that_cannot_be_made_slimmable_are_refused(tmp_path: Path, torchvision_file: Path) -> None:
    many = slimdet.save(tiny_model(), tmp_path / "many")
    with pytest.raises(ConfigError, match=r"many is slimmable already: it has the widths 0.5"):
        read_ordinary(many)
    narrow = extract(many, 0.5, tmp_path / "narrow").out
    with pytest.raises(ConfigError, match=r"holds width 0.5 of a detector.*--width 1.0"):
        read_ordinary(narrow)
    (narrow / "detector.json").write_text(json.dumps({"classes": ["a"]}))
    with pytest.raises(WeightsError, match="does not say what the detector is"):
        read_ordinary(narrow)
    with pytest.raises(ConfigError, match=r"add --detector.*fasterrcnn_resnet50_fpn"):
        read_ordinary(torchvision_file)
    with pytest.raises(WeightsError, match=r"does not fit fasterrcnn_resnet50_fpn.*is --detector its kind"):
        read_ordinary(torchvision_file, "fasterrcnn_resnet50_fpn")
    with pytest.raises(ConfigError, match=r"'retinanet_resnet50_fpn' is no file.*fasterrcnn_resnet50_fpn_v2"):
        read_ordinary(torchvision_file, "retinanet_resnet50_fpn")
    with pytest.raises(ConfigError, match=r"did you mean fasterrcnn_resnet50_fpn"):
        read_ordinary("fasterrcnn_resnet50_fp")
    with pytest.raises(ConfigError, match=r"--detector .* says what a file of weights is of"):
        read_ordinary(many, KIND)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="holds no detector of kind"):
        read_ordinary(tmp_path / "other.pth", KIND)


def test_torchvisions_own_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / Path(get_model_weights(KIND)["DEFAULT"].url).name
    file.parent.mkdir()
    torch.manual_seed(1)
    torch.save(_torchvision(91).state_dict(), file)
    read = read_ordinary(KIND)
    assert read.classes is not None
    assert (len(read.classes), read.classes[0], read.classes[11]) == (90, "person", "N/A")
    classes = sorted({*read.classes} - {"N/A"})
    chosen = read.of_classes(classes).state_dict()
    row, label = classes.index("dog") + 1, read.classes.index("dog") + 1
    given = read.detector.state_dict()
    key = "roi_heads.box_predictor.{}.weight"
    assert len(chosen[key.format("cls_score")]) == 81
    assert torch.equal(chosen[key.format("cls_score")][row], given[key.format("cls_score")][label])
    codes = chosen[key.format("bbox_pred")][4 * row : 4 * row + 4]
    assert torch.equal(codes, given[key.format("bbox_pred")][4 * label : 4 * label + 4])


def test_weights_that_cannot_be_downloaded_say_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("slimdet.training.ordinary.get_model", refuse)
    with pytest.raises(WeightsError, match=r"no route to host.*put the file at .*fasterrcnn_mobilenet.*\.pth"):
        read_ordinary(KIND)


def test_a_detector_teaches_just_the_classes_that_it_knows() -> None:
    two = tiny_model().extract(1.0)
    known = Ordinary(two, ("cat", "dog"), "two.pth")
    swapped = known.of_classes(["dog", "cat"])
    key = "roi_heads.box_predictor.cls_score.bias"
    assert torch.equal(swapped.state_dict()[key], two.state_dict()[key][[0, 2, 1]])
    masks = tiny_model(masks=True).extract(1.0)
    swapped = Ordinary(masks, ("cat", "dog"), "masks.pth").of_classes(["dog", "cat"])
    key = "roi_heads.mask_predictor.mask_fcn_logits.weight"
    assert torch.equal(swapped.state_dict()[key], masks.state_dict()[key][[0, 2, 1]])
    with pytest.raises(ConfigError, match="the data lacks dog, it has cow too"):
        known.of_classes(["cat", "cow"])
