"""What is wrong with a COCO data set on disk: every fault, by file, id and reason.

The rules of a record are those of `slimdet.data.annotations`; what only the images can tell is added here.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimdet.data.annotations import Fault, by_id, sides
from slimdet.data.formats.annotated import from_windows
from slimdet.data.formats.reading import make_whole, read_lists
from slimdet.data.formats.record_faults import box_faults, id_faults, record_faults, without_mask
from slimdet.data.formats.records import NO_ID, Records
from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import read_image, size_and_orientation
from slimdet.images.orientation import BOX_TURNS
from slimdet.messages import printable

_KEPT = ("id", "file_name", "width", "height", "name", "supercategory")  # of images and categories
# What some tools write as text ("7") or with a point (7.0).
_WHOLE = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id",),
}


def check(annotations: str | Path, images: str | Path) -> list[Fault]:
    """Find every fault of a COCO data set, decoding all its images.

    Args:
        annotations: the COCO instances JSON.
        images: the folder that the file names in it start from.
    """
    try:
        coco = load(annotations)
    except DataError as error:
        return [Fault("unreadable annotations", str(annotations), None, str(error).removeprefix(f"{annotations}: "))]
    return [*file_faults(coco, str(annotations)), *image_faults(coco, images)]


def image_faults(coco: Mapping[str, Any], images: str | Path) -> Iterator[Fault]:
    """Yield the faults of the images themselves: missing, unreadable, of another size than is stated; all are decoded.

    Args:
        coco: the parsed annotations.
        images: the folder that the file names in it start from.
    """
    for record in coco["images"]:
        if isinstance(record, dict) and isinstance(record.get("file_name"), str):
            yield from _image_faults(record, Path(images) / record["file_name"])


def load(annotations: str | Path, masks: bool = True) -> dict[str, Any]:
    """A COCO instances JSON to check: images and categories as lists of dicts, annotations as `Records`.

    Of images, nothing but id, file_name, width and height is kept; without `masks`, no segmentation that is not needed.

    Raises:
        DataError: as `slimdet.data.formats.reading.read_lists`.
    """
    coco: dict[str, Any] = {"images": [], "categories": []}

    def blocks() -> Iterator[list[Any]]:
        for name, records in read_lists(annotations):
            make_whole(records, _WHOLE[name])
            if name == "annotations":
                yield records
            else:
                coco[name] += map(_slim, records)

    return coco | {"annotations": Records.of(blocks(), masks)}


def _slim(record: Any) -> Any:
    """An image or category without what nobody reads; a name of Windows becomes one of this system."""
    if not isinstance(record, dict):
        return record
    if isinstance(name := record.get("file_name"), str):
        record["file_name"] = from_windows(name)
    if isinstance(name := record.get("name"), str):
        record["name"] = printable(name)
    return {name: record[name] for name in _KEPT if name in record}


def file_faults(coco: Mapping[str, Any], file: str, masks: bool = True) -> Iterator[Fault]:
    """Yield the faults of the annotation file itself.

    Args:
        coco: as `load` gives it, or with a list of annotations.
        file: its name.
        masks: look at the segmentations too.
    """
    given = coco["annotations"]
    annotations = given if isinstance(given, Records) else Records.of([given], masks)
    known: dict[str, dict[int, Any]] = {}
    for name in ("images", "categories"):
        known[name], faults = by_id(coco, name)
        for number, (kind, reason) in faults:
            yield Fault(kind, file, number, reason)
    for number, _, (kind, reason) in id_faults(annotations):
        yield Fault(kind, file, number, reason)
    if (annotations.id == 0).any():
        yield Fault("annotation id 0", file, 0, "0 means 'unmatched' in COCO evaluation; number annotations from 1")
    for kind, reason in box_faults(annotations, known["images"]):
        yield Fault(kind, file, None, reason)
    if masks and (lacking := without_mask(annotations)):
        first = annotations.id[lacking[0]]
        reason = f"{len(lacking)} of {len(annotations)} annotations have no segmentation; masks need one each"
        yield Fault("missing mask", file, int(first), reason)
    if 0 in known["categories"]:
        yield Fault("category id 0", file, 0, "0 is the background to many detectors; number categories from 1")
    files: dict[str, int] = {}
    for number, record in known["images"].items():
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            yield Fault("malformed image", file, number, "no 'file_name'")
        elif (other := files.setdefault(name, number)) != number:
            yield Fault("image listed twice", file, number, f"image {other} is {name!r:.200} too")
        if sides(record) is None:
            stated = f"'width' is {record.get('width')!r} and 'height' {record.get('height')!r}, not pixels"
            yield Fault("malformed image", file, number, stated)
    names: set[str] = set()
    for number, record in known["categories"].items():
        name = record.get("name")
        if not isinstance(name, str):
            yield Fault("malformed category", file, number, f"'name' is {name!r}, not text")
        elif name in names:
            yield Fault("duplicate category name", file, number, f"another category is called {name!r} too")
        else:
            names.add(name)
    # All records, so that both of two with the same id are looked at.
    for place, (kind, reason) in record_faults(annotations, known["images"], known["categories"], masks):
        if annotations.id[place] != NO_ID:
            yield Fault(kind, file, int(annotations.id[place]), reason)


def _image_faults(record: dict[str, Any], path: Path) -> Iterator[Fault]:
    if not os.path.isfile(path):  # which says no to a name that cannot be one, where Path raises
        yield Fault("missing image", str(path), record.get("id"), "no such file")
        return
    try:
        height, width = read_image(path).shape[:2]
        orientation = size_and_orientation(path)[1]
    except ImageError as error:
        yield Fault("unreadable image", str(path), record.get("id"), str(error).removeprefix(f"{path}: "))
        return
    stated = (record.get("width"), record.get("height"))
    if stated == (width, height):
        return
    reason = f"{width}x{height} pixels, but the annotations say {stated[0]}x{stated[1]}"
    if stated == (height, width) and orientation in BOX_TURNS:
        yield Fault("size before orientation", str(path), record.get("id"), reason)
    else:
        yield Fault("wrong size", str(path), record.get("id"), reason)
