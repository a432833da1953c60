"""A budget held call by call: by latencies that the bundle has of this machine, or else by timing."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import card
from slimdet.bundle.ladder import Latencies, Point, Rung, Timing
from slimdet.errors import ConfigError
from slimdet.runtime import budget
from slimdet.runtime.budget import Budget, worth_having
from slimdet.runtime.machine import machine_key, versions

POINTS = (Point(0.25, 64, 20, "fp32"), Point(0.5, 64, 20, "fp32"), Point(0.5, 96, 50, "fp32"))
MS = dict(zip(POINTS, (400.0, 900.0, 1500.0), strict=True))  # so slow that no busy machine makes them true
TABBY = PHOTOGRAPHS / "tabby.jpg"


def with_ladder(path: Path, threads: int | None = None) -> Path:
    """The bundle with a ladder whose latencies on this machine, with torch and so many threads, are `MS`."""
    weights = card.read(path).weights
    ladder = [Rung(one, {"AP": 0.0001 * ms}, 9, "val", weights[str(one.width)]) for one, ms in MS.items()]
    engine = slimdet.Runtime(path, engine="torch").engine
    timings = tuple(Timing(one, ms, ms + 1, 30) for one, ms in MS.items())
    latencies = Latencies("torch", "cpu", threads, versions(engine), "2026-01-01", timings)
    card.write_ladder(path, ladder, machine_key(engine, threads), latencies)
    return path


def never(*_: object) -> None:
    raise AssertionError("nothing is to be timed")


@pytest.mark.parametrize(("budget_ms", "place"), [(1100, 1), (1400, 1), (10_000, 2)])
def test_the_best_point_expected_in_time_runs_where_a_call_names_none(
    exported: Path, monkeypatch: pytest.MonkeyPatch, budget_ms: float, place: int
) -> None:
    monkeypatch.setattr(budget, "latencies", never)
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=budget_ms)
    assert runtime.point == POINTS[place] == runtime.ladder[place].point
    result = runtime(TABBY)
    assert result.point == POINTS[place]
    assert MS[POINTS[place]] < result.speed["expected_ms"] < budget_ms
    assert runtime(TABBY, width=0.25).point == Point(0.25, 186, 150, "fp32")  # a call may name another one
    assert "expected_ms" not in runtime(TABBY, point=0).speed


def test_calls_that_are_slower_narrow_and_quicker_ones_widen(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=1100)
    held, session = runtime.budget, runtime.session(0.5)
    assert held
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    slower = 2.0

    def detect(images: Any, conf: float, imgsz: int, proposals: int) -> Any:
        now[0] += slower * MS[held.point] / 1000
        return session(images, conf, imgsz, proposals)

    detect.sides, detect.takes_resized = session.sides, True  # pyright: ignore
    detect.proposals, detect.precision = session.proposals, session.precision  # pyright: ignore
    monkeypatch.setattr(runtime._sessions, "get", lambda *_: detect)
    ran = [runtime(TABBY).point for _ in range(12)]
    assert ran[0] == POINTS[1]
    assert ran[-1] == POINTS[0]
    slower = 0.5
    results = [runtime(TABBY) for _ in range(40)]
    assert results[-1].point == POINTS[2]
    assert results[-1].speed["expected_ms"] < 1100
    assert held.controller.switches == len(held.switch_ms) >= 2
    assert held.fits


def test_where_not_even_the_cheapest_fits_it_runs_and_it_is_said_once(
    exported: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=1)
    result = runtime(TABBY)
    assert result.point == POINTS[0]
    assert result.speed["expected_ms"] > 1
    assert not runtime.budget.fits  # pyright: ignore
    assert caplog.text.count("not even the cheapest point, width 0.25 at 64 px, 20 proposals, fp32") == 1


def test_points_that_were_not_timed_with_these_threads_are_timed(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Point] = []

    def timed(calls: dict, repeats: int) -> dict:
        for point, call in calls.items():
            assert call().point == point
            ran.append(point)
        return {point: [10 * ms] * repeats for point, ms in MS.items()}

    monkeypatch.setattr(budget, "latencies", timed)
    runtime = slimdet.Runtime(with_ladder(exported, threads=3), engine="torch", budget_ms=11_000)
    assert tuple(ran) == POINTS
    assert runtime.point == POINTS[1]


def test_without_a_ladder_the_widths_are_one_and_threads_share_the_budget(exported: Path) -> None:
    runtime = slimdet.Runtime(exported, engine="onnxruntime", budget_ms=60_000, threads=1)
    assert runtime.budget
    assert [point.width for point in runtime.budget.points][-1] == 1.0
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(runtime, [TABBY] * 8))
    assert {result.names[0] for result in results} == {"cat"}
    assert runtime.budget.controller.switches == 0


def test_what_is_worth_having() -> None:
    narrow, middle, wide = (Point(width) for width in (0.25, 0.5, 1.0))
    ms = {narrow: 5.0, middle: 4.0, wide: 9.0}
    assert worth_having(ms, {}) == {middle: 4.0, wide: 9.0}
    assert list(worth_having(ms, {narrow: 0.2, middle: 0.1, wide: 0.2})) == [middle, narrow, wide]
    assert list(worth_having(ms, {narrow: 0.3, middle: 0.4, wide: 0.2})) == [middle]


def test_mistakes(exported: Path) -> None:
    with pytest.raises(ConfigError, match="--budget-ms 0 must be above 0"):
        slimdet.Runtime(exported, engine="torch", budget_ms=0)
    with pytest.raises(ConfigError, match="nan"):
        Budget(float("nan"), {Point(): 1.0})


def test_a_machine_is_its_processor_engine_and_threads(exported: Path) -> None:
    engine = slimdet.Runtime(exported, engine="onnxruntime").engine
    key = machine_key(engine, 1)
    assert "cores, onnxruntime " in key
    assert key.endswith(" on cpu, 1 thread")
    assert machine_key(engine, 2) == key.replace("1 thread", "2 threads")
    assert machine_key(engine, None).endswith("its own threads")
