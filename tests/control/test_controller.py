"""The controller held against machines that are made up: what is late, how often it switches, what it gives away."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimdet.control.controller import Controller, ControlSettings
from slimdet.errors import ConfigError

COSTS = (5.0, 7.5, 11.0, 16.0, 23.0, 33.0)


@dataclass
class Call:
    now: float
    rung: int
    ms: float
    fits: bool
    switches: int


def simulated(
    controller: Controller,
    costs: tuple[float, ...],
    budget: float,
    seconds: float,
    load: Callable[[float], float] = lambda now: 1.0,
    noise: float = 0.04,
) -> list[Call]:
    """Calls one after the other on a machine whose calls take costs x load x noise."""
    draw, now, calls = random.Random(0), 0.0, []
    while now < seconds:
        choice = controller.choose(now, budget)
        ms = costs[choice.rung] * load(now) * math.exp(draw.gauss(0, noise))
        controller.observe(choice.rung, ms)
        calls.append(Call(now, choice.rung, ms, choice.fits, controller.switches))
        now += ms / 1000
    return calls


def late(calls: list[Call], budget: float) -> float:
    return sum(call.ms > budget for call in calls) / len(calls)


@given(
    steps=st.lists(st.floats(1.15, 1.6), min_size=1, max_size=6),
    place=st.floats(0, 1),
    load=st.sampled_from([1.0, 1.4, 2.0]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_budget_that_the_cheapest_holds_is_held(steps: list[float], place: float, load: float) -> None:
    costs = tuple(accumulate(steps, lambda cost, step: cost * step, initial=5.0))
    low, high = 1.2 * costs[0] * load, 1.2 * costs[-1] * load
    budget = low * (high / low) ** place
    calls = simulated(Controller(costs), costs, budget, 20, lambda now: load)
    assert late(calls, budget) <= 0.05
    settled = [call.switches for call in calls if call.now > 10]
    assert settled[-1] - settled[0] <= 2  # there and back
    best = max(rung for rung, cost in enumerate(costs) if 1.2 * cost * load <= budget)
    assert sorted(call.rung for call in calls)[len(calls) // 2] >= best


def test_a_load_that_comes_narrows_at_once_and_one_that_goes_widens_after_a_while() -> None:
    calls = simulated(Controller(COSTS), COSTS, 40.0, 30, lambda now: 3.0 if 10 <= now < 20 else 1.0)
    assert {call.rung for call in calls if call.now < 10} == {5}
    assert {call.rung for call in calls if 10.4 <= call.now < 20} <= {1, 2}
    assert sum(call.ms > 40 for call in calls) <= 6
    back = [call.now for call in calls if call.now >= 20 and call.rung == 5]
    assert 21 <= back[0] <= 25


def test_headroom_must_last() -> None:
    controller = Controller(COSTS, ControlSettings(hold_s=2))
    assert controller.choose(0, 13).rung == 2
    assert controller.choose(1, 40).rung == 2
    assert controller.choose(2, 13).rung == 2  # no headroom: the wait begins anew
    assert controller.choose(2.5, 40).rung == 2
    assert controller.choose(4.4, 20).rung == 2
    assert controller.choose(4.6, 40).rung == 3  # what has fitted all the time
    assert controller.switches == 1  # the first choice is none


def test_each_time_that_a_wider_rung_did_not_stay_the_wait_is_longer() -> None:
    controller, now, waits = Controller(COSTS), 0.0, []
    for _ in range(4):
        controller.choose(now, 13)
        began = now
        while controller.choose(now, 40).rung == 2:
            now += 0.1
        waits.append(now - began)
    assert waits == pytest.approx([1, 4, 16, 60], abs=0.2)


def test_says_when_not_even_the_cheapest_fits() -> None:
    controller = Controller(COSTS)
    choice = controller.choose(0, 3)
    assert (choice.rung, choice.fits) == (0, False)
    assert choice.expected_ms > 3
    assert not controller.choose(0, -5).fits
    assert controller.choose(0, 30).fits


def test_one_rung_is_a_ladder() -> None:
    calls = simulated(Controller((10.0,)), (10.0,), 12.0, 5)
    assert {call.rung for call in calls} == {0}
    assert calls[-1].switches == 0


@pytest.mark.parametrize(
    "wrong", [{"quantile": 1.0}, {"quantile": 0.0}, {"headroom": 1.0}, {"hold_s": -1.0}, {"hold_s": 61.0}]
)
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ControlSettings(**wrong)
