"""The point that keeps a budget: one of the ladder's, by this machine's latencies."""

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from slimdet.bundle.ladder import Point, best_within
from slimdet.errors import ConfigError
from slimdet.runtime.latency import latencies, timing
from slimdet.runtime.machine import known_ms

if TYPE_CHECKING:
    from slimdet.runtime.detector import Runtime

REPEATS = 5  # timed runs of each point where nothing is known
SIZE = (480, 640)  # of the picture that is timed, pixels

logger = logging.getLogger("slimdet")


def point_within(runtime: "Runtime", budget_ms: float) -> Point:
    """The most accurate point of the ladder whose median is at most `budget_ms` here; the quickest where none's is.

    Raises:
        ConfigError: `budget_ms` is not above 0, there is no ladder, or this engine runs none of its points.
    """
    name = runtime.manifest.name
    if not budget_ms > 0:
        raise ConfigError(f"--budget-ms {budget_ms} must be above 0")
    if not runtime.ladder:
        raise ConfigError(f"{name} has no ladder to choose from; make it: slimdet tune --model {name} --data DATA.yaml")
    ms = medians(runtime)
    ladder = [rung for rung in runtime.ladder if rung.point in ms]
    if not ladder:
        engine = runtime.engine.name
        raise ConfigError(f"engine {engine} runs no point of the ladder of {name}: slimdet tune --engine {engine}")
    rung, fits = best_within(ladder, ms, budget_ms)
    if not fits:
        text = "no point of %s takes at most %g ms here; the quickest, width %s, takes %.1f ms"
        logger.warning(text, name, budget_ms, rung.point, ms[rung.point])
    return rung.point


def medians(runtime: "Runtime") -> dict[Point, float]:
    """Milliseconds of the ladder's points here: as the bundle has them of this machine, else timed briefly.

    Points that the engine does not run are left out.
    """
    recorded = known_ms(runtime.manifest, runtime.engine, runtime.options)
    if all(rung.point in recorded for rung in runtime.ladder):
        return recorded
    points = [rung.point for rung in runtime.ladder if runtime.has(rung.point)]
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    runs = latencies({point: partial(runtime, picture, point=point) for point in points}, REPEATS)
    return {point: timing(point, milliseconds).p50_ms for point, milliseconds in runs.items()}
