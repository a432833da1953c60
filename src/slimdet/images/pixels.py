"""Pixels of any kind as 8-bit RGB: deep greys, transparency, colour profiles, arrays."""

import numpy as np
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images import tiff
from slimdet.images.colours import in_srgb

_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def rescale_transparency(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to the 8 bits of its pixels: Pillow leaves it at the file's bit depth."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and colour < 2**depth < 2**8:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple) and depth == 16 and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: colour profiles applied, deep greys scaled, what shows through is white."""
    if image.mode in _DEEP_GREY:
        return _deep_grey_to_rgb(image)
    if not image.has_transparency_data:
        return in_srgb(image).convert("RGB")
    rgba = in_srgb((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    values = tiff.grey_values(image) if image.format == "TIFF" else np.asarray(image)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        values = values.astype(np.uint16)  # some Pillow versions widen 16-bit files to 32
    grey = _to_bytes(values)
    transparent = image.info.get("transparency")  # the one grey value that stands for "nothing here"
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


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
    return np.array(to_rgb(Image.fromarray(pixels)))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale pixel values of any type to uint8.

    8 bits stay and 16 bits are divided by 257. Other types do not tell their range, so the values do: 0..1 (floats
    only) is multiplied by 255, 0..255 stays, 0..65535 (integers only) is divided by 257, anything else is stretched
    from its own smallest and largest value.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values * np.uint8(255)
    floats = values.dtype.kind == "f"
    if floats and not np.isfinite(values).all():
        raise ValueError("NaN or infinite pixel values")
    low, high = float(values.min()), float(values.max())
    if values.dtype == np.uint16 or (not floats and low >= 0 and 255 < high <= 65535):
        low, high = 0.0, 65535.0
    elif floats and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
