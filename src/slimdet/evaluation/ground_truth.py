"""Annotations and detections, checked before they are compared.

The evaluation libraries turn malformed input into silent wrong numbers: a NaN score counts as AP 1.0, repeated
annotation ids or a mask of another size as AP 0. Here each of these is an error that names the culprit, by the rules of
`slimdet.data.annotations`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from slimdet.data.annotations import (
    HARMLESS,
    LISTS,
    annotation_faults,
    by_id,
    encoded,
    is_number,
    rle_functions,
    sides,
)
from slimdet.errors import DataError


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
        for name in LISTS:
            if not isinstance(coco.get(name), list):
                raise DataError(f"no list {name!r}; a COCO file has the lists images, annotations and categories")
        self._images, annotations, self._categories = (_known(coco, name) for name in LISTS)
        self.image_ids, self.category_ids = _ranks(self._images), _ranks(self._categories)
        names = {number: str(record.get("name", number)) for number, record in self._categories.items()}
        repeated = {name for name, count in Counter(names.values()).items() if count > 1}
        self.classes = tuple(
            f"{names[number]} ({number})" if names[number] in repeated else names[number]
            for number in self.category_ids
        )
        self.images = [
            {"id": self.image_ids[number], "height": image.get("height"), "width": image.get("width")}
            for number, image in self._images.items()
        ]
        self.annotations = [
            self._annotation(rank, f"annotation {number}", record, masks)
            for rank, (number, record) in enumerate(annotations.items(), 1)
        ]

    def _annotation(self, rank: int, where: str, given: Mapping[str, Any], masks: bool) -> dict[str, Any]:
        masks = masks or (given.get("area") is None and bool(given.get("segmentation")))
        checked = self._checked(given, where, masks) | {"id": rank, "iscrowd": int(bool(given.get("iscrowd")))}
        area = given.get("area")
        return checked | {"area": _area(checked) if area is None else float(area)}

    def results(self, detections: Sequence[Mapping[str, Any]], masks: bool) -> list[dict[str, Any]]:
        """Checked copies of the detections, as both libraries want them; with `masks`, their area is that of the mask.

        Raises:
            DataError: as `slimdet.evaluation.matching.accumulate`.
        """
        results = []
        for rank, given in enumerate(detections, 1):
            where = f"detection in image {given.get('image_id')}"
            checked = self._checked(given, where, masks)
            if not is_number(given.get("score")):
                raise DataError(f"{where}: 'score' is {given.get('score')!r}, not a finite number")
            results.append(checked | {"id": rank, "iscrowd": 0, "score": float(given["score"]), "area": _area(checked)})
        return results

    def _checked(self, given: Mapping[str, Any], where: str, masks: bool) -> dict[str, Any]:
        """Ids, box and, with `masks`, the mask as compressed RLE (other sizes would silently never overlap)."""
        for kind, reason in annotation_faults(given, self._images, self._categories, masks):
            if kind not in HARMLESS:
                raise DataError(f"{where}: {reason}")
        checked: dict[str, Any] = {
            "image_id": self.image_ids[given["image_id"]],
            "category_id": self.category_ids[given["category_id"]],
            "bbox": [float(value) for value in given["bbox"]],
        }
        if masks:
            size = sides(self._images[given["image_id"]])
            if not given.get("segmentation"):
                raise DataError(f"{where}: no mask to evaluate; its segmentation is {given.get('segmentation')!r}")
            if size is None:
                raise DataError(f"{where}: its image has no width and height, which masks need")
            checked["segmentation"] = encoded(given["segmentation"], *size)
        return checked


def _known(coco: Mapping[str, Any], name: str) -> dict[int, Any]:
    known, faults = by_id(coco, name)
    for _, (_, reason) in faults[:1]:
        raise DataError(reason)
    return known


def _ranks(ids: Mapping[int, Any]) -> dict[int, int]:
    """Each id's place, from 1, in ascending order."""
    return {number: rank for rank, number in enumerate(sorted(ids), 1)}


def _area(item: Mapping[str, Any]) -> float:
    if "segmentation" in item:
        return float(rle_functions().area(item["segmentation"]))
    return item["bbox"][2] * item["bbox"][3]
