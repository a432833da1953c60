"""Images at the size that a detector resizes them to, as bytes: what is large is made small before it becomes floats.

W x H pixels of an image, w x h once it is resized.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # width, height

REDUCTIONS = (8, 4, 2)  # those in which a JPEG can be decoded
_ONE = 256  # weights are whole numbers of 1/256


class Sides(NamedTuple):
    """What a detector resizes images to.

    Attributes:
        shorter: the shorter side, pixels.
        longest: the longer side's limit.
        beforehand: whether it takes images that were resized already; one that does not (it makes squares of them, or
            pastes masks by itself) gets them whole.
    """

    shorter: int
    longest: int
    beforehand: bool = True


def fitted(size: Size, sides: Sides) -> Size:
    """The size (w, h) to resize an image to for a detector: the detector's own, or the image's where that is less.

    As torchvision's `GeneralizedRCNNTransform` has it, which then leaves the image as it is; without the pixel that its
    floating point numbers lose in some sizes.
    """
    low, high = min(size), max(size)
    by_longest = sides.longest * low < sides.shorter * high
    part, whole = (sides.longest, high) if by_longest else (sides.shorter, low)
    if part >= whole or not sides.beforehand:
        return size
    width, height = (max(1, side * part // whole) for side in size)
    return width, height


def reduction(size: Size, sides: Sides) -> int:
    """How many pixels along each axis are averaged to one before an image is resized: 1, 2, 4 or 8.

    At least two are left for each that the detector gets. Up to four times its size an image is thus resized as in
    training, without a low-pass; a larger one would give it noise that no training image has.
    """
    width, height = fitted(size, sides)
    return next((one for one in REDUCTIONS if size[0] >= 2 * one * width and size[1] >= 2 * one * height), 1)


def resize(pixels: NDArray[np.uint8], size: Size, cells: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Resize as detectors do in training and inside: bilinear without low-pass, half-pixel centres.

    Args:
        pixels: [H, W, 3].
        size: (w, h).
        cells: the part of `pixels` that is the image, (width, height) from the upper left corner; by default all.

    Returns:
        uint8 [h, w, 3], within one level of what torch gives.
    """
    height, width = pixels.shape[:2]
    across, down = cells or (width, height)
    left, right, right_share = _between(across, width, size[0])
    upper, lower, lower_share = _between(down, height, size[1])

    def rows(places: NDArray[np.intp]) -> NDArray[np.uint32]:
        lines = pixels.take(places, axis=0)
        one, other = (lines.take(columns, axis=1).astype(np.uint16) for columns in (left, right))
        return (one * (_ONE - right_share) + other * right_share).astype(np.uint32)  # no more than 16 bits so far

    share = lower_share[:, None]
    mixed = rows(upper) * (_ONE - share) + rows(lower) * share  # in 1/65536
    return ((mixed + _ONE**2 // 2) >> 16).astype(np.uint8)


def _between(extent: float, count: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint16]]:
    """For each of `wanted` pixels, those before and behind it, [wanted], and the share of the latter, [wanted, 1]."""
    place = np.maximum((np.arange(wanted) + 0.5) * (extent / wanted) - 0.5, 0)
    before = np.minimum(place.astype(np.intp), count - 1)
    share = np.rint((place - before) * _ONE).astype(np.uint16)
    return before, np.minimum(before + 1, count - 1), share[:, None]
