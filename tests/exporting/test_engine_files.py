"""`slimdet export`: which files, where, what is recorded, and what is answered to mistakes."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import slimdet
from exporting.parity import photographs
from scenes_detector import tiny_model
from slimdet.bundle import manifest, store
from slimdet.bundle.card import Card
from slimdet.cli.verbs import main
from slimdet.errors import BundleError, ConfigError, WidthError
from slimdet.exporting import engine_files
from slimdet.models.builders import NECKS
from slimdet.runtime.openvino_engine import core

IMAGES = photographs((75, 90), 2, seed=0).numpy()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a Mask R-CNN with 16-bit weights."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    return store.save(tiny_model(masks=True), folder, Card(("cat", "dog"), (17, 18)), half=True)


@pytest.fixture(scope="module")
def exported(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with files that hold their weights in the folder `alone` beside it, and linked ones inside."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(plain, folder)
    engine_files.export(str(folder), out=folder.parent / "alone")
    engine_files.export(str(folder), linked=True)
    return folder


@pytest.fixture
def model(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "model")


def run(file: Path) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(file).run(None, {"images": IMAGES})


def test_into_the_bundle(model: Path) -> None:
    before = manifest.read(model).document
    written = slimdet.export(model)
    assert written.out == model
    after = manifest.read(model)
    assert after.document == before | {
        "engines": {"onnx": {width: file.entry for width, file in written.widths.items()}}
    }
    assert after.engines("onnx") == (0.5, 1.0)
    for width in ("0.5", "1.0"):
        file, entry = model / f"width-{width}.onnx", written.widths[width].entry
        content = file.read_bytes()
        assert entry == {
            "file": file.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "weights": after.weights_sha256,
        }
        assert after.engine("onnx", float(width)) == [file]
    assert sorted(file.name for file in model.iterdir()) == [
        "model.json",
        "weights.safetensors",
        "width-0.5.onnx",
        "width-1.0.onnx",
    ]
    store.load(model)


def test_what_a_file_says_of_itself(exported: Path) -> None:
    for file in (exported / "width-0.5.onnx", exported.parent / "alone" / "width-0.5.onnx"):
        said = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
        assert json.loads(said["classes"]) == ["cat", "dog"]
        assert json.loads(said["category_ids"]) == [17, 18]
        assert json.loads(said["input"]) == {
            "layout": "NHWC uint8 RGB",
            "range": [0, 255],
            "min_size": 64,
            "max_size": round(64 * NECKS["light"].imgsz[1] / NECKS["light"].imgsz[0]),
            "proposals": NECKS["light"].proposals["rpn_post_nms_top_n_test"],
        }
        assert (said["width"], said["scope"], said["model"], said["opset"]) == ("0.5", "detector", "mask_rcnn", "17")
        assert said["slimdet"] == slimdet.__version__
        assert said["torch"] == torch.__version__
        assert said["weights_sha256"] == manifest.read(exported).weights_sha256


def test_openvino_beside_onnx(exported: Path, tmp_path: Path) -> None:
    model = shutil.copytree(exported, tmp_path / "model")
    written = engine_files.export(model, width=0.5, format="openvino")
    assert manifest.read(model).engines("onnx") == (0.5, 1.0)
    assert manifest.read(model).engines("openvino") == (0.5,)
    file = model / "width-0.5.xml"
    assert manifest.read(model).engine("openvino", 0.5) == [file, file.with_suffix(".bin")]
    assert written.widths["0.5"].bytes == sum(part.stat().st_size for part in (file, file.with_suffix(".bin")))
    read = core().read_model(file)
    assert str(read.input("images").partial_shape) == "[?,?,?,3]"
    assert json.loads(read.get_rt_info(["framework", "classes"]).astype(str)) == ["cat", "dog"]
    assert not [path.name for path in model.iterdir() if path.is_dir()], "temporary folders"


def test_another_image_size(model: Path, tmp_path: Path) -> None:
    engine_files.export(model, width=0.5, imgsz=96, out=tmp_path / "out")
    said = onnxruntime.InferenceSession(tmp_path / "out" / "width-0.5.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(said["input"])["min_size"] == 96


def test_into_a_folder_of_their_own(exported: Path) -> None:
    alone = exported.parent / "alone"
    assert sorted(file.name for file in alone.iterdir()) == ["width-0.5.onnx", "width-1.0.onnx"]
    before = {file.name: file.read_bytes() for file in alone.iterdir()}
    with pytest.raises(ConfigError, match="not empty"):
        engine_files.export(exported, width=0.5, out=alone)
    assert {file.name: file.read_bytes() for file in alone.iterdir()} == before


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_linked_files_hold_no_weights_and_give_the_same(exported: Path, width: float) -> None:
    file, alone = exported / f"width-{width}.onnx", exported.parent / "alone" / f"width-{width}.onnx"
    assert file.stat().st_size < min(600_000, alone.stat().st_size / 4)
    assert manifest.read(exported).engine("onnx", width) == [file, exported / manifest.WEIGHTS]
    onnx.checker.check_model(file)
    inside = onnx.load(file, load_external_data=False).graph.initializer
    values = [tensor for tensor in inside if tensor.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(np.prod(one.dims) for one in values if len(one.dims) > 1) < 2000, "weights were left in the file"
    found = run(file)
    assert len(found[0]) > 0
    for own, other in zip(found, run(alone), strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=1e-4)


def test_linked_files_follow_the_weights_file(exported: Path, tmp_path: Path) -> None:
    """They hold no copy: other numbers in the weights file give other results."""
    model = shutil.copytree(exported, tmp_path / "model")
    weights = bytearray((model / manifest.WEIGHTS).read_bytes())
    start = 8 + int.from_bytes(weights[:8], "little")
    weights[start:] = bytes(len(weights) - start)
    (model / manifest.WEIGHTS).write_bytes(weights)
    assert not np.array_equal(run(model / "width-1.0.onnx")[2], run(exported / "width-1.0.onnx")[2])


def test_new_weights_drop_the_engines(exported: Path, tmp_path: Path) -> None:
    model = shutil.copytree(exported, tmp_path / "model")
    store.save(store.load(model), model)
    assert manifest.read(model).engines("onnx") == ()
    with pytest.raises(BundleError, match="slimdet export --model"):
        manifest.read(model).engine("onnx", 0.5)


def test_on_the_command_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", str(model), "--width", "0.5", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["widths"]) == {"0.5"}
    assert main(["export", "--model", "bundled", "--width", "0.25"]) == 0
    assert "width-0.25.onnx: 2.6 MiB" in capsys.readouterr().out
    assert (tmp_path / "runs" / "export-1" / "width-0.25.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"width": 0.3}, WidthError, "width 0.3 is not one of 0.5, 1.0"),
        ({"format": "onxx"}, ConfigError, "--format 'onxx' is not one of onnx, openvino; did you mean onnx"),
        ({"widths": 0.5}, ConfigError, "ExportSettings: 'widths' is not one of .*; did you mean width"),
        ({"imgsz": 16}, ConfigError, "--imgsz 16 is too small"),
        ({"linked": True, "format": "openvino"}, ConfigError, "--linked"),
        ({"linked": True, "out": "elsewhere"}, ConfigError, "--linked"),
    ],
)
def test_mistakes_leave_everything_as_it_was(model: Path, options: dict[str, Any], error: type, said: str) -> None:
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    with pytest.raises(error, match=said):
        engine_files.export(str(model), **options)
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before
    assert not Path("elsewhere").exists()


def test_a_detector_that_cannot_be_exported_leaves_no_folder(tmp_path: Path) -> None:
    from torchvision.models.detection import retinanet_resnet50_fpn

    other = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    folder = store.save(slimdet.slim(other, (0.5, 1.0)), tmp_path / "retinanet")
    with pytest.raises(ConfigError, match="RetinaNet cannot be exported"):
        engine_files.export(str(folder), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
