"""Which backbone the everyday detector starts from: AP of a short training against latency, one row a backbone.

    python benchmarks/everyday/backbones.py --shared ../shared [--steps 300]

Widths 0.25 and 1.0 are trained together on everyday at 192 pixels (light neck, the same images for all); AP is that of
400 validation photographs. The exported files are timed in ONNX Runtime on one thread, all backbones in turns, at three
sizes. A finished backbone has its line in backbones.jsonl and is not trained again.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

import slimdet
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.validation import validate
from slimdet.models import builders
from slimdet.training.runs import train
from slimdet.training.settings import TrainSettings

ROWS = Path(__file__).with_name("backbones.jsonl")
LATENCIES = Path(__file__).with_name("latencies.json")
STARTS = {
    "mobilenet_v2": "mobilenetv2_imagenet_features.pt",
    "efficientnet_lite0": "efficientnet_lite0_imagenet_fp16.pth",
    "resnet50_thin": "resnet50_thin0.5_open_nsfw_fp16.pth",
}
WIDTHS = (0.25, 1.0)
SIZES = (128, 192, 256)
BATCH = 16
VAL_IMAGES = 400
REPEATS = 30


def data_file(shared: Path, work: Path) -> Path:
    """DATA.yaml of everyday, and of a part of its validation photographs."""
    source = (shared / "data").resolve()
    work.mkdir(parents=True, exist_ok=True)
    coco = json.loads((source / "everyday/annotations/instances_val.json").read_text())
    kept = sorted(coco["images"], key=lambda image: image["file_name"])
    kept = kept[:: len(kept) // VAL_IMAGES][:VAL_IMAGES]
    ids = {image["id"] for image in kept}
    coco |= {"images": kept, "annotations": [one for one in coco["annotations"] if one["image_id"] in ids]}
    (work / "val.json").write_text(json.dumps(coco))
    file = work / "data.yaml"
    train_file = source / "everyday/annotations/instances_train.json"
    file.write_text(
        f"train: {{images: {source}, annotations: {train_file}}}\nval: {{images: {source}, annotations: val.json}}\n"
    )
    return file


def trained(backbone: str, steps: int, shared: Path, work: Path) -> dict[str, object]:
    """Train and measure one backbone."""
    data = data_file(shared, work)
    images = len(json.loads((shared / "data/everyday/annotations/instances_train.json").read_text())["images"])
    settings = TrainSettings(
        data=str(data),
        weights=str(shared / "data/weights" / STARTS[backbone]),
        backbone=backbone,
        neck="light",
        head_norm="batch",
        sort=True,
        widths=WIDTHS,
        gradient_reduction="root",
        schedule="cosine",
        optimizer="adamw",
        warmup=100,
        batch=BATCH,
        ema=0.99,
        imgsz=192,
        epochs=steps * BATCH / images,
        evaluate=False,
        check=False,
    )
    out = work / backbone
    shutil.rmtree(out, ignore_errors=True)
    began = time.process_time()
    model = slimdet.load(train(settings, out=out).model)
    seconds = time.process_time() - began
    val = CocoDataset(work / "val.json", (shared / "data").resolve())
    numbers = validate(model, val, WIDTHS).widths
    ap = {width: {key: round(kinds["bbox"][key], 4) for key in ("AP", "AP50")} for width, kinds in numbers.items()}
    return {"backbone": backbone, "steps": steps, "batch": BATCH, "widths": ap, "cpu_seconds": round(seconds)}


def latencies(work: Path) -> dict[str, object]:
    """Median CPU milliseconds of a call from pixels to boxes, by backbone, width and size; random weights."""
    calls = {}
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    for backbone in STARTS:
        torch.manual_seed(0)
        detector = builders.faster_rcnn(
            21, backbone=backbone, neck="light", weights=None, norm_layer="batch", imgsz=192
        )
        bundle = work / f"random-{backbone}"
        shutil.rmtree(bundle, ignore_errors=True)
        slimdet.save(slimdet.slim(detector, (0.25, 0.5, 0.75, 1.0)), bundle)
        slimdet.export(bundle)
        runtime = slimdet.Runtime(bundle, engine="onnxruntime", threads=1)
        for width in runtime.widths:
            for size in SIZES:
                calls[f"{backbone} {width} {size}"] = partial(runtime, image, width=width, imgsz=size, proposals=100)
    return {"proposals": 100, "n": REPEATS, "cpu_ms": cpu_medians(calls, REPEATS)}


def cpu_medians(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of each call, by name; they take turns, three before anything counts."""
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 3):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn >= 3:
                runs[name].append(1000 * (time.process_time() - began))
    return {name: round(median(ms), 2) for name, ms in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/everyday"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--backbones", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--out", type=Path, default=ROWS, help="where the lines go")
    parser.add_argument("--latency", action="store_true", help="only the latencies")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.latency:
        LATENCIES.write_text(json.dumps(latencies(given.work), indent=1) + "\n")
        return
    rows = given.out.read_text().splitlines() if given.out.exists() else []
    done = {json.loads(row)["backbone"] for row in rows}
    for backbone in given.backbones:
        if backbone not in done:
            row = trained(backbone, given.steps, given.shared, given.work)
            with given.out.open("a") as handle:
                handle.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
