"""COCO numbers as the original printed them.

The checks and the matching are slimdet's (`slimdet.evaluation`). What differs from `slimdet val` is what the original
asked for: proposals are compared regardless of class with up to 1000 an image, and a mask's area range is told by its
box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimdet.errors import DataError
from slimdet.evaluation.ground_truth import GroundTruth
from slimdet.evaluation.matching import MOST, match

KINDS = ("bbox", "segm", "proposal", "keypoints")
Result = Mapping[str, Any]
_IOUS = {None: "0.50:0.95", 0: "0.50", 5: "0.75"}


@dataclass(frozen=True)
class Scores:
    """COCO's numbers (12; 10 for keypoints) in their usual order, in 0..1 or -1 where nothing was to be found, and the
    lines that say what each is."""

    values: tuple[float, ...]
    lines: tuple[str, ...]


def score(coco: Mapping[str, Any], results: Sequence[Result], kind: str) -> Scores:
    """Compare results with the annotations.

    Args:
        coco: a parsed COCO annotation file.
        results: COCO results (image_id, category_id, bbox, score, and segmentation or keypoints); may be empty. Those
            without keypoints do not count for "keypoints".
        kind: one of `KINDS`.

    Raises:
        DataError: malformed annotations or results, as `slimdet.evaluation.matching.accumulate`.
    """
    if kind == "keypoints":
        results = [_boxed(result) for result in results if "keypoints" in result]
    truth = GroundTruth(coco, masks=kind == "segm")
    found: Any = truth.results(results, masks=kind == "segm")
    found.area = found.bbox[:, 2] * found.bbox[:, 3]
    if kind == "keypoints":
        found = [item | {"keypoints": given["keypoints"]} for item, given in zip(found, results, strict=True)]
        truth.annotations = [  # type: ignore[assignment]
            item | _keypoints(given) for item, given in zip(truth.annotations, coco["annotations"], strict=True)
        ]
    most = {"proposal": (100, 300, 1000), "keypoints": (20,)}.get(kind, MOST)
    arrays = match(truth, found, "bbox" if kind == "proposal" else kind, most, by_class=kind != "proposal")
    return _summary(arrays, most, keypoints=kind == "keypoints")


def _keypoints(given: Mapping[str, Any]) -> dict[str, Any]:
    points = given.get("keypoints") or [0] * 51
    return {"keypoints": points, "num_keypoints": sum(visible > 0 for visible in points[2::3])}


def _boxed(result: Result) -> dict[str, Any]:
    points = np.asarray(result["keypoints"], dtype=float).reshape(-1)
    if len(points) != 51:
        raise DataError(f"image {result.get('image_id')}: {len(points)} keypoint numbers, not 17 times x, y, visible")
    low, high = points.reshape(-1, 3).min(axis=0), points.reshape(-1, 3).max(axis=0)
    return {**result, "bbox": [low[0], low[1], high[0] - low[0], high[1] - low[1]], "keypoints": points.tolist()}


def _summary(arrays: Mapping[str, np.ndarray], most: Sequence[int], keypoints: bool) -> Scores:
    areas = ("all", "medium", "large") if keypoints else ("all", "small", "medium", "large")
    last = len(most) - 1
    hundred = most.index(100) if 100 in most else last
    # Which numbers, in their order: kind, IoU threshold (None: mean over all), area range, detections an image.
    rows: list[tuple[str, int | None, int, int]] = [("precision", None, 0, hundred)]
    rows += [("precision", iou, 0, last) for iou in (0, 5)]
    rows += [("precision", None, area, last) for area in range(1, len(areas))]
    if keypoints:
        rows += [("recall", iou, 0, last) for iou in (None, 0, 5)]
    else:
        rows += [("recall", None, 0, count) for count in range(len(most))]
    rows += [("recall", None, area, last) for area in range(1, len(areas))]
    values, lines = [], []
    for what, iou, area, count in rows:
        cells = np.asarray(arrays[what])[..., area, count]
        cells = cells if iou is None else cells[iou]
        cells = cells[cells > -1]
        values.append(float(np.mean(cells)) if cells.size else -1.0)
        title = "Average Precision  (AP)" if what == "precision" else "Average Recall     (AR)"
        where = f"IoU={_IOUS[iou]:<9} | area={areas[area]:>6} | maxDets={most[count]:>3}"
        lines.append(f" {title} @[ {where} ] = {values[-1]:0.3f}")
    return Scores(tuple(values), tuple(lines))
