"""Results in the original's forms, in memory, pickled and as COCO JSON.

For each image: a list of K arrays [n, 5] (inclusive x1, y1, x2, y2, score in original pixels), one per class; with
masks a pair of that and the run-length codes in the same order; for a region proposal network one array [n, 5].
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slimdet.errors import DataError
from slimdet.files import atomic_write
from slimdet.original.data.unpickle import unpickle
from slimdet.original.detector.boxes import to_inclusive
from slimdet.original.detector.masks import encode

Classwise = list[np.ndarray]
Masked = tuple[Classwise, list[list[dict[str, Any]]]]
ImageResult = Classwise | Masked | np.ndarray


def image_result(found: Mapping[str, Tensor], classes: int, size: tuple[int, int], threshold: float) -> ImageResult:
    """One image's result from what a detector found.

    Args:
        found: as `OriginalDetector.detect` returns it.
        classes: K; 0 for a region proposal network.
        size: (height, width) of the original image.
        threshold: where masks are cut.
    """
    boxes = to_inclusive(found["boxes"]).cpu().numpy()
    rows = np.column_stack([boxes, found["scores"].cpu().numpy()]).astype(np.float32)
    if not classes:
        return rows
    labels = found["labels"].cpu().numpy() - 1
    by_class = [rows[labels == label] for label in range(classes)]
    if "cells" not in found:
        return by_class
    codes: list[list[dict[str, Any]]] = [[] for _ in range(classes)]
    for label, code in zip(labels, encode(found["cells"], found["boxes"], size, threshold), strict=True):
        codes[label].append(code)
    return by_class, codes


def to_coco(results: Sequence[ImageResult], image_ids: Sequence[int], category_ids: Sequence[int]) -> list[dict]:
    """Results of all images as COCO results; a region proposal network's are of category 1.

    Raises:
        DataError: another number of images than ids, more classes than categories, or not results at all.
    """
    if len(results) != len(image_ids):
        raise DataError(f"{len(results)} results for {len(image_ids)} images; they belong to other annotations")
    found = []
    for image_id, result in zip(image_ids, results, strict=True):
        if isinstance(result, np.ndarray):
            found += [_entry(image_id, 1, row) for row in _rows(result)]
            continue
        by_class, codes = result if isinstance(result, tuple) else (result, None)
        if not isinstance(by_class, list) or (codes is not None and len(codes) != len(by_class)):
            raise DataError(f"the result of image {image_id} is none of the original's forms")
        if len(by_class) > len(category_ids):
            raise DataError(f"results of {len(by_class)} classes, but the annotations have {len(category_ids)}")
        for label, rows in enumerate(by_class):
            entries = [_entry(image_id, category_ids[label], row) for row in _rows(rows)]
            for entry, code in zip(entries, codes[label] if codes else (), strict=codes is not None):
                counts = code["counts"]
                text = counts.decode("ascii") if isinstance(counts, bytes) else counts
                entry["segmentation"] = {"size": [int(side) for side in code["size"]], "counts": text}
            found += entries
    return found


def _rows(rows: Any) -> list[list[float]]:
    values = np.asarray(rows)
    if values.dtype.kind != "f" or values.ndim != 2 or values.shape[1] != 5:
        raise DataError(f"an array of shape {values.shape} where boxes with scores, [n, 5], are expected")
    return values.tolist()


def _entry(image_id: int, category_id: int, row: list[float]) -> dict[str, Any]:
    x1, y1, x2, y2, score = row
    box = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
    return {"image_id": image_id, "bbox": box, "score": score, "category_id": category_id}


def proposals_of(results: Sequence[Any], image_ids: Sequence[int]) -> list[np.ndarray]:
    """Each image's boxes and scores [n, 5], inclusive, from proposals or from COCO results."""
    if all(isinstance(result, np.ndarray) for result in results):
        if len(results) != len(image_ids):
            raise DataError(f"{len(results)} results for {len(image_ids)} images; they belong to other annotations")
        return list(results)
    if not all(isinstance(result, Mapping) for result in results):
        raise DataError("proposal_fast compares a region proposal network's results; these are detections")
    by_image: dict[int, list[list[float]]] = {number: [] for number in image_ids}
    for result in results:
        if result.get("image_id") not in by_image:
            raise DataError(f"a result of image {result.get('image_id')}, which the annotations do not have")
        x, y, width, height = result["bbox"]
        by_image[result["image_id"]].append([x, y, x + width - 1, y + height - 1, result["score"]])
    return [np.array(by_image[number], np.float32).reshape(-1, 5) for number in image_ids]


def save(path: Path, results: Sequence[ImageResult], coco_results: Sequence[dict[str, Any]]) -> None:
    """Write the results to `path` as a pickle and to `path`.json as COCO JSON, each whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(pickle.dumps(list(results), protocol=4))
    with atomic_write(path.with_name(path.name + ".json")) as temporary:
        temporary.write_text(json.dumps(list(coco_results)))


def load(path: Path, image_ids: Sequence[int], category_ids: Sequence[int]) -> tuple[list[Any], list[dict]]:
    """Results from a file: as the pickle holds them (empty for JSON), and as COCO results.

    Raises:
        DataError: not a result file, or it belongs to other annotations.
    """
    if path.suffix in (".pkl", ".pickle"):
        results = unpickle(path)
        if not isinstance(results, list):
            raise DataError(f"{path} holds a {type(results).__name__}, not a list of results")
        return results, to_coco(results, image_ids, category_ids)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a result file (.pkl, .pickle or JSON): {error}") from None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise DataError(f"{path} is JSON, but not a list of results")
    return [], found
