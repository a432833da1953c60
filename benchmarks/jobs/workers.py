"""Images a second of a job on one and on two workers.

    python benchmarks/jobs/workers.py IMAGES [--images 400] [--rounds 3] [--out FILE]

IMAGES is a folder of JPEG files, of which crops are made in a temporary folder. One and two workers take turns in one
Ray on this machine, each at the narrowest and at the widest width. Images a second are counted from the first part to
the last, so that the start of workers is none of it: `start_s` has it. The bundled model, one thread a worker.
"""

import argparse
import json
import os
import platform
import runpy
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import ray

from slimdet.jobs import JobSettings, detect

WIDTHS, WORKERS, BLOCK = (0.25, 1.0), (1, 2), 25
crops = runpy.run_path(str(Path(__file__).parents[1] / "runtime" / "throughput.py"))["crops"]


def measure(images: Path, width: float, workers: int) -> tuple[float, float]:
    """Images a second between the first part and the last, and seconds until the first."""
    parts: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as out:
        began = time.monotonic()
        detect(
            [str(images)],
            "bundled",
            JobSettings(width=width, workers=workers, block=BLOCK),
            out,
            lambda tally, _: parts.append((time.monotonic() - began, len(tally.files))),
        )
    (first, some), (last, every) = parts[0], parts[-1]
    return (every - some) / (last - first), first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    runs: dict[str, list[tuple[float, float]]] = {}
    load = os.getloadavg()[0]
    ray.init(num_cpus=2, _node_ip_address="127.0.0.2", log_to_driver=False, logging_level="WARNING")
    with tempfile.TemporaryDirectory() as folder:
        crops(given.folder, Path(folder), given.images)
        for _ in range(given.rounds):
            for width in WIDTHS:
                for workers in WORKERS:
                    runs.setdefault(f"{width} on {workers}", []).append(measure(Path(folder), width, workers))
    ray.shutdown()
    rates = {name: [rate for rate, _ in found] for name, found in runs.items()}
    document: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_before": round(load, 1),
        "versions": {name: version(name) for name in ("ray", "onnxruntime", "numpy", "pillow")},
        "images": given.images,
        "images_s": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "start_s": {name: [round(start, 1) for _, start in found] for name, found in runs.items()},
        "two_workers_to_one": {
            width: round(median(b / a for a, b in zip(rates[f"{width} on 1"], rates[f"{width} on 2"], strict=True)), 2)
            for width in WIDTHS
        },
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
