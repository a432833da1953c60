"""A made-up data set that a detector can learn in seconds: bright rectangles on dark noise, on disk as COCO."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (230, 40, 40), "green": (40, 220, 60)}


def make_scenes(folder: Path, images: int = 6, size: tuple[int, int] = (72, 96), classes: int = 2) -> Path:
    """Write `images` pictures with up to two objects each and return the DATA.yaml (train and val are the same)."""
    draw = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    coco: dict = {"images": [], "annotations": [], "categories": []}
    for label, name in enumerate(list(COLOURS)[:classes]):
        coco["categories"].append({"id": 10 * (label + 1), "name": name})
    height, width = size
    for number in range(1, images + 1):
        pixels = draw.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for _ in range(number % 3):  # some pictures are empty
            label = int(draw.integers(classes))
            x, y = int(draw.integers(0, width - 40)), int(draw.integers(0, height - 40))
            w, h = (int(side) for side in draw.integers(24, 40, 2))
            pixels[y : y + h, x : x + w] = list(COLOURS.values())[label]
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 10 * (label + 1),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        coco["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    (folder / "annotations.json").write_text(json.dumps(coco))
    split = "{images: images, annotations: annotations.json}"
    (folder / "data.yaml").write_text(f"train: {split}\nval: {split}\n")
    return folder / "data.yaml"
