"""A deadline is met as accurately as it allows: simulated jobs, without Ray."""

import heapq
from collections.abc import Callable

import pytest

from slimdet.jobs.listing import blocks
from slimdet.jobs.pace import Pace

COSTS_MS = [5.0, 10.0, 20.0, 40.0]
BATCH, BLOCK = 8, 64


def simulate(
    images: int,
    deadline_s: float,
    slowness: list[float],
    load: Callable[[float], float] = lambda now: 1.0,
    reading_ms: float = 0.0,
) -> tuple[float, list[int]]:
    """Seconds until workers, each so many times slower than was measured, are done; images at each rung.

    `load`: what a moment multiplies all with; `reading_ms`: of each image, which no cost has in it.
    """
    waiting = blocks([str(number) for number in range(images)], BLOCK, len(slowness))[::-1]
    paces = [Pace(COSTS_MS) for _ in slowness]
    free, served, end = [(0.0, worker) for worker in range(len(slowness))], [0] * len(COSTS_MS), 0.0
    while waiting:
        now, worker = heapq.heappop(free)
        block = waiting.pop()
        for done in range(0, len(block.files), BATCH):
            left = len(block.files) - done
            rung = paces[worker].choose(left + (block.rounds - 1) * BLOCK, deadline_s - now)
            image_ms = COSTS_MS[rung] * slowness[worker] * load(now) + reading_ms
            paces[worker].observe(rung, image_ms)
            served[rung] += min(BATCH, left)
            now += min(BATCH, left) * image_ms / 1000
        heapq.heappush(free, (now, worker))
        end = max(end, now)
    return end, served


def test_time_enough_is_used_for_the_dearest() -> None:
    end, served = simulate(6400, 150, [1.0, 1.0])
    assert end <= 150
    assert served == [0, 0, 0, 6400]


@pytest.mark.parametrize("deadline_s", [20, 40, 60, 80, 120])
def test_between_two_rungs_both_run_and_the_time_is_used(deadline_s: float) -> None:
    end, served = simulate(6400, deadline_s, [1.0, 1.0])
    assert 0.9 * deadline_s <= end <= deadline_s
    fits = max(rung for rung, ms in enumerate(COSTS_MS) if ms * 3200 / 1000 <= deadline_s)
    assert sum(served[fits : fits + 2]) > 0.9 * 6400


@pytest.mark.parametrize("slowness", [[1.0, 3.0], [0.5, 1.0, 1.0, 2.0], [1.5] * 4])
def test_workers_may_be_of_different_speed(slowness: list[float]) -> None:
    speed = sum(1 / slow for slow in slowness)
    deadline_s = 6400 * 0.015 / speed  # time for 15 ms an image at the measured speed
    end, served = simulate(6400, deadline_s, slowness)
    assert 0.8 * deadline_s <= end <= deadline_s
    assert sum(served[1:]) > 6400 / 2


def test_load_that_comes_is_made_up_for_and_load_that_goes_is_used() -> None:
    def calm(now: float) -> float:
        return 2.0 if 20 <= now < 60 else 1.0

    end, served = simulate(6400, 100, [1.0, 1.0], calm)
    assert end <= 100
    _, without = simulate(6400, 100, [1.0, 1.0])
    assert mean_cost(served) < mean_cost(without)  # it narrowed
    assert mean_cost(served) > COSTS_MS[1]


def test_what_was_not_measured_is_learned() -> None:
    end, served = simulate(6400, 80, [1.0, 1.0], reading_ms=6.0)
    assert 0.85 * 80 <= end <= 80
    assert served[0] < 6400 / 4


def test_no_time_is_the_cheapest() -> None:
    end, served = simulate(640, 1, [1.0])
    assert end == pytest.approx(3.2)
    assert served == [640, 0, 0, 0]
    assert Pace(COSTS_MS).choose(10, -5.0) == 0


def mean_cost(served: list[int]) -> float:
    return sum(count * ms for count, ms in zip(served, COSTS_MS, strict=True)) / sum(served)
