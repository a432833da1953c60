"""The search for widths of stages: a budget is never missed, and what is best there is found."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimdet.search.plans import STEP, LatencyTable, Plan, equal_within, evolve

WORTH = (4.0, 1.0, 0.0)  # of a stage's width, for AP


def table(shares: Sequence[float] = (1.0, 1.0, 1.0)) -> LatencyTable:
    """Of three stages whose times add up."""
    full = sum(shares)
    alone = [{width: full - (1 - width) * share for width in (0.25, 0.5, 0.75)} for share in shares]
    return LatencyTable(full, alone, {width: width * full for width in (0.25, 0.5, 0.75, 1.0)})


def ap(plan: Plan) -> float:
    return sum(worth * width for worth, width in zip(WORTH, plan, strict=True)) / 10


def test_what_adds_up_is_predicted_exactly() -> None:
    assert table()((1.0, 1.0, 1.0)) == pytest.approx(3.0)
    assert table()((0.5, 0.75, 1.0)) == pytest.approx(2.25)
    assert table((1.0, 0.5, 0.5))((0.25, 1.0, 0.625)) == pytest.approx(1.0625)


def test_shared_savings_are_counted_once() -> None:
    """Each stage alone seems to save 1 of 4; all together save 2, as equal widths tell."""
    alone = [{0.25: 3.0, 0.5: 3.5, 0.75: 3.75}] * 2
    there = LatencyTable(4.0, alone, {0.25: 2.5, 0.5: 3.25, 0.75: 3.6, 1.0: 4.0})
    assert there((0.25, 0.25)) == pytest.approx(2.5)
    assert 2.5 < there((0.25, 0.5)) < 3.25


def test_equal_widths_for_a_budget() -> None:
    assert equal_within(table(), 3, 0.25, 1.5) == (0.5, 0.5, 0.5)
    assert equal_within(table(), 3, 0.25, 9.0) == (1.0, 1.0, 1.0)
    assert equal_within(table(), 3, 0.25, 0.5) is None


@settings(max_examples=25, deadline=None)
@given(st.floats(0.8, 3.0), st.integers(0, 99), st.tuples(*[st.floats(0.2, 3.0)] * 3))
def test_no_plan_is_tried_that_misses_the_budget(budget: float, seed: int, shares: tuple[float, ...]) -> None:
    timed = table(shares)
    budget *= timed((1.0, 1.0, 1.0)) / 3
    start = equal_within(timed, 3, 0.25, budget)
    if start is None:
        return
    trials = evolve(start, timed, ap, narrowest=0.25, budget_ms=budget, trials=10, seed=seed)
    assert trials[0].ap >= ap(start)
    assert len({trial.plan for trial in trials}) == len(trials)
    for trial in trials:
        assert timed(trial.plan) == trial.ms <= budget
        assert all(0.25 <= width <= 1 and width / STEP == round(width / STEP) for width in trial.plan)


def test_width_goes_where_it_is_worth_most() -> None:
    start = equal_within(table(), 3, 0.25, 1.5)
    assert start is not None
    best = evolve(start, table(), ap, narrowest=0.25, budget_ms=1.5, trials=150)[0]
    assert best.plan == (1.0, 0.25, 0.25)
    assert evolve(start, table(), ap, narrowest=0.25, budget_ms=1.5, trials=150)[0] == best


def test_where_nothing_is_left_to_try_it_ends() -> None:
    assert len(evolve((1.0, 1.0, 1.0), table(), ap, narrowest=1.0, budget_ms=3.0, trials=50)) == 1
