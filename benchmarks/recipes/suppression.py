"""Suppression across classes or within each: AP and second boxes of the same models, on data of both kinds.

    python benchmarks/recipes/suppression.py --shared ../shared

The bundled detector on animalpose; short trainings, at width 1.0 alone, on a tenth of everyday and on coco_small, where
objects of different classes do stand at one place, and on drawn cards, whose classes look alike and exclude each
other. `crossings` is the share of training objects at the place of one of another class, by which
`slimdet.training.recipes` decides.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import screen
import torch
from PIL import Image, ImageDraw

import slimdet
from slimdet.bundle import manifest
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.summary import crossings
from slimdet.evaluation.validation import measure
from slimdet.files import atomic_write
from slimdet.models.suppression import SUPPRESSIONS, set_suppression
from slimdet.training.runs import train

RESULT = Path(__file__).with_suffix(".json")
screen.WORK, screen.VAL_IMAGES = Path("runs/suppression"), 250
CARDS = {"train": 150, "val": 80}
SETS: dict[str, dict[str, Any]] = {
    "animalpose": {},  # the bundled detector as it is
    "cards": {"imgsz": 128, "epochs": 16},
    "everyday": {"weights": "bundled", "imgsz": 160, "epochs": 2},
    "coco_small": {"weights": "bundled", "imgsz": 160, "epochs": 4},
}


def cards(folder: Path) -> Path:
    """Pictures of one to three cards with 3, 4, 5 or 6 pips, which is the class; their DATA.yaml."""
    draw, lines = random.Random(0), []
    for part, count in CARDS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        coco: dict[str, Any] = {"images": [], "annotations": []}
        coco["categories"] = [{"id": pips, "name": f"{pips} pips"} for pips in (3, 4, 5, 6)]
        for number in range(1, count + 1):
            image = Image.effect_noise((192, 144), 60).convert("RGB")
            places = draw.sample([(x, y) for x in (4, 66, 128) for y in (4, 76)], draw.randint(1, 3))
            for x, y in places:
                pips, box = draw.choice((3, 4, 5, 6)), (x, y, 56, 64)
                _card(ImageDraw.Draw(image), box, pips, draw)
                one = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "category_id": pips, "image_id": number}
                coco["annotations"].append(one | {"id": len(coco["annotations"]) + 1})
            image.save(folder / part / f"{number}.png")
            coco["images"].append({"id": number, "file_name": f"{number}.png", "width": 192, "height": 144})
        (folder / f"{part}.json").write_text(json.dumps(coco))
        lines.append(f"{part}: {{images: {part}, annotations: {part}.json}}\n")
    (folder / "data.yaml").write_text("".join(lines))
    return folder / "data.yaml"


def _card(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], pips: int, draw: random.Random) -> None:
    x, y, width, height = box
    pen.rounded_rectangle((x, y, x + width, y + height), 6, "white", "black")
    for column, row in draw.sample([(a, b) for a in range(3) for b in range(4)], pips):
        left, top = x + 8 + 15 * column, y + 6 + 14 * row
        pen.ellipse((left, top, left + 10, top + 10), "red")


def model_of(name: str, data: Path, shared: Path) -> Path:
    """A trained model of a set."""
    if name == "animalpose":
        return manifest.bundled()
    fixed = {"data": data, "widths": (1.0,), "sort": False, "evaluate": False, "check": False, "nms": "class"}
    fixed["weights"] = shared / "data" / "weights" / "mobilenetv2_imagenet_features.pt"
    return train(**fixed | SETS[name], out=screen.WORK / "training" / name).model


def compared(model: Path, val: CocoDataset) -> dict[str, Any]:
    """AP by width and kind of suppression, and detections of at least 0.5 behind the first of a place."""
    loaded, found = slimdet.load(model), {}
    widths = [width for width in (0.25, 0.5, 1.0) if width in loaded.widths]
    for kind in SUPPRESSIONS:
        for width in widths:
            set_suppression(loaded.twin(width), kind)
        for one in measure(loaded, val, widths):
            numbers = one.numbers["bbox"]
            sure = sum(detection["score"] >= 0.5 for detection in one.detections)
            row = {key: round(numbers[key], 4) for key in ("AP", "AP50", "AR100")} | {"sure": sure}
            found.setdefault(str(one.width), {})[kind] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ of the sets and weights")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in SETS:
        if name in rows:
            continue
        data = cards(screen.WORK / "data" / name) if name == "cards" else screen.subset(given.shared, name)
        config: Any = read_data_config(data)
        train_set, val = (CocoDataset(part.annotations, part.images) for part in (config.train, config.val))
        rows[name] = {
            "crossings": round(crossings(train_set.coco["annotations"]), 4),
            "objects": len(val.coco["annotations"]),
            "widths": compared(model_of(name, data, given.shared), val),
            "machine": screen.machine(),
        }
        with atomic_write(RESULT) as temporary:
            temporary.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
