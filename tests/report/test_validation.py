"""`slimdet val`: the numbers, where they are written, and what is refused."""

import json
from pathlib import Path

import pytest
from PIL import Image

import slimdet
from scenes import make_scenes
from scenes_detector import tiny_model
from slimdet.assets import VAL
from slimdet.bundle import manifest
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.evaluation.matching import METRICS, evaluate

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


def test_an_exported_engine_is_measured_from_its_files(capsys: Capture) -> None:
    words = ("--data", VAL / "instances_val.json", "--images", VAL / "images", "--width", "0.25")
    document = val("--model", "bundled", *words, "--engine", "auto", "--threads", "1", capsys=capsys)
    numbers = document["widths"]["0.25"]["bbox"]
    recorded = manifest.read("bundled").metrics["0.25"]["assets"]["bbox"]  # by torch, when the model was made
    assert numbers["AP"] == pytest.approx(recorded["AP"], abs=2e-3)


def test_fewer_proposals_find_less(bundle: str, data: Path, capsys: Capture) -> None:
    words = ("--model", bundle, "--data", data / "data.yaml", "--width", "1")
    all_of_them, one = (val(*words, *more, capsys=capsys) for more in ((), ("--proposals", "1")))
    found = [json.loads((Path(document["run"]) / "detections-1.0.json").read_text()) for document in (all_of_them, one)]
    assert len(found[0]) > len(found[1]) > 0


def test_people_get_tables(bundle: str, data: Path, capsys: Capture) -> None:
    assert main(["val", "--model", bundle, "--data", str(data / "data.yaml"), "--width", "1"]) == 0
    out = capsys.readouterr().out
    for word in ("AP50", "AR100", "red", "green", "1.0", "runs/val-1"):
        assert word in out


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
    "--data {data}/data.yaml --engine onnxruntime": "has no onnx engine",
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


def test_in_python(bundle: str, data: Path) -> None:
    result = slimdet.val(bundle, data / "data.yaml", width=0.5, out="here")
    assert result.run == Path("here")
    assert result.widths == json.loads(Path("here/metrics.json").read_text())["widths"]
    with pytest.raises(slimdet.ConfigError, match=r"ValSettings: 'widths' is not one of .*; did you mean width\?"):
        slimdet.val(bundle, data / "data.yaml", widths=0.5)
