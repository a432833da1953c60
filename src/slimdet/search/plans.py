"""Which widths of a detector's stages to try next: an evolutionary search with few trials, within a latency.

After "Once-for-All" (arXiv 1908.09791, section 3.4): a population of the best so far, of which some stages are
changed; a plan that is predicted to miss the budget is never tried. Here a plan is brought up to the budget, too: what
is left of it would be given away for nothing.

S stages; a plan is S widths, each a multiple of `STEP`.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

STEP = 1 / 16
PARENTS = 4  # the best so far, of which new ones are made
CHANGED = 3  # stages that a new one differs in, at most, before it is brought to the budget
NEAR = 0.97  # of the budget: a plan that takes less gets more width where it has room

Plan = tuple[float, ...]


class LatencyTable:
    """Milliseconds of a plan, from what each stage saves by itself.

    Args:
        full: of all stages at 1.0.
        stages: for each stage, milliseconds of the whole detector where this one alone has a width, by width.
        equal: measured milliseconds where all stages have a width, by width, 1.0 among them; nothing narrower than the
            narrowest is asked for.

    Stages share channels with their neighbours, so that savings do not add up; how far they fall short is known where
    all widths are equal, and taken from there.
    """

    def __init__(self, full: float, stages: Sequence[dict[float, float]], equal: dict[float, float]) -> None:
        self._full = full
        self._stages = [({1.0: full} | one) for one in stages]
        widths = sorted(equal)
        sums = [self._sum((width,) * len(stages)) for width in widths]
        self._sums = np.maximum.accumulate(sums)
        self._measured = np.maximum.accumulate([equal[width] for width in widths])

    def __call__(self, plan: Plan) -> float:
        """Predicted milliseconds."""
        return float(np.interp(self._sum(plan), self._sums, self._measured))

    def _sum(self, plan: Plan) -> float:
        saved = 0.0
        for width, known in zip(plan, self._stages, strict=True):
            widths = sorted(known)
            saved += self._full - float(np.interp(width, widths, [known[one] for one in widths]))
        return max(self._full - saved, 1e-3 * self._full)


@dataclass(frozen=True)
class Trial:
    """A plan that was tried: predicted milliseconds, AP (0..1) on the images that all are tried on."""

    plan: Plan
    ms: float
    ap: float


def equal_within(table: Callable[[Plan], float], stages: int, narrowest: float, budget_ms: float) -> Plan | None:
    """The widest equal widths that keep a budget; None where none do."""
    count = round(1 / STEP)
    plans = [(step * STEP,) * stages for step in range(count, 0, -1) if step * STEP >= narrowest]
    return next((plan for plan in plans if table(plan) <= budget_ms), None)


def evolve(
    start: Plan,
    table: Callable[[Plan], float],
    score: Callable[[Plan], float],
    *,
    narrowest: float,
    budget_ms: float,
    trials: int,
    seed: int = 0,
) -> list[Trial]:
    """Try plans within the budget, `start` first, then children of the best so far; all trials, best first.

    Args:
        start: keeps the budget.
        table: predicts milliseconds.
        score: AP of a plan, 0..1.
        narrowest: width of a stage at least.
        budget_ms: milliseconds that no plan is predicted to miss.
        trials: how many are scored.
        seed: of what is random.
    """
    draw = random.Random(seed)
    done: dict[Plan, Trial] = {}
    plan: Plan | None = start
    while plan is not None and len(done) < trials:
        done[plan] = Trial(plan, table(plan), score(plan))
        best = sorted(done.values(), key=lambda trial: -trial.ap)[:PARENTS]
        plan = _child([trial.plan for trial in best], done.keys(), table, narrowest, budget_ms, draw)
    return sorted(done.values(), key=lambda trial: -trial.ap)


def _child(
    parents: Sequence[Plan],
    seen: object,
    table: Callable[[Plan], float],
    narrowest: float,
    budget_ms: float,
    draw: random.Random,
) -> Plan | None:
    """A plan that was not tried yet; None where none is found any more."""
    for _ in range(100):
        plan = list(draw.choice(parents))
        for stage in draw.sample(range(len(plan)), draw.randint(1, min(CHANGED, len(plan)))):
            plan[stage] = _moved(plan[stage], draw.choice((-2, -1, 1, 2)), narrowest)
        fitted = _fitted(plan, table, narrowest, budget_ms, draw)
        if fitted is not None and fitted not in seen:  # pyright: ignore[reportOperatorIssue]
            return fitted
    return None


def _fitted(
    plan: list[float], table: Callable[[Plan], float], narrowest: float, budget_ms: float, draw: random.Random
) -> Plan | None:
    """The plan, brought within the budget and near to it, a step of a random stage at a time."""
    while table(tuple(plan)) > budget_ms:
        wide = [stage for stage, width in enumerate(plan) if width > narrowest]
        if not wide:
            return None
        stage = draw.choice(wide)
        plan[stage] = _moved(plan[stage], -1, narrowest)
    for stage in draw.sample(range(len(plan)), len(plan)):
        if table(tuple(plan)) >= NEAR * budget_ms:
            break
        wider = [*plan]
        wider[stage] = _moved(plan[stage], 1, narrowest)
        if table(tuple(wider)) <= budget_ms:
            plan = wider
    return tuple(plan)


def _moved(width: float, steps: int, narrowest: float) -> float:
    return min(max(round(width / STEP) * STEP + steps * STEP, narrowest), 1.0)
