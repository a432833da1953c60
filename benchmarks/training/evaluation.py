"""Time and memory of evaluating detections: by default a million of them, in 10,000 images of 80 classes.

    python benchmarks/training/evaluation.py [--detections N] [--classes K]      the row as JSON, on stdout

`peak_mb` is what the process grew by at most, over what holds the detections before (`held_mb`).
"""

import argparse
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

A_PICTURE = 100  # detections


def make(detections: int, classes: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Ground truth of 7 objects an image; detections as arrays: image, category, box, score. Some overlap objects."""
    draw = np.random.default_rng(0)
    images = detections // A_PICTURE

    def boxes(count: int) -> np.ndarray:
        return np.concatenate([draw.random((count, 2)) * 400, 10 + draw.random((count, 2)) * 200], axis=1).round(2)

    objects = boxes(7 * images)
    owners, kinds = np.repeat(np.arange(images), 7), draw.integers(1, classes + 1, 7 * images)
    annotations = [
        {"id": place + 1, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for place, (image, kind, box) in enumerate(zip(owners.tolist(), kinds.tolist(), objects.tolist(), strict=True))
    ]
    found = boxes(detections)
    image, category = np.repeat(np.arange(images), A_PICTURE), draw.integers(1, classes + 1, detections)
    hits = np.arange(detections).reshape(images, A_PICTURE)[:, :14].ravel()  # two of each object
    found[hits] = np.repeat(objects, 2, axis=0) + draw.normal(0, 4, (len(hits), 4)).clip(-9, 9)
    category[hits] = np.repeat(kinds, 2)
    coco = {
        "images": [{"id": number, "file_name": "", "width": 640, "height": 640} for number in range(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
    }
    return coco, [image, category, found, draw.random(detections)]


def _rss() -> float:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detections", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=80)
    arguments = parser.parse_args()
    from slimdet.evaluation.matching import evaluate

    try:  # as slimdet.evaluation.inference.detect gives them: dicts before, columns now
        from slimdet.data.formats.records import Columns, Records
    except ImportError:
        Columns = Records = None  # type: ignore[assignment, misc]
    coco, arrays = make(arguments.detections, arguments.classes)
    gc.collect()
    empty = _rss()
    columns: Any = Columns() if Columns else []
    for start in range(0, arguments.detections, A_PICTURE):
        part = [array[start : start + A_PICTURE].tolist() for array in arrays]
        found = [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(*part, strict=True)
        ]
        if Columns:
            columns.add(found)
        else:
            columns += found
    detections: Any = columns.records() if Columns else columns
    if Records:
        coco["annotations"] = Records.of([coco["annotations"]], masks=False)
    del arrays, columns
    gc.collect()
    before = _rss()
    start, cpu = time.perf_counter(), time.process_time()
    numbers = evaluate(coco, detections)["bbox"]
    row = {
        "detections": arguments.detections,
        "classes": arguments.classes,
        "evaluate_s": round(time.perf_counter() - start, 1),
        "evaluate_cpu_s": round(time.process_time() - cpu, 1),
        "held_mb": round(before - empty),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before),
        "AP": round(numbers["AP"], 6),
        "AP_small": round(numbers["AP_small"], 6),
        "AR100": round(numbers["AR100"], 6),
    }
    json.dump(row, sys.stdout)
    print()


if __name__ == "__main__":
    main()
