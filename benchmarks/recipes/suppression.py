"""Suppression across classes or within each: what it costs at most, and AP and numbers of detections with either.

    python benchmarks/recipes/suppression.py --shared ../shared [--only NAME]

`bounds`: the training objects of five sets as if they had been detected without a mistake. The share of them that
suppression leaves is the highest recall that a detector can have.

`measured`: the bundled detector on animalpose and on everyday's photographs of the same five classes, and a short
training, at width 1.0 alone, on drawn cards, whose classes look alike. Both ways are measured on the same weights.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import screen
import torch
from PIL import Image, ImageDraw
from torchvision.ops import batched_nms, box_convert

import slimdet
from slimdet.bundle import manifest
from slimdet.data.coco import CocoDataset, read_coco
from slimdet.evaluation.validation import measure
from slimdet.files import atomic_write
from slimdet.models.suppression import SUPPRESSIONS, set_suppression
from slimdet.training.runs import train

RESULT = Path(__file__).with_suffix(".json")
WORK = Path("runs/suppression")
THRESHOLD = 0.5  # IoU, torchvision's
IMAGES = 150  # of a set, to measure on
SURE = 0.5  # least score of the detections that are counted
CARDS = {"train": 120, "val": 80}
TRAINING: dict[str, Any] = {"imgsz": 96, "epochs": 4, "widths": (1.0,), "sort": False, "nms": "class"}
MEASURED = ("animalpose", "everyday animals", "cards")


def bound(annotations: Path) -> dict[str, Any]:
    """The share of a set's objects that each kind of suppression leaves, at best."""
    records = read_coco(annotations)["annotations"]
    boxes = box_convert(torch.from_numpy(records.bbox), "xywh", "xyxy").float()
    image, label = (
        torch.from_numpy(column).unique(return_inverse=True)[1] for column in (records.image_id, records.category_id)
    )
    groups = {"class": image * (label.max() + 1) + label, "all": image}
    left = {kind: len(batched_nms(boxes, torch.ones(len(boxes)), group, THRESHOLD)) for kind, group in groups.items()}
    recall = {kind: round(count / len(boxes), 4) for kind, count in left.items()}
    return {"objects": len(boxes), "recall": recall}


def compared(model: Path, val: CocoDataset) -> dict[str, Any]:
    """By width and kind of suppression: AP, and how many detections are sure."""
    loaded, found = slimdet.load(model), {}
    widths = [width for width in (0.25, 1.0) if width in loaded.widths]
    for kind in SUPPRESSIONS:
        for width in widths:
            set_suppression(loaded.twin(width), kind)
        for one in measure(loaded, val, widths, classes=manifest.read(model).classes):
            row = {key: round(one.numbers["bbox"][key], 4) for key in ("AP", "AP50", "AR100")}
            row["sure"] = sum(detection["score"] >= SURE for detection in one.detections)
            found.setdefault(str(one.width), {})[kind] = row
    return {"images": len(val), "objects": len(val.coco["annotations"]), "widths": found, "machine": screen.machine()}


def measured(name: str, shared: Path) -> dict[str, Any]:
    """`compared` for one of `MEASURED`."""
    if name == "cards":
        data = cards(WORK / "cards")
        weights = shared / "data" / "weights" / "mobilenetv2_imagenet_features.pt"
        made = train(data=data, weights=weights, out=WORK / "training", evaluate=False, check=False, **TRAINING)
        return compared(made.model, CocoDataset(data.parent / "val.json", data.parent / "val"))
    source = name.split()[0]
    coco = json.loads((shared / "data" / source / "annotations" / "instances_val.json").read_text())
    names = set(manifest.read("bundled").classes)
    coco["categories"] = [one for one in coco["categories"] if one["name"] in names]
    known = {one["id"] for one in coco["categories"]}
    coco["annotations"] = [one for one in coco["annotations"] if one["category_id"] in known]
    seen = {one["image_id"] for one in coco["annotations"]}
    images = [one for one in coco["images"] if one["id"] in seen]
    coco["images"] = images[:: max(1, len(images) // IMAGES)][:IMAGES]
    kept = {one["id"] for one in coco["images"]}
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] in kept]
    file = WORK / f"{source}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(coco))
    return compared(manifest.bundled(), CocoDataset(file, screen.folder_of_images(shared, source)))


def cards(folder: Path) -> Path:
    """Pictures of one to three cards with 3, 4, 5 or 6 pips, which is the class; their DATA.yaml."""
    draw, lines = random.Random(0), []
    for part, count in CARDS.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        coco: dict[str, Any] = {"images": [], "annotations": []}
        coco["categories"] = [{"id": pips, "name": f"{pips} pips"} for pips in (3, 4, 5, 6)]
        for number in range(1, count + 1):
            image = Image.effect_noise((192, 144), 60).convert("RGB")
            for x, y in draw.sample([(x, y) for x in (4, 66, 128) for y in (4, 76)], draw.randint(1, 3)):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ of the sets and weights")
    parser.add_argument("--only", choices=("bounds", *MEASURED), help="a part; by default all")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in [given.only] if given.only else ("bounds", *MEASURED):
        if name == "bounds":
            files = {one: given.shared / "data" / one / "annotations" / "instances_train.json" for one in screen.SETS}
            found = {one: bound(file) for one, file in files.items()}
        else:
            found = measured(name, given.shared)
        rows = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        with atomic_write(RESULT) as temporary:
            temporary.write_text(json.dumps(rows | {name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
