"""What is wrong with annotations that were read as columns; the rules themselves are in `slimdet.data.annotations`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from slimdet.data.annotations import TOLERANCE, Reason, annotation_faults, segmentation_fault, sides
from slimdet.data.formats.records import NO_ID, Records, places_of


def id_faults(records: Records) -> list[tuple[Any, int, Reason]]:
    """(id, place, reason) of annotations without an id of their own, as `slimdet.data.annotations.by_id` tells them."""
    found: list[tuple[Any, int, Reason]] = []
    for place in np.flatnonzero(records.id == NO_ID).tolist():
        record = records[place]
        number = record.get("id") if isinstance(record, Mapping) else None
        reason = f"entry {place} of 'annotations' has the id {number!r}, which is not a whole number of 64 bits"
        found.append((number, place, ("malformed annotation", reason)))
    first = np.zeros(len(records), bool)
    first[np.unique(records.id, return_index=True)[1]] = True
    for place in np.flatnonzero(~first & (records.id != NO_ID)).tolist():
        number = int(records.id[place])
        reason = f"entry {place} of 'annotations' repeats the id {number}; ids must be unique"
        found.append((number, place, ("duplicate annotation id", reason)))
    return sorted(found, key=lambda fault: fault[1])


def record_faults(
    records: Records, images: Mapping[int, Any], categories: Mapping[int, Any], masks: bool
) -> Iterator[tuple[int, Reason]]:
    """Yield (place, reason) of what is wrong with annotations or results, in their order.

    The rules are those of `annotation_faults`, which is asked about those alone that do not pass here.

    Args:
        records: as they were read.
        images, categories: the records that there are, by id.
        masks: whether to look at all segmentations; those that an area has yet to be told from are looked at anyway.
    """
    image_ids = np.array(sorted(images), np.int64)
    sizes = np.array([sides(images[number]) or (0, 0) for number in image_ids.tolist()], np.float64).reshape(-1, 2)
    image, known = places_of(records.image_id, image_ids)
    corners = records.bbox[:, :2] + records.bbox[:, 2:]  # [N, 2] right, bottom
    suspect = ~known | ~np.isin(records.category_id, np.array(list(categories), np.int64))
    if len(sizes):
        size = sizes[image]  # [N, 2] width, height
        outside = (records.bbox[:, :2] < -TOLERANCE) | (corners > size + TOLERANCE)
        suspect |= outside.any(1) & (size[:, 0] > 0)
    suspect[list(records.odd)] = True
    looked_at = np.isnan(records.area) | masks  # [N]
    shapes = records.segmentation
    for place in np.flatnonzero(suspect | (looked_at & (shapes is not None))).tolist():
        if suspect[place]:
            record = records[place]
            if isinstance(record, Mapping):
                for reason in annotation_faults(record, images, categories, masks or record.get("area") is None):
                    yield place, reason
        elif shapes is not None and (shape := shapes[place]):
            width, height = map(int, sizes[image[place]])
            if width and (reason := segmentation_fault(shape, width, height)):
                yield place, ("bad segmentation", reason)


def box_faults(records: Records, images: Mapping[int, Any]) -> Iterator[Reason]:
    """Yield what the boxes together look like: those of another format.

    Args:
        records: as they were read.
        images: the records that there are, by id.
    """
    sound = np.ones(len(records), bool)
    sound[list(records.odd)] = False
    boxes = records.bbox[sound]  # [N, 4]
    small = (boxes >= 0).all(1) & (boxes <= 1 + 1e-3).all(1)
    if count := int(small.sum()):
        reason = f"{count} of {len(boxes)} boxes are within 1x1 pixels: they may be relative to the image's sides, "
        kind = "relative boxes" if 2 * count >= len(boxes) else "boxes below a pixel"
        yield kind, reason + "where COCO has pixels"
    shapes = [sides(images.get(number) or {}) or (0, 0) for number in records.image_id.tolist()]
    limits = np.array(shapes, np.float64).reshape(-1, 2)[sound]
    over = (boxes[:, :2] + boxes[:, 2:] > limits + 1).any(1) & (limits > 0).all(1)
    corners = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= limits + 1).all(1)
    if len(boxes) and corners.all() and 5 * over.sum() >= len(boxes):
        reason = f"{over.sum()} of {len(boxes)} boxes reach outside their image, and all fit as [x1, y1, x2, y2]"
        yield "corners in place of sides", f"{reason}, where COCO has [x, y, width, height]"


def without_mask(records: Records) -> list[int]:
    """The places of those without a segmentation, in a file where others have one."""
    lacking = [] if records.segmentation is None else records.segmentation.absent.tolist()
    return lacking if len(lacking) < len(records) else []
