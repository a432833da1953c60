"""A model measured on a COCO data set, width by width; `slimdet.evaluation.points` measures a bundle as it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slimdet.bundle.ladder import Point
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.devices import choose_device
from slimdet.evaluation.inference import check_classes, detect_each
from slimdet.evaluation.matching import Evaluation, accumulate

Progress = Callable[[Point, int, int], Any]  # is told the operating point, images done, images in all


@dataclass(frozen=True)
class Measured:
    """One point on a data set: its detections as COCO results, and their evaluation by kind ("bbox", "segm")."""

    point: Point
    detections: Sequence[Mapping[str, Any]]
    evaluations: dict[str, Evaluation]

    @property
    def width(self) -> float:
        """The point's width."""
        return self.point.width

    @property
    def numbers(self) -> dict[str, dict[str, float]]:
        """The 12 COCO numbers of each kind."""
        return {kind: evaluation.summary() for kind, evaluation in self.evaluations.items()}

    @property
    def classes(self) -> dict[str, dict[str, dict[str, float]]]:
        """AP, AP50, AP75 and AR100 of each kind and class."""
        return {kind: evaluation.per_class() for kind, evaluation in self.evaluations.items()}


@dataclass(frozen=True)
class Validation:
    """What was measured, by width: the 12 numbers of each kind ("bbox", "segm"), AP by class; where files of it are."""

    widths: dict[str, dict[str, dict[str, float]]]
    classes: dict[str, dict[str, dict[str, dict[str, float]]]]
    run: Path | None = None


def validate(
    model: Slimmable,
    dataset: CocoDataset,
    widths: Sequence[float],
    device: str = "auto",
    classes: Sequence[str] | None = None,
) -> Validation:
    """Evaluate a model at each of `widths`; the arguments are those of `measure`."""
    numbers, by_class = {}, {}
    for one in measure(model, dataset, widths, device, classes):
        numbers[str(one.width)], by_class[str(one.width)] = one.numbers, one.classes
    return Validation(numbers, by_class)


def measure(
    model: Slimmable,
    dataset: CocoDataset,
    widths: Sequence[float],
    device: str = "auto",
    classes: Sequence[str] | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Iterator[Measured]:
    """Yield what each of `widths` detects and how good it is; each image is decoded once, for all widths.

    Args:
        model: is moved to the device and set to eval mode.
        dataset: with `masks=True` where the model gives masks.
        widths: those of the model to evaluate.
        device: as `slimdet.devices.choose_device` takes it.
        classes: [K], names of the model's labels 1..K; the default is the data set's own.
        workers: processes that read images.
        progress: called after each batch and width with the point, the images done and their number.

    Raises:
        DataError: the data set's classes are not the model's, or its annotations are broken.
    """
    place = choose_device(device)
    model.to(place).eval()
    ids = check_classes(dataset.classes if classes is None else classes, dataset)
    calls = {Point(width): partial(model, width=width) for width in widths}
    found = detect_each(calls, dataset, place, progress=progress, category_ids=ids, workers=workers)
    kinds = ("bbox", "segm") if dataset.masks else ("bbox",)
    for point in calls:
        detections = found.pop(point)
        yield Measured(point, detections, accumulate(dataset.coco, detections, kinds))
