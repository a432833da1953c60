"""Engine "auto": what measured best here, and the rule where nothing was measured."""

from collections.abc import Mapping
from pathlib import Path

import pytest

import slimdet
from slimdet.bundle import card, manifest
from slimdet.bundle.ladder import Latencies, Point, Precision, Timing
from slimdet.runtime.choice import settled
from slimdet.runtime.engine import EngineName, EngineSettings, make
from slimdet.runtime.machine import machine_key, versions

Medians = Mapping[tuple[float, Precision], float]


def record(path: Path, engine: EngineName, threads: int | None, ms: Medians, elsewhere: str = "") -> None:
    """The bundle has these medians, by width and precision, of this machine (or of another)."""
    made = make(engine, manifest.read(path), EngineSettings(engine))
    timings = tuple(Timing(Point(width, 64, 20, precision), took, took, 9) for (width, precision), took in ms.items())
    entry = Latencies(engine, made.device, threads, versions(made), "2026-01-01", timings)
    card.write_latencies(path, {machine_key(made, threads) + elsewhere: entry})


def auto(path: Path, **options: object) -> tuple[str, dict[float, int]]:
    found = settled(EngineSettings(**options), manifest.read(path))  # type: ignore[arg-type]
    return found.engine, dict(found.width_threads)


def test_the_quickest_engine_and_for_each_width_its_best_number_of_threads(exported: Path) -> None:
    record(exported, "onnxruntime", 1, {(0.25, "fp32"): 4, (1.0, "fp32"): 20})
    record(exported, "onnxruntime", 2, {(0.25, "fp32"): 6, (1.0, "fp32"): 14})
    assert auto(exported) == ("onnxruntime", {0.25: 1, 1.0: 2})
    record(exported, "openvino", 1, {(0.25, "int8"): 3, (1.0, "int8"): 15})  # 45 against 56
    assert auto(exported) == ("openvino", {0.25: 1, 1.0: 1})
    runtime = slimdet.Runtime(exported)
    assert (runtime.engine.name, runtime.options.threads_of(0.25), runtime.options.threads_of(0.5)) == (
        "openvino",
        1,
        None,
    )


def test_what_is_asked_for_stays(exported: Path) -> None:
    record(exported, "onnxruntime", 1, {(1.0, "fp32"): 20})
    record(exported, "openvino", 2, {(1.0, "fp32"): 15})
    assert auto(exported) == ("openvino", {1.0: 2})
    assert auto(exported, engine="onnxruntime") == ("onnxruntime", {})
    assert auto(exported, threads=1) == ("onnxruntime", {1.0: 1})
    assert auto(exported, threads=3) == ("onnxruntime", {})
    assert auto(exported, memory="low") == ("onnxruntime", {1.0: 1})  # openvino has none


@pytest.mark.parametrize("elsewhere", ["", " of another machine"])
def test_the_rule_where_nothing_was_compared(exported: Path, elsewhere: str) -> None:
    if elsewhere:
        record(exported, "onnxruntime", 1, {(1.0, "fp32"): 20}, elsewhere)
    record(exported, "openvino", 2, {(1.0, "fp32"): 15}, elsewhere)  # alone: it was not compared
    assert auto(exported) == ("onnxruntime", {})
