"""JPEG files: decoded whole or refused, and at a fraction of their size where that is wanted.

libjpeg fills up what is missing of a file with one colour and says nothing. Here such files are found out.
"""

import io
from contextlib import suppress

import numpy as np
from PIL import Image

START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = b"\xff\xda"
MOST_SCANS = 10**9  # scans times pixels: each scan goes through all pixels, and a few bytes make one
# libjpeg looks up to 8 bytes ahead. These are ones, which no JPEG uses as a code (each is a byte 0xff, escaped).
_AHEAD = 8 * b"\xff\x00"


def check_ended(data: bytes) -> None:
    """Refuse a file that is cut off.

    Raises:
        ValueError: there is no end marker.
    """
    scan = _first_scan(data)
    if scan is not None and data.find(_END, scan) < 0:
        raise ValueError("the JPEG is cut off (no end marker)")


def check_scans(data: bytes, pixels: int) -> None:
    """Refuse a file that is made of so many scans that decoding it takes long; ordinary ones have ten.

    Raises:
        ValueError: there are too many for an image of so many pixels.
    """
    scans = data.count(_SCAN, _first_scan(data) or 0)
    if scans > 20 and scans * pixels > MOST_SCANS:
        raise ValueError(f"the JPEG comes in {scans} scans, which take long to decode; save it anew")


def without_end(data: bytes) -> bytes:
    """The file without its end marker: libjpeg then waits for bytes that are missing, instead of filling in."""
    return data if _first_scan(data) is None else data[: _end(data)].rstrip(b"\xff") + _AHEAD


def decoded(image: Image.Image, data: bytes, factor: int) -> Image.Image:
    """An image with all its pixels or, where the file allows it, with one of each `factor` along both axes.

    That saves most of the time: libjpeg then computes fewer coefficients. It has to divide both sides, so that no pixel
    stands for less than the others.

    What comes in several scans (a progressive JPEG) libjpeg decodes no earlier than at the end marker. Such a file is
    decoded whole, with its end, and looked at afterwards.

    Args:
        image: `without_end(data)` as Pillow opened it, not yet decoded.
        data: the file.
        factor: 1, 2, 4 or 8.

    Raises:
        OSError, ValueError: pixels are missing.
    """
    if _first_scan(data) is not None and not image.info.get("progressive"):
        if not any(side % factor for side in image.size):
            image.draft(None, (image.width // factor, image.height // factor))
        with suppress(OSError):
            image.load()
            return image
    whole = Image.open(io.BytesIO(data), formats=("JPEG",))
    whole.load()
    _check_filled(whole, data)
    return whole


def _check_filled(image: Image.Image, data: bytes) -> None:
    """Refuse an image whose pixels stop before the end marker; only one in doubt is decoded once more.

    Bytes that are put before the end marker are skipped when all pixels are there, and become pixels when they are not.
    """
    right, bottom = image.width - 1, image.height - 1
    left, top = max(right - 1, right // 8 * 8), max(bottom - 1, bottom // 8 * 8)  # within the last block of 8x8 pixels
    corner = np.asarray(image.crop((left, top, right + 1, bottom + 1)))
    if (corner != corner[0, 0]).any():  # not filled
        return
    more = bytes(range(1, 129))  # no 0xff, which would make a marker of what follows
    end = _end(data)
    longer = data[:end].rstrip(b"\xff") + more + data[end:]
    with Image.open(io.BytesIO(longer), formats=("JPEG",)) as other:
        if other.tobytes() != image.tobytes():
            raise ValueError("the JPEG stops before its last pixels")


def _end(data: bytes) -> int:
    """Where the end marker is."""
    return data.find(_END, _first_scan(data))


def _first_scan(data: bytes) -> int | None:
    """Where the pixels begin: past the header's segments, one of which may hold a whole JPEG as a thumbnail."""
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xda":
            return at
        at += 1 if marker == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4], "big")  # 0xff may be repeated
    return None
