"""Time and memory of reading a COCO file: 100,000 images, 1,000,000 boxes.

    python benchmarks/training/data.py            the row as JSON, on stdout

`read_s` is the time of making a `CocoDataset`; `peak_mb` what the process grew by at most meanwhile, `kept_mb` what is
left; `workers_mb` what four data workers add to the private memory of all processes when every target was made once.
"""

import gc
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, BOXES, CLASSES = 100_000, 1_000_000, 80


def write(file: Path) -> None:
    """Write the annotations; the images need not exist."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(300, 2000, (IMAGES, 2)).tolist()
    owners = draw.integers(0, IMAGES, BOXES).tolist()
    with file.open("w") as out:
        records = (
            {"id": 1000 + i, "file_name": f"train/{i:012d}.jpg", "width": w, "height": h}
            for i, (w, h) in enumerate(sizes)
        )
        out.write('{"images": [' + ", ".join(map(json.dumps, records)) + '], "annotations": [')
        for number, owner in enumerate(owners):
            width, height = sizes[owner]
            w, h = round(width * (0.01 + 0.4 * draw.random()), 2), round(height * (0.01 + 0.4 * draw.random()), 2)
            box = [round((width - w) * draw.random(), 2), round((height - h) * draw.random(), 2), w, h]
            record: dict[str, Any] = {
                "id": number + 1, "image_id": 1000 + owner, "category_id": number % CLASSES + 1,
                "bbox": box, "area": round(w * h, 2), "iscrowd": 0,
            }  # fmt: skip
            out.write((", " if number else "") + json.dumps(record))
        names = [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)]
        out.write('], "categories": ' + json.dumps(names) + "}")


def _megabytes(field: str, file: str = "status") -> float:
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _worker(dataset: Any, places: range, ready: int, go: int) -> None:
    """Make targets as a data worker does, then tell how much memory is this process's own."""
    from slimdet.data.coco import CocoDataset

    assert isinstance(dataset, CocoDataset)
    before = _megabytes("Private_", "smaps_rollup")
    for place in places:
        dataset.target(place)
    os.write(ready, f"{_megabytes('Private_', 'smaps_rollup') - before}\n".encode())
    os.read(go, 1)
    os._exit(0)


def main() -> None:
    from slimdet.data.coco import CocoDataset  # before anything is measured

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        child = os.fork()
        if not child:  # what writing takes is not to be counted
            write(file)
            os._exit(0)
        os.waitpid(child, 0)
        gc.collect()
        before = _megabytes("VmRSS")
        start, cpu = time.perf_counter(), time.process_time()
        dataset = CocoDataset(file, folder, train=True)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        gc.collect()
        row = {
            "images": IMAGES,
            "boxes": BOXES,
            "file_mb": round(file.stat().st_size / 2**20),
            "read_s": round(seconds, 2),
            "read_cpu_s": round(cpu, 2),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before),
            "kept_mb": round(_megabytes("VmRSS") - before),
        }
        if hasattr(dataset, "target"):
            (ready, said), (wait, go) = os.pipe(), os.pipe()
            for worker in range(4):
                if not os.fork():
                    _worker(dataset, range(worker, IMAGES, 4), said, wait)
            reports = b""
            while reports.count(b"\n") < 4:
                reports += os.read(ready, 1000)
            os.write(go, b"0000")
            row["workers_mb"] = round(sum(map(float, reports.split())))
        json.dump(row, sys.stdout)
        print()


if __name__ == "__main__":
    main()
