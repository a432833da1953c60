"""From a mask's cells to the pixels of an image.

M cells along a side of a mask, H x W pixels of an image.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from slimdet.images.masks import encode_mask


def paste(cells: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """The mask's values in 0..1 at every pixel, [H, W]; 0 outside the box.

    Args:
        cells: [M, M] in 0..1.
        box: half-open [4] in pixels of the image. Its inclusive corners are cut to whole pixels, toward zero.
        size: (H, W).
    """
    x1, y1, x2, y2 = (int(corner) for corner in (box - box.new_tensor([0, 0, 1, 1])).tolist())
    width, height = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
    # The same as OpenCV's bilinear resizing of floats: half-pixel centres, the border repeated.
    values = functional.interpolate(cells[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
    pasted = cells.new_zeros(size)
    target = pasted[y1 : y1 + height, x1 : x1 + width]
    target.copy_(values[: target.shape[0], : target.shape[1]])
    return pasted


def encode(cells: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float) -> list[dict[str, Any]]:
    """Masks [N, M, M] of boxes [N, 4] as COCO run-length codes: {"size": [H, W], "counts": bytes} each."""
    codes = []
    for cell, box in zip(cells.cpu(), boxes.cpu(), strict=True):
        mask = np.asarray(paste(cell, box, size) > threshold)
        code = encode_mask(mask)
        codes.append({"size": code["size"], "counts": code["counts"].encode("ascii")})
    return codes


def unflip(cells: Tensor) -> Tensor:
    """Masks [N, M, M] of a mirrored image as those of the image."""
    return torch.flip(cells, dims=[2])
