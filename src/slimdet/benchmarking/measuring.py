"""The measurements of a benchmark, each made once and kept."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimdet.benchmarking import disturbance, scenarios
from slimdet.benchmarking.scenarios import Runs
from slimdet.benchmarking.settings import BenchmarkSettings, Scenario
from slimdet.bundle.ladder import Point
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineSettings
from slimdet.runtime.footprint import growth
from slimdet.search.rows import Rows

if TYPE_CHECKING:
    from slimdet.search.trials import Told  # which needs torch

MB = 2**20
logger = logging.getLogger("slimdet")


class Measurements:
    """Of some points of one runtime.

    Args:
        points: with nothing left open.
        pictures: uint8 [H, W, 3] each; they are timed in turn.
        rows: where measurements are kept.
        progress: told how far it is.
    """

    def __init__(
        self,
        runtime: Runtime,
        points: Sequence[Point],
        pictures: Sequence[NDArray[np.uint8]],
        rows: Rows,
        settings: BenchmarkSettings,
        progress: "Told | None" = None,
    ) -> None:
        self._runtime, self._points, self._pictures, self._rows = runtime, points, pictures, rows
        self._settings, self._progress = settings, progress

    def timings(self, scenario: Scenario) -> list[dict[str, Any]]:
        """How long each point takes: the numbers of `scenarios.Runs` and `disturbance.Disturbance`, and when it was."""
        logger.info("%s: %d points, %d images each", scenario, len(self._points), self._settings.repeats)
        if scenario == "single-stream":
            return self._rows.kept(scenario, lambda: self._timed(self._single_stream))
        run = {"server": self._server, "offline": self._offline}[scenario]
        return self._each(scenario, lambda point: self._timed(lambda: [run(point)])[0])

    def memory(self) -> list[float | None]:
        """By how many MiB each point, alone in a process, makes it larger."""

        def grown(point: Point) -> float | None:
            how = self._settings
            options = EngineSettings(how.engine, how.device, how.threads, point.imgsz, point.proposals, point.precision)
            size = growth(self._runtime.engine.name, self._runtime.manifest.name, options, [point.width])
            return None if size is None else size / MB

        return self._each("memory", grown)

    def accuracies(self, measure: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
        """What `measure` says of each point; it is given the point, and what to tell how far it is."""
        return self._each("accuracy", lambda point: measure(point, partial(self._tell, f"AP of width {point}")))

    def _each(self, name: str, measure: Callable[[Point], Any]) -> list[Any]:
        found = []
        for place, point in enumerate(self._points):
            found.append(self._rows.kept(f"{name}-{place}", partial(measure, point)))
            self._tell(name, place + 1, len(self._points))
        return found

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress:
            self._progress(what, done, total)

    def _timed(self, run: Callable[[], Sequence[Runs]]) -> list[dict[str, Any]]:
        before = disturbance.counters()
        runs = run()
        disturbed = asdict(disturbance.between(before, disturbance.counters()))
        date = datetime.now().astimezone().isoformat(timespec="seconds")
        return [{"warmup": self.warmup, **one.numbers, **disturbed, "date": date} for one in runs]

    @property
    def warmup(self) -> int:
        """Images of each point before those that count: each picture once."""
        return len(self._pictures)

    def _single_stream(self) -> list[Runs]:
        calls = {point: self._call(point) for point in self._points}
        return list(scenarios.single_stream(calls, self._settings.repeats, self.warmup).values())

    def _server(self, point: Point) -> Runs:
        call, how = self._call(point), self._settings
        for _ in range(self.warmup):
            call()
        return scenarios.server(call, scenarios.arrivals(how.rate or 0, how.repeats, how.seed))

    def _offline(self, point: Point) -> Runs:
        self._runtime(self._pictures, point=point)
        pictures = cycle(self._pictures)
        many = [next(pictures) for _ in range(self._settings.repeats)]
        return scenarios.offline(partial(self._runtime, many, point=point), len(many))

    def _call(self, point: Point) -> Callable[[], Any]:
        pictures = cycle(self._pictures)
        return lambda: self._runtime(next(pictures), point=point)


def artifact(runtime: Runtime, point: Point) -> dict[str, str]:
    """The files that a point runs from, {"artifact": names, "sha256": digests}; of several, joined by " + "."""
    files = runtime.engine.files(point.width, point.precision)
    return {
        "artifact": " + ".join(file.name for file in files),
        "sha256": " + ".join(map(_sha256, files)),
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
