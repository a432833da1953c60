"""An ordinary detector made slimmable, against narrow detectors trained by themselves for as many steps.

    python benchmarks/accuracy/converted.py --shared ../shared [--lr 0.001] [--threads 1]

On pennfudan at 160 pixels: a detector of width 1.0 is trained by the recipe `default`, `make_slimmable` teaches it, and
a detector of each narrower width is trained for as many steps as the teaching took, from the leading channels of the
same sorted ImageNet backbone, with the recipe's settings. AP of the val images; one seed. A part that is there is not
done again. Writes converted.json.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from slimdet import load
from slimdet.core.slimmable import Slimmable, slim
from slimdet.data.coco import CocoDataset
from slimdet.data.transforms import ShrinkInto, augmentation
from slimdet.evaluation.validation import validate
from slimdet.training.conversion import make_slimmable
from slimdet.training.runs import SORTING_IMAGES, train
from slimdet.training.settings import TrainSettings
from slimdet.training.start import starting_model
from slimdet.training.trainer import Trainer
from slimdet.training.watching.progress import Lines

OUT = Path(__file__).with_name("converted.json")
NARROW = (0.25, 0.5, 0.75)
PARTS: dict[str, Any] = {"backbone": "mobilenet_v2", "neck": "light", "imgsz": 160}


def measured(model: Slimmable, val: CocoDataset) -> dict[str, float]:
    found = validate(model.eval(), val, model.widths).widths
    return {width: round(kinds["bbox"]["AP"], 4) for width, kinds in found.items()}


def individual(width: float, settings: TrainSettings, data: CocoDataset, val: CocoDataset, folder: Path) -> float:
    """AP of a detector of one width, trained by itself."""
    torch.manual_seed(settings.seed)
    sample = (data[index][0] for index in range(0, len(data), math.ceil(len(data) / SORTING_IMAGES)))
    alone = slim(starting_model(settings, data.classes, sample).extract(width), (1.0,))
    data.transforms = augmentation(settings.augment)
    sides: Any = alone.twin(1.0).get_submodule("transform")
    data.shrink = ShrinkInto(sides.min_size[-1], sides.max_size)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(alone, data, replace(settings, widths=(1.0,), distill=0.0))
    trainer.run(folder, [Lines()])
    return measured(trainer.result, val)["1.0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/converted"))
    parser.add_argument("--lr", type=float, nargs="+", default=[0.001])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    source = (given.shared / "data" / "pennfudan").resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    file = given.work / "data.yaml"
    lines = [
        f"{part}: {{images: {source}/images, annotations: {source}/annotations/instances_{part}.json}}\n"
        for part in ("train", "val")
    ]
    file.write_text("".join(lines))
    data, val = (
        CocoDataset(source / f"annotations/instances_{part}.json", source / "images", train=part == "train")
        for part in ("train", "val")
    )
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"date": time.strftime("%Y-%m-%d")}
    weights = str(given.shared.resolve() / "data" / "weights" / "mobilenetv2_imagenet_features.pt")
    wide = given.work / "wide"
    if "detector" not in record:
        train(data=str(file), weights=weights, widths=(1.0,), threads=given.threads, out=wide, evaluate=False, **PARTS)
        record["detector"] = measured(load(wide / "model"), val)["1.0"]
        keep(record)
    settings = None
    for lr in given.lr:
        out = given.work / f"slimmable-{lr:g}"
        if f"slimmable, rate {lr:g}" not in record:
            run = make_slimmable(wide / "model", file, out=out, lr=lr, threads=given.threads, evaluate=False)
            start = measured(load(out / "start"), val)
            record[f"slimmable, rate {lr:g}"] = {
                "steps": run.steps,
                "before": start,
                "after": measured(load(run.model), val),
            }
            keep(record)
        found = json.loads((out / "training" / "settings.json").read_text())
        del found["slimdet"]
        settings = TrainSettings(
            **found | {"weights": weights, "sort": True, "teacher": "widest", "head_norm": "batch", "lr": 0.001}
        )
    assert settings is not None
    for width in NARROW:
        if f"alone {width}" not in record:
            record[f"alone {width}"] = individual(width, settings, data, val, given.work / f"alone-{width}")
            keep(record)


def keep(record: dict[str, Any]) -> None:
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
