"""Does a video keep its time under load, and at what accuracy? A budget against fixed width and against fixed strides.

    python benchmarks/video/clips.py [--model bundled] [--fps 12] [--seconds 10] [--out FILE]

The clip is a slow pan and zoom over the bundled photographs (the bundled detector knows none of what real clips at hand
show). Everything shares one core with a process that computes 0, 50 or 100 % of the time. Ways:

* budget: `slimdet.video(budget_ms=1000 / fps)`, every frame looked at.
* rate: `slimdet.video(fps=fps, track=True)`: how long a look lasts is chosen, too.
* dropped: width 1.0 as it is; frames that come while it is busy are dropped, and keep the boxes of the last look.
* every 2, every 4: width 1.0 on every k-th frame, boxes carried between, however long that takes.

AP is against what width 1.0 finds in every frame where there is time enough (scores of 0.5 and more): a reference, not
truth. In time is a frame whose boxes are there within 1000 / fps milliseconds.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.runtime.machine import machine_key

LOADS = (0, 50, 100)
SIZE = (480, 320)
BUSY = """
import sys, time
share = float(sys.argv[1]) / 100
while True:
    end = time.perf_counter() + share * 0.02
    while time.perf_counter() < end:
        pass
    time.sleep((1 - share) * 0.02)
"""

Boxes = list[dict[str, Any]]


def frames(count: int) -> list[NDArray[np.uint8]]:
    """A pan and zoom over photograph after photograph."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    each = max(1, count // len(files))
    found = []
    for file in files:
        photograph = Image.open(file).convert("RGB")
        for step in range(each):
            share = step / each
            side = 1 - 0.25 * share
            left, top = (0.25 * share * length * 0.8 for length in photograph.size)
            box = (left, top, left + side * photograph.width, top + side * photograph.height)
            found.append(np.asarray(photograph.resize(SIZE, Image.Resampling.BILINEAR, box)))
    return found[:count]


@contextlib.contextmanager
def load(percent: int) -> Iterator[None]:
    """A process beside this one that computes so much of the time."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(percent)]) if percent else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def watched(clip: Path, model: str, **settings: Any) -> tuple[list[Boxes], list[float], Any]:
    """Boxes and milliseconds of every frame, and the watch."""
    boxes, took = [], []
    with slimdet.video(clip, model, threads=1, conf=0.05, **settings) as watch:
        for seen in watch:
            objects = seen.objects
            boxes.append(_boxes(objects.boxes, objects.labels, objects.scores))
            took.append(seen.took_ms)
        return boxes, took, watch


def dropping(pictures: Sequence[NDArray[np.uint8]], model: str, fps: float) -> tuple[list[Boxes], list[float]]:
    """Width 1.0 on the newest frame whenever it is free; the others keep the boxes of the last look."""
    detector = slimdet.Runtime(model, threads=1, conf=0.05).prepare([1.0])
    boxes: list[Boxes] = [[] for _ in pictures]
    took = [0.0] * len(pictures)
    start, place, last = time.perf_counter(), 0, []
    while place < len(pictures):
        arrived = start + place / fps
        time.sleep(max(0.0, arrived - time.perf_counter()))
        result = detector(pictures[place])
        took[place] = 1000 * (time.perf_counter() - arrived)
        after = max(place + 1, int((time.perf_counter() - start) * fps))
        for late in range(place, min(after, len(pictures))):
            boxes[late] = last
            took[late] = took[late] or float("inf")
        last = _boxes(result.boxes, result.labels, result.scores)
        if took[place] <= 1000 / fps:
            boxes[place] = last
        place = after
    return boxes, took


def _boxes(corners: NDArray[Any], labels: NDArray[Any], scores: NDArray[Any]) -> Boxes:
    return [
        {"bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label, "score": score}
        for (x1, y1, x2, y2), label, score in zip(corners.tolist(), labels.tolist(), scores.tolist(), strict=True)
    ]


def ap(reference: Sequence[Boxes], found: Sequence[Boxes]) -> float:
    """COCO's AP of the boxes of all frames against the reference's."""
    coco = COCO()
    truth = [
        {**one, "id": 0, "image_id": number, "iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3]}
        for number, boxes in enumerate(reference, 1)
        for one in boxes
        if one["score"] >= 0.5
    ]
    for number, one in enumerate(truth, 1):
        one["id"] = number
    labels = sorted({one["category_id"] for one in truth})
    coco.dataset = {
        "images": [{"id": number} for number in range(1, len(reference) + 1)],
        "annotations": truth,
        "categories": [{"id": label} for label in labels],
    }
    results = [{**one, "image_id": number} for number, boxes in enumerate(found, 1) for one in boxes]
    with contextlib.redirect_stdout(sys.stderr):
        coco.createIndex()
        if not results:
            return 0.0
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0])


def row(took: Sequence[float], fps: float, found: float, more: Mapping[str, Any]) -> dict[str, Any]:
    finite = np.array([ms for ms in took if np.isfinite(ms)])
    return {
        "AP": round(found, 4),
        "in_time": round(float(np.mean([ms <= 1000 / fps for ms in took])), 4),
        "p50_ms": round(float(np.percentile(finite, 50)), 2),
        "p95_ms": round(float(np.percentile(finite, 95)), 2),
        **more,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--fps", type=float, default=12.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("clips.json"))
    given = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pictures = frames(round(given.fps * given.seconds))
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(Path(folder) / f"{number:05d}.png")
        clip, fps, model = Path(folder), given.fps, given.model
        reference = watched(clip, model)[0]
        for percent in LOADS:
            with load(percent):
                for name, settings in (
                    ("budget", {"budget_ms": 1000 / fps}),
                    ("rate", {"fps": fps, "track": True}),
                    ("every 2", {"track": True, "every": 2}),
                    ("every 4", {"track": True, "every": 4}),
                ):
                    began = time.perf_counter()
                    boxes, took, watch = watched(clip, model, **settings)
                    rate = len(took) / (time.perf_counter() - began)
                    budget = watch.runtime.budget
                    more = {"fps": round(rate, 2), "switches": budget.controller.switches if budget else 0}
                    rows[f"{name}, {percent} %"] = row(took, fps, ap(reference, boxes), more)
                boxes, took = dropping(pictures, model, fps)
                dropped = sum(not np.isfinite(ms) for ms in took) / len(took)
                more = {"fps": fps, "dropped": round(dropped, 4)}
                rows[f"dropped, {percent} %"] = row(took, fps, ap(reference, boxes), more)
    record = {
        "note": "others used the machine, too",
        "date": str(date.today()),
        "machine": machine_key(slimdet.Runtime(given.model).engine, 1),
        "fps": given.fps,
        "frames": len(pictures),
        "rows": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, one in rows.items():
        print(f"{name:16}", *(f"{key} {value}" for key, value in one.items()))


if __name__ == "__main__":
    main()
