"""COCO's numbers for boxes and masks, per class and per IoU.

The matching and the arithmetic are faster-coco-eval's or pycocotools' (the tests hold the first to the second); the
input is checked before (slimdet.evaluation.ground_truth).

T IoU thresholds (0.50, 0.55 .. 0.95), R recalls (0.00, 0.01 .. 1.00), K classes in order of category id,
A area ranges (all, small < 32^2, medium < 96^2, large), M detections per image (1, 10, 100).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from slimdet.data.formats.records import Records
from slimdet.errors import ConfigError
from slimdet.evaluation.ground_truth import GroundTruth

BACKENDS = {"faster-coco-eval": "faster_coco_eval", "pycocotools": "pycocotools"}
IOU_TYPES = ("bbox", "segm")
MOST = (1, 10, 100)  # detections an image
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
PRECISIONS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
METRICS = (*PRECISIONS, "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


@dataclass(frozen=True)
class Evaluation:
    """What COCO's evaluation found for one IoU type; -1 where a class has no ground truth in an area range."""

    classes: tuple[str, ...]  # K
    precision: np.ndarray  # [T, R, K, A, M], 0..1
    recall: np.ndarray  # [T, K, A, M], 0..1

    def summary(self) -> dict[str, float]:
        """The 12 COCO numbers in 0..1, as `METRICS` names them; -1 where nothing was there to be found."""
        precision, recall = self.precision[..., 2], self.recall  # AP counts up to 100 detections an image
        values = [
            _mean(precision[:, :, :, 0]),
            _mean(precision[0, :, :, 0]),
            _mean(precision[5, :, :, 0]),
            *(_mean(precision[:, :, :, area]) for area in (1, 2, 3)),
            *(_mean(recall[:, :, 0, count]) for count in (0, 1, 2)),
            *(_mean(recall[:, :, area, 2]) for area in (1, 2, 3)),
        ]
        return dict(zip(METRICS, values, strict=True))

    def per_class(self) -> dict[str, dict[str, float]]:
        """AP, AP50, AP75 and AR100 of every class; -1 for a class without ground truth."""
        precision, recall = self.precision[..., 0, 2], self.recall[..., 0, 2]  # [T, R, K], [T, K]
        return {
            name: {
                "AP": _mean(precision[:, :, k]),
                "AP50": _mean(precision[0, :, k]),
                "AP75": _mean(precision[5, :, k]),
                "AR100": _mean(recall[:, k]),
            }
            for k, name in enumerate(self.classes)
        }

    def curves(self, iou: float = 0.5) -> np.ndarray:
        """Interpolated precision at the 101 recalls 0.00 .. 1.00 per class, [K, 101]; NaN for a class without truth.

        Raises:
            ConfigError: `iou` is not one of COCO's ten thresholds.
        """
        if round(iou, 2) not in IOU_THRESHOLDS:
            raise ConfigError(f"IoU {iou} is not one of {', '.join(map(str, IOU_THRESHOLDS))}")
        precision = self.precision[IOU_THRESHOLDS.index(round(iou, 2)), :, :, 0, 2].T  # [K, R]
        return np.where(precision > -1, precision, np.nan)


def evaluate(
    coco: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    iou_types: Sequence[str] = ("bbox",),
    backend: str = "auto",
) -> dict[str, dict[str, float]]:
    """The 12 COCO numbers per IoU type: {"bbox": {"AP": ..., "AP50": ..., ...}, "segm": {...}}, each in 0..1.

    As in COCO, a number is 0 when there is ground truth but nothing was found, and -1 when there is no ground truth
    (AP_small without small objects, everything without annotations). See `accumulate` for the input and the errors.
    """
    return {kind: found.summary() for kind, found in accumulate(coco, detections, iou_types, backend).items()}


