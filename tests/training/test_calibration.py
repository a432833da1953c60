"""Statistics collected for a width: what they are, whom they touch, and the verb from files to files."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import slimdet
from scenes import make_scenes
from scenes_detector import scene_batch
from slimdet import Slimmable, slim
from slimdet.bundle import card, store
from slimdet.cli.verbs import main
from slimdet.errors import DataError
from slimdet.exporting.engine_files import export
from slimdet.models import builders
from slimdet.training import calibration
from slimdet.training.calibration import _Moments, collect_statistics
from slimdet.training.settings import TrainSettings
from slimdet.training.trainer import train


def tiny(norms: str = "shared", masks: bool = False) -> Slimmable:
    torch.manual_seed(0)
    make = builders.mask_rcnn if masks else builders.faster_rcnn
    return slim(
        make(3, "resnet18", "light", weights=None, norm_layer="batch", imgsz=64), (0.25, 1.0), norm_sharing=norms
    )


def test_moments_of_parts_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 5, 3, 2) * 3 + 100
    moments = _Moments()
    for part in (values[:1], values[1:1], values[1:4], values[4:]):
        moments.add(part)
    flat = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean, flat.mean(1))
    torch.testing.assert_close(moments.squares / (moments.count - 1), flat.var(1))


def test_statistics_are_those_of_the_inputs_in_use() -> None:
    model = tiny().eval()
    images, targets = scene_batch()
    collect_statistics(model, 0.25, [(images, targets)])
    twin: nn.Module = model.twin(0.25)
    seen: list[torch.Tensor] = []
    norm = twin.get_submodule("backbone.body.bn1")
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images, width=0.25)
    handle.remove()
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_but_the_statistics_of_that_width_changes(masks: bool) -> None:
    model = tiny(masks=masks).eval()
    model.add(0.5)
    images, targets = scene_batch()
    if masks:
        for image, target in zip(images, targets, strict=True):
            target["masks"] = torch.ones(1, *image.shape[1:], dtype=torch.uint8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    collect_statistics(model, 0.5, [(images, targets)])
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all((key.startswith("twins.0_5.") and "running" in key) or "num_batches" in key for key in changed)
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module.training for module in model.modules())
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_frozen_norms_get_statistics_too() -> None:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, "resnet18", "light", weights=None, backbone_norm="frozen", imgsz=64)
    model = slim(detector, (0.5, 1.0)).eval()
    frozen = model.twin(0.5).get_submodule("backbone.body.layer1.0.bn1")
    before = frozen.running_mean.clone()  # pyright: ignore
    collect_statistics(model, 0.5, [scene_batch()])
    assert not torch.equal(frozen.running_mean, before)  # pyright: ignore


def test_broken_weights_are_told() -> None:
    model = tiny().eval()
    nn.init.constant_(model.get_parameter("backbone.body.layer1.0.conv1.weight"), float("inf"))
    with pytest.raises((DataError, AssertionError)):
        collect_statistics(model, 0.25, [scene_batch()])


# ------------------------------------------------------------------------------------------------- the verb


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TrainSettings(
        data=str(data), backbone="resnet18", neck="light", norm="batch", weights="none", widths=(0.25, 0.5, 1.0),
        sampling="range", epochs=1.0, batch=2, imgsz=64, evaluate=False, device="cpu", recalibrate=4,
    )  # fmt: skip
    return Path(train(settings, tmp_path_factory.mktemp("run") / "range")["model"])


def copy_of(folder: Path, to: Path) -> Path:
    return store.save(slimdet.load(folder), to, card.read(folder))


def test_training_a_range_lists_widths_with_statistics(trained: Path) -> None:
    model = slimdet.load(trained)
    assert model.norm_sharing == "shared"
    assert model.widths == (0.25, 0.5, 1.0)
    assert set(card.read(trained).calibrations) == {"0.25", "0.5", "1.0"}


def test_calibrate_adds_a_width_with_its_numbers(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(trained, tmp_path / "model")
    before = slimdet.load(folder).state_dict()
    arguments = ["--model", str(folder), "--data", str(data), "--width", "0.6", "--images", "4", "--json"]
    assert main(["calibrate", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"] == str(folder)
    assert 0 <= document["metrics"]["bbox"]["AP"] <= 1
    model = slimdet.load(folder)
    assert model.widths == (0.25, 0.5, 0.6, 1.0)
    assert card.read(folder).metrics["0.6"] == document["metrics"]
    assert card.read(folder).calibrations["0.6"]["images"] == 4
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    model([torch.rand(3, 64, 80)], width=0.6)


def test_engines_of_the_weights_before_are_named(
    trained: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy_of(trained, tmp_path / "model")
    export(str(folder), 0.25)
    calibration.calibrate(str(folder), data, 0.6, images=2, out=tmp_path / "other")
    assert "engine files" not in caplog.text
    calibration.calibrate(str(folder), data, 0.6, images=2)
    assert f"slimdet export --model {folder}" in caplog.text
    assert not list(folder.glob("*.onnx"))


def test_calibrate_takes_a_plan_and_another_folder(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"backbone.body.layer4": 0.5, "roi_heads": 0.25}')
    out = tmp_path / "planned"
    arguments = ["--model", str(trained), "--data", str(data), "--width", "0.75", "--plan", str(plan)]
    assert main(["calibrate", *arguments, "--images", "4", "--out", str(out)]) == 0
    assert 0.75 not in slimdet.load(trained).widths
    model = slimdet.load(out)
    assert model.plans == {0.75: {"backbone.body.layer4": 0.5, "roi_heads": 0.25}}
    assert model.extract(0.75).get_submodule("roi_heads.box_head.fc7").out_features == 128
    assert main(["calibrate", *arguments, "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_models_of_fixed_widths_are_warned_about(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = store.save(tiny("own"), tmp_path / "own", card.read(_trained_classes(data, tmp_path)))
    calibration.calibrate(str(path), data, 0.5, images=2)
    assert "other widths are poor without training" in caplog.text
    assert slimdet.load(path).widths == (0.25, 0.5, 1.0)


@pytest.mark.parametrize("flags", [["--width", "0.125"], ["--width", "0.75", "--plan", "plan.json"]])
def test_widths_below_the_trained_ones_are_warned_about(
    flags: list[str], trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text('{"backbone.body.layer4": 0.125}')
    arguments = ["calibrate", "--model", str(trained), "--data", str(data), "--images", "2", "--out", "model"]
    assert main([*arguments, *flags]) == 0
    assert "has no width under 0.25: 0.125 is poor without training" in caplog.text


def _trained_classes(data: Path, tmp_path: Path) -> Path:
    from slimdet.data.coco import CocoDataset
    from slimdet.data.config import read_data_config

    split = read_data_config(data).train
    assert split is not None
    return store.save(tiny("own"), tmp_path / "named", card.Card(CocoDataset(split.annotations, split.images).classes))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--width", "1.5"], "1.5"),
        (["--width", "0.001"], "width 0.001"),
        (["--width", "0.6", "--plan", "absent.json"], "absent.json"),
    ],
)
def test_mistakes_leave_the_bundle_alone(
    flags: list[str], message: str, trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_of(trained, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["calibrate", "--model", str(folder), "--data", str(data), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_range_on_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["train", "--data", str(data), "--weights", "none"]
    assert main([*common, "--widths", "0.25-0.9"]) == 2
    assert "a range of widths ends at 1.0" in capsys.readouterr().err
    assert main([*common, "--widths", "0.25-1.0", "--frozen-norms"]) == 2
    assert "--frozen-norms" in capsys.readouterr().err
