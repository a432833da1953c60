"""What a bundle finds in a data set as it runs: on any engine, from the files that ship, at any operating point."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.data.formats.records import Columns, Records
from slimdet.data.loader import loader
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.matching import accumulate
from slimdet.evaluation.validation import Measured, Progress
from slimdet.images.resizing import Sides
from slimdet.models.image_size import check_images
from slimdet.runtime import preprocessing
from slimdet.runtime.detector import Runtime
from slimdet.runtime.preprocessing import DecodedImage
from slimdet.runtime.result import coco_results


def measure_points(
    runtime: Runtime, dataset: CocoDataset, points: Sequence[Point], workers: int = 0, progress: Progress | None = None
) -> Iterator[Measured]:
    """Yield what each of `points` detects and how good it is; an image is decoded once for all points of one size.

    Detections of the detector's own least score (torchvision's 0.05) and above count, on every engine.

    Args:
        runtime: of any engine; its own preprocessing is a part of what is measured.
        dataset: with `masks=True` where masks are to be measured.
        workers: processes that read images.
        progress: called after each image and point with the point, the images done and their number.

    Raises:
        BundleError, ConfigError, WidthError: a point that the bundle or engine does not have.
        DataError: the data set's classes are not the model's, or its annotations are broken.
        ImageError: an image that cannot be decoded.
    """
    found = detect_points(runtime, dataset, points, range(len(dataset)), workers, progress)
    kinds = ("bbox", "segm") if dataset.masks else ("bbox",)
    for point in points:
        detections = found.pop(point)
        yield Measured(point, detections, accumulate(dataset.coco, detections, kinds))


def detect_points(
    runtime: Runtime,
    dataset: CocoDataset,
    points: Sequence[Point],
    places: Sequence[int],
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[Point, Records]:
    """What each of `points` detects in the images at some places of a data set, as COCO results in their order.

    The other arguments and the errors are those of `measure_points`.
    """
    ids = check_classes(runtime.classes, dataset)
    found = {point: Columns() for point in points}
    sides = {point: runtime.sides(point) for point in points}
    images = loader(_Pictures(dataset, places, sides.values()), 1, workers=workers)
    for done, ([pictures], [number]) in enumerate(images, 1):
        for point, columns in found.items():
            [result] = runtime.detect([pictures[sides[point]]], point=point, conf=runtime.engine.own_conf)
            masks = result.masks if dataset.masks else None
            columns.add(coco_results(result.boxes, result.labels, result.scores, masks, number, ids))
            if progress:
                progress(point, done, len(places))
    return {point: columns.records() for point, columns in found.items()}


def check_points(runtime: Runtime, dataset: CocoDataset, points: Sequence[Point]) -> None:
    """Make sure, before a long run, that every point runs, and that data set and model fit together.

    Raises:
        BundleError, ConfigError, WidthError: a point that the bundle or the engine does not have.
        DataError: the data set's classes are not the model's.
        ImageError: the first image of which nothing is left at the smallest size.
    """
    check_classes(runtime.classes, dataset)
    black = np.zeros((64, 64, 3), np.uint8)
    for point in points:
        runtime(black, point=point)
    check_images(dataset, min(runtime.sides(point).longest for point in points))


def part_of(dataset: CocoDataset, places: Sequence[int]) -> dict[str, Any]:
    """The annotations of the images at some places, as `CocoDataset.coco` has those of all."""
    coco = dataset.coco
    kept = np.isin(coco["annotations"].image_id, [dataset.image_ids[place] for place in places])
    annotations = coco["annotations"].take(np.flatnonzero(kept))
    return {**coco, "images": [coco["images"][place] for place in places], "annotations": annotations}


class _Pictures(Dataset[Any]):
    """The images at some places of a data set, as a runtime reads them: (picture by size, image id)."""

    def __init__(self, dataset: CocoDataset, places: Sequence[int], sides: Collection[Sides]) -> None:
        self.dataset, self.places, self.sides = dataset, places, set(sides)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[dict[Sides, DecodedImage], int]:
        place = self.places[index]
        # Each size for itself: how finely a photograph is decoded depends on it.
        pictures = {one: preprocessing.read(self.dataset.file(place), one) for one in self.sides}
        width, height = next(iter(pictures.values())).size
        self.dataset.check_size(place, height, width)
        return pictures, self.dataset.image_ids[place]
