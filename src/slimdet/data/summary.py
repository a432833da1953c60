"""How much of what a data set holds: images, objects by class, their sizes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.data.annotations import sides
from slimdet.data.check import load

SMALL, MEDIUM = 32.0, 96.0  # COCO's limits: pixels of the side of a square of the same area


@dataclass(frozen=True)
class Summary:
    """What a data set holds; crowds and boxes without area are left out.

    Attributes:
        images: number of images, `empty` of them without objects.
        boxes: number of objects.
        crowds: number of annotations that neither train nor count: crowds, and objects marked difficult.
        per_image: largest number of objects in an image.
        classes: objects by class, in order of category id; classes without objects are there, with 0.
        small, medium, large: shares of the objects, 0..1, by the area of their boxes: below 32 x 32 pixels, below
            96 x 96, above. As many as there are boxes, or all 0.
        width, height: of the images in pixels, medians; 0 without images.
    """

    images: int
    empty: int
    boxes: int
    crowds: int
    per_image: int
    classes: dict[str, int]
    small: float
    medium: float
    large: float
    width: int
    height: int


def summary(annotations: str | Path) -> Summary:
    """What a COCO instances JSON holds; records with faults are left out.

    Raises:
        DataError: the file is not COCO instances JSON.
    """
    return summarize(load(annotations))


def summarize(coco: Mapping[str, Sequence[Any]], size: tuple[int, int] | None = None) -> Summary:
    """What COCO records hold; those with faults are left out.

    Args:
        coco: the lists `images`, `annotations` and `categories`.
        size: shorter side and limit of the longer one, in pixels, that images are resized to before their objects
            are called small, medium or large; without it as they are in the file.
    """
    shapes, names, sound = _sound(coco)
    counts = Counter(one["image_id"] for one in sound)
    by_class = Counter(names[one["category_id"]] for one in sound)
    found = areas(coco, size)  # [N]
    small, medium = (float(np.sum(found < side**2)) / max(len(sound), 1) for side in (SMALL, MEDIUM))
    width, height = np.median(list(shapes.values()), 0) if shapes else (0, 0)
    return Summary(
        images=len(coco["images"]),
        empty=len(shapes) - len(counts),
        boxes=len(sound),
        crowds=sum(1 for one in coco["annotations"] if isinstance(one, Mapping) and one.get("iscrowd")),
        per_image=max(counts.values(), default=0),
        classes={name: by_class[name] for name in names.values()},
        small=small,
        medium=medium - small,
        large=1 - medium if sound else 0.0,
        width=int(width),
        height=int(height),
    )


def areas(coco: Mapping[str, Sequence[Any]], size: tuple[int, int] | None = None) -> np.ndarray:
    """[N] areas of the objects' boxes in square pixels; the arguments are those of `summarize`."""
    shapes, _, sound = _sound(coco)
    scale = dict.fromkeys(shapes, 1.0)
    if size is not None:
        scale = {image: min(size[0] / min(shape), size[1] / max(shape)) for image, shape in shapes.items()}
    return np.array([one["bbox"][2] * one["bbox"][3] * scale[one["image_id"]] ** 2 for one in sound], float)


def _sound(coco: Mapping[str, Sequence[Any]]) -> tuple[dict[int, tuple[int, int]], dict[int, str], list[Any]]:
    """Width and height by image, name by category, and the annotations of these that are objects."""
    shapes = {image["id"]: shape for image in coco["images"] if _has_id(image) and (shape := sides(image))}
    categories = sorted((one for one in coco["categories"] if _has_id(one)), key=lambda one: one["id"])
    names = {one["id"]: str(one.get("name")) for one in categories}
    return shapes, names, [one for one in coco["annotations"] if _is_sound(one, shapes, names)]


def _has_id(record: Any) -> bool:
    return isinstance(record, Mapping) and isinstance(record.get("id"), int)


def _is_sound(one: Any, images: Mapping[Any, Any], names: Mapping[Any, str]) -> bool:
    try:
        _, _, width, height = one["bbox"]
        known = one["image_id"] in images and one["category_id"] in names
        return known and not one.get("iscrowd") and bool(0 < width < np.inf and 0 < height < np.inf)
    except (TypeError, KeyError, ValueError, AttributeError):
        return False
