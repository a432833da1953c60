"""Training: the step's arithmetic, and a whole small run with its files, its interruption and its errors."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes import make_scenes
from scenes_detector import scene_batch, tiny_model
from slimdet.bundle import card
from slimdet.cli.verbs import main
from slimdet.errors import BundleError, ConfigError, DataError, WeightsError
from slimdet.training import trainer
from slimdet.training.settings import TrainSettings, learning_rate, sampled_widths
from slimdet.training.trainer import accumulate_gradients, average
from slimdet.widths import widths_between


def small(data: Path, **changes: Any) -> TrainSettings:
    fixed: dict[str, Any] = {
        "data": str(data),
        "backbone": "resnet18",
        "neck": "light",
        "norm": "batch",
        "weights": "none",
        "widths": (0.5, 1.0),
        "epochs": 1.0,
        "batch": 2,
        "imgsz": 64,
        "evaluate": False,
        "device": "cpu",
    }
    return TrainSettings(**fixed | changes)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("scenes"))


# ------------------------------------------------------------------------------------------------- arithmetic


def test_learning_rate_follows_the_paper() -> None:
    settings = TrainSettings(data="", batch=16, epochs=12, warmup=500)
    total = 12 * 1000
    assert learning_rate(settings, 0, total) == pytest.approx(0.02 / 3)
    assert learning_rate(settings, 250, total) == pytest.approx(0.02 * (1 - 0.5 * 2 / 3))
    assert learning_rate(settings, 500, total) == pytest.approx(0.02)
    assert learning_rate(settings, 7999, total) == pytest.approx(0.02)
    assert learning_rate(settings, 8000, total) == pytest.approx(0.002)
    assert learning_rate(settings, 11000, total) == pytest.approx(0.0002)
    assert TrainSettings(data="", batch=4).peak_lr == pytest.approx(0.005)  # scaled to the batch
    assert TrainSettings(data="", batch=4, lr=0.3).peak_lr == 0.3
    cosine = TrainSettings(data="", schedule="cosine", warmup=0)
    assert learning_rate(cosine, 500, 1000) == pytest.approx(0.01)
    assert learning_rate(cosine, 999, 1000) < 1e-5


def test_widths_of_a_step() -> None:
    import random

    widths = (0.25, 0.5, 0.75, 1.0)
    assert sampled_widths(widths, "all", random.Random(0)) == [1.0, 0.75, 0.5, 0.25]
    drawn = [sampled_widths(widths, "sandwich", random.Random(seed)) for seed in range(20)]
    assert all(step[0] == 1.0 and step[-1] == 0.25 and len(step) == 3 for step in drawn)
    assert {step[1] for step in drawn} == {0.5, 0.75}
    assert sampled_widths((0.5, 1.0), "sandwich", random.Random(0)) == [1.0, 0.5]


def test_widths_of_a_step_in_a_range() -> None:
    import random

    between = widths_between(0.25)
    drawn = [sampled_widths((0.25, 0.5, 1.0), "range", random.Random(seed), between) for seed in range(200)]
    assert all(step[0] == 1.0 and step[-1] == 0.25 and len(set(step)) == 4 for step in drawn)
    assert all(step == sorted(step, reverse=True) for step in drawn)
    inner = [width for step in drawn for width in step[1:-1]]
    assert set(inner) == set(between)
    assert inner.count(between[0]) > 3 * inner.count(0.75)  # in inverse proportion to the cost
    assert sampled_widths((0.25, 0.5, 1.0), "range", random.Random(7), between) == drawn[7]


def test_narrow_widths_may_join_late(scenes: Path, tmp_path: Path) -> None:
    settings = small(scenes, narrow_start=0.5, epochs=4 / 3, save_every=1e9)  # 4 steps
    model = trainer._prepare(settings)[0].model  # the same start
    seen: list[list[float]] = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(args[3])
        return accumulate_gradients(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "accumulate_gradients", spy)
        trainer.train(settings, tmp_path / "late")
    assert seen == [[1.0], [1.0], [1.0, 0.5], [1.0, 0.5]]
    assert model.widths == (0.5, 1.0)


def test_a_detector_of_its_own_may_teach() -> None:
    model, teacher = tiny_model((1.0,)).train(), tiny_model((1.0,)).extract(1.0).train()
    images, targets = scene_batch()
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    losses = accumulate_gradients(model, images, targets, [1.0], distill=1.0, teacher=teacher)
    assert "distill_features" in losses[1.0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.named_parameters())
    chosen = accumulate_gradients(model, images, targets, [1.0], 1.0, distill_parts=("rpn",), teacher=teacher)
    assert {name for name in chosen[1.0] if name.startswith("distill")} == {"distill_rpn"}


def test_a_trained_wide_detector_is_sorted_a_slimmable_one_is_not(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = trainer.train(small(scenes, widths=(1.0,)), tmp_path / "wide")["model"]
    caplog.set_level("INFO", logger="slimdet")
    again = trainer.train(small(scenes, weights=wide, sort=True), tmp_path / "sorted")["model"]
    assert "sorted the channels of" in caplog.text
    with pytest.raises(ConfigError, match="are in order already"):
        trainer.train(small(scenes, weights=again, sort=True), tmp_path / "twice")


def test_gradients_of_a_step_are_the_sum_over_the_widths() -> None:
    model = tiny_model((0.25, 0.5, 1.0)).train()
    images, targets = scene_batch()
    summed = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    for width in (1.0, 0.5, 0.25):  # the samplers draw anew at each width
        model.zero_grad()
        sum(model(images, targets, width=width).values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                summed[name] += parameter.grad
    model.zero_grad()
    torch.set_rng_state(state)
    losses = accumulate_gradients(model, images, targets, [1.0, 0.5, 0.25])
    assert list(losses) == [1.0, 0.5, 0.25]
    assert not any(value.requires_grad for parts in losses.values() for value in parts.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, summed[name], rtol=1e-4, atol=1e-6)


def test_balance_weighs_the_gradients_of_narrow_widths() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    name = "twins.0_5.backbone.body.bn1.weight"  # of the narrow width alone
    gradients = []
    for balance in (0.0, 1.0):
        model.zero_grad()
        torch.manual_seed(0)
        accumulate_gradients(model, images, targets, [0.5], balance=balance)
        gradients.append(model.get_parameter(name).grad)
    torch.testing.assert_close(gradients[1], 2 * gradients[0])


def test_average_moves_towards_the_model_and_copies_counters() -> None:
    first, second = tiny_model(), tiny_model()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    counter = "backbone.body.bn1.num_batches_tracked"
    second.get_buffer(counter).fill_(7)
    expected = {name: 0.9 * p + 0.1 * second.get_parameter(name) for name, p in first.named_parameters()}
    average(first, second, 0.9)
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
    assert first.get_buffer(counter) == 7


# ------------------------------------------------------------------------------------------------- whole runs


def test_a_run_writes_settings_metrics_checkpoint_and_bundle(scenes: Path, tmp_path: Path) -> None:
    settings = small(scenes, distill=1.0, sort=True, ema=0.9, bf16=True, schedule="cosine", evaluate=True, epochs=2 / 3)
    result = trainer.train(settings, tmp_path / "run")
    run = tmp_path / "run"
    assert result["steps"] == 2
    assert set(result["widths"]) == {"0.5", "1.0"}
    assert len(result["widths"]["0.5"]["bbox"]) == 12
    assert json.loads((run / "settings.json").read_text())["distill"] == 1.0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
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
    assert said.metrics == result["widths"]
    found = model([torch.rand(3, 72, 96)], width=0.5)[0]
    assert set(found) == {"boxes", "labels", "scores"}


@pytest.mark.parametrize(("gradients", "power"), [("root", 0.5), ("mean", 1.0)])
def test_a_run_divides_the_gradients_of_shared_weights(
    scenes: Path, tmp_path: Path, gradients: str, power: float
) -> None:
    momenta = []
    for choice in ("sum", gradients):
        settings = small(scenes, gradients=choice, epochs=0.01, clip=1e9, weight_decay=0.0)  # one step
        trainer.train(settings, tmp_path / choice)
        state = torch.load(tmp_path / choice / trainer.CHECKPOINT, weights_only=True)
        assert state["step"] == 1
        momenta.append(state["optimizer"]["state"][0]["momentum_buffer"])  # of the stem: [64, 3, 7, 7]
    summed, divided = momenta
    assert summed.shape == (64, 3, 7, 7)
    torch.testing.assert_close(divided[:32], summed[:32] / 2**power)
    torch.testing.assert_close(divided[32:], summed[32:])


def test_masks_train_and_validate(scenes: Path, tmp_path: Path) -> None:
    result = trainer.train(small(scenes, model="mask_rcnn", epochs=1 / 3, evaluate=True), tmp_path / "run")
    assert set(result["widths"]["1.0"]) == {"bbox", "segm"}


def test_an_interrupted_run_resumes_to_the_same_weights(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small(scenes, ema=0.9, sampling="sandwich", widths=(0.25, 0.5, 0.75, 1.0), epochs=4 / 3)  # 4 steps
    trainer.train(settings, tmp_path / "whole")
    step = trainer.RunLog.step

    def interrupted(log: Any, number: int, *rest: Any) -> None:
        step(log, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(trainer.RunLog, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(settings, tmp_path / "parts")
    assert not (tmp_path / "parts" / "model").exists()
    assert f"--resume {tmp_path / 'parts'}" in capsys.readouterr().err
    assert trainer.resume(tmp_path / "parts")["steps"] == 4
    whole, parts = slimdet.load(tmp_path / "whole" / "model"), slimdet.load(tmp_path / "parts" / "model")
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_fine_tuning_on_other_classes_keeps_what_fits(
    scenes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.train(small(scenes, epochs=1 / 3), tmp_path / "first")
    single = make_scenes(tmp_path / "single", classes=1)
    caplog.set_level("INFO", "slimdet")
    settings = small(single, weights=str(tmp_path / "first" / "model"), epochs=1 / 3, lr=1e-9, weight_decay=0.0)
    trainer.train(settings, tmp_path / "second")
    assert "new heads for red, in place of red, green" in caplog.text
    assert "dropped 4: roi_heads.box_predictor.bbox_pred.bias" in caplog.text
    before, after = slimdet.load(tmp_path / "first" / "model"), slimdet.load(tmp_path / "second" / "model")
    assert card.read(tmp_path / "second" / "model").classes == ("red",)
    key = "backbone.body.layer1.0.conv1.weight"
    torch.testing.assert_close(before.state_dict()[key], after.state_dict()[key])
    narrow = "twins.0_5.backbone.body.bn1.weight"
    torch.testing.assert_close(before.state_dict()[narrow], after.state_dict()[narrow])
    assert after.state_dict()["roi_heads.box_predictor.cls_score.weight"].shape[0] == 2


def test_a_bundle_keeps_its_parts(scenes: Path, tmp_path: Path) -> None:
    start = trainer.train(small(scenes, epochs=1 / 3), tmp_path / "first")["model"]
    for changes, message in (
        ({"backbone": "mobilenet_v2"}, "--backbone mobilenet_v2: .*, with backbone resnet18"),
        ({"norm": "group"}, "--norm group: .*, with norm batch"),
        ({"frozen_norms": True}, "--frozen-norms: .*, with frozen_norms False"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer.train(small(scenes, weights=start, **changes), tmp_path / "second")
    not_asked = {"backbone": "resnet50", "neck": "full", "norm": None}
    trainer.train(small(scenes, weights=start, epochs=1 / 3, **not_asked), tmp_path / "second")


# ------------------------------------------------------------------------------------------------- errors


def test_users_mistakes_are_named(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or bundle"):
        trainer.train(small(scenes, weights="resnet.pth"), tmp_path / "run")
    with pytest.raises(ConfigError, match="--sampling 'some' is not one of all, sandwich, range"):
        small(scenes, sampling="some")
    with pytest.raises(slimdet.errors.WidthError, match=r"must contain 1\.0"):
        small(scenes, widths=(0.5,))
    with pytest.raises(ConfigError, match="--epochs -1 is below 0"):
        small(scenes, epochs=-1)
    with pytest.raises(ConfigError, match=r"--resume .*nowhere"):
        trainer.resume(tmp_path / "nowhere")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.json").write_text("{}")
    with pytest.raises(BundleError):
        trainer.train(small(scenes, weights=str(tmp_path / "broken")), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing is written before everything is known to be usable


def test_a_diverging_run_stops_with_its_learning_rate(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lower --lr \(now 1e\+30\)"):
        trainer.train(small(scenes, norm=None, lr=1e30, warmup=0, epochs=3), tmp_path / "run")


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


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_named(scenes: Path, tmp_path: Path, damage: bytes | None) -> None:
    trainer.train(small(scenes, epochs=1 / 3), tmp_path / "run")
    file = tmp_path / "run" / "last.pt"
    file.write_bytes(file.read_bytes()[:5000] if damage is None else damage)
    with pytest.raises(ConfigError, match=r"last\.pt cannot be gone on with"):
        trainer.resume(tmp_path / "run")


def test_losses_fall(scenes: Path, tmp_path: Path) -> None:
    """Two dozen steps on six pictures: every width learns."""
    settings = small(scenes, epochs=5, batch=2, lr=0.02, warmup=3, augment="none")
    trainer.train(settings, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for width in ("0.5", "1.0"):
        assert rows[-1][f"loss/{width}"] < 0.95 * rows[0][f"loss/{width}"]
        assert math.isfinite(rows[-1][f"loss/{width}"])
