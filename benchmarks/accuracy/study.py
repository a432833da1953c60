"""The accuracy study: run the cells of cells.py that have no row yet, each at most 25 minutes of two cores.

    python benchmarks/accuracy/study.py --shared ../shared [--threads 2] [--device auto] [--limit N] [NAME ...]

An interrupted cell goes on from its checkpoint in runs/accuracy; its matches lie there, too, until table.py collects
them. Two processes may run at once: each takes cells that the other has not begun.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from cells import CELLS, INDIVIDUAL, QUARTERS, Cell
from matches import match, write
from torch import nn
from torchvision.models.detection import MaskRCNN

from slimdet.core.slimmable import Slimmable, slim
from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import augmentation
from slimdet.devices import choose_device
from slimdet.evaluation.inference import detect
from slimdet.evaluation.matching import evaluate
from slimdet.files import atomic_write
from slimdet.training.runs import recalibrate
from slimdet.training.settings import TrainSettings
from slimdet.training.start import starting_model
from slimdet.training.trainer import Trainer
from slimdet.training.watching.log import MetricsLog
from slimdet.training.watching.progress import Lines

ROWS = Path(__file__).parent / "rows"
WORK = Path("runs/accuracy")
TUNE_PERCENT = 10  # of the training images, held out to choose learning rates
SORTING_IMAGES = 64


def split(shared: Path, data: str, part: str) -> tuple[Path, Path]:
    """Annotations and images of `fit`, `tune` (both of the training images) or `val`."""
    folder = shared / "data" / data
    if part == "val":
        return folder / "annotations" / "instances_val.json", folder / "images"
    file = WORK / "data" / f"{data}-{part}.json"
    if not file.exists():
        coco = json.loads((folder / "annotations" / "instances_train.json").read_text())
        images = [image for image in coco["images"] if _held_out(image["file_name"]) == (part == "tune")]
        kept = {image["id"] for image in images}
        annotations = [item for item in coco["annotations"] if item["image_id"] in kept]
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(coco | {"images": images, "annotations": annotations}))
    return file, folder / "images"


def _held_out(file_name: str) -> bool:
    return int(hashlib.sha1(Path(file_name).name.encode()).hexdigest(), 16) // 100 % 100 < TUNE_PERCENT


def start(cell: Cell, settings: TrainSettings, dataset: CocoDataset, weights: Path) -> Slimmable:
    """The slimmable start of all methods; for an individual its corner, as a model of its own."""
    torch.manual_seed(cell.seed)
    sample = (dataset[index][0] for index in range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES)))
    whole = replace(settings, widths=QUARTERS, weights=str(weights))
    model = starting_model(whole, dataset.classes, sample if cell.sort else None)
    return model if cell.width is None else slim(model.extract(cell.width), (1.0,))


def trained(cell: Cell, shared: Path, device: str, teacher: nn.Module | None = None) -> Trainer:
    """Train a cell, or go on with it; nothing is left to do for one that is trained."""
    weights = shared / "data" / "weights" / "resnet50_thin0.5_open_nsfw_fp16.pth"
    widths = QUARTERS if cell.width is None else (1.0,)
    settings = TrainSettings(data=cell.data, weights=weights.name, widths=widths, device=device, **cell.settings)
    masks = settings.model == "mask_rcnn"
    dataset = CocoDataset(*split(shared, cell.data, "fit"), augmentation(settings.augment), masks=masks, train=True)
    folder = WORK / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(start(cell, settings, dataset, weights), dataset, settings, teacher)
    if (folder / "last.pt").exists():
        trainer.load(folder / "last.pt")
    trainer.run(folder, [MetricsLog(), Lines()])
    return trainer


def run(cell: Cell, shared: Path, device: str) -> dict[str, Any]:
    """Train and measure a cell; its row."""
    began = time.process_time()
    teacher = None
    if cell.method == "individual-taught":
        wide = replace(cell, method="individual", width=1.0, lr=INDIVIDUAL[1.0])
        teacher = trained(wide, shared, device).result.extract(1.0).train()
    trainer = trained(cell, shared, device, teacher)
    ended = time.process_time()
    model = copy.deepcopy(trainer.result).eval()
    masks = isinstance(model.twin(1.0), MaskRCNN)
    kinds = ("bbox", "segm") if masks else ("bbox",)
    if trainer.settings.statistics_images:
        recalibrate(model, trainer)
    measured: dict[str, Any] = {}
    matches = {}
    for width in model.widths:
        name = str(width if cell.width is None else cell.width)
        measured[name] = {}
        for part in ("tune", "val"):
            dataset = CocoDataset(*split(shared, cell.data, part), masks=masks)
            found = detect(lambda images, width=width: model(images, width=width), dataset, choose_device(device))
            measured[name][part] = evaluate(dataset.coco, found, kinds)
            if part == "val":  # for the intervals of differences
                matches |= {f"{cell.name}/{name}/{kind}": match(dataset.coco, found, kind) for kind in kinds}
    write(WORK / cell.name / "matches.npz.xz", matches)
    return {
        "cell": asdict(cell),
        "settings": asdict(trainer.settings) | {"held_out_percent": TUNE_PERCENT},
        "steps": trainer.step,
        "cpu_seconds": {"training": round(ended - began), "all": round(time.process_time() - began)},
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {choose_device(device).type}",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
        "widths": measured,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cells to run (default: all that have no row)")
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ (data/README.md)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="stop after this many cells")
    options = parser.parse_args()
    if unknown := set(options.names) - {cell.name for cell in CELLS}:
        parser.error(f"no such cells: {', '.join(sorted(unknown))}; cells.py has the list")
    if not (options.shared / "data").is_dir():
        parser.error(f"--shared {options.shared} has no folder data/")
    torch.set_num_threads(options.threads)
    cells = [cell for cell in CELLS if not options.names or cell.name in options.names]
    done = 0
    for cell in cells:
        row = ROWS / f"{cell.name}.json"
        claim = WORK / cell.name / f"claimed-{os.getpid()}"
        if row.exists() or _taken(claim.parent):
            continue
        claim.parent.mkdir(parents=True, exist_ok=True)
        claim.touch()
        try:
            content = run(cell, options.shared, options.device)
        finally:
            claim.unlink()
        with atomic_write(row) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")
        aps = {width: round(parts["val"]["bbox"]["AP"], 4) for width, parts in content["widths"].items()}
        print(cell.name, aps, content["cpu_seconds"], flush=True)
        done += 1
        if options.limit and done >= options.limit:
            break


def _taken(folder: Path) -> bool:
    """Whether a process that still runs has begun this cell."""
    pids = [int(file.name.removeprefix("claimed-")) for file in folder.glob("claimed-*")]
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


if __name__ == "__main__":
    main()