def accumulate(
    coco: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    iou_types: Sequence[str] = ("bbox",),
    backend: str = "auto",
) -> dict[str, Evaluation]:
    """Match detections to the ground truth as COCO does; one `Evaluation` per IoU type.

    Args:
        coco: a parsed COCO annotation file. A missing `iscrowd` is 0, a missing `area` the mask's or else the box's.
        detections: COCO results: image_id, category_id, bbox [x, y, width, height] in pixels, score, and for "segm"
            a `segmentation` (RLE). Areas of masks, not of boxes, place "segm" results in the area ranges.
        iou_types: "bbox", "segm" or both.
        backend: "faster-coco-eval", "pycocotools", or "auto": the first of these that is installed.

    Raises:
        DataError: ids that repeat or point nowhere; boxes, scores, areas or masks that are missing, not finite or
            not of the image's size. Neither argument is changed.
        ConfigError: an unknown IoU type or backend, or a backend that is not installed.
    """
    for kind in iou_types:
        if kind not in IOU_TYPES:
            raise ConfigError(f"IoU type {kind!r} is not one of {', '.join(IOU_TYPES)}")
    truth = GroundTruth(coco, masks="segm" in iou_types)
    found = {}
    for kind in iou_types:
        arrays = match(truth, truth.results(detections, masks=kind == "segm"), kind, backend=backend)
        found[kind] = Evaluation(truth.classes, arrays["precision"], arrays["recall"])
    return found


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0


def _choose(backend: str) -> str:
    if backend not in (*BACKENDS, "auto"):
        raise ConfigError(f"evaluation backend {backend!r} is not one of auto, {', '.join(BACKENDS)}")
    for name in BACKENDS if backend == "auto" else (backend,):
        if find_spec(BACKENDS[name]):
            return name
    raise ConfigError("evaluation needs faster-coco-eval or pycocotools; get them with: pip install 'slimdet[train]'")


def match(
    truth: GroundTruth,
    results: Sequence[Mapping[str, Any]],
    iou_type: str,
    most: Sequence[int] = MOST,
    by_class: bool = True,
    backend: str = "auto",
) -> dict[str, np.ndarray]:
    """Run an evaluation library on what was checked: class by class, as it takes dicts, over ten kilobytes a detection.

    Args:
        truth: its annotations and, as all of them are matched, its images and classes.
        results: as `GroundTruth.results` gives them; their "area" places them in the area ranges.
        iou_type: "bbox", "segm", or "keypoints" (which both sides then must have).
        most: [M], how many detections an image are looked at, ascending.
        by_class: match only what is of one class.
        backend: as `accumulate` takes it.

    Returns:
        `precision` [T, R, K, A, M] and `recall` [T, K, A, M], where K is 1 unless `by_class`.

    Raises:
        ConfigError: as `accumulate`.
    """
    library = _library(_choose(backend))
    settings = (iou_type, most, by_class)
    annotations = truth.annotations
    classes = list(truth.category_ids.values())
    if not (by_class and classes and isinstance(annotations, Records) and isinstance(results, Records)):
        return _run(library, truth.images, (annotations, results), classes, settings)
    parts = []
    images = {image["id"]: image for image in truth.images}
    for number in classes:
        both = tuple(side.take(np.flatnonzero(side.category_id == number)) for side in (annotations, results))
        # Those with neither an object nor a detection count for nothing; the libraries want one at least.
        seen = np.unique(np.concatenate([side.image_id for side in both])).tolist() or list(images)[:1]
        parts.append(_run(library, [images[one] for one in seen], both, [number], settings))
    return {
        "precision": np.concatenate([part["precision"] for part in parts], axis=2),
        "recall": np.concatenate([part["recall"] for part in parts], axis=1),
    }


def _library(backend: str) -> tuple[Any, Any]:
    """The classes of the data and of the evaluator."""
    if backend == "pycocotools":
        return import_module("pycocotools.coco").COCO, import_module("pycocotools.cocoeval").COCOeval
    return import_module("faster_coco_eval").COCO, import_module("faster_coco_eval").COCOeval_faster


def _run(
    library: tuple[Any, Any],
    images: Sequence[Mapping[str, Any]],
    sides: Sequence[Sequence[Mapping[str, Any]]],
    classes: Sequence[int],
    settings: tuple[str, Sequence[int], bool],
) -> dict[str, np.ndarray]:
    """The arrays for truth and results (`sides`) of these images and classes."""
    coco_class, evaluator_class = library
    iou_type, most, by_class = settings
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints; stdout belongs to the caller's JSON
        datasets = []
        for annotations in sides:
            side = coco_class()
            # Not by `loadRes`, which cannot take an empty list and chooses a mask's area range by its box.
            side.dataset = {
                "images": images,
                "annotations": [dict(annotation) for annotation in annotations],
                "categories": [{"id": number} for number in classes],
            }
            side.createIndex()
            datasets.append(side)
        evaluator = evaluator_class(*datasets, iouType=iou_type)
        evaluator.params.maxDets, evaluator.params.useCats = list(most), int(by_class)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval
