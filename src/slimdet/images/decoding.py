"""Any image to RGB pixels, safely. numpy and Pillow only: the runtime reads its images here too.

What is decided here, once for training, evaluation and the runtime:

* EXIF (and TIFF) orientation is applied;
* transparency is composited over white, so colours hidden under transparent pixels never show;
* 16-bit grey is scaled (v / 257), never clipped; for floating point and 32-bit integers see `_to_bytes`;
* an image over `MAX_PIXELS` is refused from its header, before a pixel is decoded;
* a file that cannot be decoded whole is an `ImageError` that names it: there are no half-decoded images.

Colour profiles (ICC) are not applied, as in other detection libraries; the first of several frames or pages is read.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images import jpeg
from slimdet.images.folders import UNREAD, UNREAD_HINT

MAX_PIXELS = 50_000_000
# Named, so that a file can never reach a decoder that starts another program (EPS) or that nobody fuzzes.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000")
if find_spec("PIL.AvifImagePlugin"):  # Pillow 11.3 and later
    FORMATS = (*FORMATS, "AVIF")

_WIDTH, _HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112  # TIFF tags
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Box: TypeAlias = tuple[float, float, float, float]
Turn: TypeAlias = Callable[[Box, int, int], Box]
# How a box of the stored pixels lies in the upright image of w x h, where its sides change places.
_BOX_TURNS: dict[int, Turn] = {
    5: lambda box, w, h: (box[1], box[0], box[3], box[2]),
    6: lambda box, w, h: (w - box[3], box[0], w - box[1], box[2]),
    7: lambda box, w, h: (w - box[3], h - box[2], w - box[1], h - box[0]),
    8: lambda box, w, h: (box[1], h - box[2], box[3], h - box[0]),
}
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


@dataclass(frozen=True)
class ImageFile:
    """An image file's bytes, and what errors call it: they can be decoded later and again."""

    data: bytes = field(repr=False)
    name: str


ImageSource: TypeAlias = str | Path | bytes | BinaryIO | ImageFile | Image.Image | np.ndarray


def read_image(source: ImageSource) -> np.ndarray:
    """Decode `source` to RGB, upright.

    Args:
        source: a path, the bytes of an image file, a binary file object (read from where it stands), a Pillow image, or
            an array [H, W], [H, W, 1] (grey), [H, W, 2] (grey, alpha), [H, W, 3] (RGB) or [H, W, 4] (RGB, alpha) of
            booleans, integers or floats.

    Returns:
        uint8 array [H, W, 3], contiguous, 0..255. An RGB uint8 array is returned as it is, not copied.

    Raises:
        ImageError: no such file, not an image, broken or cut off, over `MAX_PIXELS`, or a kind that is not known.
    """
    return read_reduced(source, lambda width, height: 1)[0]


