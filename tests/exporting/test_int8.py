"""`slimdet export --int8`: files, what is recorded of them, what is refused, and which precision then runs."""

import json
import shutil
from pathlib import Path

import onnx
import pytest

import slimdet
from slimdet import Runtime
from slimdet.bundle import manifest
from slimdet.bundle.ladder import Precision
from slimdet.cli.verbs import main
from slimdet.data.config import read_data_config
from slimdet.errors import BundleError, ConfigError, DataError
from slimdet.exporting import int8
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.images.decoding import read_image

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained / "model", tmp_path / "model")


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_both_files_are_there_recorded_and_run(format: Format, model: Path, scenes: Path) -> None:
    written = slimdet.export(model, width=0.5, format=format, int8=True, data=scenes, max_ap_drop=100.0)
    assert (written.refused, list(written.widths), list(written.int8)) == ({}, ["0.5"], ["0.5"])
    made, bundle = written.int8["0.5"], manifest.read(model)
    assert bundle.document["engines"] == {
        format: {"0.5": written.widths["0.5"].entry},
        f"{format}-int8": {"0.5": made.entry},
    }
    assert bundle.engine(f"{format}-int8", 0.5)[0].name == made.file
    assert made.bytes < written.widths["0.5"].bytes
    assert (made.val_images, made.fp32_layers) == (6, [])
    assert made.speedup > 0
    assert made.AP.keys() == made.fp32_AP.keys() == {"bbox"}
    assert made.entry.keys() >= {"AP", "fp32_AP", "speedup", "val_images", "processor", "fp32_layers"}

    image = read_image(next((scenes.parent / "images").iterdir()))
    results = {one: Runtime(model, 0.5, int8.ENGINE[format], precision=one)(image) for one in PRECISIONS}
    assert {name: result.point.precision for name, result in results.items()} == {"fp32": "fp32", "int8": "int8"}
    assert not (results["fp32"].scores.tolist() == results["int8"].scores.tolist() != [])
    store_files = {"model.json", "weights.safetensors", written.widths["0.5"].file, made.file}
    binaries = {Path(name).with_suffix(".bin").name for name in store_files if name.endswith(".xml")}
    assert {file.name for file in model.iterdir()} == store_files | binaries


def test_a_width_that_is_not_faster_keeps_32_bits(model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8._Trial, "speedup", lambda self: 1.4)
    slimdet.export(model, width=0.5, int8=True, data=scenes, max_ap_drop=100.0, images=2)
    for speedup, precision in ((1.4, "int8"), (0.9, "fp32")):
        document = json.loads((model / "model.json").read_text())
        document["engines"]["onnx-int8"]["0.5"]["speedup"] = speedup
        (model / "model.json").write_text(json.dumps(document))
        assert manifest.read(model).best("onnx", 0.5) == precision
        assert manifest.read(model).best("onnx", 1.0) == "fp32"
        assert Runtime(model, 0.5, "onnxruntime").session().precision == precision
    # Another file in 32 bits is not what those in 8 were compared with.
    slimdet.export(model, width=0.5, imgsz=96)
    with pytest.raises(BundleError, match=r"no onnx-int8 engine of width 0.5; .* --int8 --data DATA.yaml"):
        Runtime(model, 0.5, "onnxruntime", precision="int8").session()


