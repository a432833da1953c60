"""`slimdet calibrate`: a width that was not trained, its numbers, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import slimdet
from scenes_detector import small_settings
from slimdet.bundle import card
from slimdet.cli.verbs import main
from slimdet.training.runs import train


@pytest.fixture(scope="module")
def ranged(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained at a range of widths; whoever changes it copies it."""
    settings = small_settings(scenes, widths=(0.25, 0.5, 1.0), width_sampling="range", recalibrate=4)
    return train(settings, out=tmp_path_factory.mktemp("runs") / "range").model


def test_training_a_range_lists_widths_with_statistics(ranged: Path) -> None:
    model = slimdet.load(ranged)
    assert model.norm_sharing == "shared"
    assert model.widths == (0.25, 0.5, 1.0)
    assert set(card.read(ranged).calibrations) == {"0.25", "0.5", "1.0"}


def test_calibrate_adds_a_width_with_its_numbers(
    ranged: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(ranged, tmp_path / "model")
    before = slimdet.load(folder).state_dict()
    arguments = ["--model", str(folder), "--data", str(scenes), "--width", "0.6", "--images", "4", "--json"]
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
    ranged: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(ranged, tmp_path / "model")
    slimdet.export(folder, width=0.25)
    slimdet.calibrate(folder, scenes, 0.6, images=2, out=tmp_path / "other")
    assert "engine files" not in caplog.text
    slimdet.calibrate(folder, scenes, 0.6, images=2)
    assert f"slimdet export --model {folder}" in caplog.text
    assert not list(folder.glob("*.onnx"))


def test_calibrate_takes_a_plan_and_another_folder(
    ranged: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"backbone.body.layer4": 0.5, "roi_heads": 0.25}')
    out = tmp_path / "planned"
    arguments = ["--model", str(ranged), "--data", str(scenes), "--width", "0.75", "--plan", str(plan)]
    assert main(["calibrate", *arguments, "--images", "4", "--out", str(out)]) == 0
    assert 0.75 not in slimdet.load(ranged).widths
    model = slimdet.load(out)
    assert model.plans == {0.75: {"backbone.body.layer4": 0.5, "roi_heads": 0.25}}
    assert model.extract(0.75).get_submodule("roi_heads.box_head.fc7").out_features == 128
    assert main(["calibrate", *arguments, "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_models_of_fixed_widths_are_warned_about(
    trained: Path, scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = slimdet.calibrate(trained / "model", scenes, width=0.75, images=2, out=tmp_path / "model")
    assert "other widths are poor without training" in caplog.text
    assert (found.model, found.width, found.images) == (tmp_path / "model", 0.75, 2)
    assert slimdet.load(found.model).widths == (0.5, 0.75, 1.0)
    assert found.metrics["bbox"]["AP"] == card.read(found.model).metrics["0.75"]["bbox"]["AP"]


@pytest.mark.parametrize("flags", [["--width", "0.125"], ["--width", "0.75", "--plan", "plan.json"]])
def test_widths_below_the_trained_ones_are_warned_about(
    flags: list[str], ranged: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text('{"backbone.body.layer4": 0.125}')
    arguments = ["calibrate", "--model", str(ranged), "--data", str(scenes), "--images", "2", "--out", "model"]
    assert main([*arguments, *flags]) == 0
    assert "has no width under 0.25: 0.125 is poor without training" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--width", "1.5"], "1.5"),
        (["--width", "0.001"], "width 0.001"),
        (["--width", "0.6", "--plan", "absent.json"], "absent.json"),
    ],
)
def test_mistakes_leave_the_bundle_alone(
    flags: list[str], message: str, ranged: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(ranged, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["calibrate", "--model", str(folder), "--data", str(scenes), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_range_on_the_command_line(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["train", "--data", str(scenes), "--weights", "none"]
    assert main([*common, "--widths", "0.25-0.9"]) == 2
    assert "a range of widths ends at 1.0" in capsys.readouterr().err
    assert main([*common, "--widths", "0.25-1.0", "--freeze-backbone-norm"]) == 2
    assert "--freeze-backbone-norm" in capsys.readouterr().err
