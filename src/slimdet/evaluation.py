"""COCO's numbers for boxes and masks, per class and per IoU, and the confusion matrix.

The matching and the arithmetic are faster-coco-eval's or pycocotools' (the tests hold the first to the second). What is
added here is the checking: both libraries turn malformed input into silent wrong numbers (a NaN score counts as AP 1.0,
repeated annotation ids or a mask of another size as AP 0), and pycocotools stops when there are no detections.

T IoU thresholds (0.50, 0.55 .. 0.95), R recalls (0.00, 0.01 .. 1.00), K classes in order of category id,
A area ranges (all, small < 32^2, medium < 96^2, large), M detections per image (1, 10, 100).
"""

import contextlib
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from slimdet.errors import ConfigError, DataError

BACKENDS = {"faster-coco-eval": "faster_coco_eval", "pycocotools": "pycocotools"}
IOU_TYPES = ("bbox", "segm")
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
    backend = _choose(backend)
    truth = _Truth(coco, masks="segm" in iou_types)
    found = {}
    for kind in iou_types:
        arrays = _run(backend, kind, truth, truth.results(detections, kind))
        found[kind] = Evaluation(truth.classes, arrays["precision"], arrays["recall"])
    return found


def confusion_matrix(
    coco: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou: float = 0.5, conf: float = 0.25
) -> np.ndarray:
    """Count which class was taken for which: int64 [K + 1, K + 1], rows the true class, columns the detected one.

    The last column counts objects that were missed, the last row detections where nothing is. In each image, detections
    with a score of at least `conf` take, best score first, the free object of any class whose box overlaps most, if the
    IoU is at least `iou`. Crowds are never missed, and what lies on a crowd of its own class is not counted.

    Raises:
        DataError: as `accumulate`.
    """
    masks = rle_functions()
    truth = _Truth(coco, masks=False)
    size = len(truth.classes)
    matrix = np.zeros((size + 1, size + 1), np.int64)
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth.annotations:
        objects[annotation["image_id"]].append(annotation)
    for result in truth.results(detections, "bbox"):
        if result["score"] >= conf:
            found[result["image_id"]].append(result)

    for image in objects.keys() | found.keys():
        results = sorted(found[image], key=lambda result: -result["score"])
        crowd = np.array([annotation["iscrowd"] for annotation in objects[image]], bool)
        actual = np.array([annotation["category_id"] - 1 for annotation in objects[image]], int)
        free = ~crowd
        overlap = np.zeros((len(results), len(actual)))
        if overlap.size:
            boxes = [annotation["bbox"] for annotation in objects[image]]
            overlap = np.asarray(masks.iou([result["bbox"] for result in results], boxes, crowd.astype(int).tolist()))
        for row, result in zip(overlap, results, strict=True):
            predicted = result["category_id"] - 1
            candidates = np.flatnonzero(free & (row >= iou))
            if len(candidates):
                # Of equal overlaps the object of the detected class is meant.
                best = max(candidates, key=lambda index: (row[index], actual[index] == predicted))
                free[best] = False
                matrix[actual[best], predicted] += 1
            elif not np.any(crowd & (actual == predicted) & (row >= iou)):
                matrix[size, predicted] += 1
        np.add.at(matrix[:, size], actual[free], 1)
    return matrix


