"""Time and memory of a training step: widths together and alone, teaching, bfloat16, what saves memory, decoding.

    OMP_NUM_THREADS=1 python benchmarks/training/step.py [--backbone mobilenet_v2] [--imgsz 144] [--batch 8]

All variants take turns in one process, so that a busy machine slows each alike; times are processor seconds, medians of
the rounds. "before" and "bfloat16 in the whole backbone" are what slimdet did before. Memory is what a
step adds at its peak to what the process held (Linux), each in a process of its own. Decoding is of JPEGs of 1920x1080,
with the resize and the flip. Results go to step.json, a row for each set of options.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from slimdet import Slimmable, slim
from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import ShrinkInto, augmentation
from slimdet.files import atomic_write
from slimdet.models import builders
from slimdet.training import precision, step
from slimdet.training.processes.distributed import Place
from slimdet.training.processes.sharing import Share
from slimdet.training.settings import TrainSettings
from slimdet.training.step import accumulate_gradients

OUT = Path(__file__).with_suffix(".json")
WIDTHS = (1.0, 0.75, 0.5, 0.25)
CASES: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
    **{str(width): ((width,), {}) for width in WIDTHS},
    "four": (WIDTHS, {}),
    "four, taught": (WIDTHS, {"distill": 1.0}),
    "four, taught, bfloat16": (WIDTHS, {"distill": 1.0, "bf16": True}),
    "four, taught, checkpointed": (WIDTHS, {"distill": 1.0, "checkpoint_activations": True}),
    "four, taught, two parts": (WIDTHS, {"distill": 1.0, "accumulate": 2}),
}
BEFORE = {
    "before: 1.0": ("1.0", {"matrix_pooling": nullcontext}),
    "before: four": ("four", {"matrix_pooling": nullcontext}),
    "before: four, taught": ("four, taught", {"matrix_pooling": nullcontext}),
    "bfloat16 in the whole backbone": ("four, taught, bfloat16", {}),
}


def made(options: argparse.Namespace) -> tuple[Slimmable, list[Tensor], list[dict[str, Tensor]]]:
    """A model as the trainer holds it, and a batch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    detector = builders.faster_rcnn(6, options.backbone, "light", None, "batch", imgsz=options.imgsz)
    model = slim(detector, WIDTHS).train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    sides = torch.tensor([options.imgsz * 4 / 3, options.imgsz]).repeat(2)
    boxes = torch.tensor([[0.1, 0.14, 0.5, 0.7], [0.3, 0.28, 0.8, 0.9]]) * sides
    images = [torch.rand(3, options.imgsz, int(options.imgsz * 4 / 3)) for _ in range(options.batch)]
    return model, images, [{"boxes": boxes, "labels": torch.tensor([1, 2])} for _ in images]


def run(model: Slimmable, images: list[Tensor], targets: list[Any], widths: tuple[float, ...], fields: Any) -> None:
    """One step, without the optimizer."""
    settings = TrainSettings(**fields)
    for some, its, share in Share(Place(), len(images), 0).split(images, targets, settings.accumulate):
        accumulate_gradients(model, some, its, widths, settings, share=share)
    model.zero_grad()


@contextmanager
def as_before(names: dict[str, Any], whole: bool) -> Iterator[None]:
    """Put back what slimdet did before."""
    now, slow = {name: getattr(step, name) for name in names}, precision._slow_in_bfloat16
    for name, value in names.items():
        setattr(step, name, value)
    precision._slow_in_bfloat16 = (lambda detector: []) if whole else slow
    yield
    for name, value in now.items():
        setattr(step, name, value)
    precision._slow_in_bfloat16 = slow


def times(options: argparse.Namespace) -> dict[str, float]:
    """Processor seconds of a step of each case."""
    model, images, targets = made(options)
    seconds: dict[str, list[float]] = {name: [] for name in (*CASES, *BEFORE)}
    for _ in range(options.rounds + 1):
        for name, found in seconds.items():
            case, changed = BEFORE.get(name, (name, {}))
            with as_before(changed, whole="whole" in name):
                began = time.process_time()
                run(model, images, targets, *CASES[case])
                found.append(time.process_time() - began)
    return {name: round(statistics.median(found[1:]), 3) for name, found in seconds.items()}


def process_mb(field: str) -> float:
    """A line of this process's status, in megabytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) / 1024


def peak(options: argparse.Namespace, name: str) -> float:
    """Megabytes that a step of a case adds at its peak, in this process."""
    model, images, targets = made(options)
    run(model, images[:1], targets[:1], (0.25,), {})  # libraries are loaded
    Path("/proc/self/clear_refs").write_text("5")
    before = process_mb("VmRSS")
    run(model, images, targets, *CASES[name])
    return round(process_mb("VmHWM") - before)


def decoding(options: argparse.Namespace) -> float:
    """Processor seconds in which a batch's JPEGs of 1920x1080 become what a step takes."""
    with tempfile.TemporaryDirectory() as name:
        folder, draw = Path(name), np.random.default_rng(0)
        small = draw.integers(0, 256, (options.batch, 68, 120, 3), dtype=np.uint8)
        records = [{"id": k, "file_name": f"{k}.jpg", "width": 1920, "height": 1080} for k in range(options.batch)]
        for pixels, record in zip(small, records, strict=True):
            Image.fromarray(pixels).resize((1920, 1080), Image.Resampling.BICUBIC).save(folder / record["file_name"])
        box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 10, 500, 500], "area": 250_000, "iscrowd": 0}
        coco = {"images": records, "annotations": [box], "categories": [{"id": 1, "name": "one"}]}
        (folder / "coco.json").write_text(json.dumps(coco))
        dataset = CocoDataset(folder / "coco.json", folder, train=True)
        dataset.transforms = augmentation("default")
        dataset.shrink = ShrinkInto(options.imgsz, round(options.imgsz * 1.375))
        found = []
        for _ in range(options.rounds):
            began = time.process_time()
            for index in range(len(dataset)):
                dataset.as_bytes(index)
            found.append(time.process_time() - began)
    return round(statistics.median(found), 4)


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """A function's result, computed in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--imgsz", type=int, default=144)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    memory = {name: apart(peak, options, name) for name in CASES}
    seconds, read = times(options), decoding(options)
    alone, taught = seconds["1.0"], seconds["four, taught"]
    row = {
        **vars(options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, 1 thread, torch {torch.__version__}",
        "seconds": seconds,
        "four_to_widest": round(seconds["four"] / alone, 2),
        "four_taught_to_widest": round(taught / alone, 2),
        "four_taught_to_four_separate": round(taught / sum(seconds[str(width)] for width in WIDTHS), 2),
        "bfloat16_to_float32": round(seconds["four, taught, bfloat16"] / taught, 2),
        "now_to_before": round(taught / seconds["before: four, taught"], 2),
        "peak_mb": memory,
        "decoding_1080p_s": read,
        "decoding_share": round(read / (read + taught), 3),
    }
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    key = ("backbone", "imgsz", "batch")
    rows = [one for one in rows if [one[name] for name in key] != [row[name] for name in key]]
    with atomic_write(OUT) as temporary:
        temporary.write_text(json.dumps([*rows, row], indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
