"""A budget for each call, and what holds it: the controller of `slimdet.control`, with a clock and a lock.

The points are those of the bundle's ladder, or its widths where it has none, as far as they are worth having here: a
point that takes longer than another one, and finds no more, is left out.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from slimdet.bundle.ladder import Point
from slimdet.control.controller import Choice, Controller
from slimdet.errors import ConfigError
from slimdet.runtime.latency import latencies, timing
from slimdet.runtime.machine import known_ms

if TYPE_CHECKING:
    from slimdet.runtime.detector import Runtime

REPEATS = 5  # timed runs of each point where nothing is known
SIZE = (480, 640)  # of the picture that is timed, pixels
COSTS = 1000  # of switches that are kept

logger = logging.getLogger("slimdet")


class Budget:
    """Holds a budget call by call. Several threads may use it at once.

    Args:
        budget_ms: milliseconds of a call, above 0.
        costs_ms: milliseconds of each point where nothing else runs, cheapest first.

    Attributes:
        budget_ms: as given.
        points: what is chosen from, cheapest first.
        controller: what chooses: `controller.switches`, `controller.latency.load`.
        switch_ms: what the last switches cost, at most 1000: the image made anew in the new point's size.
        fits: whether the last call was expected to be in time.

    Raises:
        ConfigError: `budget_ms` is not above 0.
    """

    def __init__(self, budget_ms: float, costs_ms: Mapping[Point, float]) -> None:
        if not budget_ms > 0:
            raise ConfigError(f"--budget-ms {budget_ms} must be above 0")
        self.budget_ms, self.points = budget_ms, tuple(costs_ms)
        self.controller = Controller(list(costs_ms.values()))
        self.switch_ms: deque[float] = deque(maxlen=COSTS)
        self.fits = True
        self._told, self._lock = False, threading.Lock()
        self._rung = self.choose(0.0).rung

    @property
    def point(self) -> Point:
        """What the last call was chosen to run at; before the first, what would run now."""
        return self.points[self._rung]

    def choose(self, spent_ms: float) -> Choice:
        """The place in `points` at which a call goes on that starts now and has taken so long already."""
        with self._lock:
            choice = self.controller.choose(time.monotonic(), self.budget_ms - spent_ms)
            self._rung, self.fits = choice.rung, choice.fits
            tell = not choice.fits and not self._told
            self._told |= tell
        if tell:
            text = (
                "not even the cheapest point, width %s, is expected within %g ms here: %.1f ms, of which reading %.1f"
            )
            expected = spent_ms + choice.expected_ms
            logger.warning(text, self.points[choice.rung], self.budget_ms, expected, spent_ms)
        return choice

    def observe(self, rung: int, took_ms: float) -> None:
        """A call at this place in `points` took so long."""
        with self._lock:
            self.controller.observe(rung, took_ms)


def held(runtime: "Runtime", budget_ms: float) -> Budget:
    """A budget for the calls of a runtime; all its points are made ready.

    Raises:
        ConfigError: `budget_ms` is not above 0, or this engine runs none of the ladder's points.
    """
    return Budget(budget_ms, costs(runtime))


def costs(runtime: "Runtime") -> dict[Point, float]:
    """Milliseconds of the points that are worth having here, cheapest first; they are made ready.

    Raises:
        ConfigError: this engine runs none of the ladder's points.
    """
    known = [rung.point for rung in runtime.ladder]
    points = [point for point in known if runtime.has(point)]
    if known and not points:
        engine, name = runtime.engine.name, runtime.manifest.name
        raise ConfigError(f"engine {engine} runs no point of the ladder of {name}: slimdet tune --engine {engine}")
    points = points or [runtime.complete(Point(width)) for width in runtime.widths if runtime.has(Point(width))]
    return worth_having(medians(runtime, points), accuracies(runtime, points))


def accuracies(runtime: "Runtime", points: Iterable[Point]) -> dict[Point, float]:
    """AP of points, 0..1, as the bundle has it: of the ladder's, and of the widths as they are."""
    return _known(runtime, points, {rung.point: rung.ap for rung in runtime.ladder}, "bbox", "AP")


def multiply_adds(runtime: "Runtime", points: Iterable[Point]) -> dict[Point, float]:
    """Multiply-adds of points for a square image, as the bundle has them, likewise."""
    return _known(runtime, points, {rung.point: rung.macs for rung in runtime.ladder}, "cost", "macs")


def _known(
    runtime: "Runtime", points: Iterable[Point], of_rungs: Mapping[Point, float | None], kind: str, name: str
) -> dict[Point, float]:
    """What the ladder says of points, and the card of the widths as they are; without what neither says."""
    found = {}
    for point in points:
        value = of_rungs.get(point)
        if value is None and point == runtime.complete(Point(point.width)):
            value = runtime.manifest.metrics.get(str(point.width), {}).get(kind, {}).get(name)
        if value is not None:
            found[point] = value
    return found


def medians(runtime: "Runtime", points: Sequence[Point]) -> dict[Point, float]:
    """Milliseconds of points here: as the bundle has them of this machine, else timed briefly."""
    recorded = known_ms(runtime.manifest, runtime.engine, runtime.options)
    if all(point in recorded for point in points):
        return {point: recorded[point] for point in points}
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    runs = latencies({point: partial(runtime, picture, point=point) for point in points}, REPEATS)
    return {point: timing(point, milliseconds).p50_ms for point, milliseconds in runs.items()}


def worth_having(ms: Mapping[Point, float], ap: Mapping[Point, float]) -> dict[Point, float]:
    """Those points that find more than all quicker ones, by rising milliseconds.

    Where no AP is known, a wider point is taken to find more.
    """
    kept: dict[Point, float] = {}
    best: tuple[float, float] = (-1.0, 0.0)
    for point in sorted(ms, key=lambda point: ms[point]):
        worth = ap.get(point, -1.0), point.width
        if worth > best:
            kept[point], best = ms[point], worth
    return kept