class _Truth:
    """A checked copy of the ground truth. Ids become 1..n in their own order, which keeps the libraries' tie-breaking;
    0 would mean "unmatched" to them, and large ids may not fit their integers."""

    def __init__(self, coco: Mapping[str, Any], masks: bool) -> None:
        for key in ("images", "annotations", "categories"):
            if not isinstance(coco.get(key), list):
                raise DataError(f"no list {key!r}; a COCO file has the lists images, annotations and categories")
        self.image_ids = _ranks(coco["images"], "image")
        self.category_ids = _ranks(coco["categories"], "category")
        _ranks(coco["annotations"], "annotation")
        names = {category["id"]: str(category.get("name", category["id"])) for category in coco["categories"]}
        self.classes = tuple(names[number] for number in self.category_ids)
        self.images = [
            {"id": self.image_ids[image["id"]], "height": image.get("height"), "width": image.get("width")}
            for image in coco["images"]
        ]
        self.sizes = {image["id"]: (image["height"], image["width"]) for image in self.images}
        self.annotations = [self._annotation(*item, masks) for item in enumerate(coco["annotations"], 1)]

    def _annotation(self, number: int, given: Mapping[str, Any], masks: bool) -> dict[str, Any]:
        where = f"annotation {given['id']}"
        checked = self._placed(given, where) | {"id": number, "iscrowd": int(bool(given.get("iscrowd")))}
        shape = given.get("segmentation")
        if masks or (given.get("area") is None and shape):
            checked["segmentation"] = self._rle(shape, checked["image_id"], where)
        area = given.get("area")
        if area is None:
            area = _area(checked)
        checked["area"] = _number(area, f"{where}: area")
        return checked

    def results(self, detections: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
        """Checked copies of the detections, as both libraries want them for IoU type `kind`."""
        results = []
        for number, given in enumerate(detections, 1):
            where = f"detection in image {given.get('image_id')}"
            checked = self._placed(given, where) | {"id": number, "iscrowd": 0}
            checked["score"] = _number(given.get("score"), f"{where}: score")
            if kind == "segm":
                checked["segmentation"] = self._rle(given.get("segmentation"), checked["image_id"], where)
            checked["area"] = _area(checked)
            results.append(checked)
        return results

    def _placed(self, given: Mapping[str, Any], where: str) -> dict[str, Any]:
        image, category, box = given.get("image_id"), given.get("category_id"), given.get("bbox")
        if image not in self.image_ids:
            raise DataError(f"{where}: image id {image} is not among the images of the annotations")
        if category not in self.category_ids:
            raise DataError(f"{where}: category id {category} is not among the categories {list(self.category_ids)}")
        if not isinstance(box, Sequence | np.ndarray) or len(box) != 4:
            raise DataError(f"{where}: bbox {box} is not [x, y, width, height]")
        values = [_number(value, f"{where}: bbox {list(box)}") for value in box]
        if values[2] < 0 or values[3] < 0:
            raise DataError(f"{where}: bbox {values} has a negative width or height")
        return {"image_id": self.image_ids[image], "category_id": self.category_ids[category], "bbox": values}

    def _rle(self, shape: Any, image: int, where: str) -> dict[str, Any]:
        """Polygons or RLE as compressed RLE of the image's size (other sizes would silently never overlap)."""
        masks = rle_functions()
        height, width = self.sizes[image]
        if not isinstance(height, int) or not isinstance(width, int):
            raise DataError(f"{where}: its image has no height and width, which masks need")
        if isinstance(shape, list) and shape and all(isinstance(polygon, list) for polygon in shape):
            for polygon in shape:
                if len(polygon) < 6 or len(polygon) % 2:
                    raise DataError(f"{where}: a polygon has {len(polygon)} numbers; it needs pairs, at least three")
            points = [[_number(value, f"{where}: polygon") for value in polygon] for polygon in shape]
            return masks.merge(masks.frPyObjects(points, height, width))
        if not isinstance(shape, Mapping) or "counts" not in shape or "size" not in shape:
            raise DataError(f"{where}: no mask to evaluate; segmentation is neither polygons nor RLE")
        if list(shape["size"]) != [height, width]:
            raise DataError(f"{where}: mask of size {list(shape['size'])} in an image of size {[height, width]}")
        if isinstance(shape["counts"], list):
            return masks.frPyObjects(dict(shape), height, width)
        return dict(shape)


def _ranks(items: list[Mapping[str, Any]], what: str) -> dict[int, int]:
    """Each id's place, from 1, in ascending order."""
    ids = []
    for item in items:
        if not isinstance(item.get("id"), int):
            raise DataError(f"{what} id {item.get('id')!r} is not a whole number")
        ids.append(item["id"])
    ranks = {number: rank for rank, number in enumerate(sorted(set(ids)), 1)}
    if len(ranks) != len(ids):
        twice = next(number for number in ranks if ids.count(number) > 1)
        raise DataError(f"{what} id {twice} appears more than once in the annotations; ids must be unique")
    return ranks


def _number(value: Any, what: str) -> float:
    # The bound keeps products of coordinates finite: an IoU of infinity by infinity would count as a match.
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= 1e12:
        raise DataError(f"{what}: {value} is not a finite number")
    return number


def _area(item: Mapping[str, Any]) -> float:
    return (
        float(rle_functions().area(item["segmentation"]))
        if "segmentation" in item
        else item["bbox"][2] * item["bbox"][3]
    )


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


def rle_functions() -> ModuleType:
    """pycocotools' run-length functions (encode, merge, iou, ...), needed whichever backend evaluates."""
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        raise ConfigError("masks and evaluation need pycocotools; get it with: pip install 'slimdet[train]'") from None


def _run(backend: str, kind: str, truth: _Truth, results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The library's `precision` [T, R, K, A, M] and `recall` [T, K, A, M]."""
    if backend == "pycocotools":
        coco_class = import_module("pycocotools.coco").COCO
        evaluator_class = import_module("pycocotools.cocoeval").COCOeval
    else:
        coco_class = import_module("faster_coco_eval").COCO
        evaluator_class = import_module("faster_coco_eval").COCOeval_faster
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints; stdout belongs to the caller's JSON
        sides = []
        for annotations in (truth.annotations, results):
            side = coco_class()
            # Not by `loadRes`, which cannot take an empty list and chooses a mask's area range by its box.
            side.dataset = {
                "images": truth.images,
                "annotations": [dict(annotation) for annotation in annotations],
                "categories": [{"id": number} for number in truth.category_ids.values()],
            }
            side.createIndex()
            sides.append(side)
        evaluator = evaluator_class(*sides, iouType=kind)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval
