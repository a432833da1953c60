"""A small COCO set of real files, sound unless a test breaks it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


class CocoFiles:
    """A COCO set on disk; tests change `coco` and call `write`."""

    def __init__(self, folder: Path) -> None:
        self.annotations = folder / "annotations" / "instances_train.json"
        self.images = folder / "images"
        self.images.mkdir()
        self.annotations.parent.mkdir()
        random = np.random.default_rng(0)
        sizes = {7: (40, 30), 3: (32, 48), 12: (64, 64)}  # image id: width, height; 12 has no objects
        for number, (width, height) in sizes.items():
            Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(self.images / f"{number}.png")
        bitmap = np.zeros((48, 32), int)
        bitmap[10:20, 5:15] = 1
        self.coco: dict[str, Any] = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
                for number, (width, height) in sizes.items()
            ],
            "categories": [{"id": 90, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 17, "name": "horse"}],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 7,
                    "category_id": 17,
                    "bbox": [4, 6, 20, 10],
                    "area": 200,
                    "iscrowd": 0,
                    "segmentation": [[4, 6, 24, 6, 24, 16, 4, 16]],
                },
                {
                    "id": 2,
                    "image_id": 3,
                    "category_id": 2,
                    "bbox": [5, 10, 10, 10],
                    "area": 100,
                    "iscrowd": 0,
                    "segmentation": {"size": [48, 32], "counts": runs(bitmap)},
                },
                {
                    "id": 5,
                    "image_id": 3,
                    "category_id": 90,
                    "bbox": [0, 0, 32, 48],
                    "area": 1536,
                    "iscrowd": 1,
                    "segmentation": {"size": [48, 32], "counts": [0, 48 * 32]},
                },
            ],
        }
        self.write()

    def write(self) -> None:
        self.annotations.write_text(json.dumps(self.coco))

    def annotation(self, number: int) -> dict[str, Any]:
        return next(item for item in self.coco["annotations"] if item["id"] == number)

    def add(self, **changes: Any) -> dict[str, Any]:
        """Add a copy of annotation 1, changed, with a new id."""
        item = copy.deepcopy(self.annotation(1)) | {"id": 100} | changes
        self.coco["annotations"].append(item)
        self.write()
        return item


def runs(bitmap: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths of a bitmap [H, W]: column by column, zeros first."""
    flat = bitmap.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *edges, flat.size]).tolist()


@pytest.fixture
def files(tmp_path: Path) -> CocoFiles:
    return CocoFiles(tmp_path)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a grey image of a size, in the format of its name."""

    def write(path: Path, width: int = 100, height: int = 50) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 120, 60)).save(path)
        return path

    return write
