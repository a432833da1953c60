"""What was annotated on stored pixels lies where it should once its photograph stands upright."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from slimdet.data import upright
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.matching import evaluate
from slimdet.images.decoding import read_image
from slimdet.images.masks import encode_mask

WIDTH, HEIGHT = 100, 50  # as stored
BOX = (10, 30, 25, 45)  # x1, y1, x2, y2


def dataset(
    folder: Path,
    orientation: int,
    box: tuple[int, ...] = BOX,
    shape: Any = None,
    stated: tuple[int, int] = (WIDTH, HEIGHT),
) -> CocoDataset:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(folder / "a.png", exif=exif)
    x1, y1, x2, y2 = box
    one = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
    if shape is not None:
        one["segmentation"] = shape
    images = [{"id": 7, "file_name": "a.png", "width": stated[0], "height": stated[1]}]
    coco = {"images": images, "annotations": [one], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "a.json").write_text(json.dumps(coco))
    return CocoDataset(folder / "a.json", folder, masks=shape is not None)


def white(folder: Path) -> list[int]:
    """x1, y1, x2, y2 of the white part of the upright image."""
    rows, columns = np.nonzero(read_image(folder / "a.png")[:, :, 0])
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_of_stored_pixels_are_turned(tmp_path: Path, orientation: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        image, target = dataset(tmp_path, orientation)[0]
    assert image.shape == (3, WIDTH, HEIGHT)
    assert target["boxes"].tolist() == [white(tmp_path)]
    assert "1 images have the size" in caplog.text


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["polygon", "runs", "compressed"])
def test_masks_are_turned(tmp_path: Path, orientation: int, kind: str) -> None:
    x1, y1, x2, y2 = BOX
    bitmap = np.zeros((HEIGHT, WIDTH), bool)
    bitmap[y1:y2, x1:x2] = True
    changes = np.flatnonzero(np.diff(bitmap.ravel(order="F").astype(int), prepend=0, append=0)).tolist()
    runs = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes, bitmap.size]).tolist()}
    shapes = {"polygon": [[x1, y1, x2, y1, x2, y2, x1, y2]], "runs": runs, "compressed": encode_mask(bitmap)}
    image, target = dataset(tmp_path, orientation, shape=shapes[kind])[0]
    assert np.array_equal(target["masks"][0].numpy() > 0, image[0].numpy() > 0.5)


def test_boxes_that_were_drawn_upright_stay(tmp_path: Path) -> None:
    drawn = (5, 60, 20, 75)  # below the stored image's 50 rows
    _, target = dataset(tmp_path, 6, box=drawn)[0]
    assert target["boxes"].tolist() == [list(drawn)]


@pytest.mark.parametrize(("orientation", "stated"), [(6, (HEIGHT, WIDTH)), (1, (WIDTH, HEIGHT)), (3, (WIDTH, HEIGHT))])
def test_what_has_the_upright_size_stays(tmp_path: Path, orientation: int, stated: tuple[int, int]) -> None:
    box = (1, 2, 30, 40)
    _, target = dataset(tmp_path, orientation, box=box, stated=stated)[0]
    assert target["boxes"].tolist() == [list(box)]


def test_the_truth_of_an_evaluation_is_turned(tmp_path: Path) -> None:
    data = dataset(tmp_path, 8)
    x1, y1, x2, y2 = map(int, white(tmp_path))
    found = [{"image_id": 7, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}]
    assert evaluate(data.coco, found)["bbox"]["AP"] == pytest.approx(1.0)


def test_large_sets_are_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upright, "MOST", 0)
    data = dataset(tmp_path, 6)
    assert data.coco["images"][0]["width"] == WIDTH