def test_layers_go_back_to_32_bits_until_the_accuracy_holds(
    model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []

    def ap(trial: int8._Trial, precision: str, data: int8.Examples) -> dict[str, float]:
        if precision == "fp32":
            return {"bbox": 0.5}
        counts.append(len(int8_layers(trial.fp32.with_stem(f"{trial.fp32.stem}-int8"))))
        return {"bbox": 0.4 + 0.05 * len(counts)}

    monkeypatch.setattr(int8._Trial, "ap", ap)
    made = slimdet.export(model, width=0.5, int8=True, data=scenes, images=2).int8["0.5"]
    assert len(counts) == 2
    assert len(made.fp32_layers) == -(-counts[0] // int8.GROUPS)
    assert 0 < counts[0] - counts[1] <= len(made.fp32_layers)  # layers that share weights may be cut apart
    assert (made.AP, made.fp32_AP) == ({"bbox": 0.5}, {"bbox": 0.5})


def int8_layers(file: Path) -> list[str]:
    graph = onnx.load(file).graph
    made = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.name for node in graph.node if node.op_type in ("Conv", "Gemm") and set(node.input[:2]) <= made]


def test_a_width_that_loses_too_much_is_refused_and_the_others_are_written(
    model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ap(trial: int8._Trial, precision: str, data: int8.Examples) -> dict[str, float]:
        return {"bbox": 0.31 if trial.width == 0.5 and precision == "int8" else 0.32}

    monkeypatch.setattr(int8._Trial, "ap", ap)
    monkeypatch.setattr(int8, "GROUPS", 1)  # all layers at once: there is no half of them to go back
    command = ["export", "--model", str(model), "--int8", "--data", str(scenes), "--images", "2", "--json"]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "width 0.5 in 8 bits loses 1.00 AP, more than 0.50, even with half of its layers in 32 bits" in said.err
    document = json.loads(said.out)
    assert (set(document["widths"]), set(document["int8"]), set(document["refused"])) == (
        {"0.5", "1.0"},
        {"1.0"},
        {"0.5"},
    )
    bundle = manifest.read(model)
    assert (bundle.engines("onnx"), bundle.engines("onnx-int8")) == ((0.5, 1.0), (1.0,))
    assert not (model / "width-0.5-int8.onnx").exists()


@pytest.mark.parametrize(
    ("before", "after", "most", "expected"),
    [
        ({"bbox": 0.4}, {"bbox": 0.396}, None, (0.004, 0.005)),
        ({"bbox": 0.1}, {"bbox": 0.096}, None, (0.004, 0.002)),  # 2 % are less than 0.5
        ({"bbox": 0.1}, {"bbox": 0.096}, 1.5, (0.004, 0.015)),
        ({"bbox": 0.4, "segm": 0.3}, {"bbox": 0.399, "segm": 0.29}, None, (0.01, 0.005)),
        ({"bbox": 0.4}, {"bbox": 0.41}, None, (-0.01, 0.005)),
    ],
)
def test_what_may_be_lost(before: dict, after: dict, most: float | None, expected: tuple[float, float]) -> None:
    assert int8._drop(before, after, most) == pytest.approx(expected)


def test_the_images_are_the_same_for_the_same_seed(model: Path, scenes: Path) -> None:
    bundle = manifest.read(model)

    def chosen(**fields: int) -> tuple[list[bytes], list[int]]:
        found = int8.examples(bundle, ExportSettings(int8=True, data=scenes, **fields))
        return [image.tobytes() for image in found.images], list(found.places)

    images, places = chosen(images=3, val_images=4)
    assert (len(images), len(places)) == (3, 4)
    assert chosen(images=3, val_images=4) == (images, places)
    assert chosen(images=3, val_images=4, seed=1) != (images, places)
    assert chosen()[1] == list(range(6))


def test_what_cannot_be(model: Path, scenes: Path, tmp_path: Path) -> None:
    for fields, said in (
        ({"int8": True}, "--int8 needs --data DATA.yaml"),
        ({"data": scenes}, "goes with --int8"),
        ({"int8": True, "data": scenes, "images": 0}, "--images 0 must be 1 or more"),
        ({"int8": True, "data": scenes, "max_ap_drop": -1.0}, "--max-ap-drop -1.0 must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=said):
            slimdet.export(model, **fields)
    split = read_data_config(scenes).val
    assert split is not None
    (tmp_path / "val.yaml").write_text(f"val: {{images: {split.images}, annotations: {split.annotations}}}")
    with pytest.raises(DataError, match=r"val.yaml has no 'train:'; 8 bits are calibrated on train:"):
        slimdet.export(model, int8=True, data=tmp_path / "val.yaml")
