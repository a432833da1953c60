"""Whole small runs: their files, their interruption, their errors, and that they learn."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes_detector import small_settings
from slimdet import Slimmable
from slimdet.bundle import card
from slimdet.errors import ConfigError, DataError
from slimdet.training import trainer
from slimdet.training.callbacks import Callback, StepReport
from slimdet.training.checkpoint import CHECKPOINT
from slimdet.training.trainer import Trainer, resume, train


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
    """Fifteen steps on six pictures: every width learns."""
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    for width in ("0.5", "1.0"):
        assert rows[-1][f"loss/{width}"] < 0.95 * rows[0][f"loss/{width}"]
        assert math.isfinite(rows[-1][f"loss/{width}"])


def test_the_widest_may_be_alone_at_first(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []

    def no_step(*args: Any) -> dict[float, dict[str, torch.Tensor]]:
        seen.append(args[3])
        return {}

    monkeypatch.setattr(trainer, "accumulate_gradients", no_step)
    train(small_settings(scenes, widest_only=0.5, epochs=4 / 3), out=tmp_path / "late")  # 4 steps
    assert seen == [[1.0], [1.0], [1.0, 0.5], [1.0, 0.5]]


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


def test_a_run_divides_the_gradients_of_shared_weights(scenes: Path, tmp_path: Path) -> None:
    momenta = {}
    for choice in ("sum", "root", "mean"):
        settings = small_settings(scenes, gradient_reduction=choice, epochs=0.01, clip=1e9, weight_decay=0.0)
        run = train(settings, out=tmp_path / choice)
        assert run.steps == 1
        state = torch.load(run.run / CHECKPOINT, weights_only=True)
        momenta[choice] = state["optimizer"]["state"][0]["momentum_buffer"]  # of the stem: [64, 3, 7, 7]
    summed = momenta["sum"]
    assert summed.shape == (64, 3, 7, 7)
    for choice, power in (("root", 0.5), ("mean", 1.0)):
        torch.testing.assert_close(momenta[choice][:32], summed[:32] / 2**power)
        torch.testing.assert_close(momenta[choice][32:], summed[32:])


def test_masks_train_and_validate(scenes: Path, tmp_path: Path) -> None:
    result = train(small_settings(scenes, model="mask_rcnn", evaluate=True), out=tmp_path / "run")
    assert set(result.widths["1.0"]) == {"bbox", "segm"}


def test_an_interrupted_run_resumes_to_the_same_weights(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small_settings(scenes, ema=0.9, width_sampling="sandwich", widths=(0.25, 0.5, 0.75, 1.0), epochs=2 / 3)
    train(settings, out=tmp_path / "whole")

    class Interruption(Callback):
        def on_step(self, state: Trainer, report: StepReport) -> None:
            if state.step == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, out=tmp_path / "parts", callbacks=[Interruption()])
    assert slimdet.Runtime(tmp_path / "parts" / "model", width=0.5).classes  # what there is can be used
    assert f"--resume {tmp_path / 'parts'}" in capsys.readouterr().err
    assert resume(tmp_path / "parts").steps == 2
    whole, parts = slimdet.load(tmp_path / "whole" / "model"), slimdet.load(tmp_path / "parts" / "model")
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_users_mistakes_are_named(scenes: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TrainSettings: 'epoch' is not one of .*; did you mean epochs\?"):
        slimdet.train(data=scenes, epoch=3)
    with pytest.raises(ConfigError, match=r"--data DATA\.yaml is missing"):
        slimdet.train(epochs=3)
    with pytest.raises(ConfigError, match=r"--resume .*nowhere"):
        resume(tmp_path / "nowhere")
    run = shutil.copytree(trained, tmp_path / "run")
    settings = json.loads((run / "settings.json").read_text())
    (run / "settings.json").write_text(json.dumps(settings | {"momenta": 1}))
    with pytest.raises(ConfigError, match=r"--resume .*momenta"):
        resume(run)
    (run / "settings.json").write_text(json.dumps(settings))
    (run / CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match=r"there is no last\.pt"):
        resume(run)


def test_a_diverging_run_stops_with_its_learning_rate(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lower --lr \(now 1e\+30\)"):
        train(small_settings(scenes, head_norm="none", lr=1e30, warmup=0, epochs=3), out=tmp_path / "run")
