"""What every format is read into before it is written as COCO."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimdet.errors import DataError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)


@dataclass
class AnnotatedImage:
    """An image and its objects: COCO annotations without `id` and `image_id`."""

    path: Path
    width: int
    height: int
    objects: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class AnnotatedSet:
    """Class names by category id (from 1), and the images of each split ("train", "val")."""

    classes: dict[int, str]
    splits: dict[str, list[AnnotatedImage]]


def boxed(category_id: int, corners: tuple[float, float, float, float], width: int, height: int) -> dict[str, Any]:
    """A COCO annotation of the box (x1, y1, x2, y2 in pixels), clipped to the image.

    Raises:
        ValueError: nothing of the box is inside the image.
    """
    left, top = max(0.0, corners[0]), max(0.0, corners[1])
    w, h = min(float(width), corners[2]) - left, min(float(height), corners[3]) - top
    if not (w > 0 and h > 0):
        raise ValueError("a box without area inside the image")
    # Three decimals are more than any annotation holds, and keep float noise out of the file.
    left, top, w, h = (round(value, 3) for value in (left, top, w, h))
    return {"category_id": category_id, "bbox": [left, top, w, h], "area": round(w * h, 3), "iscrowd": 0}


def images_in(folder: Path) -> list[Path]:
    """All image files under a folder, sorted; hidden ones (macOS leaves `._photo.jpg`) aside."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not empty, with their numbers from 1.

    Raises:
        DataError: the file is not text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file}: is not text") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
