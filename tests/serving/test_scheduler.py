"""The scheduler held against streams of requests that are made up: who is in time, at which rung, who is refused."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from slimdet.serving.scheduler import Request, Scheduler

COSTS = (4.5, 6.0, 8.0, 11.0, 15.0, 21.0, 30.0)
OTHER = 2.0
SLO = 2 * (COSTS[-1] + OTHER)
FULL, CHEAPEST = 1000 / (COSTS[-1] + OTHER), 1000 / (COSTS[0] + OTHER)  # requests a second


@dataclass
class Outcome:
    """Of a simulation: requests, seconds at which answers in time were given, rungs by second, refusals."""

    requests: int = 0
    met: list[float] = field(default_factory=list)
    rungs: list[tuple[float, int]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def attainment(self) -> float:
        return len(self.met) / self.requests


def simulated(rate: Callable[[float], float], seconds: float, rung: int | None = None, workers: int = 1) -> Outcome:
    """Poisson arrivals before workers whose calls take costs x noise."""
    draw, scheduler, outcome = random.Random(0), Scheduler(COSTS, workers), Outcome()
    events: list[tuple[float, int, tuple[Request, int, float, float, float] | None]] = []
    now = 0.0
    while now < seconds:
        now += draw.expovariate(rate(now))
        events.append((now, len(events), None))
    arrived: dict[int, float] = {}
    while events:
        now, _, ended = heapq.heappop(events)
        if ended is None:
            request = Request.of(now, SLO, rung)
            outcome.requests += 1
            arrived[request.number] = now
            if scheduler.admit(request, now) > 0:
                outcome.refused.append(now)
        else:
            request, place, detected, other, since = ended
            scheduler.done(request, place, detected, other)
            if 1000 * (now - since) <= SLO:
                outcome.met.append(now)
        outcome.refused += [now] * len(scheduler.give_up(now))
        while scheduler.running < workers and (taken := scheduler.take(now)):
            request, place = taken
            detected, other = (ms * math.exp(draw.gauss(0, 0.08)) for ms in (COSTS[place], OTHER))
            outcome.rungs.append((now, place))
            done = now + (detected + other) / 1000
            heapq.heappush(
                events, (done, 10**6 + request.number, (request, place, detected, other, arrived[request.number]))
            )
    return outcome


def test_whoever_is_alone_gets_the_dearest_rung_that_fits() -> None:
    scheduler = Scheduler(COSTS)
    for deadline_ms, rung in ((80, 6), (60, 5), (12, 0), (9, 0)):
        assert scheduler.admit(Request.of(0, deadline_ms), 0) == 0
        taken = scheduler.take(0)
        assert taken is not None
        assert taken[1] == rung
        scheduler.done(taken[0])
    assert scheduler.switches == 2


def test_those_behind_must_fit_too_and_all_workers_take_part() -> None:
    rungs = {}
    for workers in (1, 4):
        scheduler = Scheduler(COSTS, workers)
        for _ in range(4):
            assert scheduler.admit(Request.of(0, 130), 0) == 0
        rungs[workers] = (scheduler.take(0) or (None, None))[1]
    assert rungs == {1: 4, 4: 6}


def test_the_earliest_deadline_is_first_and_a_rung_that_was_asked_for_is_run() -> None:
    scheduler = Scheduler(COSTS)
    late, soon = Request.of(0, 500, rung=5), Request.of(0, 400)
    assert scheduler.admit(late, 0) == scheduler.admit(soon, 0) == 0
    assert (scheduler.take(0), scheduler.take(0)) == ((soon, 6), (late, 5))
    assert scheduler.take(0) is None
    assert scheduler.admit(Request.of(0, 20, rung=6), 0) > 0  # it may not be narrowed


def test_who_cannot_be_in_time_is_refused_with_the_time_to_come_again() -> None:
    scheduler, taken = Scheduler(COSTS), 0
    while (again_s := scheduler.admit(Request.of(0, 50), 0)) == 0:
        taken += 1
    assert 5 <= taken <= 8
    assert 0 < again_s < 0.02
    assert scheduler.waiting == taken
    assert scheduler.give_up(0.03) == []
    assert len(scheduler.give_up(0.044)) == taken  # nobody worked: all are hopeless
    assert scheduler.waiting == 0
    assert scheduler.admit(Request.of(1, 50), 1) == 0


def test_peaks_above_what_full_width_can_do_are_answered_in_time() -> None:
    auto = simulated(lambda now: 2.5 * FULL, 60)
    full = simulated(lambda now: 2.5 * FULL, 60, rung=6)
    assert auto.attainment >= 0.995
    assert auto.attainment >= 2.5 * full.attainment
    assert sum(rung for _, rung in auto.rungs) / len(auto.rungs) > 2  # not simply the cheapest


def test_overload_costs_nothing_of_what_can_be_done_and_full_service_is_back_at_once() -> None:
    outcome = simulated(lambda now: 2 * CHEAPEST if 10 <= now < 20 else 0.2 * FULL, 30)
    goodput = sum(11 <= now < 20 for now in outcome.met) / 9
    assert goodput >= 0.9 * CHEAPEST
    assert all(10 <= now <= 20.1 for now in outcome.refused)
    before, after = (
        [rung for now, rung in outcome.rungs if part(now)] for part in (lambda t: t < 10, lambda t: t > 20.5)
    )
    assert sum(after) / len(after) >= 0.9 * sum(before) / len(before)
    assert min(before[0], max(after)) >= 5  # the last one would take half of the time to the deadline


def test_a_server_that_expects_the_worst_tries_and_learns() -> None:
    """Calls took a hundred times as long for a while; then nobody would be admitted, and nothing ever observed."""
    scheduler = Scheduler(COSTS)
    for _ in range(100):
        scheduler.done(Request.of(0, 50), 0, 100 * COSTS[0], 100 * OTHER)
    assert scheduler.admit(Request.of(0, 4), 0) > 0  # not even on an idle machine
    assert scheduler.admit(Request.of(0, 50, rung=6), 0) > 0
    for turn in range(200):
        request = Request.of(turn, 50)
        assert scheduler.admit(request, turn) == 0
        assert scheduler.admit(Request.of(turn, 50), turn) > 0 or turn > 20  # one try at a time
        assert request not in scheduler.give_up(turn)
        assert scheduler.take(turn) == (request, 0) or turn > 20
        scheduler.done(request, 0, COSTS[0], OTHER)
        scheduler.give_up(turn + 0.5)
    assert scheduler.admit(Request.of(300, 50), 300) == scheduler.admit(Request.of(300, 50), 300) == 0


def test_what_is_put_back_waits_again() -> None:
    scheduler = Scheduler(COSTS)
    request = Request.of(0, 100)
    assert scheduler.admit(request, 0) == 0
    scheduler.take(0)
    assert (scheduler.waiting, scheduler.running) == (0, 1)
    scheduler.done(request)
    scheduler.put_back(request)
    assert scheduler.take(0) == (request, 6)


def test_an_hour_of_reading_is_no_detection() -> None:
    """What could not be read says nothing about the rungs."""
    scheduler = Scheduler(COSTS)
    before = scheduler.latency.expected_ms(0.5)
    for _ in range(20):
        request = Request.of(0, 100)
        scheduler.admit(request, 0)
        scheduler.take(0)
        scheduler.done(request)
    assert scheduler.latency.expected_ms(0.5) == pytest.approx(before)
