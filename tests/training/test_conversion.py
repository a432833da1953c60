"""An ordinary detector becomes slimmable: sorted, with statistics of each width's own, taught by what it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes import make_scenes
from scenes_detector import small_settings
from slimdet.bundle import card
from slimdet.cli.verbs import main
from slimdet.errors import ConfigError
from slimdet.training.conversion import make_slimmable
from slimdet.training.runs import resume, train
from slimdet.training.start import starting_teacher

SHORT: dict[str, Any] = {"widths": (0.5, 1.0), "epochs": 1 / 3, "batch": 2, "evaluate": False}


@pytest.fixture(scope="module")
def wide(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of width 1.0 alone, trained for some steps."""
    settings = small_settings(scenes, widths=(1.0,), epochs=3, lr=0.02, warmup=3)
    return train(settings, out=tmp_path_factory.mktemp("runs") / "wide").model


@pytest.fixture(scope="module")
def converted(wide: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_slimmable(wide, scenes, out=tmp_path_factory.mktemp("runs") / "converted", **SHORT).run.parent


def test_the_widest_finds_at_the_start_what_the_detector_found(wide: Path, converted: Path) -> None:
    image = torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = slimdet.load(wide).eval()([image], width=1.0)[0]
        after = slimdet.load(converted / "start").eval()([image], width=1.0)[0]
    torch.testing.assert_close(before["boxes"], after["boxes"], rtol=0, atol=1e-3)
    torch.testing.assert_close(before["scores"], after["scores"], rtol=0, atol=1e-5)


def test_the_channels_were_sorted_and_narrow_norms_measured(wide: Path, converted: Path) -> None:
    before, after = slimdet.load(wide).state_dict(), slimdet.load(converted / "start").state_dict()
    key = "backbone.body.0.0.weight"
    assert not torch.equal(before[key], after[key])
    assert torch.equal(before[key].flatten().sort().values, after[key].flatten().sort().values)
    mean = "backbone.body.5.conv.0.1.running_mean"  # of what a narrower layer before it gives
    narrow = after[f"twins.0_5.{mean}"]
    assert not torch.allclose(narrow, after[mean][: len(narrow)])


def test_the_training_is_one_of_the_recipe_and_can_be_resumed(converted: Path, scenes: Path) -> None:
    settings = json.loads((converted / "training" / "settings.json").read_text())
    assert (settings["teacher"], settings["widest_only"]) == ("start", 0)
    assert settings["distill"] > 0
    assert Path(settings["weights"]) == (converted / "start").absolute()
    assert card.read(converted / "training" / "model").classes == ("red", "green")
    before = slimdet.load(converted / "training" / "model").state_dict()
    after = slimdet.load(resume(converted / "training").model).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_detector_as_it_was_teaches_every_width(
    wide: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimdet.training import trainer

    seen: list[Any] = []
    inner = trainer.accumulate_gradients

    def watched(model: Any, images: Any, targets: Any, widths: Any, settings: Any, teacher: Any, share: Any) -> Any:
        state = {key: value.clone() for key, value in teacher.state_dict().items()}
        losses = inner(model, images, targets, widths, settings, teacher, share)
        seen.append((state, losses))
        return losses

    monkeypatch.setattr(trainer, "accumulate_gradients", watched)
    make_slimmable(wide, scenes, out=tmp_path / "out", lr=0.01, **SHORT | {"epochs": 1.0})
    (first, _), *_, (last, losses) = seen
    assert all(torch.equal(first[key], last[key]) for key in first)
    assert {width: "distill_features" in parts for width, parts in losses.items()} == {1.0: True, 0.5: True}


def test_what_cannot_teach_is_refused(wide: Path, scenes: Path, tmp_path: Path) -> None:
    other = make_scenes(tmp_path / "single", classes=1)
    with pytest.raises(ConfigError, match=r"model was trained for 2 classes .* the data lacks green"):
        make_slimmable(wide, other, out=tmp_path / "out", **SHORT)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="teacher start teaches nothing with --distill 0"):
        small_settings(scenes, weights=wide, teacher="start")
    taught = {"teacher": "start", "distill": 1.0}
    with pytest.raises(ConfigError, match="--weights none is no detector that could teach"):
        starting_teacher(small_settings(scenes, **taught), ("red", "green"))
    with pytest.raises(ConfigError, match="does not go with --sort"):
        starting_teacher(small_settings(scenes, weights=wide, sort=True, **taught), ("red", "green"))
    with pytest.raises(ConfigError, match="model finds red, green, and the data has red"):
        starting_teacher(small_settings(scenes, weights=wide, **taught), ("red",))


def test_the_command(wide: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--widths", "0.5,1.0", "--epochs", "0.3", "--batch", "2", "--device", "cpu"]
    out = str(tmp_path / "out")
    assert main(["convert", str(wide), "--to", "slimmable", "--data", str(scenes), *flags, "--out", out]) == 0
    assert "slimdet profile --model" in capsys.readouterr().out
    assert slimdet.load(f"{out}/training/model").widths == (0.5, 1.0)
    for arguments, message in (
        ([str(wide), "--to", "slimmable"], "--data is missing"),
        ([str(wide), "--epochs", "3"], "--epochs belongs to --to slimmable"),
        ([str(wide), "--to", "slimmable", "--data", str(scenes), "--config", str(scenes)], "belongs to a checkpoint"),
        (["fasterrcnn_resnet50_fp", "--to", "slimmable", "--data", str(scenes)], "did you mean"),
        (["nothing", "--to", "slimmable"], "no file or folder 'nothing'"),
    ):
        assert main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
