"""From mask probabilities over boxes to the pixels of an image.

N detections, M cells along a side of a mask, H x W pixels.
"""

import numpy as np
from numpy.typing import NDArray


def paste_masks(cells: NDArray[np.float32], boxes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize each mask to its box and cut it at one half; torchvision's `paste_masks_in_image` > 0.5.

    Args:
        cells: [N, M, M] in 0..1.
        boxes: [N, 4], x1 y1 x2 y2 in pixels of the image.
        size: (H, W) of the image.

    Returns:
        bool [N, H, W].
    """
    count, side = len(cells), cells.shape[-1]
    pasted = np.zeros((count, *size), dtype=bool)
    # A rim of zero cells lets masks fade out at their boxes' edges; the boxes grow to keep the cells in place.
    cells = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    centres, halves = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    halves = halves * np.float32((side + 2) / side)
    corners = np.concatenate([centres - halves, centres + halves], axis=1).astype(np.int64)  # cut toward zero
    for mask, cell, (x1, y1, x2, y2) in zip(pasted, cells, corners.tolist(), strict=True):
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        top, bottom = max(y1, 0), min(y2 + 1, size[0])
        left, right = max(x1, 0), min(x2 + 1, size[1])
        if top >= bottom or left >= right:
            continue
        rows, columns = (
            _blend(height, side + 2)[top - y1 : bottom - y1],
            _blend(width, side + 2)[left - x1 : right - x1],
        )
        mask[top:bottom, left:right] = rows @ cell @ columns.T > 0.5
    return pasted


def _blend(length: int, cells: int) -> NDArray[np.float32]:
    """The weights [length, cells] of bilinear resizing: half-pixel centres, the border repeated."""
    place = np.maximum((np.arange(length, dtype=np.float32) + 0.5) * np.float32(cells / length) - 0.5, 0)
    low = np.minimum(place.astype(np.int64), cells - 1)
    share = place - low
    weights = np.zeros((length, cells), dtype=np.float32)
    at = np.arange(length)
    weights[at, low] = 1 - share
    weights[at, np.minimum(low + 1, cells - 1)] += share
    return weights
