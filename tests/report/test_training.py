"""Pictures of a training: their contents as far as a test can see them."""

import json
from pathlib import Path

from PIL import Image

from scenes_detector import small_settings, tiny_model
from slimdet.data.coco import CocoDataset
from slimdet.report.training import RunPictures, curves
from slimdet.training.watching.log import METRICS
from slimdet.training.watching.validating import HISTORY
from watching import state_of

LOSSES = [{"step": 1, "epoch": 0.1, "loss/1.0": 3.0}, {"step": 10, "epoch": 1, "loss/1.0": 2.0, "loss/0.5": 4.0}]
FOUND = [{"step": 10, "epoch": 1, "bbox/AP/1.0": 0.25, "segm/AP/1.0": -1.0, "bbox/AP50/1.0": 0.5}]


def write(folder: Path) -> None:
    for name, rows in ((METRICS, LOSSES), (HISTORY, FOUND)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_curves(tmp_path: Path) -> None:
    write(tmp_path)
    assert curves(tmp_path) == {
        "loss": {"1.0": ([0.1, 1], [3.0, 2.0]), "0.5": ([1], [4.0])},
        "AP of boxes": {"1.0": ([1], [0.25])},
    }


def test_pictures_of_a_run(scenes: Path, tmp_path: Path) -> None:
    write(tmp_path)
    data = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images")
    model = tiny_model()
    state = state_of(tmp_path, settings=small_settings(scenes), model=model, result=model, dataset=data, val=data)
    RunPictures().on_start(state)
    assert {file.name for file in tmp_path.glob("*.*g")} == {"labels.png"}
    RunPictures().on_end(state, tmp_path)
    sizes = {}
    for file in tmp_path.glob("*.*g"):
        with Image.open(file) as picture:
            sizes[file.name] = picture.size
    assert set(sizes) == {"labels.png", "curves.png", "mosaic.jpg"}
    assert sizes["curves.png"][0] > 1.8 * sizes["curves.png"][1]  # two panels
    assert sizes["mosaic.jpg"][1] > 4 * 300  # four images
