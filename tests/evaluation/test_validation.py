"""`slimdet val`: the numbers, where they are written, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.data.coco import CocoDataset
from slimdet.errors import DataError
from slimdet.evaluation.matching import METRICS, evaluate
from slimdet.evaluation.validation import validate

Capture = pytest.CaptureFixture[str]
CARD = Card(("red", "green"), (10, 20))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.yaml, annotations.json and images/."""
    return make_scenes(tmp_path_factory.mktemp("scenes"), images=4).parent


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(slimdet.save(tiny_model(), tmp_path_factory.mktemp("models") / "boxes", CARD))


@pytest.fixture(scope="module")
def mask_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(slimdet.save(tiny_model(masks=True), tmp_path_factory.mktemp("models") / "masks", CARD))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def val(*words: str | Path, capsys: Capture) -> dict:
    assert main(["val", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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


# ------------------------------------------------------------------------------------------------- numbers


def test_every_width_with_a_data_yaml(mask_bundle: str, data: Path, capsys: Capture) -> None:
    document = val("--model", mask_bundle, "--data", data / "data.yaml", "--width", "all", capsys=capsys)
    run = Path(document["run"])
    assert run == Path("runs/val-1")
    assert list(document["widths"]) == ["0.5", "1.0"]
    coco = json.loads((data / "annotations.json").read_text())
    for width, kinds in document["widths"].items():
        assert list(kinds) == ["bbox", "segm"]
        detections = json.loads((run / f"detections-{width}.json").read_text())
        assert detections
        assert kinds == evaluate(coco, detections, ("bbox", "segm"))
        for numbers in kinds.values():
            assert tuple(numbers) == METRICS
            assert len(numbers) == 12
            assert all(value == -1 or 0 <= value <= 1 for value in numbers.values())
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["widths"] == document["widths"]
    assert list(metrics["classes"]["0.5"]["segm"]) == ["red", "green"]
    names = [f"{name}-{width}.png" for width in ("0.5", "1.0") for name in PICTURES]
    assert sorted(file.name for file in run.glob("*.png")) == sorted(names)
    for name in names:
        with Image.open(run / name) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert min(picture.size) > 200


PICTURES = ("confusion", "precision-recall-bbox", "precision-recall-segm")


def test_one_width_with_a_coco_file_and_its_images(bundle: str, data: Path, capsys: Capture) -> None:
    files = ("--data", data / "annotations.json", "--images", data / "images")
    one = val("--model", bundle, *files, "--width", "0.5", "--out", "here", capsys=capsys)
    assert list(one["widths"]) == ["0.5"]
    assert list(one["widths"]["0.5"]) == ["bbox"]
    assert sorted(file.name for file in Path("here").iterdir()) == [
        "confusion-0.5.png",
        "detections-0.5.json",
        "metrics.json",
        "precision-recall-bbox-0.5.png",
    ]
    both = val("--model", bundle, *files, capsys=capsys)  # all is the default
    assert both["widths"].keys() == {"0.5", "1.0"}
    assert both["widths"]["0.5"] == one["widths"]["0.5"]


def test_people_get_tables(bundle: str, data: Path, capsys: Capture) -> None:
    assert main(["val", "--model", bundle, "--data", str(data / "data.yaml"), "--width", "1"]) == 0
    out = capsys.readouterr().out
    for word in ("AP50", "AR100", "red", "green", "1.0", "runs/val-1"):
        assert word in out


@pytest.mark.parametrize("classes", [("red", "green"), ("green", "red")])
def test_a_perfect_model_gets_1_whatever_the_order_of_its_classes(classes: tuple[str, ...], data: Path) -> None:
    dataset = CocoDataset(data / "annotations.json", data / "images", masks=True)
    perfect: Any = Answers(dataset, classes)
    result = validate(perfect, dataset, (1.0,), classes=classes)
    assert result.widths["1.0"]["bbox"]["AP"] == pytest.approx(1)
    assert result.widths["1.0"]["segm"]["AP50"] == pytest.approx(1)
    assert not Path("runs").exists()  # nothing is written where no folder is named


# ------------------------------------------------------------------------------------------------- not a number


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


# ------------------------------------------------------------------------------------------------- mistakes


def other_classes(data: Path, names: list[str]) -> None:
    coco = json.loads((data / "annotations.json").read_text())
    for category, name in zip(coco["categories"], names, strict=True):
        category["name"] = name
    Path("other.json").write_text(json.dumps(coco))


MISTAKES = {
    "--data {data}/annotations.json": "needs --images",
    "--data {data}/data.yaml --images {data}/images": "--images",
    "--data other.json --images {data}/images": "only the model has green; only the data set has blue",
    "--data {data}/annotations.json --images {data}/annotations.json": "no such folder of images",
    "--data {data}/images/1.png --images {data}/images": "is not JSON",
    "--data train.yaml": "train.yaml has no 'val:'",
    "--data {data}/data.yaml --width 0.6": "width 0.6 is not one of 0.5, 1.0",
    "--data {data}/data.yaml --imgsz 8": "--imgsz 8 is too small",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(words: str, bundle: str, data: Path, capsys: Capture) -> None:
    other_classes(data, ["red", "blue"])
    Path("train.yaml").write_text(f"train: {{images: {data}/images, annotations: {data}/annotations.json}}\n")
    assert main(["val", "--model", bundle, *words.format(data=data).split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert MISTAKES[words] in err
    assert not Path("runs").exists()


def test_masks_are_asked_of_data_that_has_none(mask_bundle: str, data: Path, capsys: Capture) -> None:
    coco = json.loads((data / "annotations.json").read_text())
    for annotation in coco["annotations"]:
        del annotation["segmentation"]
    Path("boxes.json").write_text(json.dumps(coco))
    assert main(["val", "--model", mask_bundle, "--data", "boxes.json", "--images", str(data / "images")]) == 2
    assert "no segmentation" in capsys.readouterr().err
