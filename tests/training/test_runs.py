"""Whole small runs: their files, their interruption, their errors, and that they learn."""

import csv
import json
import math
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes import make_scenes
from scenes_detector import small_settings
from slimdet import Slimmable
from slimdet.bundle import card
from slimdet.errors import ConfigError, DataError
from slimdet.training import trainer
from slimdet.training.runs import resume, train
from slimdet.training.safety.checkpoint import CHECKPOINT
from slimdet.training.safety.stopping import Stopped
from slimdet.training.settings import learning_rate
from slimdet.training.trainer import Trainer
from slimdet.training.watching.callbacks import Callback, StepReport


def test_a_run_writes_settings_metrics_checkpoint_and_bundle(scenes: Path, tmp_path: Path) -> None:
    result = slimdet.train(
        small_settings(scenes, distill=1.0, sort=True, ema=0.9, bf16=True, schedule="cosine"),
        out=tmp_path / "run",
        evaluate=True,
        epochs=2 / 3,
    )
    run = tmp_path / "run"
    assert (result.run, result.model, result.steps) == (run, run / "model", 2)
    assert set(result.widths) == {"0.5", "1.0"}
    assert len(result.widths["0.5"]["bbox"]) == 12
    stored = json.loads((run / "settings.json").read_text())
    assert (stored["distill"], stored["lr"], stored["recalibrate"]) == (1.0, 0.02 * 2 / 16, 0)  # as they were decided
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert json.loads((run / "validation.jsonl").read_text())["bbox/AP/1.0"] == result.widths["1.0"]["bbox"]["AP"]
    assert card.read(run / "best").metrics["1.0"] == result.widths["1.0"]
    assert (run / "batch-1.jpg").is_file()
    assert {"loss/0.5", "loss/1.0", "distill_features/0.5", "lr", "images_per_s"} <= set(rows[-1])
    assert "distill_features/1.0" not in rows[-1]
    with (run / "metrics.csv").open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert float(table[-1]["loss/0.5"]) == pytest.approx(rows[-1]["loss/0.5"])
    assert next((run / "tensorboard").glob("events*")).stat().st_size > 0
    model = slimdet.load(run / "model")
    said = card.read(run / "model")
    assert said.classes == ("red", "green")
    assert said.category_ids == (10, 20)
    assert said.training["steps"] == 2
    assert said.metrics == result.widths
    found = model([torch.rand(3, 72, 96)], width=0.5)[0]
    assert set(found) == {"boxes", "labels", "scores"}


def test_losses_fall(trained: Path) -> None:
    """Thirty steps on six pictures: every width learns."""
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for width in ("0.5", "1.0"):
        assert rows[-1][f"loss/{width}"] < 0.95 * rows[0][f"loss/{width}"]
        assert math.isfinite(rows[-1][f"loss/{width}"])


def test_the_widest_may_be_alone_at_first(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[float], float]] = []

    def no_step(*args: Any) -> dict[float, dict[str, torch.Tensor]]:
        seen.append((args[3], args[4].distill))
        return {}

    monkeypatch.setattr(trainer, "accumulate_gradients", no_step)
    train(small_settings(scenes, widest_only=0.5, distill=2, epochs=8 / 3), out=tmp_path / "late")  # 8 steps
    assert seen == [([1.0], 0)] * 4 + [([1.0, 0.5], weight) for weight in (0, 1, 2, 2)]  # taught more and more


def test_every_width_sees_the_batch_at_a_size_of_its_own(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, set[int]] = {}

    def no_step(model: Slimmable, images: Any, targets: Any, widths: list[float], *rest: Any) -> dict:
        for width in widths:
            transform: Any = model.twin(width).get_submodule("transform")
            batch, _ = transform(images)
            seen.setdefault(width, set()).update(min(size) for size in batch.image_sizes)
        assert all(min(image.shape[1:]) <= 64 for image in images)  # shrunk where they were loaded, once
        return {}

    monkeypatch.setattr(trainer, "accumulate_gradients", no_step)
    settings = small_settings(scenes, imgsz=(32, 64), epochs=6, widths=(0.25, 0.5, 1.0))
    run = train(settings, out=tmp_path / "run")
    assert seen[1.0] == {64}
    assert seen[0.25] == seen[0.5] == {32, 64}
    model = slimdet.load(run.model)
    for width in model.widths:
        assert model.twin(width).get_submodule("transform").min_size == (64,)


