"""Pixels of any kind as 8-bit RGB: deep greys, transparency, colour profiles, arrays."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images import tiff
from slimdet.images.colours import in_srgb

Pixels: TypeAlias = NDArray[np.uint8]
_BAND = 2**20  # pixels that are converted at a time
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def rescale_transparency(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to the 8 bits of its pixels: Pillow leaves it at the file's bit depth."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and colour < 2**depth < 2**8:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple) and depth == 16 and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def to_rgb(image: Image.Image) -> Pixels:
    """A decoded image as uint8 [H, W, 3]: colour profiles applied, deep greys scaled, what shows through is white.

    Band by band, which is quicker, and takes little memory beside the image and what becomes of it.

    Raises:
        ValueError: NaN or infinite values.
    """
    convert = _deep_grey(image) if image.mode in _DEEP_GREY else _colours
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for top, band in _bands(image):
        rgb[top : top + band.height] = convert(band)
    return rgb


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Rows of an image from the first on, some at a time: the first one's number, and what they show."""
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _colours(band: Image.Image) -> np.ndarray:
    """[h, w, 3]."""
    if not band.has_transparency_data:
        return np.asarray(in_srgb(band).convert("RGB"))
    rgba = in_srgb(band.convert("LA" if band.mode in ("L", "La", "LA") else "RGBA")).convert("RGBA")
    white = Image.new("RGBA", band.size, "white")
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def _deep_grey(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """What makes 8 bits [h, w, 3] of a band of an image in deep greys, whose range is the whole image's."""

    def values_of(band: Image.Image) -> np.ndarray:
        values = np.asarray(band)
        if image.format == "TIFF":
            return tiff.grey_values(values, image)
        # Some Pillow versions widen 16-bit files to 32.
        return values.astype(np.uint16) if image.mode == "I" and image.format in ("PNG", "PPM") else values

    extents = [_extent(values_of(band)) for _, band in _bands(image)]
    lows, highs = zip(*extents, strict=True)
    scale = _scale(values_of(image.crop((0, 0, 1, 1))).dtype, min(lows), max(highs))
    profile = image.info.get("icc_profile")
    transparent = image.info.get("transparency")  # the one grey value that stands for "nothing here"

    def convert(band: Image.Image) -> np.ndarray:
        values = values_of(band)
        grey = Image.fromarray(_scaled(values, *scale))
        if values.dtype.itemsize == 2 and profile is not None:  # none is about values that were stretched
            grey.info["icc_profile"] = profile
        rgb = np.asarray(in_srgb(grey).convert("RGB"))
        if isinstance(transparent, int):
            rgb = np.where((values == transparent)[:, :, None], np.uint8(255), rgb)
        return rgb

    return convert


def array_to_rgb(array: np.ndarray) -> np.ndarray:
    """An array [H, W] or [H, W, 1..4] of any numbers as uint8 [H, W, 3].

    Raises:
        ImageError: it is no image.
    """
    if array.ndim not in (2, 3) or array.dtype.kind not in "buif" or array.size == 0:
        raise ImageError(
            f"an array of shape {array.shape} and type {array.dtype} is no image; give [H, W] or [H, W, 1..4]"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] > 4:
        raise ImageError(f"an array of shape {array.shape} is no image; the channels, 1 to 4, come last")
    try:
        pixels = np.ascontiguousarray(_to_bytes(array))
    except ValueError as error:
        raise ImageError(f"an array of shape {array.shape} is no image: {error}") from None
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels
    return to_rgb(Image.fromarray(pixels))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale pixel values of any type to uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    scale = _scale(values.dtype, *_extent(values))
    found = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND // values[0].size)
    for top in range(0, len(values), rows):
        found[top : top + rows] = _scaled(values[top : top + rows], *scale)
    return found


def _extent(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest of values.

    Raises:
        ValueError: there is one that is none.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise ValueError("NaN or infinite pixel values")
    return low, high


def _scale(dtype: np.dtype, low: float, high: float) -> tuple[float, float]:
    """Which values become 0 and 255, of an image with values from `low` to `high`.

    16 bits are divided by 257. Other types do not tell their range, so the values do: 0..1 (floats only; resizing
    may leave a tenth more) is multiplied by 255, 0..255 stays, 0..65535 (integers only) is divided by 257, anything
    else is stretched from its own smallest and largest value.
    """
    floats = dtype.kind == "f"
    if (dtype.kind, dtype.itemsize) == ("u", 2) or (not floats and low >= 0 and 255 < high <= 65535):
        return 0.0, 65535.0
    if floats and low >= -0.1 and high <= 1.1:
        return 0.0, 1.0
    if low >= 0 and high <= 255:
        return 0.0, 255.0
    return low, high


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8: 0 for `low`, 255 for `high`."""
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
