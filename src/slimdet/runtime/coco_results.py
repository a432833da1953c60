"""Detections as COCO results, with numpy alone.

N detections, K classes, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import DataError


def coco_results(
    boxes: NDArray,
    labels: NDArray,
    scores: NDArray,
    masks: NDArray[np.bool_] | None,
    image_id: int,
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """The detections of one image as COCO results, ready for `json.dump`.

    Args:
        boxes: [N, 4], x1 y1 x2 y2 in pixels.
        labels: [N] in 1..K.
        scores: [N].
        masks: bool [N, H, W], or None.
        image_id: the image's id in its COCO file.
        category_ids: [K], the category id of labels 1..K.

    Returns:
        N times {"image_id", "category_id", "bbox" [x, y, width, height], "score"} and, with masks, "segmentation".

    Raises:
        DataError: a box or score that is not finite, or a label outside 1..K.
    """
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(
            f"image {image_id}: the detector gave a box or score that is not finite; its weights are broken"
        )
    for label in labels.tolist():
        if not 1 <= label <= len(category_ids):
            raise DataError(f"image {image_id}: label {label} is not in 1..{len(category_ids)}, the number of classes")
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)  # [N, 4] x, y, width, height
    found: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for label, box, score in zip(labels.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    ]
    for item, mask in zip(found, () if masks is None else masks, strict=masks is not None):
        item["segmentation"] = encode_mask(mask)
    return found


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A boolean mask [H, W] as COCO's compressed RLE: {"size": [H, W], "counts": str}.

    Runs of pixels by columns, the first one of zeros; from the fourth run on, the difference from the run two before.
    A number is written in groups of 5 bits, lowest first, as characters from "0" on; bit 6 says that more follow
    (COCO API, `rleToString`).
    """
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
