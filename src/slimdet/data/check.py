"""What is wrong with a COCO data set: every fault, by file, id and reason.

The rules of the annotation file live in `annotation_faults`, which reading a data set applies too; `check` adds what
only the images can tell.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdet.errors import DataError, ImageError
from slimdet.images.decoding import read_image
from slimdet.images.masks import decode_runs

LISTS = ("images", "annotations", "categories")
# Reading a data set goes on in spite of these: boxes are clipped, boxes without area left out, ids mapped to others.
HARMLESS = frozenset(
    {"zero-area box", "box outside image", "annotation id 0", "category id 0", "duplicate category name"}
)
_TOLERANCE = 0.5  # pixels that a box may reach over the edge: annotation tools round


@dataclass(frozen=True)
class Fault:
    """One fault. `id` is that of the image, annotation or category in question, None where it has none."""

    kind: str
    file: str
    id: Any
    reason: str

    def __str__(self) -> str:
        """One line: file, kind, id and reason."""
        return f"{self.file}: {self.kind}" + ("" if self.id is None else f" (id {self.id})") + f": {self.reason}"


def check(annotations: str | Path, images: str | Path) -> list[Fault]:
    """Find every fault of a COCO data set, decoding all its images.

    Args:
        annotations: the COCO instances JSON.
        images: the folder that the file names in it start from.
    """
    try:
        coco = load_coco(annotations)
    except DataError as error:
        return [Fault("unreadable annotations", str(annotations), None, str(error).removeprefix(f"{annotations}: "))]
    faults = list(annotation_faults(coco, str(annotations)))
    for record in coco["images"]:
        if isinstance(record, dict) and isinstance(record.get("file_name"), str):
            faults.extend(_image_faults(record, Path(images) / record["file_name"]))
    return faults


def load_coco(annotations: str | Path) -> dict[str, Any]:
    """Parse a COCO instances JSON, as far as making sure that it is one.

    Raises:
        DataError: no such file, not JSON, or without one of the lists images, annotations and categories.
    """
    try:
        coco = json.loads(Path(annotations).read_bytes())
    except OSError as error:
        raise DataError(f"{annotations}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{annotations}: is not JSON: {error}") from None
    if not isinstance(coco, dict):
        hint = "; it may be a list of detections" if isinstance(coco, list) else ""
        raise DataError(f"{annotations}: is not COCO instances JSON: a {type(coco).__name__}, not an object{hint}")
    missing = [name for name in LISTS if not isinstance(coco.get(name), list)]
    if missing:
        raise DataError(
            f"{annotations}: is not COCO instances JSON: no list {' and no list '.join(map(repr, missing))}"
        )
    return coco


def annotation_faults(coco: dict[str, Any], file: str, masks: bool = True) -> Iterator[Fault]:
    """Yield the faults of the annotation file itself; without `masks`, segmentations are not looked at."""
    known: dict[str, dict[int, dict[str, Any]]] = {}
    for name, what in zip(LISTS, ("image", "annotation", "category"), strict=True):
        known[name] = {}
        for place, record in enumerate(coco[name]):
            number = record.get("id") if isinstance(record, dict) else None
            if not isinstance(number, int):
                yield Fault(f"malformed {what}", file, number, f"entry {place} of {name!r} has no whole number as id")
            elif number in known[name]:
                yield Fault(f"duplicate {what} id", file, number, f"entry {place} of {name!r} repeats the id")
            else:
                known[name][number] = record
    if 0 in known["annotations"]:
        yield Fault("annotation id 0", file, 0, "0 means 'unmatched' in COCO evaluation; number annotations from 1")
    if 0 in known["categories"]:
        yield Fault("category id 0", file, 0, "0 is the background to many detectors; number categories from 1")
    for number, record in known["images"].items():
        if not isinstance(record.get("file_name"), str) or not record["file_name"]:
            yield Fault("malformed image", file, number, "no 'file_name'")
        for side in ("width", "height"):
            if not isinstance(record.get(side), int) or record[side] < 1:
                yield Fault("malformed image", file, number, f"'{side}' is {record.get(side)!r}, not pixels")
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
    for record in coco["annotations"]:
        if isinstance(record, dict) and isinstance(record.get("id"), int):
            for kind, reason in _one_annotation(record, known["images"], known["categories"], masks):
                yield Fault(kind, file, record["id"], reason)


def _one_annotation(
    record: dict[str, Any], images: dict[int, dict[str, Any]], categories: dict[int, dict[str, Any]], masks: bool
) -> Iterator[tuple[str, str]]:
    image_id, category_id = record.get("image_id"), record.get("category_id")
    image = images.get(image_id) if isinstance(image_id, int) else None
    if image is None:
        yield "unknown image", f"no image has the id {image_id!r}"
    if not isinstance(category_id, int) or category_id not in categories:
        yield "unknown category", f"no category has the id {category_id!r}"
    width, height = (image or {}).get("width"), (image or {}).get("height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        width = height = 0  # reported with the image
    yield from _box_faults(record.get("bbox"), width, height)
    for name in ("area", "iscrowd"):
        if record.get(name) is not None and not _all_finite([record[name]]):
            yield "malformed annotation", f"{name!r} is {record[name]!r}, not a number"
    shape = record.get("segmentation")
    if shape and width and (masks or record.get("area") is None):
        reason = _segmentation_fault(shape, width, height)
        if reason:
            yield "bad segmentation", reason


def _box_faults(box: Any, width: int, height: int) -> Iterator[tuple[str, str]]:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        yield "malformed box", f"bbox {box!r} is not [x, y, width, height]"
    elif not _all_finite(box):
        yield "NaN or infinite box", f"bbox {box}"
    elif box[2] < 0 or box[3] < 0:
        yield "negative box", f"bbox {box} has a negative width or height"
    elif box[2] == 0 or box[3] == 0:
        yield "zero-area box", f"bbox {box} has no width or no height"
    elif width:
        x, y, w, h = box
        if min(x, y) < -_TOLERANCE or x + w > width + _TOLERANCE or y + h > height + _TOLERANCE:
            yield "box outside image", f"bbox {box} reaches outside the image of {width}x{height}"


def _segmentation_fault(shape: Any, width: int, height: int) -> str:
    """Why polygons or a run-length encoding (RLE) cannot be made into a mask; empty if they can.

    Asked before pycocotools sees them: it crashes, or writes outside its memory, on some of these.
    """
    if isinstance(shape, list):
        for polygon in shape:
            if not isinstance(polygon, list) or not _all_finite(polygon):
                return "a polygon is not a list of finite numbers"
            if len(polygon) < 6 or len(polygon) % 2:
                return f"a polygon has {len(polygon)} numbers; it needs pairs, at least three"
            # The outline is followed pixel by pixel, outside the image too: far points would exhaust the memory.
            if max(map(abs, polygon)) > 10 * max(width, height):
                return f"a polygon reaches far outside the image of {width}x{height}"
        return ""
    if not isinstance(shape, dict) or "counts" not in shape or "size" not in shape:
        return "neither polygons nor an RLE with 'counts' and 'size'"
    if shape["size"] != [height, width]:
        return f"an RLE of size {shape['size']} in an image of [height, width] {[height, width]}"
    counts = shape["counts"]
    runs = decode_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and run >= 0 for run in runs):
        return "the 'counts' of an RLE are not run lengths"
    if sum(runs) != height * width:
        return f"the run lengths of an RLE add up to {sum(runs)}, not to {height} x {width} pixels"
    return ""


def _image_faults(record: dict[str, Any], path: Path) -> Iterator[Fault]:
    if not path.is_file():
        yield Fault("missing image", str(path), record.get("id"), "no such file")
        return
    try:
        height, width = read_image(path).shape[:2]
    except ImageError as error:
        yield Fault("unreadable image", str(path), record.get("id"), str(error).removeprefix(f"{path}: "))
        return
    stated = (record.get("width"), record.get("height"))
    if stated == (width, height):
        return
    reason = f"{width}x{height} pixels, but the annotations say {stated[0]}x{stated[1]}"
    if stated == (height, width):
        reason += "; they may have been made before its EXIF orientation was applied"
    yield Fault("wrong size", str(path), record.get("id"), reason)


def _all_finite(values: list[Any]) -> bool:
    try:
        return all(map(math.isfinite, values))
    except (TypeError, OverflowError):
        return False