def test_widths_at_other_sizes_learn_from_the_widest_and_get_statistics(scenes: Path, tmp_path: Path) -> None:
    options = {"imgsz": (32, 64), "distill": 1.0, "recalibrate": 4, "epochs": 1, "bf16": True, "ema": 0.9}
    run = train(small_settings(scenes, **options), out=tmp_path / "run")
    rows = [json.loads(line) for line in (run.run / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["distill_features/0.5"] > 0
    assert card.read(run.model).calibrations["0.5"]["images"] >= 4


def test_the_best_bundle_of_a_range_gets_statistics_too(scenes: Path, tmp_path: Path) -> None:
    options = {"width_sampling": "range", "recalibrate": 4, "evaluate": True, "epochs": 2}
    run = train(small_settings(scenes, **options), out=tmp_path / "run")
    best = card.read(run.run / "best")
    assert best.calibrations == card.read(run.model).calibrations
    assert best.metrics.keys() == run.widths.keys()
    first = json.loads((run.run / "validation.jsonl").read_text().splitlines()[0])
    assert best.training["steps"] == first["step"]  # all scores are 0, and the first of equals is kept


def test_a_step_in_parts_is_the_step(scenes: Path, tmp_path: Path) -> None:
    # With some seeds rounding decides which of two proposals is kept, and the step is another one.
    options = {"head_norm": "group", "freeze_backbone_norm": True, "clip": 1e9, "seed": 1}
    one = train(small_settings(scenes, **options), out=tmp_path / "one")
    parts = small_settings(scenes, accumulate=2, checkpoint_activations=True, **options)
    two = train(parts, out=tmp_path / "two")
    found, expected = slimdet.load(two.model).state_dict(), slimdet.load(one.model).state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-5)


def test_a_run_divides_the_gradients_of_shared_weights(scenes: Path, tmp_path: Path) -> None:
    momenta = {}
    for choice in ("sum", "root", "mean"):
        settings = small_settings(scenes, gradient_reduction=choice, epochs=0.01, clip=1e9, weight_decay=0.0)
        run = train(settings, out=tmp_path / choice)
        assert run.steps == 1
        state = torch.load(run.run / CHECKPOINT, weights_only=True)
        momenta[choice] = state["optimizer"]["state"][0]["momentum_buffer"]  # of the stem: [32, 3, 3, 3]
    summed = momenta["sum"]
    assert summed.shape == (32, 3, 3, 3)
    for choice, power in (("root", 0.5), ("mean", 1.0)):
        torch.testing.assert_close(momenta[choice][:16], summed[:16] / 2**power)
        torch.testing.assert_close(momenta[choice][16:], summed[16:])


def test_masks_train_and_validate(scenes: Path, tmp_path: Path) -> None:
    result = train(small_settings(scenes, model="mask_rcnn", evaluate=True), out=tmp_path / "run")
    assert set(result.widths["1.0"]) == {"bbox", "segm"}


def test_adamw_moves_each_weight_by_the_rate(scenes: Path, tmp_path: Path) -> None:
    runs = {
        lr: train(small_settings(scenes, optimizer="adamw", lr=lr, weight_decay=0.0, warmup=0), out=tmp_path / str(lr))
        for lr in (1e-12, 1e-3)
    }
    before, after = (slimdet.load(run.model).state_dict() for run in runs.values())
    (name,) = [name for name in before if name.endswith("cls_score.weight")]
    moved = (after[name] - before[name]).abs()
    assert moved.max() == pytest.approx(1e-3, rel=0.01)  # the first step of Adam: lr * sign of the gradient
    assert (moved > 0.9e-3).float().mean() > 0.5


class SignalAt(Callback):
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.at, self.number = step, number

    def on_step(self, state: Trainer, report: StepReport) -> None:
        if state.step == self.at:
            os.kill(os.getpid(), self.number)


def weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"ema": 0.9, "workers": 2, "distill": 1.0, "schedule": "cosine", "accumulate": 2, "optimizer": "adamw"},
        {"width_sampling": "range", "recalibrate": 4, "model": "mask_rcnn"},
        {"width_sampling": "sandwich", "widths": (0.25, 0.5, 0.75, 1.0), "imgsz": (32, 64), "augment": "strong"},
    ],
    ids=["average, workers, teaching, parts", "range of widths, masks", "sandwich, range of sizes"],
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    settings = small_settings(scenes, **{"epochs": 5 / 3, **options})  # 5 steps; stopped in the second epoch
    train(settings, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        train(settings, out=tmp_path / "parts", callbacks=[SignalAt(4)])
    assert slimdet.load(tmp_path / "parts" / "model").widths == settings.widths  # what there is can be used
    assert f"saved at step 4; go on with: slimdet train --resume {tmp_path / 'parts'}" in capsys.readouterr().err
    random.seed(1)
    torch.manual_seed(1)  # nothing that a new process starts with matters
    assert resume(tmp_path / "parts").steps == 5
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_resumed_log_has_every_step_once(scenes: Path, tmp_path: Path) -> None:
    settings = small_settings(scenes, epochs=20 / 3)  # 20 steps
    with pytest.raises(Stopped):
        train(settings, out=tmp_path / "run", callbacks=[SignalAt(10, signal.SIGTERM)])
    lines = tmp_path / "run" / "metrics.jsonl"
    with lines.open("a") as handle:
        handle.write('{"step": 20, "lr": 5}\n{"step": 21, "l')  # of a process that was killed after its last checkpoint
    resume(tmp_path / "run")
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 10, 20]
    assert rows[-1]["lr"] != 5
    with (tmp_path / "run" / "metrics.csv").open(newline="") as handle:
        assert [row["step"] for row in csv.DictReader(handle)] == ["1", "10", "20"]


