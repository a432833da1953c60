"""The point that keeps a budget, by latencies that the bundle has of this machine, or else by timing."""

from pathlib import Path

import pytest

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import card
from slimdet.bundle.ladder import Latencies, Point, Rung, Timing
from slimdet.errors import ConfigError
from slimdet.runtime import budget
from slimdet.runtime.machine import machine_key, versions

POINTS = (Point(0.25, 64, 20, "fp32"), Point(0.5, 64, 20, "fp32"), Point(0.5, 96, 50, "fp32"))
MS = dict(zip(POINTS, (4.0, 9.0, 15.0), strict=True))


def with_ladder(path: Path, threads: int | None = None) -> Path:
    """The bundle with a ladder whose latencies on this machine, with torch and so many threads, are `MS`."""
    weights = card.read(path).weights
    ladder = [Rung(one, {"AP": 0.01 * ms}, 9, "val", weights[str(one.width)]) for one, ms in MS.items()]
    engine = slimdet.Runtime(path, engine="torch").engine
    timings = tuple(Timing(one, ms, ms + 1, 30) for one, ms in MS.items())
    latencies = Latencies("torch", "cpu", threads, versions(engine), "2026-01-01", timings)
    card.write_ladder(path, ladder, machine_key(engine, threads), latencies)
    return path


def never(*_: object) -> None:
    raise AssertionError("nothing is to be timed")


@pytest.mark.parametrize(("budget_ms", "place"), [(9.0, 1), (14.9, 1), (100, 2)])
def test_the_most_accurate_point_that_fits_runs_where_a_call_names_none(
    exported: Path, monkeypatch: pytest.MonkeyPatch, budget_ms: float, place: int
) -> None:
    monkeypatch.setattr(budget, "latencies", never)
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=budget_ms)
    assert runtime.point == POINTS[place] == runtime.ladder[place].point


def test_a_call_may_name_another_point(exported: Path) -> None:
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=10)
    picture = runtime.read(PHOTOGRAPHS / "tabby.jpg")
    assert runtime.detect([picture])[0].point == POINTS[1]
    assert runtime.detect([picture], width=0.25)[0].point == Point(0.25, 186, 150, "fp32")
    assert runtime.detect([picture], point=0)[0].point == POINTS[0]


def test_where_none_fits_the_quickest_runs_and_it_is_said(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime = slimdet.Runtime(with_ladder(exported), engine="torch", budget_ms=1)
    assert runtime.point == POINTS[0]
    assert "takes at most 1 ms here; the quickest, width 0.25 at 64 px, 20 proposals, fp32, takes 4.0 ms" in caplog.text


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
    runtime = slimdet.Runtime(with_ladder(exported, threads=3), engine="torch", budget_ms=95)
    assert tuple(ran) == POINTS
    assert runtime.point == POINTS[1]


def test_mistakes(exported: Path) -> None:
    with pytest.raises(ConfigError, match=f"has no ladder to choose from; make it: slimdet tune --model {exported}"):
        slimdet.Runtime(exported, engine="torch", budget_ms=5)
    with pytest.raises(ConfigError, match="--budget-ms 0 must be above 0"):
        slimdet.Runtime(exported, engine="torch", budget_ms=0)


def test_a_machine_is_its_processor_engine_and_threads(exported: Path) -> None:
    engine = slimdet.Runtime(exported, engine="onnxruntime").engine
    key = machine_key(engine, 1)
    assert "cores, onnxruntime " in key
    assert key.endswith(" on cpu, 1 thread")
    assert machine_key(engine, 2) == key.replace("1 thread", "2 threads")
    assert machine_key(engine, None).endswith("its own threads")
