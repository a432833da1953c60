"""Images that are too narrow for a model: told before the first step, by every verb that reads a data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.data.coco import CocoDataset
from slimdet.errors import ImageError
from slimdet.models.image_size import check_image_sizes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scenes, and after them an image of 500 x 2 pixels."""
    file = make_scenes(tmp_path / "scenes", images=2)
    annotations = file.parent / "annotations.json"
    coco = json.loads(annotations.read_text())
    coco["images"].append({"id": 9, "file_name": "line.png", "width": 500, "height": 2})
    annotations.write_text(json.dumps(coco))
    Image.fromarray(np.zeros((2, 500, 3), np.uint8)).save(file.parent / "images" / "line.png")
    return file


def test_the_limit_is_one_pixel(data: Path) -> None:
    dataset = CocoDataset(data.parent / "annotations.json", data.parent / "images")
    model = tiny_model()
    transform = model.twin(1.0).get_submodule("transform")
    transform.max_size = 251  # 500 x 2 become 251 x 1.004
    check_image_sizes(model, dataset)
    model.eval()([dataset[2][0]], width=1.0)
    transform.max_size = 250
    with pytest.raises(ImageError, match=r"line\.png: 500x2 pixels: nothing is left"):
        check_image_sizes(model, dataset)


@pytest.mark.parametrize(
    "words",
    [
        "val --model model --data {data}",
        "calibrate --model model --data {data} --width 0.75",
        "train --data {data} --weights none --backbone resnet18 --neck light --imgsz 64",
    ],
)
def test_every_verb_names_the_image(
    words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    slimdet.save(tiny_model(), "model", Card(("red", "green"), (10, 20)))
    before = {file: file.read_bytes() for file in Path("model").iterdir()}
    assert main(words.format(data=data).split()) == 2
    error = capsys.readouterr().err
    assert "line.png: 500x2 pixels: nothing is left of it once the longer side has" in error
    assert "Traceback" not in error
    assert not Path("runs").exists()
    assert {file: file.read_bytes() for file in Path("model").iterdir()} == before
