"""The timer, on a clock that these tests turn."""

import time
from collections.abc import Callable

import pytest

from slimdet.runtime.latency import latencies, summary


def test_calls_take_turns_and_the_first_turn_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = 0.0, ""

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now, order
            now += seconds + (10 if name not in order else 0)  # the first run is slow
            order += name

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    found = latencies({"a": call("a", 0.5), "b": call("b", 0.25)}, repeats=3)
    assert order == "abababab"
    assert found == {"a": [500.0] * 3, "b": [250.0] * 3}


def test_summary() -> None:
    assert summary([4.0]) == {"latency_ms": 4.0, "latency_spread_ms": 0.0}
    found = summary([1.0, 2.0, 3.0, 100.0, 2.0])
    assert found["latency_ms"] == 2.0
    assert found["latency_spread_ms"] == 50.0
