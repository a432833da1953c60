"""PNG files that are not whole although their checksums are right: Pillow fills in black and says nothing."""

import zlib

import numpy as np
from PIL import Image

START = b"\x89PNG"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by kind of colour
# Interlaced: first column and row of each pass, and the steps between them.
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_PIECE = 2**14  # compressed bytes, which become 2**24 at most


def check_palette(image: Image.Image) -> None:
    """Refuse an opened PNG whose colours are missing.

    Raises:
        ValueError: it has a palette's numbers and no palette.
    """
    if image.mode == "P" and image.palette is None:
        raise ValueError("the PNG has no palette")


def decode(image: Image.Image, data: bytes) -> None:
    """Decode an opened PNG whole; one that is in doubt is inflated once more.

    Args:
        image: `data` as Pillow opened it.
        data: the file, whose checksums are right.

    Raises:
        OSError, ValueError: pixels are missing.
    """
    if data[28]:  # interlaced: what is missing is no row at the end
        _check_length(data, image.size, _PASSES)
    image.load()
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if not data[28] and not np.asarray(last_row).any():
        _check_length(data, image.size, ((0, 0, 1, 1),))


def _check_length(data: bytes, size: tuple[int, int], passes: tuple[tuple[int, int, int, int], ...]) -> None:
    width, height = size
    bits = data[24] * _CHANNELS[data[25]]
    wanted = sum(_length(-((x - width) // dx), -((y - height) // dy), bits) for x, y, dx, dy in passes)
    if not _inflates_to(data, wanted):
        raise ValueError("the PNG stops before its last pixels")


def _length(width: int, height: int, bits: int) -> int:
    """Bytes of the rows of one pass, each of which begins with the number of its filter."""
    return 0 if width < 1 else max(height, 0) * (1 + (width * bits + 7) // 8)


def _inflates_to(data: bytes, wanted: int) -> bool:
    """Whether a file's pixels are so many bytes, or more; they are counted, not kept."""
    inflater, found = zlib.decompressobj(), 0
    packed = _packed(data)
    for start in range(0, len(packed), _PIECE):
        found += len(inflater.decompress(packed[start : start + _PIECE]))
        if found >= wanted:
            return True
    return False


def _packed(data: bytes) -> bytes:
    """What the file's pixels are inflated from: the first IDAT chunk, and those that follow it at once."""
    at, parts = 8, []
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        elif parts:
            break
        at += 12 + size
    return b"".join(parts)
