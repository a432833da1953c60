"""Images come as a scenario has them, and latency starts where it says."""

import numpy as np
import pytest

from slimdet.benchmarking import scenarios
from slimdet.benchmarking.scenarios import Runs


class Machine:
    """A clock that goes on while somebody sleeps or works, and no other time."""

    def __init__(self, work_s: float) -> None:
        self.now, self.work_s = 100.0, work_s

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def work(self) -> None:
        self.now += self.work_s


def test_a_servers_latency_starts_when_the_image_was_to_come() -> None:
    machine = Machine(work_s=1.0)
    runs = scenarios.server(machine.work, [0.5, 0.75, 1.0, 6.0], machine.clock, machine.sleep)
    # The second waits for the first and the third for both; the last finds a free server.
    assert runs.ms == pytest.approx([1000, 1750, 2500, 1000])
    assert (runs.images, runs.seconds) == (4, pytest.approx(7.0))
    assert not runs.overloaded


def test_a_server_that_is_too_slow_is_overloaded() -> None:
    machine = Machine(work_s=1.0)
    runs = scenarios.server(machine.work, [0.5, 1.0, 1.5, 2.0], machine.clock, machine.sleep)
    assert runs.overloaded
    assert list(runs.ms) == sorted(runs.ms)


def test_images_arrive_at_random_at_the_rate() -> None:
    times = scenarios.arrivals(50, 2000, seed=1)
    assert times == scenarios.arrivals(50, 2000, seed=1)
    assert times != scenarios.arrivals(50, 2000, seed=2)
    gaps = np.diff(times)
    assert gaps.min() > 0
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.1)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # exponential: no regular beat


def test_single_streams_take_turns() -> None:
    order: list[str] = []
    found = scenarios.single_stream({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, warm=1)
    assert order == ["a", "b"] * 3
    assert [(runs.images, len(runs.ms), runs.overloaded) for runs in found.values()] == [(2, 2, None)] * 2


def test_offline_is_one_call() -> None:
    calls: list[int] = []
    runs = scenarios.offline(lambda: calls.append(1), 12)
    assert (calls, runs.images) == ([1], 12)
    assert [runs.numbers[name] for name in ("p50_ms", "p90_ms", "p99_ms")] == [None] * 3
    assert runs.numbers["images_per_s"] == 12 / runs.seconds


@pytest.mark.parametrize(("number", "known"), [(1, 0), (2, 1), (9, 1), (10, 2), (99, 2), (100, 3)])
def test_a_percentile_needs_runs_beyond_it(number: int, known: int) -> None:
    numbers = Runs([float(one) for one in range(number)], number, 1.0).numbers
    assert sum(numbers[name] is not None for name in ("p50_ms", "p90_ms", "p99_ms")) == known
    if known == 3:
        assert numbers["p99_ms"] == pytest.approx(98.01)
