"""What bfloat16 costs: float32, bfloat16 in the layers alone, and one autocast around the whole detector.

    python benchmarks/training/bf16.py --shared ../shared [--epochs 12] [--seeds 2]

The last is what slimdet did before: torchvision then rounds anchors, ground truth and box targets to 8 bits. Getting
started's line for a CPU on pennfudan (256 pixels), the same order of images and start; AP, AP50 and AP75 of every width
on val. Results go to bf16.json.
"""

import argparse
import json
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimdet.files import atomic_write
from slimdet.training import precision, step
from slimdet.training.runs import train
from slimdet.training.settings import TrainSettings

OUT = Path(__file__).with_suffix(".json")
WORK = Path("runs/bf16")
MODES = ("float32", "layers", "everything")


def whole_detector(detector: nn.Module, enabled: bool = True) -> AbstractContextManager[Any]:
    """One autocast around all that the detector does."""
    return torch.autocast(next(detector.parameters()).device.type, torch.bfloat16, enabled=enabled)


def run(mode: str, seed: int, data: Path, weights: Path, epochs: float) -> dict[str, Any]:
    """Train and measure."""
    step.bfloat16_layers = whole_detector if mode == "everything" else precision.bfloat16_layers
    settings = TrainSettings(
        data=str(data),
        weights=str(weights),
        backbone="mobilenet_v2",
        neck="light",
        head_norm="group",
        batch=8,
        epochs=epochs,
        lr=0.01,
        schedule="cosine",
        bf16=mode != "float32",
        val_every=0,
        seed=seed,
    )
    folder = WORK / f"{mode}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    found = train(settings, out=folder)
    widths = {
        width: {key: kinds["bbox"][key] for key in ("AP", "AP50", "AP75")} for width, kinds in found.widths.items()
    }
    return {
        "mode": mode,
        "seed": seed,
        "widths": widths,
        "steps": found.steps,
        "cpu_s": round(time.process_time() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = (given.shared / "data" / "pennfudan").resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    data = WORK / "data.yaml"
    parts = []
    for part in ("train", "val"):
        annotations = folder / "annotations" / f"instances_{part}.json"
        parts.append(f"{part}: {{images: {folder}/images, annotations: {annotations}}}")
    data.write_text("\n".join(parts) + "\n")
    weights = given.shared / "data" / "weights" / "mobilenetv2_imagenet_features.pt"
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    for seed in range(given.seeds):
        for mode in MODES:
            if any((row["mode"], row["seed"]) == (mode, seed) for row in rows):
                continue
            rows.append(run(mode, seed, data, weights, given.epochs))
            with atomic_write(OUT) as temporary:
                temporary.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
