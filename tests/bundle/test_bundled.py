"""What ships belongs together: weights, description, recorded numbers, card, README."""

import json
import re
from pathlib import Path

import pytest

import slimdet
from slimdet.assets import VAL
from slimdet.bundle import manifest
from slimdet.bundle.card import read
from slimdet.cli.verbs import main
from slimdet.data.coco import CocoDataset
from slimdet.evaluation.validation import validate

FOLDER = manifest.bundled()
ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((FOLDER / manifest.MODEL).read_text(encoding="utf-8"))
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model() -> slimdet.Slimmable:
    return slimdet.load("bundled")


def test_the_folder_holds_one_model_and_no_stranger() -> None:
    engines = [f"width-{width}.onnx" for width in (0.25, 0.5, 0.75, 1.0)]
    assert sorted(file.name for file in FOLDER.iterdir()) == [
        "README.md",
        "model.json",
        "weights.safetensors",
        *engines,
    ]
    assert sum(file.stat().st_size for file in FOLDER.glob("*.onnx")) < 40e6
    assert (FOLDER / "weights.safetensors").stat().st_size <= 20 * 2**20


def test_it_has_the_widths_and_classes_that_are_promised(model: slimdet.Slimmable) -> None:
    assert model.widths == (0.25, 0.5, 0.75, 1.0)
    assert model.scope.name == "detector"
    card = read(FOLDER)
    assert card.classes == ("dog", "cat", "sheep", "horse", "cow")
    assert card.training["seed"] == 0
    assert not any("/" in str(value) for value in card.training.values())  # no paths of the maker's machine


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_recorded_accuracy_is_that_of_the_shipped_weights(model: slimdet.Slimmable, width: float) -> None:
    data = CocoDataset(VAL / "instances_val.json", VAL / "images")
    measured = validate(model, data, [width], "cpu").widths[str(width)]["bbox"]
    recorded = DOCUMENT["metrics"][str(width)]["assets"]["bbox"]
    for name, value in measured.items():  # kernels of other processors move a score in its last digits
        assert recorded[name] == pytest.approx(value, abs=0.02), name


def test_recorded_costs_are_those_of_the_shipped_weights(model: slimdet.Slimmable) -> None:
    for width, numbers in DOCUMENT["metrics"].items():
        plain = model.extract(float(width))
        assert numbers["cost"]["parameters"] == sum(parameter.numel() for parameter in plain.parameters())
        assert f"{numbers['cost']['macs'] / 1e9:.2f} G" in CARD


@pytest.mark.parametrize("page", [CARD, README])
def test_tables_show_the_recorded_accuracy(page: str) -> None:
    for width, numbers in DOCUMENT["metrics"].items():
        row = next(line for line in page.splitlines() if re.match(rf"\| {re.escape(width)} \|", line))
        box = numbers["bbox"]
        assert f"{box['AP']:.3f}" in row
        assert f"{box['AP50']:.3f}" in row


def test_the_card_warns_of_the_data() -> None:
    assert "Research use" in CARD
    assert "no licence is stated" in CARD
    assert "not covered by the licence of the code" in CARD.replace("\n", " ")


def test_the_demo_writes_its_table_pictures_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"] == "runs/demo"
    recorded = {str(rung.point).removesuffix(", fp32"): rung.ap for rung in manifest.read(FOLDER).ladder}
    places = [list(recorded).index(point) for point in document["points"]]
    assert places == sorted(places)  # cheapest first, both ends among them
    assert len(places) == 4
    assert {0, len(recorded) - 1} <= set(places)
    for point, row in document["points"].items():
        assert row["AP"] == recorded[point]
        assert {"macs", "latency_ms", "detections"} <= set(row)
    names = {file.name for file in (tmp_path / "runs" / "demo").iterdir()}
    assert names == {"accuracy-latency.png", *(f"{photograph}.jpg" for photograph in document["found"])}
    assert main(["demo", "--json"]) == 0  # again: what was written stays
    assert json.loads(capsys.readouterr().out)["run"] != "runs/demo"
