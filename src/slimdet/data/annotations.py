"""The rules that COCO annotations have to follow.

The rules are told once: `slimdet check` lists every fault, reading a data set refuses the first that is not in
`HARMLESS`, and `slimdet.evaluation` holds truth and detections to the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from types import ModuleType
from typing import Any

import numpy as np

from slimdet.errors import ConfigError
from slimdet.images.masks import decode_runs
from slimdet.messages import printable

LISTS = {"images": "image", "annotations": "annotation", "categories": "category"}
# What is wrong with these can be put right: boxes are clipped, boxes without area left out, ids mapped to others,
# images turned; or it may be meant so.
HARMLESS = frozenset(
    {
        "zero-area box",
        "box outside image",
        "annotation id 0",
        "category id 0",
        "duplicate category name",
        "missing mask",
        "size before orientation",
        "boxes below a pixel",
        "image listed twice",
    }
)
MENDED = HARMLESS - {"missing mask"}  # whatever the data set is read for
TOLERANCE = 0.5  # pixels that a box may reach over the edge: annotation tools round
LARGEST = 1e12  # keeps products of coordinates finite: an IoU of infinity by infinity would count as a match


@dataclass(frozen=True)
class Fault:
    """One fault. `id` is that of the image, annotation or category in question, None where it has none."""

    kind: str
    file: str
    id: Any
    reason: str

    def __str__(self) -> str:
        """One line: file, kind, id and reason, of which values of any length are a part."""
        name = "" if self.id is None else f" (id {self.id!s:.80})"
        return printable(f"{self.file}: {self.kind}{name}: {self.reason:.600}")


# ------------------------------------------------------------------------------------------------- rules

Reason = tuple[str, str]  # kind of fault, what is wrong


def is_number(value: Any) -> bool:
    """Whether it is a number (numpy's too) that can be reckoned with: not NaN, not infinite, not beyond 1e12."""
    return isinstance(value, Real) and abs(float(value)) <= LARGEST


def by_id(coco: Mapping[str, Any], name: str) -> tuple[dict[int, Any], list[tuple[Any, Reason]]]:
    """The records of one of `LISTS` by id, and (id, reason) of those without one of their own."""
    known: dict[int, Any] = {}
    faults: list[tuple[Any, Reason]] = []
    for place, record in enumerate(coco[name]):
        number = record.get("id") if isinstance(record, Mapping) else None
        if not isinstance(number, Integral) or abs(int(number)) >= 2**63:
            reason = f"entry {place} of {name!r} has the id {number!r}, which is not a whole number of 64 bits"
            faults.append((number, (f"malformed {LISTS[name]}", reason)))
        elif number in known:
            reason = f"entry {place} of {name!r} repeats the id {number}; ids must be unique"
            faults.append((number, (f"duplicate {LISTS[name]} id", reason)))
        else:
            known[int(number)] = record
    return known, faults


def annotation_faults(
    record: Mapping[str, Any], images: Mapping[int, Any], categories: Mapping[int, Any], masks: bool = True
) -> Iterator[Reason]:
    """Yield what is wrong with an annotation or a detection.

    Args:
        record: image_id, category_id, bbox, and perhaps area, iscrowd, score and segmentation.
        images, categories: the records that there are, by id.
        masks: whether to look at the segmentation too.
    """
    image_id, category_id = record.get("image_id"), record.get("category_id")
    image = images.get(int(image_id)) if isinstance(image_id, Integral) else None
    if image is None:
        yield "unknown image", f"no image of the {len(images)} has the id {image_id!r}"
    if not isinstance(category_id, Integral) or int(category_id) not in categories:
        yield "unknown category", f"no category of the {len(categories)} has the id {category_id!r}"
    width, height = sides(image or {}) or (0, 0)  # where there are none, that is a fault of the image
    yield from _box_faults(record.get("bbox"), width, height)
    for name in ("area", "iscrowd", "score"):
        if record.get(name) is not None and not is_number(record[name]):
            yield "malformed annotation", f"{name!r} is {record[name]!r}, not a finite number"
    shape = record.get("segmentation")
    if masks and shape and width and (reason := segmentation_fault(shape, width, height)):
        yield "bad segmentation", reason


def sides(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """(width, height) of an image's record in pixels; None where it does not say."""
    width, height = image.get("width"), image.get("height")
    return (width, height) if _is_side(width) and _is_side(height) else None  # pyright: ignore[reportReturnType]


def _is_side(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) > 0


def _box_faults(box: Any, width: int, height: int) -> Iterator[Reason]:
    if not isinstance(box, list | tuple | np.ndarray) or len(box) != 4 or not all(isinstance(v, Real) for v in box):
        yield "malformed box", f"bbox {box!r} is not [x, y, width, height]"
        return
    x, y, w, h = map(float, box)
    stated = f"bbox {list(box)}"
    if wrong := [value for value in box if not is_number(value)]:
        yield "NaN or infinite box", f"{stated}: {wrong[0]} is not a finite number"
    elif w < 0 or h < 0:
        yield "negative box", f"{stated} has a negative width or height"
    elif w == 0 or h == 0:
        yield "zero-area box", f"{stated} has no width or no height"
    elif width and (min(x, y) < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE):
        yield "box outside image", f"{stated} reaches outside the image of {width}x{height}"


def segmentation_fault(shape: Any, width: int, height: int) -> str:
    """Why polygons or a run-length encoding (RLE) cannot be made into a mask; empty if they can.

    Asked before pycocotools sees them: it crashes, or writes outside its memory, on some of these.
    """
    if isinstance(shape, list):
        for polygon in shape:
            if not isinstance(polygon, list) or not all(map(is_number, polygon)):
                return "a polygon is not a list of finite numbers"
            if len(polygon) < 6 or len(polygon) % 2:
                return f"a polygon has {len(polygon)} numbers; it needs pairs, at least three"
            # The outline is followed pixel by pixel, outside the image too: far points would exhaust the memory.
            if max(map(abs, polygon)) > 10 * max(width, height):
                return f"a polygon reaches far outside the image of {width}x{height}"
        return ""
    if not isinstance(shape, Mapping) or "counts" not in shape or "size" not in shape:
        return "neither polygons nor an RLE with 'counts' and 'size'"
    if not isinstance(shape["size"], Sequence) or list(shape["size"]) != [height, width]:
        return f"an RLE of size {shape['size']} in an image of [height, width] {[height, width]}"
    counts = shape["counts"]
    if isinstance(counts, str | bytes):
        runs = decode_runs(counts)
    else:
        whole = isinstance(counts, list) and all(isinstance(run, int) and abs(run) <= LARGEST for run in counts)
        runs = np.array(counts, np.int64) if whole else None
    if runs is None or (runs < 0).any():
        return "the 'counts' of an RLE are not run lengths"
    if (total := int(runs.sum())) != height * width:
        return f"the run lengths of an RLE add up to {total}, not to {height} x {width} pixels"
    return ""


# ------------------------------------------------------------------------------------------------- masks


def rle_functions() -> ModuleType:
    """pycocotools' run-length functions (encode, merge, iou, ...), needed whichever backend evaluates."""
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        raise ConfigError("masks and evaluation need pycocotools; get it with: pip install 'slimdet[train]'") from None


def encoded(shape: Any, width: int, height: int) -> Any:
    """A segmentation without faults (polygons, run lengths or compressed ones) as compressed RLE."""
    masks = rle_functions()
    if isinstance(shape, list):
        return masks.merge(masks.frPyObjects(shape, height, width))
    return masks.frPyObjects(dict(shape), height, width) if isinstance(shape["counts"], list) else dict(shape)
