"""AP of operating points on the user's data; the part of a benchmark that needs torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.benchmarking.table import UNKNOWN
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_val_split
from slimdet.data.fingerprint import fingerprint
from slimdet.errors import DataError
from slimdet.evaluation.matching import evaluate
from slimdet.evaluation.points import check_points, detect_points, part_of
from slimdet.evaluation.resampling import Matches, resamples
from slimdet.models.kinds import require
from slimdet.runtime.detector import Runtime

RESAMPLES = 200


class Validation:
    """The images of `val:`, or some of them drawn at random.

    Args:
        data: DATA.yaml.
        points: that will be measured; each is tried once.
        images: how many; None is all.
        seed: of the order of the images.

    Attributes:
        name: of the data set.

    Raises:
        SlimdetError: what cannot be used, or images without an object to be found.
    """

    def __init__(
        self, runtime: Runtime, data: str | Path, points: Sequence[Point], images: int | None, seed: int
    ) -> None:
        split = read_val_split(data)
        require(runtime.manifest.architecture, "validate", runtime.manifest.name)
        self._runtime, self._split, self.name = runtime, split, split.annotations.stem
        self._dataset = CocoDataset(split.annotations, split.images)
        check_points(runtime, self._dataset, points)
        self._places = np.random.default_rng(seed).permutation(len(self._dataset))[:images].tolist()
        self._coco = part_of(self._dataset, self._places)
        if not len(self._coco["annotations"]):
            raise DataError(f"the {len(self._places)} images of {split.images} have no object to be found")

    @property
    def fingerprint(self) -> str:
        """By what the data are known again."""
        names = [one["file_name"] for one in self._dataset.coco["images"]]
        return fingerprint(self._split.annotations, self._split.images, names)

    def files(self, number: int) -> list[Path]:
        """The first so many images, those with objects before those without."""
        objects = set(self._coco["annotations"].image_id.tolist())
        ids = self._dataset.image_ids
        return [self._dataset.file(p) for p in sorted(self._places, key=lambda p: ids[p] not in objects)[:number]]

    def accuracy(self, point: Point, progress: Callable[[int, int], Any] | None = None) -> dict[str, Any]:
        """A point's "ap" and "ap50" of boxes, as `slimdet val` measures an engine, and "images", on how many.

        "ap_low" and "ap_high": 95 % of the resamples of the images lie between (a bootstrap). An accuracy is None where
        there is nothing to be found but crowds.
        """

        def told(_: Point, done: int, total: int) -> None:
            if progress:
                progress(done, total)

        found = detect_points(self._runtime, self._dataset, [point], self._places, progress=told)
        metrics = evaluate(self._coco, found[point])["bbox"]
        if metrics["AP"] < 0:
            return UNKNOWN
        aps = Matches(self._coco, found[point]).ap(resamples(len(self._places), RESAMPLES))
        low, high = np.percentile(aps[aps >= 0], [2.5, 97.5]).tolist()  # one may have drawn no object
        numbers = {"ap": metrics["AP"], "ap_low": low, "ap_high": high, "ap50": metrics["AP50"]}
        return numbers | {"images": len(self._places)}
