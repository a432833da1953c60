"""What decides a training: learning rate, widths of a step, and values that cannot be used."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from slimdet.errors import ConfigError, SlimdetError, WidthError
from slimdet.training.settings import TrainSettings, learning_rate, sampled_widths
from slimdet.widths import WidthRange, widths_between


def test_learning_rate_follows_the_paper() -> None:
    settings = TrainSettings(batch=16, epochs=12, warmup=500)
    total = 12 * 1000
    assert learning_rate(settings, 0, total) == pytest.approx(0.02 / 3)
    assert learning_rate(settings, 250, total) == pytest.approx(0.02 * (1 - 0.5 * 2 / 3))
    assert learning_rate(settings, 500, total) == pytest.approx(0.02)
    assert learning_rate(settings, 7999, total) == pytest.approx(0.02)
    assert learning_rate(settings, 8000, total) == pytest.approx(0.002)
    assert learning_rate(settings, 11000, total) == pytest.approx(0.0002)
    assert TrainSettings(batch=4).peak_lr == pytest.approx(0.005)  # scaled to the batch
    assert TrainSettings(batch=4, lr=0.3).peak_lr == 0.3
    cosine = TrainSettings(schedule="cosine", warmup=0)
    assert learning_rate(cosine, 500, 1000) == pytest.approx(0.01)
    assert learning_rate(cosine, 999, 1000) < 1e-5


def test_widths_of_a_step() -> None:
    widths = (0.25, 0.5, 0.75, 1.0)
    assert sampled_widths(widths, "all", random.Random(0)) == [1.0, 0.75, 0.5, 0.25]
    drawn = [sampled_widths(widths, "sandwich", random.Random(seed)) for seed in range(20)]
    assert all(step[0] == 1.0 and step[-1] == 0.25 and len(step) == 3 for step in drawn)
    assert {step[1] for step in drawn} == {0.5, 0.75}
    assert sampled_widths((0.5, 1.0), "sandwich", random.Random(0)) == [1.0, 0.5]


def test_widths_of_a_step_in_a_range() -> None:
    between = widths_between(0.25)
    drawn = [sampled_widths((0.25, 0.5, 1.0), "range", random.Random(seed), between) for seed in range(200)]
    assert all(step[0] == 1.0 and step[-1] == 0.25 and len(set(step)) == 4 for step in drawn)
    assert all(step == sorted(step, reverse=True) for step in drawn)
    inner = [width for step in drawn for width in step[1:-1]]
    assert set(inner) == set(between)
    assert inner.count(between[0]) > 3 * inner.count(0.75)  # in inverse proportion to the cost
    assert sampled_widths((0.25, 0.5, 1.0), "range", random.Random(7), between) == drawn[7]


def test_a_range_lists_the_widths_that_get_statistics() -> None:
    settings = TrainSettings(widths=WidthRange(0.3), data=Path("data.yaml"))  # pyright: ignore[reportArgumentType]
    assert settings.widths == (0.3, 0.5, 0.75, 1.0)
    assert (settings.width_sampling, settings.norm_sharing, settings.statistics_images) == ("range", "shared", 512)
    assert TrainSettings().norm_sharing == "own"
    assert json.loads(json.dumps(asdict(settings)))["data"] == "data.yaml"  # as a run records them


def test_widths_that_are_validated_on_the_way() -> None:
    assert TrainSettings().val_widths == (1.0,)
    assert TrainSettings(val_widths=None).val_widths == (0.25, 0.5, 0.75, 1.0)
    assert TrainSettings(val_widths=(1.0, 0.25)).val_widths == (0.25, 1.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"width_sampling": "some"}, ConfigError, "--width-sampling 'some' is not one of all, sandwich, range"),
        ({"head_norm": None}, ConfigError, "--head-norm None is not one of none, batch, group"),
        ({"model": "mask_rnn"}, ConfigError, r"--model 'mask_rnn' is not one of .*; did you mean mask_rcnn\?"),
        ({"widths": (0.5,)}, WidthError, r"must contain 1\.0"),
        ({"epochs": -1}, ConfigError, "--epochs -1 is below 0"),
        ({"loss_exponent": -1}, ConfigError, "--loss-exponent -1 is below 0"),
        ({"accumulate": 5, "batch": 4}, ConfigError, "--accumulate 5 makes more parts than --batch 4 has images"),
        ({"widest_only": 1}, ConfigError, "--widest-only 1 is not at least 0 and below 1"),
        ({"val_widths": (0.3,)}, ConfigError, r"--val-widths 0\.3: trained are \(0\.25, 0\.5, 0\.75, 1\.0\)"),
        ({"widths": WidthRange(0.25), "freeze_backbone_norm": True}, ConfigError, "--freeze-backbone-norm"),
        ({"width_sampling": "stages", "head_norm": "group"}, ConfigError, "--head-norm group fits few widths"),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], error: type[SlimdetError], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainSettings(**changes)
