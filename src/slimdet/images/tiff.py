"""Kinds of TIFF that Pillow decodes to wrong values without a word: put right where that can be, else refused."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImagePalette

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
UNREAD = "a TIFF of a kind that is not read, or damaged; save it with 8 bits a sample"
_BITS, _PHOTOMETRIC, _PLANAR, _PALETTE, _FORMAT = 258, 262, 284, 320, 339  # tags
_MIN_IS_WHITE, _IN_PLANES = 0, 2
_UNSIGNED, _SIGNED = 1, 2


def check_kind(image: Any) -> None:
    """Refuse an opened TIFF whose pixels would be wrong.

    Raises:
        ValueError: it says what they are.
    """
    tags = image.tag_v2
    bits, kind = max(tags.get(_BITS, (1,))), tags.get(_FORMAT, (_UNSIGNED,))[0]
    if kind == _SIGNED and bits == 8:
        raise ValueError("a TIFF of signed 8-bit values; save it with unsigned ones")
    if tags.get(_PLANAR) == _IN_PLANES and bits > 8:
        raise ValueError(f"a TIFF of {bits}-bit colours in separate planes; save it pixel by pixel, or in 8 bits")
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE and image.mode in ("F", "I"):
        raise ValueError("a TIFF of 32-bit greys in which 0 is white; save it with 0 as black")


def widen_palette(image: Any) -> None:
    """Take the colours of an opened TIFF for 8-bit ones where none is above 255, as libtiff does; 16 are the rule."""
    colours = image.tag_v2.get(_PALETTE, ())
    if image.mode in ("P", "PA") and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def grey_values(values: NDArray, image: Any) -> NDArray:
    """Values [h, W] of a decoded TIFF in deep greys as they are meant.

    Unsigned where they are, black being the least, and 12 bits brought to 16.

    Args:
        values: of any of its rows, as Pillow has them.
        image: the TIFF.
    """
    tags = image.tag_v2
    if image.mode == "I" and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        return values.view(np.uint32)  # Pillow takes the upper half of them for negative
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        return 65535 - values.astype(np.uint16)
    if image.mode == "I;16" and tags.get(_BITS) == (12,):
        return values << 4 | values >> 8
    return values
