"""Annotations and detections, checked before they are compared.

The evaluation libraries turn malformed input into silent wrong numbers: a NaN score counts as AP 1.0, repeated
annotation ids or a mask of another size as AP 0. Here each of these is an error that names the culprit, by the rules of
`slimdet.data.annotations`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from slimdet.data.annotations import HARMLESS, LISTS, by_id, encoded, sides
from slimdet.data.formats.record_faults import id_faults, record_faults
from slimdet.data.formats.records import Packed, Records, fill_areas, places_of
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
            if not isinstance(coco.get(name), Sequence):
                raise DataError(f"no list {name!r}; a COCO file has the lists images, annotations and categories")
        self._images, self._categories = _known(coco, "images"), _known(coco, "categories")
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
        given = _records(coco["annotations"], masks)
        for _, _, (_, reason) in id_faults(given)[:1]:
            raise DataError(reason)
        self.annotations = self._checked(given, lambda place: f"annotation {given.id[place]}", masks)

    def results(self, detections: Sequence[Mapping[str, Any]], masks: bool) -> Records:
        """Checked copies of the detections, as both libraries want them; with `masks`, their area is that of the mask.

        Raises:
            DataError: as `slimdet.evaluation.matching.accumulate`.
        """
        given = _records(detections, masks)

        def where(place: int) -> str:
            return f"detection in image {given[place].get('image_id')}"

        checked = self._checked(given, where, masks, own_areas=False)
        for place in np.flatnonzero(np.isnan(given.score))[:1].tolist():
            raise DataError(f"{where(place)}: 'score' is {given[place].get('score')!r}, not a finite number")
        return checked

    def _checked(self, given: Records, where: Callable[[int], str], masks: bool, own_areas: bool = True) -> Records:
        """Ranks, boxes, areas and, with `masks`, masks as compressed RLE (other sizes would silently never overlap)."""
        for place, (kind, reason) in record_faults(given, self._images, self._categories, masks):
            if kind not in HARMLESS:
                raise DataError(f"{where(place)}: {reason}")
        image, _ = places_of(given.image_id, np.array(list(self.image_ids), np.int64))
        category, _ = places_of(given.category_id, np.array(list(self.category_ids), np.int64))
        sizes = [sides(self._images[number]) or (0, 0) for number in self.image_ids]
        size = np.array(sizes, np.int64).reshape(-1, 2)[image]  # [N, 2] width, height
        area = given.area if own_areas else np.full(len(given), np.nan)
        whole = {"id": np.arange(1, len(given) + 1), "image_id": image + 1, "category_id": category + 1}
        real = {"area": area, "iscrowd": (np.nan_to_num(given.iscrowd) != 0).astype(np.float64), "score": given.score}
        if not own_areas:
            real["iscrowd"] = np.zeros(len(given))
        shapes = given.segmentation if masks or own_areas else None
        if masks:
            shapes = Packed(self._mask(given, place, where, *size[place].tolist()) for place in range(len(given)))
        checked = Records(whole, given.bbox, real, shapes)
        fill_areas(checked, size[:, ::-1])
        if not masks:
            checked.segmentation = None
        return checked

    @staticmethod
    def _mask(given: Records, place: int, where: Callable[[int], str], width: int, height: int) -> Any:
        shape = None if given.segmentation is None else given.segmentation[place]
        if not shape:
            raise DataError(f"{where(place)}: no mask to evaluate; its segmentation is {shape!r}")
        if not width:
            raise DataError(f"{where(place)}: its image has no width and height, which masks need")
        return encoded(shape, width, height)


def _records(given: Sequence[Mapping[str, Any]], masks: bool) -> Records:
    return given if isinstance(given, Records) else Records.of([given], masks)


def _known(coco: Mapping[str, Any], name: str) -> dict[int, Any]:
    known, faults = by_id(coco, name)
    for _, (_, reason) in faults[:1]:
        raise DataError(reason)
    return known


def _ranks(ids: Mapping[int, Any]) -> dict[int, int]:
    """Each id's place, from 1, in ascending order."""
    return {number: rank for rank, number in enumerate(sorted(ids), 1)}
