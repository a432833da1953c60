"""A small detector of the original's kind, and the original's own numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slimdet.core.slimmable import slim
from slimdet.original.configs.config import read_config
from slimdet.original.detector import checkpoint
from slimdet.original.detector.detector import WIDTHS, architecture_of, build

from .reference import Reference
from .small import FILES, config_text, small_text
from .synthetic import fill


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three images and coco.json."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, (height, width) in enumerate(((60, 80), (75, 50), (64, 64)), 1):
        pixels = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))
        images.append({"id": 10 * number, "file_name": f"{number}.png", "height": height, "width": width})
        for label in (1, 2) if number == 1 else (3,):
            box = [5.0 * label, 6.0, 20.0, 25.0]
            outline = [box[0], 6, box[0] + 20, 6, box[0] + 20, 31, box[0], 31]
            item = {"id": len(annotations) + 1, "image_id": 10 * number, "category_id": 7 * label, "iscrowd": 0}
            annotations.append({**item, "bbox": box, "area": 500.0, "segmentation": [outline]})
    categories = [{"id": 7 * label, "name": f"c{label}"} for label in (1, 2, 3)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(coco))
    return folder


@pytest.fixture(scope="session")
def small(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """small(kind) -> (config file, checkpoint file) of a small detector with random weights."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(kind: str) -> tuple[Path, Path]:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            config = folder / "config.py"
            config.write_text(small_text(kind, pictures))
            torch.manual_seed(5)
            model = slim(build(architecture_of(read_config(config))), WIDTHS, "backbone")
            for name, parameter in model.named_parameters():  # as drawn, nothing would be found
                if "cls_score" in name or "cls_logits" in name or "mask_fcn" in name:
                    torch.nn.init.normal_(parameter, std=0.5)
            checkpoint.write(folder / "weights.pth", model, {"epoch": 3})
            made[kind] = config, folder / "weights.pth"
        return made[kind]

    return make


@pytest.fixture(scope="session")
def original(request: pytest.FixtureRequest) -> Reference:
    """The original's keys and reference numbers."""
    return Reference(lambda: request.getfixturevalue("shared") / "seed")


@pytest.fixture(scope="session")
def units(original: Reference) -> dict[str, np.ndarray]:
    return original.arrays("unit_refs.npz")


@pytest.fixture(scope="session")
def synthetic(original: Reference, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """synthetic(kind) -> a checkpoint file of that kind, filled with the reference's synthetic weights."""
    folder = tmp_path_factory.mktemp("synthetic")

    def keys(kind: str) -> list[tuple[str, list[int]]]:
        return original.json(f"{FILES[kind]}_r50_fpn_keys.json")

    # An entry's value depends on its name and shape alone: the largest detector's are everyone's.
    everything = {name: torch.from_numpy(value) for name, value in fill(keys("mask")).items()}

    def make(kind: str) -> Path:
        path = folder / f"{kind}.pth"
        if not path.exists():
            torch.save({"meta": {"epoch": 12}, "state_dict": {name: everything[name] for name, _ in keys(kind)}}, path)
        return path

    return make


@pytest.fixture(scope="session")
def reference_config(original: Reference, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """reference_config(kind) -> the config of that kind at the scale and on the images of the reference."""
    folder = tmp_path_factory.mktemp("configs")

    def make(kind: str) -> Path:
        text = config_text(kind).replace("(1333, 800)", "(512, 320)")
        text = text.replace("data_root + 'annotations/instances_val2017.json'", repr(str(original.annotations)))
        text = text.replace("data_root + 'val2017/'", repr(str(original.images)))
        path = folder / f"{kind}.py"
        path.write_text(text)
        return path

    return make
