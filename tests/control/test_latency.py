"""The latency model, by calls that are made up: noise, a load that jumps, costs that were measured wrong."""

import math
import random

import pytest

from slimdet.control.latency import JUMPED, LatencyModel
from slimdet.errors import ConfigError

COSTS = (5.0, 10.0, 20.0)


def told(model: LatencyModel, rung: int, ms: float, calls: int, noise: float = 0.03) -> LatencyModel:
    draw = random.Random(rung)
    for _ in range(calls):
        model.observe(rung, ms * math.exp(draw.gauss(0, noise)))
    return model


def test_a_load_is_common_to_all_rungs() -> None:
    model = told(LatencyModel(COSTS), 2, 40.0, 100)
    assert model.load == pytest.approx(2, rel=0.1)
    assert model.expected_ms(0.5) == pytest.approx([10, 20, 40], rel=0.12)


def test_a_jump_is_believed_after_three_calls_and_one_slow_call_is_none() -> None:
    model = told(LatencyModel(COSTS), 1, 10.0, 50)
    model.observe(1, 100.0)
    assert model.load < 1.1
    told(model, 1, 20.0, JUMPED)
    assert model.load == pytest.approx(2, rel=0.15)
    told(model, 1, 10.0, JUMPED)
    assert model.load == pytest.approx(1, rel=0.15)


def test_what_changes_with_the_rung_is_the_rungs_own() -> None:
    """Rung 1 was measured 30 % too cheap: going back and forth the model learns it, and the load stays."""
    model = LatencyModel(COSTS)
    for _ in range(10):
        told(model, 0, 5.0, 20)
        told(model, 1, 13.0, 20)
    assert model.expected_ms(0.5)[1] / model.expected_ms(0.5)[0] == pytest.approx(13 / 5, rel=0.05)
    assert model.load == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_a_quantile_is_that_of_the_calls(noise: float) -> None:
    model = told(LatencyModel(COSTS), 1, 10.0, 300, noise)
    draw = random.Random(7)
    calls = [10.0 * math.exp(draw.gauss(0, noise)) for _ in range(1000)]
    late = sum(call > model.expected_ms(0.95)[1] for call in calls) / len(calls)
    assert 0.01 < late < 0.1


@pytest.mark.parametrize("costs", [(), (1.0, 0.0), (math.nan,), (math.inf,)])
def test_costs_that_cannot_be(costs: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="costs"):
        LatencyModel(costs)