def read_reduced(source: ImageSource, reduction: Callable[[int, int], int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode `source` as `read_image` does, at a fraction of its size.

    Pixels of the fraction are means of those of the image. A JPEG whose sides the reduction divides is decoded in that
    fraction at once, which takes a fraction of the time (libjpeg computes fewer coefficients; the means are of the
    values before they are rounded and clipped).

    Args:
        source: as for `read_image`.
        reduction: given (width, height) of the image, says how many pixels along each axis become one: 1, 2, 4 or 8.

    Returns:
        uint8 array [ceil(H / reduction), ceil(W / reduction), 3], and (W, H).

    Raises:
        ImageError: as `read_image`.
    """
    if isinstance(source, np.ndarray):
        pixels = _array_to_rgb(source)
        size = pixels.shape[1], pixels.shape[0]
        factor = reduction(*size)
        return (pixels if factor == 1 else np.array(Image.fromarray(pixels).reduce(factor))), size
    with _opened(source) as (image, data):
        width, height = _upright_size(image)
        factor = reduction(width, height)
        decoded = jpeg.decoded(image, data, factor) if data.startswith(jpeg.START) else image
        decoded.load()
        rgb = _to_rgb(decoded)
        # Read after decoding: Pillow turns a TIFF upright by itself while loading, and then drops the tag.
        turn = _UPRIGHT.get(_orientation(decoded))
        rgb = rgb if turn is None else rgb.transpose(turn)
        left = factor * rgb.width // width
        return np.array(rgb if left == 1 else rgb.reduce(left)), (width, height)


def open_file(source: str | Path | bytes | BinaryIO) -> ImageFile:
    """Read an image file's bytes; nothing is decoded.

    Raises:
        ImageError: no such file, or a file object that gives no bytes.
    """
    name = _name_of(source)
    with _named(name):
        return ImageFile(_contents(source, name), name)


def image_size(source: ImageSource) -> tuple[int, int]:
    """Return (width, height) of `read_image(source)` from the header, in pixels.

    Raises:
        ImageError: no such file, not an image, or over `MAX_PIXELS`.
    """
    if isinstance(source, np.ndarray):
        height, width = _array_to_rgb(source).shape[:2]
        return width, height
    with _opened(source) as (image, _):
        return _upright_size(image)


def stored_size(source: str | Path) -> tuple[tuple[int, int], Turn | None]:
    """(width, height) as `image_size` has them, and what turns boxes of the pixels as they are stored upright too.

    That is None where the sides do not change places. It takes (x1, y1, x2, y2) in pixels as stored, and the upright
    image's width and height.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(source) as (image, _):
        return _upright_size(image), _BOX_TURNS.get(_orientation(image))


def is_resizable(width: int, height: int, longest: int) -> bool:
    """Whether anything is left of an image of width x height pixels once its longer side has `longest`."""
    return min(width, height) * longest > max(width, height)


def check_resizable(what: str, width: int, height: int, longest: int) -> None:
    """Refuse an image of width x height pixels of which nothing is left once its longer side has `longest`.

    Raises:
        ImageError: it begins with `what`, which names the image.
    """
    if not is_resizable(width, height, longest):
        raise ImageError(f"{what}{width}x{height} pixels: nothing is left of it once the longer side has {longest}")


@contextmanager
def _opened(source: str | Path | bytes | BinaryIO | ImageFile | Image.Image) -> Iterator[tuple[Image.Image, bytes]]:
    """Open `source` and check its size; turn whatever decoding it raises into an ImageError that names it.

    Yields the image, not yet decoded, and the bytes of its file (none for a Pillow image).
    """
    name = _name_of(source)
    with _named(name):
        if isinstance(source, Image.Image):
            _check_pixels(name, *source.size)
            yield source, b""
        else:
            data = source.data if isinstance(source, ImageFile) else _contents(source, name)
            _check_complete(data)
            opened = jpeg.without_end(data) if data.startswith(jpeg.START) else data
            with Image.open(io.BytesIO(opened), formats=FORMATS) as image:
                _check_pixels(name, *image.size)
                if image.format == "PNG":
                    _rescale_transparency(image, depth=data[24])
                yield image, data


def _name_of(source: str | Path | bytes | BinaryIO | ImageFile | Image.Image) -> str:
    if isinstance(source, ImageFile):
        return source.name
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "")) or f"{source.mode} image"
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if isinstance(source, str | Path):
        return str(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", None) or f"{type(source).__name__} object")
    kind = type(source).__name__
    raise ImageError(f"an image cannot be a {kind}; give a path, bytes, a binary file, a Pillow image or an array")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn whatever reading and decoding an image raise into an ImageError that names it."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: more than the limit of {MAX_PIXELS // 10**6} megapixels") from None
    except Image.UnidentifiedImageError:
        hint = f"; {UNREAD_HINT}" if Path(name).suffix.lower() in UNREAD else ""
        raise ImageError(f"{name}: not an image of a known kind ({', '.join(FORMATS)}){hint}") from None
    except Exception as error:  # Pillow raises nearly anything on broken files: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be decoded: {reason}") from error


def _contents(source: str | Path | bytes | BinaryIO, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    data = b"" if isinstance(source, io.TextIOBase) else source.read()
    if not isinstance(data, bytes) or not data:
        raise ImageError(f"{name}: gives no bytes; open the file in binary mode ('rb'), at its beginning")
    return data


def _check_pixels(name: str, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: {width}x{height} has no pixels")
    if width * height > MAX_PIXELS:
        megapixels = width * height / 10**6
        limit = MAX_PIXELS // 10**6
        raise ImageError(
            f"{name}: {width}x{height} is {megapixels:.0f} megapixels, over the limit of {limit}; make it smaller"
        )


def _check_complete(data: bytes) -> None:
    """Refuse cut-off and damaged files that Pillow would fill up with grey or black without a word."""
    if data.startswith(jpeg.START):
        jpeg.check_ended(data)
    elif data.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()  # checksums of all chunks; decodes nothing


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) once the orientation is applied; of an image that is not decoded yet."""
    if _orientation(image) not in (5, 6, 7, 8):
        return image.size
    # Newer versions of Pillow already swap the sides of a TIFF that is to be turned: its tags are as stored.
    tags = getattr(image, "tag_v2", {})
    return tags.get(_HEIGHT, image.height), tags.get(_WIDTH, image.width)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1..8; 1 (upright) where there is none or where the EXIF block itself is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # metadata only: the pixels are whole
        return 1


def _rescale_transparency(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to the 8 bits of its pixels: Pillow leaves it at the file's bit depth."""
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int) and colour < 2**depth < 2**8:
        image.info["transparency"] = colour * 255 // (2**depth - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple) and depth == 16 and max(colour) > 255:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY:
        return _deep_grey_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        values = values.astype(np.uint16)  # some Pillow versions widen 16-bit files to 32
    grey = _to_bytes(values)
    transparent = image.info.get("transparency")  # the one grey value that stands for "nothing here"
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
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
    return np.array(_to_rgb(Image.fromarray(pixels)))


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
