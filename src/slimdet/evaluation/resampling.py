"""How sure a box AP is: the bootstrap over images (Efron, "Bootstrap Methods", 1979), paired for detectors that saw the
same ones.

COCO's AP is no mean over images, so it is computed anew for every resample; what was matched to what is found once.

I images, D detections of a class, T IoU thresholds, B resamples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdet.data.annotations import rle_functions
from slimdet.evaluation.ground_truth import GroundTruth
from slimdet.evaluation.matching import IOU_THRESHOLDS, MOST

RECALLS = np.linspace(0, 1, 101)


class Matches:
    """Detections matched to the ground truth as COCO does, ready for the AP of any choice of the images.

    Args:
        coco: a parsed COCO annotation file.
        detections: COCO results.

    Raises:
        DataError: as `slimdet.evaluation.matching.accumulate`.
    """

    def __init__(self, coco: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> None:
        truth = GroundTruth(coco, masks=False)
        annotations, results = truth.annotations, truth.results(detections, masks=False)
        self.images = len(truth.images)
        self._classes: list[tuple[NDArray, ...]] = []
        for number in truth.category_ids.values():
            objects = annotations.take(np.flatnonzero(annotations.category_id == number))
            found = results.take(np.flatnonzero(results.category_id == number))
            counts = np.bincount(objects.image_id[objects.iscrowd == 0] - 1, minlength=self.images)
            if counts.any():
                self._classes.append((counts, *_matched(objects, found)))

    def ap(self, weights: NDArray) -> NDArray[np.float64]:
        """The AP (0..1) with image i counted `weights[b, i]` times, [B] for weights [B, I]; -1 without ground truth."""
        sums, known = np.zeros(len(weights)), np.zeros(len(weights))
        for counts, image, hit, ignored in self._classes:
            objects = weights @ counts  # [B]
            times = weights[:, image]  # [B, D]
            known += objects > 0
            for right, left_out in zip(hit, ignored, strict=True):
                true = np.cumsum(times * (right & ~left_out), axis=1)
                false = np.cumsum(times * (~right & ~left_out), axis=1)
                sums += _mean_precision(true, false, objects) / len(IOU_THRESHOLDS)
        return np.where(known > 0, sums / np.maximum(known, 1), -1.0)


def resamples(images: int, number: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each of the images is drawn in each of `number` resamples, [B, I]; the same for the same seed."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), number).astype(np.float64)


def _matched(objects: Any, found: Any) -> tuple[NDArray, NDArray, NDArray]:
    """One class: image (from 0) of each detection [D], by falling score; whether it is a hit, and ignored, [T, D]."""
    images, hits, ignored, scores = [], [], [], []
    for number in np.unique(found.image_id):
        places = np.flatnonzero(found.image_id == number)
        places = places[np.argsort(-found.score[places], kind="stable")][: MOST[-1]]
        here = np.flatnonzero(objects.image_id == number)
        here = here[np.argsort(objects.iscrowd[here], kind="stable")]  # crowds are taken last
        crowd = objects.iscrowd[here] > 0
        overlap = np.zeros((len(places), len(here)))
        if overlap.size:
            overlap = np.asarray(
                rle_functions().iou(found.bbox[places], objects.bbox[here], crowd.astype(int).tolist())
            )
        right = np.array([_match(overlap, crowd, limit) for limit in IOU_THRESHOLDS])  # [T, D] places of objects
        images.append(np.full(len(places), number - 1))
        hits.append(right >= 0)
        ignored.append((right >= 0) & np.append(crowd, False)[right])
        scores.append(found.score[places])
    if not images:
        nothing = np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return np.zeros(0, np.int64), nothing, nothing
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(images)[order], np.concatenate(hits, 1)[:, order], np.concatenate(ignored, 1)[:, order]


def _match(overlap: NDArray, crowd: NDArray, limit: float) -> list[int]:
    """The object that each detection of an image takes, best score first; -1 for none. A crowd is never used up."""
    free = np.ones(len(crowd), bool)
    taken = []
    for row in overlap:
        for group in (free & ~crowd, crowd):
            fit = np.flatnonzero(group & (row >= limit))
            if len(fit):
                best = int(fit[len(fit) - 1 - np.argmax(row[fit][::-1])])  # of equal ones the last, as COCO does
                break
        else:
            best = -1
        if best >= 0:
            free[best] = False
        taken.append(best)
    return taken


def _mean_precision(true: NDArray, false: NDArray, objects: NDArray) -> NDArray[np.float64]:
    """The mean of the interpolated precision at COCO's 101 recalls, [B], of counts up to each detection [B, D]."""
    precision = true / np.maximum(true + false, np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is not reached has none
    recall = true / np.maximum(objects, 1)[:, None]
    found = [row[np.searchsorted(reached, RECALLS)].mean() for row, reached in zip(precision, recall, strict=True)]
    return np.where(objects > 0, found, 0.0)
