"""What ends the loop of a training, and what is left then."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes_detector import small_settings
from slimdet.errors import ConfigError, DataError, ImageError
from slimdet.training import trainer
from slimdet.training.runs import resume, train
from slimdet.training.safety.checkpoint import CHECKPOINT, read_checkpoint
from slimdet.training.safety.stopping import Stopped
from slimdet.training.trainer import Trainer
from slimdet.training.watching.callbacks import Callback, StepReport
from slimdet.widths import WidthRange

accumulate = trainer.accumulate_gradients


def test_a_diverging_run_names_step_loss_width_and_images(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"step [1-8]: loss_\w+ of width (0\.5|1\.0) is (nan|inf).* on the images \d\.png \(id \d\), "
        r"\d\.png \(id \d\): .*lower --lr \(now 1e\+30\)",
    ):
        train(small_settings(scenes, head_norm="none", lr=1e30, warmup=0, epochs=3), out=tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert all(value.isfinite().all() for value in state["model"].values())


def test_want_of_memory_is_one_line_with_the_way_out(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "accumulate_gradients", full)
        with pytest.raises(ConfigError, match=r"out of memory at step 0 .*smaller --batch \(now 2\).*--resume"):
            train(small_settings(scenes), out=tmp_path / "run")
    assert resume(tmp_path / "run").steps == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_waits_for_its_end(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # impatient
        return accumulate(*args)

    monkeypatch.setattr(trainer, "accumulate_gradients", interrupted)
    with pytest.raises(Stopped) as stopped:
        train(small_settings(scenes, epochs=1), out=tmp_path / "run")
    assert stopped.value.signal == number
    state = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert (state["step"], state["epoch"], state["batch"]) == (1, 0, 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as it was before


def test_ctrl_c_during_the_save_does_not_lose_it(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def interrupted(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        save(*args)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(Stopped):
        train(small_settings(scenes, epochs=1), out=tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == 1


class KillsAWorker(Callback):
    """Kills a process that reads images, once it has begun."""

    def on_step(self, state: Trainer, report: StepReport) -> None:
        if state.step == 1:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
def test_a_dead_worker_leaves_a_checkpoint(scenes: Path, tmp_path: Path) -> None:
    settings = small_settings(scenes, workers=1, epochs=4 / 3, ema=0.9)
    train(settings, out=tmp_path / "whole")
    with pytest.raises(DataError, match=r"a process that reads images died .*--workers \(now 1\); saved at step \d"):
        train(settings, out=tmp_path / "run", callbacks=[KillsAWorker()])
    resume(tmp_path / "run")
    states = [read_checkpoint(tmp_path / name / CHECKPOINT)["average"] for name in ("whole", "run")]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_an_image_that_went_away_leaves_a_checkpoint(scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes.parent, tmp_path / "data")
    picture = data / "images" / "4.png"

    class Removes(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            picture.unlink(missing_ok=True)

    settings = small_settings(data / "data.yaml", epochs=2)
    with pytest.raises(ImageError, match=r"4\.png: no such file; saved at step \d; go on with: slimdet train --resume"):
        train(settings, out=tmp_path / "run", callbacks=[Removes()])
    shutil.copy(scenes.parent / "images" / "4.png", picture)
    assert resume(tmp_path / "run").steps == 6


def test_a_callback_may_end_a_training(scenes: Path, tmp_path: Path) -> None:
    told: list[str] = []

    class Patience(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            told.append(f"step {state.step}")

        def on_epoch(self, state: Trainer) -> None:
            told.append("epoch")
            state.stop = "good enough"

        def on_checkpoint(self, state: Trainer, file: Path) -> None:
            told.append(f"checkpoint {state.saved}")

        def on_end(self, state: Trainer, model: Path) -> None:
            assert (model / "model.json").is_file()
            told.append("end")

    assert train(small_settings(scenes, epochs=4), out=tmp_path / "run", callbacks=[Patience()]).steps == 3
    assert told == ["checkpoint 0", "step 1", "step 2", "step 3", "epoch", "checkpoint 3", "end"]


@pytest.mark.slow  # half a minute of tracing
def test_a_compiled_training_goes_the_same_way(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "COMPILER", "eager")  # traced and guarded, but no compiler runs
    plain = train(small_settings(scenes, epochs=1), out=tmp_path / "plain")
    compiled = train(small_settings(scenes, epochs=1, compile=True), out=tmp_path / "compiled")
    before, after = (slimdet.load(run.model).state_dict() for run in (plain, compiled))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, msg=name)


def test_stages_are_drawn_apart_and_the_same_after_a_resume(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, float]] = []
    inner = slimdet.Slimmable.pass_plan

    def told(self: slimdet.Slimmable, width: float, plan: dict[str, float]) -> None:
        drawn.append(plan)
        inner(self, width, plan)
        fc6 = self.twin(width).get_submodule("roi_heads.box_head.fc6")
        assert fc6.weight.shape[0] == int(512 * plan["roi_heads.box_head"])  # pyright: ignore

    monkeypatch.setattr(slimdet.Slimmable, "pass_plan", told)
    settings = small_settings(scenes, widths=WidthRange(0.25), width_sampling="stages", epochs=1, recalibrate=0)
    train(settings, out=tmp_path / "whole")
    plans = [*drawn]
    assert len(plans) == 2 * 3
    assert all(len(set(plan.values())) > 1 for plan in plans)
    assert all(0.25 <= width <= 1 for plan in plans for width in plan.values())
    drawn.clear()
    train(replace(settings, epochs=1 / 3), out=tmp_path / "part")
    resume(tmp_path / "part", epochs=1.0)
    assert drawn == plans
