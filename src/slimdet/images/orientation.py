"""How a photograph was held: which way its pixels and boxes are turned to stand upright."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image

_WIDTH, _HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112  # TIFF tags
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # of pixels [H, W, 3]; views of them
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}

Box: TypeAlias = tuple[float, float, float, float]
Turn: TypeAlias = Callable[[Box, int, int], Box]
# How a box of the stored pixels lies in the upright image of w x h, where its sides change places.
BOX_TURNS: dict[int, Turn] = {
    5: lambda box, w, h: (box[1], box[0], box[3], box[2]),
    6: lambda box, w, h: (w - box[3], box[0], w - box[1], box[2]),
    7: lambda box, w, h: (w - box[3], h - box[2], w - box[1], h - box[0]),
    8: lambda box, w, h: (box[1], h - box[2], box[3], h - box[0]),
}


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) once the orientation is applied; of an image that is not decoded yet."""
    if orientation(image) not in (5, 6, 7, 8):
        return image.size
    # Newer versions of Pillow already swap the sides of a TIFF that is to be turned: its tags are as stored.
    tags = getattr(image, "tag_v2", {})
    return tags.get(_HEIGHT, image.height), tags.get(_WIDTH, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1..8; 1 (upright) where there is none or where the EXIF block itself is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata only: the pixels are whole
        return 1
