"""Masks: from probabilities over boxes to the pixels of an image, and pixels as COCO's run lengths.

N detections, M cells along a side of a mask, H x W pixels.

COCO's compressed run lengths (COCO API, `rleToString`): runs of pixels by columns, the first one of zeros; from the
fourth run on, the difference from the run two before is written. A number goes in groups of 5 bits, lowest first, each
a character from "0" on: its bit 5 says that more follow, and bit 4 of the last group is the sign.
"""

from typing import Any

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


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask [H, W] as COCO's compressed run lengths: {"size": [H, W], "counts": str}."""
    pixels = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    start = [0, 0] if pixels[0] else [0]
    runs = np.diff(np.concatenate([start, edges, [pixels.size]]))
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    groups, follow = [], []
    pending = np.ones(len(numbers), dtype=bool)
    while pending.any():
        group = numbers & 31
        numbers = numbers >> 5
        # The sign is that of the last group's highest bit.
        more = pending & np.where(group & 16, numbers != -1, numbers != 0)
        groups.append((group | np.where(more, 32, 0)) + 48)
        follow.append(pending)
        pending = more
    letters = np.stack(groups, axis=1)[np.stack(follow, axis=1)].astype(np.uint8)
    return {"size": list(mask.shape), "counts": letters.tobytes().decode("ascii")}


def decode_runs(counts: str | bytes) -> NDArray[np.int64] | None:
    """Run lengths of a compressed RLE; None if the text is cut off or holds other characters.

    COCO's format: groups of 5 bits from low to high, each a character from "0" with bit 5 for "more follows" and the
    last group's bit 4 the sign; from the fourth run on, what is written is the difference to the run two before.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if not len(groups):
        return groups
    (ends,) = np.nonzero(groups & 32 == 0)
    starts = np.append(0, ends[:-1] + 1) if len(ends) else ends
    lengths = ends - starts + 1
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32 or lengths.max() > 7:
        return None
    places = np.arange(len(groups)) - np.repeat(starts, lengths)  # within each run's groups
    runs = np.add.reduceat((groups & 31) << (5 * places), starts)
    runs -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs


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
