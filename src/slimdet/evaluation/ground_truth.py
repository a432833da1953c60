"""Annotations and detections, checked before they are compared.

The evaluation libraries turn malformed input into silent wrong numbers: a NaN score counts as AP 1.0, repeated
annotation ids or a mask of another size as AP 0. Here each of these is an error that names the culprit.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from slimdet.errors import ConfigError, DataError


def rle_functions() -> ModuleType:
    """pycocotools' run-length functions (encode, merge, iou, ...), needed whichever backend evaluates."""
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        raise ConfigError("masks and evaluation need pycocotools; get it with: pip install 'slimdet[train]'") from None


class GroundTruth:
    """A checked copy of the ground truth, in the form both evaluation libraries take.

    Ids become 1..n in their own order, which keeps the libraries' tie-breaking: 0 would mean "unmatched" to them, and
    large ids may not fit their integers. `image_ids` and `category_ids` map the given ids to these.
    """

    def __init__(self, coco: Mapping[str, Any], masks: bool) -> None:
        """Check the parsed annotation file `coco`; with `masks`, every annotation's mask too.

        Raises:
            DataError: as `slimdet.evaluation.matching.accumulate`.
        """
        for key in ("images", "annotations", "categories"):
            if not isinstance(coco.get(key), list):
                raise DataError(f"no list {key!r}; a COCO file has the lists images, annotations and categories")
        self.image_ids = _ranks(coco["images"], "image")
        self.category_ids = _ranks(coco["categories"], "category")
        _ranks(coco["annotations"], "annotation")
        names = {category["id"]: str(category.get("name", category["id"])) for category in coco["categories"]}
        repeated = {name for name, count in Counter(names.values()).items() if count > 1}
        self.classes = tuple(
            f"{names[number]} ({number})" if names[number] in repeated else names[number]
            for number in self.category_ids
        )
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
        image: Any = given.get("image_id")
        category: Any = given.get("category_id")
        box: Any = given.get("bbox")
        for value, known, what in ((image, self.image_ids, "image"), (category, self.category_ids, "category")):
            if not isinstance(value, Hashable) or value not in known:
                raise DataError(f"{where}: {what} id {value} is not among the {len(known)} of the annotations")
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
            points = [[_number(value, f"{where}: polygon") for value in polygon] for polygon in shape]
            for polygon in points:
                if len(polygon) < 6 or len(polygon) % 2:
                    raise DataError(f"{where}: a polygon has {len(polygon)} numbers; it needs pairs, at least three")
                # An outline is followed pixel by pixel, outside the image as well: far points would exhaust the memory.
                if max(map(abs, polygon)) > 10 * max(height, width):
                    raise DataError(f"{where}: a polygon reaches far outside its image of size {[height, width]}")
            return masks.merge(masks.frPyObjects(points, height, width))
        if not isinstance(shape, Mapping) or "counts" not in shape or "size" not in shape:
            raise DataError(f"{where}: no mask to evaluate; segmentation is neither polygons nor RLE")
        if list(shape["size"]) != [height, width]:
            raise DataError(f"{where}: mask of size {list(shape['size'])} in an image of size {[height, width]}")
        counts = shape["counts"]
        if isinstance(counts, list):
            if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
                raise DataError(f"{where}: the run lengths of its mask do not add up to {height} x {width} pixels")
            return masks.frPyObjects(dict(shape), height, width)
        if not isinstance(counts, str | bytes):
            raise DataError(f"{where}: the counts of its mask are neither text nor a list")
        return dict(shape)


def _ranks(items: list[Mapping[str, Any]], what: str) -> dict[int, int]:
    """Each id's place, from 1, in ascending order."""
    ids = []
    for item in items:
        number = item.get("id") if isinstance(item, Mapping) else None
        if not isinstance(number, int):
            raise DataError(f"{what} id {number!r} is not a whole number")
        ids.append(number)
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
    if "segmentation" in item:
        return float(rle_functions().area(item["segmentation"]))
    return item["bbox"][2] * item["bbox"][3]