def test_a_finished_run_is_lengthened(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scenes.parent)
    run = train(small_settings(Path(scenes.name), epochs=1, schedule="step"), out=tmp_path / "run").run
    assert json.loads((run / "settings.json").read_text())["data"] == str(scenes)
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "slimdet")
    rates = []

    class Rates(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            rates.append(report.lr)

    longer = resume(run, epochs=2, callbacks=[Rates()])
    assert longer.steps == 6
    settings = small_settings(scenes, epochs=2, schedule="step")
    assert rates == [learning_rate(settings, step, 6) for step in (3, 4, 5)]
    assert "goes on at step 3 (epoch 1, batch 0) with 2 epochs in place of 1" in caplog.text
    assert card.read(run / "model").training["epochs"] == 2
    with pytest.raises(ConfigError, match="--epochs 1 is less than the 2 of"):
        resume(run, epochs=1)


def test_resuming_otherwise_is_refused(scenes: Path, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = weights(run)
    with pytest.raises(ConfigError, match=r"leave out --widths, --ema, or start a new run with --weights"):
        resume(run, widths=(0.25, 1.0), ema=0.5, workers=0)
    other = make_scenes(tmp_path / "other", images=5)
    with pytest.raises(DataError, match=r"other.data\.yaml is not the data of this run"):
        resume(run, data=str(other))
    assert weights(run) == before
    moved = shutil.copytree(scenes.parent, tmp_path / "moved") / scenes.name
    resume(run, data=str(moved))  # the same data at another place
    assert weights(run) == before
    (tmp_path / "moved" / "images" / "3.png").write_bytes(b"another picture")
    with pytest.raises(DataError, match="files of other sizes"):
        resume(run)


def test_a_run_that_is_being_trained_is_not_resumed(scenes: Path, tmp_path: Path) -> None:
    refused = []

    class Second(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            with pytest.raises(ConfigError, match=f"is being trained in by process {os.getpid()}") as error:
                resume(state.folder)
            refused.append(error)

    train(small_settings(scenes), out=tmp_path / "run", callbacks=[Second()])
    assert len(refused) == 1


def test_a_finished_training_survives_what_follows_it(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(scenes.parent, tmp_path / "data")
    broken = shutil.copytree(scenes.parent / "images", data / "val")
    broken.joinpath("1.png").write_bytes(b"no picture")
    (data / "data.yaml").write_text(
        "train: {images: images, annotations: annotations.json}\nval: {images: val, annotations: annotations.json}\n"
    )
    settings = small_settings(data / "data.yaml", evaluate=True)
    with pytest.raises(DataError, match=r"1 images cannot be used: .*val/1\.png.*--no-check"):
        train(settings, out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    result = train(settings, out=tmp_path / "run", check=False)
    assert result.widths == {}
    assert "is trained and whole, but what follows a training failed" in caplog.text
    assert slimdet.load(result.model).widths == (0.5, 1.0)


def test_all_bad_images_are_named_before_the_first_step(scenes: Path, tmp_path: Path) -> None:
    data = shutil.copytree(scenes.parent, tmp_path / "data")
    (data / "images" / "2.png").unlink()
    (data / "images" / "5.png").write_bytes((data / "images" / "5.png").read_bytes()[:-50])
    with pytest.raises(DataError, match=r"2 images cannot be used: .*2\.png: no such file, .*5\.png: "):
        train(small_settings(data / "data.yaml"), out=tmp_path / "run")


def test_a_log_that_fails_ends_no_run(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not installed
    result = train(small_settings(scenes, epochs=20 / 3), out=tmp_path / "run")
    assert result.steps == 20
    assert caplog.text.count("TensorBoard does not work, training goes on without it") == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_users_mistakes_are_named(scenes: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TrainSettings: 'epoch' is not one of .*; did you mean epochs\?"):
        slimdet.train(data=scenes, epoch=3)
    with pytest.raises(ConfigError, match=r"--data DATA\.yaml is missing"):
        slimdet.train(epochs=3)
    with pytest.raises(ConfigError, match=r"--resume .*nowhere"):
        resume(tmp_path / "nowhere")
    run = shutil.copytree(trained, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"'momenta' is not one of .*did you mean momentum"):
        resume(run, momenta=1)
    state = torch.load(run / CHECKPOINT, weights_only=True)
    torch.save(state | {"settings": state["settings"] | {"momenta": 1}}, run / CHECKPOINT)
    with pytest.raises(ConfigError, match=r"--resume .*another slimdet .*momenta"):
        resume(run)
    (run / CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match=r"there is no last\.pt"):
        resume(run)


class Lost:
    """Not a `Callback`, but what is called when a step is done; its server is gone."""

    def on_step(self, state: Any, report: StepReport) -> None:
        if state.step == 2:
            raise ConnectionError("no such host")


def test_what_a_callback_raises_ends_a_run_that_is_saved(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        train(small_settings(scenes, epochs=1), out=tmp_path / "run", callbacks=[Lost()])  # type: ignore[list-item]
    assert resume(tmp_path / "run").steps == 3
    with pytest.raises(ConfigError, match="callback object has none of on_start, on_step"):
        train(small_settings(scenes), out=tmp_path / "other", callbacks=[object()])  # type: ignore[list-item]
    assert not (tmp_path / "other").exists()


def test_a_run_that_is_done_again_keeps_what_its_bundle_says(scenes: Path, tmp_path: Path) -> None:
    first = train(small_settings(scenes, evaluate=True), out=tmp_path / "run")
    before = card.read(first.model)
    resume(first.run, evaluate=False)
    assert card.read(first.model).metrics == before.metrics != {}
    slimdet.calibrate(first.model, scenes, 0.75, images=2, batch=2)
    resume(first.run, evaluate=False)
    assert slimdet.load(first.model).widths == (0.5, 0.75, 1.0)


def test_a_run_that_was_ended_does_not_go_on_but_where_it_is_lengthened(scenes: Path, tmp_path: Path) -> None:
    class Enough(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            state.stop = "enough" if state.step == 1 else state.stop

    run = train(small_settings(scenes, epochs=1), out=tmp_path / "run", callbacks=[Enough()]).run
    assert resume(run).steps == 1
    assert resume(run, epochs=2).steps == 6


def test_another_val_set_is_refused(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "scenes")
    val = data.with_name("val.json")
    coco = json.loads(data.with_name("annotations.json").read_text())
    val.write_text(json.dumps(coco))
    split = "{{images: images, annotations: {}}}"
    data.write_text(f"train: {split.format('annotations.json')}\nval: {split.format('val.json')}\n")
    run = train(small_settings(data), out=tmp_path / "run").run
    coco["images"] = coco["images"][:1]
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] == coco["images"][0]["id"]]
    val.write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"the val part of .* is not that of this run any more"):
        resume(run)


def test_a_start_by_torchrun_does_not_take_over_an_older_run(
    scenes: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with pytest.raises(ConfigError, match=r"holds another training \(with another --batch\); give a new folder"):
        slimdet.train(data=scenes, weights="none", backbone="mobilenet_v2", batch=3, out=trained)
