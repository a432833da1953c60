"""Annotations that were made before a photograph's orientation (EXIF, TIFF) was applied, turned upright like it.

Some tools write the size that the file has. Their boxes are those of the stored pixels, unless one reaches over the
stated sides and all lie within the upright ones: then the tool showed the photograph upright, and the size alone is
wrong.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.data.annotations import TOLERANCE, encoded, rle_functions
from slimdet.data.formats.records import ImageRecords, Packed, Records
from slimdet.errors import ImageError
from slimdet.images.decoding import size_and_orientation
from slimdet.images.orientation import BOX_TURNS, UPRIGHT

MOST = 20_000  # images of which the sides are looked up: two seconds

log = logging.getLogger(__name__)


def turn_upright(coco: dict[str, Any], folder: Path) -> int:
    """Turn sizes, boxes and segmentations, in place, of the images whose stated sides are those of the stored pixels.

    Of a data set of more than `MOST` images none is looked at.

    Args:
        coco: as `slimdet.data.coco.read_coco` gives it.
        folder: that the file names start from.

    Returns:
        How many images that were.
    """
    images: ImageRecords = coco["images"]
    turned, shapes = 0, dict[int, Any]()
    for place in range(len(images)) if len(images) <= MOST else ():
        try:
            (width, height), orientation = size_and_orientation(folder / images.names[place])
        except ImageError:  # whoever opens it says so
            continue
        if orientation not in BOX_TURNS or images.sizes[place].tolist() != [width, height] or width == height:
            continue
        records: Records = coco["annotations"]
        some = np.flatnonzero(records.image_id == images.ids[place])
        if not _is_upright(records.bbox[some], width, height):
            shapes |= _turn_records(records, some, orientation, (width, height))
        images.sizes[place] = height, width
        turned += 1
    if shapes:
        packed = coco["annotations"].segmentation
        kept = (shapes.get(place, shape) for place, shape in enumerate(packed))
        coco["annotations"].segmentation = Packed(kept)
    if turned:
        log.warning(
            "%d images have the size in the annotations that they had before their orientation (EXIF) was applied: "
            "what is annotated is turned with them",
            turned,
        )
    return turned


def _is_upright(boxes: np.ndarray, width: int, height: int) -> bool:
    """Whether boxes [N, 4] (x, y, w, h) fit into the upright image, and not all into the stored one."""
    ends = (boxes[:, :2] + boxes[:, 2:]).max(0, initial=0) - TOLERANCE
    return bool((ends <= (width, height)).all() and not (ends <= (height, width)).all())


def _turn_records(records: Records, places: np.ndarray, orientation: int, size: tuple[int, int]) -> dict[int, Any]:
    """Turn the boxes at some places; the turned segmentations by place, as all are packed anew at once."""
    turn = BOX_TURNS[orientation]
    for place in places.tolist():
        x, y, w, h = records.bbox[place].tolist()
        x1, y1, x2, y2 = turn((x, y, x + w, y + h), *size)
        records.bbox[place] = x1, y1, x2 - x1, y2 - y1
    given = {} if records.segmentation is None else {place: records.segmentation[place] for place in places.tolist()}
    return {place: _turned_shape(one, orientation, size) for place, one in given.items() if one is not None}


def _turned_shape(shape: Any, orientation: int, size: tuple[int, int]) -> Any:
    if not isinstance(shape, list):
        width, height = size
        bitmap = rle_functions().decode(encoded(shape, height, width))  # as stored: the sides change places
        upright = UPRIGHT[orientation](bitmap)
        return rle_functions().encode(np.asfortranarray(upright))
    turn = BOX_TURNS[orientation]
    polygons = (zip(polygon[::2], polygon[1::2], strict=True) for polygon in shape)
    return [[side for x, y in points for side in turn((x, y, x, y), *size)[:2]] for points in polygons]
