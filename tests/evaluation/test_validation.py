"""A model measured on a data set: the numbers, and what is not a number."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.errors import DataError
from slimdet.evaluation.inference import detect
from slimdet.evaluation.matching import evaluate
from slimdet.evaluation.validation import measure, validate
from slimdet.images.decoding import read_image


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.yaml, annotations.json and images/."""
    return make_scenes(tmp_path_factory.mktemp("scenes"), images=4).parent


class Answers(nn.Module):
    """Stands in for a model: gives the true boxes and masks, in the data set's order."""

    widths = (1.0,)

    def __init__(self, dataset: CocoDataset, classes: tuple[str, ...], score: float = 0.9) -> None:
        super().__init__()
        self.score = score
        relabel = [0, *(1 + classes.index(name) for name in dataset.classes)]
        self.targets = iter([(dict(dataset[index][1]), relabel) for index in range(len(dataset))])

    def forward(self, images: list[Tensor], width: float) -> list[dict[str, Tensor]]:
        target, relabel = next(self.targets)
        labels = torch.tensor([relabel[label] for label in target["labels"]], dtype=torch.int64)
        masks = target["masks"][:, None].float()  # [N, 1, H, W]
        scores = torch.full((len(labels),), self.score)
        return [{"boxes": target["boxes"], "labels": labels, "scores": scores, "masks": masks}]


def test_every_width_is_measured_and_progress_is_told(data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    told: list[tuple[Point, int, int]] = []
    model = tiny_model()
    measured = list(measure(model, dataset, (0.5, 1.0), "cpu", progress=lambda *how_far: told.append(how_far)))
    assert [found.width for found in measured] == [0.5, 1.0]
    for found in measured:
        assert found.numbers == evaluate(dataset.coco, list(found.detections))
        assert list(found.classes["bbox"]) == ["red", "green"]
        alone = detect(lambda images, width=found.width: model(images, width=width), dataset)
        assert list(found.detections) == list(alone)
    assert told == [(Point(width), done, 4) for done in (1, 2, 3, 4) for width in (0.5, 1.0)]
    result = validate(model, dataset, (0.5,), "cpu")
    assert list(result.widths) == list(result.classes) == ["0.5"]


def test_an_image_is_decoded_once_for_all_widths(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images")
    decoded = Counter[Path]()

    def counted(path: Path) -> Any:
        decoded[path] += 1
        return read_image(path)

    monkeypatch.setattr("slimdet.data.coco.read_image", counted)
    assert len(list(measure(tiny_model(), dataset, (0.5, 1.0), "cpu"))) == 2
    assert set(decoded.values()) == {1}
    assert len(decoded) == 4


@pytest.mark.parametrize("classes", [("red", "green"), ("green", "red")])
def test_a_perfect_model_gets_1_whatever_the_order_of_its_classes(classes: tuple[str, ...], data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images", masks=True)
    perfect: Any = Answers(dataset, classes)
    result = validate(perfect, dataset, (1.0,), classes=classes)
    assert result.widths["1.0"]["bbox"]["AP"] == pytest.approx(1)
    assert result.widths["1.0"]["segm"]["AP50"] == pytest.approx(1)


def test_a_score_that_is_not_a_number_is_an_error(data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images", masks=True)
    broken: Any = Answers(dataset, dataset.classes, math.nan)
    with pytest.raises(DataError, match="not finite"):
        validate(broken, dataset, (1.0,))


@pytest.mark.parametrize("layer", ["", "rpn.head.bbox_pred", "roi_heads.box_predictor.cls_score"])
def test_weights_that_are_not_numbers_get_no_points(layer: str, data: Path) -> None:
    model = tiny_model((1.0,))
    for parameter in model.get_submodule(layer).parameters():
        parameter.data.fill_(math.nan)
    dataset = CocoDataset(data / "annotations.json", data / "images")
    numbers = validate(model, dataset, (1.0,)).widths["1.0"]["bbox"]
    assert (numbers["AP"], numbers["AP50"], numbers["AR100"]) == (0, 0, 0)
