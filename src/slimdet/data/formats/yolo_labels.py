"""A line of a YOLO label file: an object, everything relative to the image's sides.

A line is `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...` (an outline); keypoints may follow a box.
"""

from collections.abc import Sequence
from typing import Any

from slimdet.data.formats.annotated import boxed

MARGIN = 0.01  # that coordinates may lie outside 0..1: annotation tools round


def parse_object(
    words: Sequence[str], names: dict[int, str] | None, keypoints: int, width: int, height: int
) -> dict[str, Any] | None:
    """The words of a line as a COCO annotation; None where nothing of the box is inside the image.

    Args:
        words: numbers as text.
        names: of the classes by number from 0; None where any number is right.
        keypoints: numbers that follow a box.
        width, height: of the image in pixels.

    Raises:
        ValueError: they are no object.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise ValueError("something that is not a number") from None
    if keypoints and len(numbers) == 5 + keypoints:
        numbers = numbers[:5]
    if len(numbers) != 5 and (len(numbers) < 7 or len(numbers) % 2 == 0):
        raise ValueError(f"{len(numbers)} numbers; a box has 5 (class cx cy w h), an outline 7, 9, 11 ...")
    if not numbers[0].is_integer() or (numbers[0] < 0 if names is None else numbers[0] not in names):
        raise ValueError(
            f"class {words[0]} is not one of 0..{max(names)}" if names else f"class {words[0]} is no index"
        )
    category, values = int(numbers[0]) + 1, numbers[1:]
    if not all(-MARGIN <= value <= 1 + MARGIN for value in values):  # NaN is not
        raise ValueError("coordinates that are not relative to the image, 0..1")
    if len(values) == 4:
        cx, cy, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return boxed(category, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), width, height)
    xs = [min(max(x, 0.0), 1.0) * width for x in values[0::2]]
    ys = [min(max(y, 0.0), 1.0) * height for y in values[1::2]]
    annotation = boxed(category, (min(xs), min(ys), max(xs), max(ys)), width, height)
    if annotation is not None:
        outline = [round(value, 3) for point in zip(xs, ys, strict=True) for value in point]
        annotation |= {"segmentation": [outline], "area": round(_area(xs, ys), 3)}
    return annotation


def reaches_over(words: Sequence[str], width: int, height: int) -> bool:
    """Whether the box of a line that `parse_object` took reaches more than a pixel over its image's edge."""
    cx, cy, w, h = (float(word) for word in words[1:5])
    return abs(2 * cx - 1) + w > 1 + 2 / width or abs(2 * cy - 1) + h > 1 + 2 / height


def _area(xs: list[float], ys: list[float]) -> float:
    """Area of a polygon by the shoelace formula, in square pixels."""
    doubled = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))
    return abs(doubled) / 2
