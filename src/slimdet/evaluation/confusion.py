"""The confusion matrix: which class was taken for which.

K classes in order of category id.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slimdet.data.annotations import rle_functions
from slimdet.evaluation.ground_truth import GroundTruth


def confusion_matrix(
    coco: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], iou: float = 0.5, conf: float = 0.25
) -> np.ndarray:
    """Count which class was taken for which: int64 [K + 1, K + 1], rows the true class, columns the detected one.

    The last column counts objects that were missed, the last row detections where nothing is. In each image, detections
    with a score of at least `conf` take, best score first, the free object of any class whose box overlaps most, if the
    IoU is at least `iou`. Crowds are never missed, and what lies on a crowd of its own class is not counted.

    Raises:
        DataError: as `slimdet.evaluation.matching.accumulate`.
    """
    truth = GroundTruth(coco, masks=False)
    size = len(truth.classes)
    matrix = np.zeros((size + 1, size + 1), np.int64)
    annotations, results = truth.annotations, truth.results(detections, masks=False)
    kept = np.flatnonzero(results.score >= conf)
    results = results.take(kept[np.lexsort((-results.score[kept], results.image_id[kept]))])  # best first in an image
    annotations = annotations.take(np.argsort(annotations.image_id, kind="stable"))
    images = np.union1d(annotations.image_id, results.image_id)
    starts, ends = (
        [np.searchsorted(one.image_id, images, edge) for one in (annotations, results)] for edge in ("left", "right")
    )
    for objects, found in zip(*(map(slice, *part) for part in zip(starts, ends, strict=True)), strict=True):
        crowd, actual = annotations.iscrowd[objects] > 0, annotations.category_id[objects] - 1
        free = ~crowd
        overlap = np.zeros((len(results.score[found]), len(actual)))
        if overlap.size:
            boxes = [results.bbox[found], annotations.bbox[objects]]
            overlap = np.asarray(rle_functions().iou(*boxes, crowd.astype(int).tolist()))
        for row, predicted in zip(overlap, (results.category_id[found] - 1).tolist(), strict=True):
            candidates = np.flatnonzero(free & (row >= iou))
            if len(candidates):
                # Of equal overlaps the object of the detected class is meant.
                best = max(candidates, key=lambda index: (row[index], actual[index] == predicted))
                free[best] = False
                matrix[actual[best], predicted] += 1
            elif not np.any(crowd & (actual == predicted) & (row >= iou)):
                matrix[size, predicted] += 1
        np.add.at(matrix[:, size], actual[free], 1)
    return matrix
