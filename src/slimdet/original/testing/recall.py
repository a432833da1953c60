"""The original's own recall of proposals, which it called proposal_fast.

G objects, P proposals of an image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def objects(coco: Mapping[str, Any], image_ids: Sequence[int]) -> list[np.ndarray]:
    """The boxes [G, 4] of each image's objects, half-open; crowds and ignored annotations are left out."""
    boxes: dict[int, list[list[float]]] = {number: [] for number in image_ids}
    for annotation in coco["annotations"]:
        if not annotation.get("ignore") and not annotation.get("iscrowd") and annotation["image_id"] in boxes:
            x, y, width, height = annotation["bbox"]
            boxes[annotation["image_id"]].append([x, y, x + width, y + height])
    return [np.array(boxes[number], np.float32).reshape(-1, 4) for number in image_ids]


def average_recall(
    truth: Sequence[np.ndarray], proposals: Sequence[np.ndarray], counts: Sequence[int] = (100, 300, 1000)
) -> tuple[float, ...]:
    """The share of objects that the best n proposals of each image find, averaged over IoU thresholds 0.50 .. 0.95.

    In each image the object and the proposal that overlap most are a pair, then the next of those that are left.

    Args:
        truth: each image's objects [G, 4], half-open.
        proposals: each image's inclusive boxes and scores [P, 5], or boxes [P, 4] in order of falling score.
        counts: the numbers n of proposals.

    Returns:
        One number in 0..1 for each count; 0 without any object.
    """
    overlaps = []
    for boxes, found in zip(truth, proposals, strict=True):
        found = np.asarray(found, np.float32).reshape(len(found), -1 if len(found) else 5)
        if found.shape[1] >= 5:
            found = found[np.argsort(found[:, 4], kind="stable")[::-1]]
        overlaps.append(_iou(boxes, found[: max(counts)]))
    recalls = []
    for count in counts:
        best = np.concatenate([_pairs(iou[:, :count]) for iou in overlaps] or [np.zeros(0)])
        reached = best[None] >= THRESHOLDS[:, None]  # [T, all objects]
        recalls.append(float(reached.mean(axis=1).mean()) if best.size else 0.0)
    return tuple(recalls)


def _iou(boxes: np.ndarray, found: np.ndarray) -> np.ndarray:
    """IoU [G, P] of half-open boxes with inclusive ones."""
    if not len(found):
        return np.zeros((len(boxes), 0), np.float32)
    a, b = boxes[:, None], np.concatenate([found[:, :2], found[:, 2:4] + 1], axis=1)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    areas = [np.prod(side[..., 2:] - side[..., :2], axis=-1) for side in (a, b)]
    return shared / (areas[0] + areas[1] - shared)


def _pairs(iou: np.ndarray) -> np.ndarray:
    """The overlap of each object [G] with its own proposal, best pairs first; 0 for an object that is left over."""
    iou, found = iou.copy(), np.zeros(len(iou))
    for number in range(min(iou.shape)):
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        found[number] = iou[row, column]
        iou[row], iou[:, column] = -1, -1
    return found
