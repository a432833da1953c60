"""From what a user has, a file, an array, a tensor, to pixels as the engines take them.

Legend: C channels, H x W pixels.
"""

import io
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimdet.errors import ImageError
from slimdet.images.decoding import ImageSource, check_resizable, read_image
from slimdet.messages import check_choice

if TYPE_CHECKING:
    from torch import Tensor

Source: TypeAlias = Union[ImageSource, "Tensor"]
Color: TypeAlias = Literal["rgb", "bgr"]


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """Pixels uint8 [H, W, 3] (RGB), the file where they came from one, and the milliseconds that it took."""

    pixels: NDArray[np.uint8]
    path: Path | None
    read_ms: float


def is_one(source: Any) -> TypeGuard[Source]:
    """Whether this is meant as one image; what is not is a collection of them, as a batch of tensors [B, C, H, W]."""
    if _is_tensor(source):
        return source.ndim < 4
    return (
        isinstance(source, str | bytes | bytearray | memoryview | np.ndarray)
        or hasattr(source, "read")
        or not isinstance(source, Iterable)
    )


def read(source: Source, longest: int, color: Color = "rgb") -> DecodedImage:
    """Decode an image, and make sure that something is left of it at the detector's size.

    Args:
        source: what `read_image` takes, or a torch tensor [C, H, W] on any device: uint8, or floats in 0..1.
        longest: the longer side's limit at the detector's size, pixels.
        color: order of an array's or tensor's channels; "bgr" is OpenCV's. Files and Pillow images know their own.

    Raises:
        ConfigError: another `color`.
        ImageError: it cannot be decoded, is no image, or nothing is left of it.
    """
    check_choice("color", color, ("rgb", "bgr"))
    start = time.perf_counter()
    path = _file_of(source)
    image: Any = _tensor_pixels(source) if _is_tensor(source) else source
    if color == "bgr" and isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    pixels = read_image(image)
    check_resizable(f"{path}: " if path else "", pixels.shape[1], pixels.shape[0], longest)
    return DecodedImage(pixels, path, 1000 * (time.perf_counter() - start))


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
