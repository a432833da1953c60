"""From what a user has, a file, an array, a tensor, to pixels as the engines take them.

Legend: C channels, H x W pixels of an image, h x w once it is as small as the detector wants it.
"""

import io
import sys
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images.decoding import ImageFile, ImageSource, check_resizable, open_file, read_image, read_reduced
from slimdet.images.resizing import Sides, Size, fitted, reduction, resize
from slimdet.messages import check_choice

if TYPE_CHECKING:
    from torch import Tensor

Source: TypeAlias = Union[ImageSource, "Tensor"]
Color: TypeAlias = Literal["rgb", "bgr"]


class DecodedImage:
    """An image as it was given, and as a detector takes it.

    Of a photograph from a file that is several times as large as the detector wants it, the file's bytes are kept
    instead of the pixels: who asks for these has them decoded then.

    Args:
        original: the file, or pixels [H, W, 3] (RGB).
        sides: what the detector resizes images to.
        path: where the image comes from.

    Attributes:
        size: (W, H) of the whole image.
        path: the file, where the image came from one.
        read_ms: the milliseconds that it took to read.

    Raises:
        ImageError: it cannot be decoded, or nothing is left of it at that size.
    """

    def __init__(self, original: ImageFile | NDArray[np.uint8], sides: Sides, path: Path | None = None) -> None:
        self.path, self.read_ms = path, 0.0
        self._original, self._sides = original, sides
        decoded, self.size = read_reduced(original, lambda *size: reduction(size, sides))
        check_resizable(f"{path}: " if path else "", *self.size, sides.longest)
        if decoded.shape[1::-1] == self.size:
            self._original = decoded
        self._fitted = _fit(decoded, self.size, sides)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The whole image, uint8 [H, W, 3] (RGB)."""
        return read_image(self._original)

    def at(self, sides: Sides) -> NDArray[np.uint8]:
        """The image as a detector of such sides takes it, uint8 [h, w, 3] with (w, h) from `resizing.fitted`."""
        if sides == self._sides:
            return self._fitted
        decoded, _ = read_reduced(self._original, lambda *size: reduction(size, sides))
        return _fit(decoded, self.size, sides)


def _fit(decoded: NDArray[np.uint8], size: Size, sides: Sides) -> NDArray[np.uint8]:
    """Resize what `read_reduced` gave of an image of `size`."""
    wanted, averaged = fitted(size, sides), reduction(size, sides)
    return decoded if wanted == size else resize(decoded, wanted, (size[0] / averaged, size[1] / averaged))


def is_one(source: Any) -> TypeGuard[Source]:
    """Whether this is meant as one image; what is not is a collection of them, as a batch of tensors [B, C, H, W]."""
    if _is_tensor(source):
        return source.ndim < 4
    return (
        isinstance(source, str | bytes | bytearray | memoryview | np.ndarray)
        or hasattr(source, "read")
        or not isinstance(source, Iterable)
    )


def read(source: Source, sides: Sides, color: Color = "rgb") -> DecodedImage:
    """Decode an image, and resize it for a detector.

    Args:
        source: what `read_image` takes, or a torch tensor [C, H, W] on any device: uint8, or floats in 0..1.
        sides: what the detector resizes images to.
        color: order of an array's or tensor's channels; "bgr" is OpenCV's. Files and Pillow images know their own.

    Raises:
        ConfigError: another `color`.
        ImageError: it cannot be decoded, is no image, or nothing is left of it at the detector's size.
    """
    check_choice("color", color, ("rgb", "bgr"))
    start = time.perf_counter()
    image: Any = _tensor_pixels(source) if _is_tensor(source) else source
    if color == "bgr" and isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    original = read_image(image) if isinstance(image, np.ndarray | Image.Image) else open_file(image)
    decoded = DecodedImage(original, sides, _file_of(source))
    decoded.read_ms = 1000 * (time.perf_counter() - start)
    return decoded


def _is_tensor(source: Any) -> "TypeGuard[Tensor]":
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(source, torch.Tensor)


def _tensor_pixels(tensor: "Tensor") -> NDArray[np.uint8]:
    """A tensor [C, H, W] as pixels [H, W, C]."""
    shape, kind = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if len(shape) != 3 or not 1 <= shape[0] <= 4 or 0 in shape:
        raise ImageError(f"a tensor of shape {shape} is no image; give [3, H, W]")
    if not (tensor.is_floating_point() or kind == "uint8"):
        raise ImageError(f"a tensor of {kind} is no image; give uint8, or floats in 0..1")
    values = tensor.detach().cpu()
    if tensor.is_floating_point():
        values = (values.double() * 255).round()
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # NaN is neither
            raise ImageError(
                f"a tensor of {low / 255:.3g}..{high / 255:.3g} is no image; give floats in 0..1, or uint8"
            )
    return values.numpy().astype(np.uint8).transpose(1, 2, 0)


def _file_of(source: Any) -> Path | None:
    """The file that an image comes from; a Pillow image and an open file may name it."""
    if isinstance(source, str | Path):
        return Path(source)
    name = None
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", None)  # of opened files only
    elif isinstance(source, io.FileIO | io.BufferedReader):
        name = source.name
    return Path(name) if name and isinstance(name, str) else None
