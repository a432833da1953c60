"""Any image to RGB pixels, safely. numpy and Pillow only: the runtime reads its images here too.

What is decided here, once for training, evaluation and the runtime:

* EXIF (and TIFF) orientation is applied, and colour profiles (ICC) are, so that pixels are sRGB;
* transparency is composited over white, so colours hidden under transparent pixels never show;
* 16-bit grey is scaled (v / 257), never clipped; for floating point and 32-bit integers see `slimdet.images.pixels`;
* an image over the limit (`max_pixels`) is refused from its header, before a pixel is decoded;
* a file that cannot be decoded whole is an `ImageError` that names it: there are no half-decoded images.

The first of several frames or pages is read.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from PIL import Image

from slimdet.errors import ConfigError, ImageError, SlimdetError
from slimdet.images import jpeg, png, tiff
from slimdet.images.folders import UNREAD, UNREAD_HINT
from slimdet.images.orientation import UPRIGHT, orientation, upright_size
from slimdet.images.pixels import array_to_rgb, rescale_transparency, to_rgb

MAX_PIXELS = 64_000_000  # of 6 to 18 bytes each on the way (benchmarks/runtime/decoding.py); telephones: 8192 x 6144
LIMIT = "SLIMDET_MAX_MEGAPIXELS"  # the environment's: another one
# Named, so that a file can never reach a decoder that starts another program (EPS) or that nobody fuzzes.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000")
if find_spec("PIL.AvifImagePlugin"):  # Pillow 11.3 and later
    FORMATS = (*FORMATS, "AVIF")

_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")


@dataclass(frozen=True)
class ImageFile:
    """An image file's bytes, and what errors call it: they can be decoded later and again."""

    data: bytes = field(repr=False)
    name: str


ImageSource: TypeAlias = str | Path | bytes | BinaryIO | ImageFile | Image.Image | np.ndarray


def max_pixels() -> int:
    """The most pixels that an image may have: `MAX_PIXELS`, or a million times what the environment's `LIMIT` says.

    Raises:
        ConfigError: the environment says something else than a whole number above 0.
    """
    said = os.environ.get(LIMIT)
    if said is None:
        return MAX_PIXELS
    if not (said.isascii() and said.isdigit() and 0 < int(said) < 10**6):
        raise ConfigError(f"{LIMIT} is {said[:50]!r}, not a number of megapixels; take one such as 100, or unset it")
    return int(said) * 10**6


def read_image(source: ImageSource) -> np.ndarray:
    """Decode `source` to RGB, upright.

    Args:
        source: a path, the bytes of an image file, a binary file object (read from where it stands), a Pillow image, or
            an array [H, W], [H, W, 1] (grey), [H, W, 2] (grey, alpha), [H, W, 3] (RGB) or [H, W, 4] (RGB, alpha) of
            booleans, integers or floats.

    Returns:
        uint8 array [H, W, 3], contiguous, 0..255. An RGB uint8 array is returned as it is, not copied.

    Raises:
        ImageError: no such file, not an image, broken or cut off, over the limit, or a kind that is not known.
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
        pixels = array_to_rgb(source)
        size = pixels.shape[1], pixels.shape[0]
        factor = reduction(*size)
        return _reduced(pixels, factor), size
    with _opened(source) as (image, data):
        width, height = upright_size(image)
        factor = reduction(width, height)
        decoded = jpeg.decoded(image, data, factor) if data.startswith(jpeg.START) else image
        if data.startswith(png.START):
            png.decode(decoded, data)
        decoded.load()
        pixels = to_rgb(decoded)
        # Read after decoding: Pillow turns a TIFF upright by itself while loading, and then drops the tag.
        turn = UPRIGHT.get(orientation(decoded))
        pixels = pixels if turn is None else np.ascontiguousarray(turn(pixels))
        return _reduced(pixels, factor * pixels.shape[1] // width), (width, height)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    return pixels if factor == 1 else np.array(Image.fromarray(pixels).reduce(factor))


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
        ImageError: no such file, not an image, or over the limit.
    """
    if isinstance(source, np.ndarray):
        height, width = array_to_rgb(source).shape[:2]
        return width, height
    with _opened(source) as (image, _):
        return upright_size(image)


def size_and_orientation(source: str | Path) -> tuple[tuple[int, int], int]:
    """(width, height) as `image_size` has them, and the orientation that was applied, 1..8 (`images.orientation`).

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(source) as (image, _):
        return upright_size(image), orientation(image)


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
            if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, which stops at twice as many
                Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels())
            data = source.data if isinstance(source, ImageFile) else _contents(source, name)
            _check_complete(data)
            opened = jpeg.without_end(data) if data.startswith(jpeg.START) else data
            with _identified(opened, name) as image:
                _check_pixels(name, *image.size)
                if image.format == "PNG":
                    png.check_palette(image)
                    rescale_transparency(image, depth=data[24])
                elif image.format == "TIFF":
                    tiff.check_kind(image)
                    tiff.widen_palette(image)
                elif image.format in ("JPEG", "MPO"):
                    jpeg.check_scans(data, image.width * image.height)
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
    except SlimdetError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{name}: more than the limit of {max_pixels() // 10**6} megapixels") from None
    except Exception as error:  # Pillow raises nearly anything on broken files: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name}: cannot be decoded: {reason}") from error


def _identified(data: bytes, name: str) -> Image.Image:
    """Open the bytes of a file, whose name only errors say.

    Raises:
        ImageError: it is empty, or of a kind that is not read.
    """
    if not data:
        raise ImageError(f"{name}: is empty")
    if _is_heic(data):
        raise ImageError(f"{name}: HEIC, which is not read; {UNREAD_HINT}")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        if Path(name).suffix.lower() not in UNREAD and data.startswith(tiff.STARTS):
            raise ImageError(f"{name}: {tiff.UNREAD}") from None
        hint = f"; {UNREAD_HINT}" if Path(name).suffix.lower() in UNREAD else ""
        raise ImageError(f"{name}: not an image of a known kind ({', '.join(FORMATS)}){hint}") from None


def _is_heic(data: bytes) -> bool:
    """Whether the first box of a file says so; AVIF's has some of the same names beside its own."""
    names = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return data[4:8] == b"ftyp" and data[8:12] in _HEIC and b"avif" not in names and b"avis" not in names


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
    if width * height > max_pixels():
        megapixels = width * height / 10**6
        limit = max_pixels() // 10**6
        raise ImageError(
            f"{name}: {width}x{height} is {megapixels:.0f} megapixels, over the limit of {limit}; make it smaller, "
            f"or set {LIMIT}"
        )


def _check_complete(data: bytes) -> None:
    """Refuse cut-off and damaged files that Pillow would fill up with grey or black without a word."""
    if data.startswith(jpeg.START):
        jpeg.check_ended(data)
    elif data.startswith(png.START):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()  # checksums of all chunks; decodes nothing
