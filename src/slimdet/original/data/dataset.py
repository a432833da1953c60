"""The images a config names, with their annotations and proposals.

N proposals of an image.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.data.annotations import LISTS
from slimdet.data.formats.reading import load_coco
from slimdet.errors import ConfigError, DataError
from slimdet.original.configs.config import Config
from slimdet.original.data.unpickle import unpickle


@dataclass(frozen=True)
class Picture:
    """One image: its id, its file, and its (height, width) as the annotations give it, if they do."""

    id: int
    path: Path
    size: tuple[int, int] | None


@dataclass(frozen=True)
class PictureSet:
    """All images of a split, in the order of the annotation file.

    Attributes:
        coco: the parsed annotations, in COCO's form.
        category_ids: in the order of the file; label k belongs to category_ids[k - 1].
        classes: their names.
        proposals: for each image inclusive boxes [N, 4], or [N, 5] with scores; None where the config names no file.
    """

    coco: dict[str, Any]
    pictures: tuple[Picture, ...]
    category_ids: tuple[int, ...]
    classes: tuple[str, ...]
    proposals: list[np.ndarray] | None

    @property
    def image_ids(self) -> list[int]:
        return [picture.id for picture in self.pictures]


def read_annotations(path: str | Path) -> dict[str, Any]:
    """A COCO file, or the original's own list of images (pickle or JSON), as COCO annotations.

    Raises:
        DataError: neither of them, or unreadable.
    """
    path = Path(path)
    if path.suffix in (".pkl", ".pickle"):
        return _from_list(unpickle(path), str(path))
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return load_coco(path)  # says what is wrong
    if isinstance(found, list):
        return _from_list(found, str(path))
    whole = isinstance(found, dict) and all(isinstance(found.get(name), list) for name in LISTS)
    return found if whole else load_coco(path)


def read_set(dataset: Config) -> PictureSet:
    """The images of a config's `data.test`, `data.val` or `data.train`.

    Raises:
        DataError: malformed annotations or proposals, or proposals for another number of images.
    """
    coco = read_annotations(dataset.ann_file)
    root = Path(dataset.img_prefix)
    pictures = {}
    for image in coco["images"]:
        if not isinstance(image, dict) or not isinstance(image.get("id"), int) or not image.get("file_name"):
            raise DataError(f"{dataset.ann_file}: image {str(image)[:80]} lacks a whole number id or a file_name")
        height, width = image.get("height"), image.get("width")
        size = None
        if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
            size = (height, width)
        pictures[image["id"]] = Picture(image["id"], root / image["file_name"], size)
    categories = {category["id"]: str(category.get("name", category["id"])) for category in coco["categories"]}
    proposals = None
    if dataset.proposal_file is not None:
        proposals = _proposals(dataset.proposal_file, len(pictures), dataset.num_max_proposals)
    return PictureSet(coco, tuple(pictures.values()), tuple(categories), tuple(categories.values()), proposals)


def check_classes(pictures: PictureSet, classes: int, annotations: str) -> None:
    """Refuse annotations whose categories cannot be the detector's K classes.

    Raises:
        ConfigError: their numbers differ.
    """
    if classes and len(pictures.category_ids) != classes:
        raise ConfigError(
            f"{annotations} has {len(pictures.category_ids)} categories, the detector {classes} classes; a label is a "
            f"category's place in the file: list all categories, or set num_classes to {len(pictures.category_ids) + 1}"
        )


def _proposals(path: str, images: int, most: int | None) -> list[np.ndarray]:
    found = unpickle(path)
    if not isinstance(found, list) or len(found) != images:
        what = f"{len(found)} entries" if isinstance(found, list) else f"a {type(found).__name__}"
        raise DataError(f"{path} holds {what}, but there are {images} images; make it with tools/test.py --out")
    checked = []
    for index, boxes in enumerate(found):
        boxes = np.asarray(boxes)
        if boxes.size == 0:
            boxes = np.zeros((0, 5), np.float32)
        if boxes.dtype.kind not in "fiu" or boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
            raise DataError(f"{path}: entry {index} is not an array [n, 4] or [n, 5] of boxes")
        if not np.isfinite(boxes).all():
            raise DataError(f"{path}: entry {index} has boxes that are not finite")
        checked.append(boxes[:most].astype(np.float32))
    return checked


def _from_list(entries: Any, path: str) -> dict[str, Any]:
    """The original's list of {filename, width, height, ann}, whose boxes are inclusive and whose labels are ids."""
    images, annotations, labels = [], [], set()
    try:
        for number, entry in enumerate(entries):
            height, width = int(entry["height"]), int(entry["width"])
            images.append({"id": number, "file_name": entry["filename"], "height": height, "width": width})
            ann = entry.get("ann") or {}
            for suffix, crowd in (("", 0), ("_ignore", 1)):
                boxes = np.asarray(ann.get(f"bboxes{suffix}", ()), float).reshape(-1, 4)
                given = ann.get(f"labels{suffix}")
                for box, label in zip(boxes.tolist(), _labels(given, len(boxes)), strict=True):
                    annotations.append(_annotation(len(annotations) + 1, number, box, label, crowd))
                    labels.add(label)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is not a list of images with filename, width, height and ann: {error}") from None
    categories = [{"id": label, "name": str(label)} for label in range(1, max(labels, default=0) + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _labels(given: Any, count: int) -> Sequence[int]:
    return [1] * count if given is None else [int(label) for label in np.asarray(given).reshape(-1)]


def _annotation(number: int, image: int, box: list[float], label: int, crowd: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    size = [max(x2 - x1 + 1, 0.0), max(y2 - y1 + 1, 0.0)]
    found = {"id": number, "image_id": image, "category_id": label, "bbox": [x1, y1, *size]}
    return {**found, "area": size[0] * size[1], "iscrowd": crowd}
