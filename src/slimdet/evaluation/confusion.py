"""The confusion matrix: which class was taken for which.

K classes in order of category id.
"""

from collections import defaultdict
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
    objects, found = defaultdict(list), defaultdict(list)
    for annotation in truth.annotations:
        objects[annotation["image_id"]].append(annotation)
    for result in truth.results(detections, masks=False):
        if result["score"] >= conf:
            found[result["image_id"]].append(result)

    for image in objects.keys() | found.keys():
        results = sorted(found[image], key=lambda result: -result["score"])
        crowd = np.array([annotation["iscrowd"] for annotation in objects[image]], bool)
        actual = np.array([annotation["category_id"] - 1 for annotation in objects[image]], int)
        free = ~crowd
        overlap = np.zeros((len(results), len(actual)))
        if overlap.size:
            boxes = [annotation["bbox"] for annotation in objects[image]]
            overlap = np.asarray(
                rle_functions().iou([result["bbox"] for result in results], boxes, crowd.astype(int).tolist())
            )
        for row, result in zip(overlap, results, strict=True):
            predicted = result["category_id"] - 1
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
