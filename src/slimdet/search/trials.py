"""Points of a bundle, timed and raced against each other on a data set.

P points, B resamples of the images.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from slimdet.bundle.ladder import Point, Timing
from slimdet.data.coco import CocoDataset
from slimdet.errors import DataError
from slimdet.evaluation.matching import evaluate
from slimdet.evaluation.points import detect_points, part_of
from slimdet.evaluation.resampling import Matches, resamples
from slimdet.runtime.detector import Runtime
from slimdet.runtime.latency import latencies, timing
from slimdet.search.race import rounds, survivors
from slimdet.search.rows import Rows
from slimdet.search.settings import TuneSettings

CHUNK = 16  # images between two rows on disk
PICTURES = 4  # images that are timed, in turn
RESAMPLES = 200

Told = Callable[[str, int, int], Any]  # is told what is being done, how much of it, and how much there is
logger = logging.getLogger("slimdet")


class Trials:
    """Measurements of one runtime on one data set; each is made once, and kept in the rows.

    Args:
        settings: which images, and in which order.
        progress: told how far a round is.

    Raises:
        DataError: there is no object in the images.
    """

    def __init__(
        self, runtime: Runtime, dataset: CocoDataset, rows: Rows, settings: TuneSettings, progress: Told | None = None
    ) -> None:
        self._runtime, self._dataset, self._rows, self._progress = runtime, dataset, rows, progress
        order = np.random.default_rng(settings.seed).permutation(len(dataset))
        self._places = order[: settings.images].tolist()
        self._seed = settings.seed
        self._found: dict[Point, list[np.ndarray]] = {}  # tables [N, 7] as `_row` has them: dicts would fill the memory
        if not len(self._coco()["annotations"]):
            raise DataError(f"the {len(self._places)} images of {dataset.folder} have no object to be found")

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return len(self._places)

    def timings(self, points: Sequence[Point], repeats: int, name: str) -> list[Timing]:
        """How long each point takes, from a decoded image to its boxes; they take turns on the same images.

        Args:
            points: which.
            repeats: timed runs of each.
            name: of the row that they are kept in.
        """
        logger.info("timing %d points, %d runs each", len(points), repeats)
        # Arrays, so that each call does all that it does with an image but to read its file.
        pictures = [self._runtime.read(self._dataset.file(place)).pixels for place in self._places[:PICTURES]]

        def measured() -> list[dict[str, Any]]:
            calls = {point: partial(self._run, point, cycle(pictures)) for point in points}
            runs = latencies(calls, repeats, warm=len(pictures))
            return [timing(point, milliseconds).entry for point, milliseconds in runs.items()]

        return [Timing.of(entry) for entry in self._rows.kept(f"timings-{name}", measured)]

    def race(self, points: Sequence[Point], ms: Sequence[float], safe: Collection[Point]) -> list[Point]:
        """The points that are left when all images were seen.

        Args:
            points: [P].
            ms: [P], latency of each.
            safe: those that stay whatever they reach.
        """
        left, time = list(points), dict(zip(points, ms, strict=True))
        start = 0
        for number, end in enumerate(rounds(self.images), 1):
            logger.info("round %d: %d points on %d of %d images", number, len(left), end, self.images)
            self._see(left, start, end, f"round {number}, {len(left)} points")
            start = end
            if end < self.images:
                times = np.array([time[point] for point in left])
                ap, samples = self._aps(left, end)
                kept = survivors(times, ap, samples, [left.index(point) for point in safe])
                left = [left[place] for place in kept]
                self._found = {point: self._found[point] for point in left}
        return left

    def metrics(self, point: Point) -> dict[str, float]:
        """The 12 COCO numbers of a point that is left after the race, of all images."""
        return evaluate(self._coco(), self._detections(point))["bbox"]

    def _run(self, point: Point, pictures: Any) -> None:
        self._runtime(next(pictures), point=point)

    def _see(self, points: Sequence[Point], start: int, end: int, what: str) -> None:
        """Let the points detect objects in images `start` to `end`."""
        for first in range(start, end, CHUNK):
            places = self._places[first : min(first + CHUNK, end)]

            def detected(places: list[int] = places) -> list[list[list[float]]]:
                found = detect_points(self._runtime, self._dataset, points, places)
                return [[_row(one) for one in found[point]] for point in points]

            for point, rows in zip(points, self._rows.kept(f"images-{first}", detected), strict=True):
                self._found.setdefault(point, []).append(np.array(rows, np.float64).reshape(-1, 7))
            if self._progress:
                self._progress(what, first + len(places) - start, end - start)

    def _aps(self, points: Sequence[Point], end: int) -> tuple[np.ndarray, np.ndarray]:
        """AP of the first `end` images, [P], and of every resample of them, [P, B]."""
        coco = self._coco(end)
        once, drawn = np.ones((1, end)), resamples(end, RESAMPLES, self._seed)
        weights = np.concatenate([once, drawn])
        aps = np.array([Matches(coco, self._detections(point)).ap(weights) for point in points])  # [P, 1 + B]
        return aps[:, 0], aps[:, 1:]

    def _coco(self, end: int | None = None) -> dict[str, Any]:
        return part_of(self._dataset, self._places[:end])

    def _detections(self, point: Point) -> list[dict[str, Any]]:
        """What a point found so far, as COCO results."""
        rows = np.concatenate(self._found[point]).tolist()
        return [
            {"image_id": int(image), "category_id": int(category), "bbox": box, "score": score}
            for image, category, *box, score in rows
        ]


def _row(one: Mapping[str, Any]) -> list[float]:
    """A COCO result as image id, category id, box, score."""
    return [one["image_id"], one["category_id"], *one["bbox"], one["score"]]
