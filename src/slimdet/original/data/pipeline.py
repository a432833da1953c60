"""The original's test pipeline: from an image file to the network's input, equal to the last bit.

H x W pixels of the original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from slimdet.errors import ImageError
from slimdet.original.configs.config import Config
from slimdet.original.detector.transform import Frame, fit, pad

cv2.setNumThreads(1)  # images are small; OpenCV's own threads would only fight torch's


@dataclass(frozen=True)
class View:
    """One way to look at an image: at one scale, mirrored or not.

    Attributes:
        batch: the network's input [1, 3, h, w], normalised and padded.
        frame: where the image lies in it.
        flipped: whether it is mirrored.
    """

    batch: Tensor
    frame: Frame
    flipped: bool = False


def read_bgr(path: str | Path) -> np.ndarray:
    """An image file as OpenCV reads it: uint8 [H, W, 3], blue first.

    Raises:
        ImageError: the file is missing or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"there is no image {str(path)!r}; check img_prefix and the annotations' file names")
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError, MemoryError):
        image = None
    if image is None:
        raise ImageError(f"{path} is not an image that OpenCV can read")
    return image


def resize(image: np.ndarray, scale: tuple[int, int]) -> tuple[np.ndarray, Frame]:
    """An image [H, W, 3] as large as fits into `scale`, (long, short) in pixels, and its frame."""
    frame = fit(image.shape[:2], *scale)
    height, width = (max(side, 1) for side in frame.size)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized, replace(frame, size=(height, width))


def normalise(image: np.ndarray, norm: Config) -> np.ndarray:
    """uint8 [h, w, 3], blue first, to float32 with the config's `img_norm_cfg`."""
    values = image.astype(np.float32)
    if norm.to_rgb:
        values = values[..., ::-1]
    return (values - np.float32(norm.mean)) / np.float32(norm.std)


def views(
    image: np.ndarray,
    scales: Sequence[tuple[int, int]],
    flip: bool,
    norm: Config,
    divisor: int | None,
) -> list[View]:
    """An image, uint8 [H, W, 3] blue first, at every scale, and mirrored after each where asked."""
    found = []
    for scale in scales:
        resized, frame = resize(image, scale)
        values = normalise(resized, norm)
        for flipped in (False, True) if flip else (False,):
            pixels = np.ascontiguousarray((values[:, ::-1] if flipped else values).transpose(2, 0, 1))  # [3, h, w]
            found.append(View(pad([torch.from_numpy(pixels)], divisor), frame, flipped))
    return found
