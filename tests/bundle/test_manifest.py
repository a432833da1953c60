"""model.json: what it says, and what is refused in it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slimdet.bundle import manifest
from slimdet.errors import BundleError, WidthError

WEIGHTS = b"as good as weights"
ENGINE = b"as good as an engine"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def document() -> dict[str, Any]:
    entry = {"file": "width-0.5.onnx", "sha256": sha256(ENGINE), "bytes": len(ENGINE), "weights": sha256(WEIGHTS)}
    return {
        "format": 1,
        "architecture": {"builder": "faster_rcnn"},
        "classes": ["cat", "dog"],
        "category_ids": [3, 17],
        "widths": [1.0, 0.5],
        "scope": "detector",
        "weights": {"file": "weights.safetensors", "sha256": sha256(WEIGHTS), "bytes": len(WEIGHTS)},
        "engines": {"onnx": {"0.5": entry}},
    }


@pytest.fixture
def folder(tmp_path: Path, document: dict[str, Any]) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "width-0.5.onnx").write_bytes(ENGINE)
    (tmp_path / "model.json").write_text(json.dumps(document))
    return tmp_path


def altered(folder: Path, document: dict[str, Any]) -> manifest.Manifest:
    (folder / "model.json").write_text(json.dumps(document))
    return manifest.read(folder)


def test_what_it_says(folder: Path) -> None:
    read = manifest.read(folder)
    assert (read.classes, read.category_ids) == (("cat", "dog"), (3, 17))
    assert (read.widths, read.scope) == ((0.5, 1.0), "detector")
    assert (read.metrics, read.training) == ({}, {})
    assert read.weights() == WEIGHTS
    assert read.engines("onnx") == (0.5,)
    assert read.engines("openvino") == ()
    assert read.engine("onnx", 0.5) == [folder / "width-0.5.onnx"]


def test_an_engine_that_was_not_exported_is_told_how_to_get(folder: Path) -> None:
    with pytest.raises(BundleError, match=rf"no onnx engine of width 1\.0; .*slimdet export --model {folder}"):
        manifest.read(folder).engine("onnx", 1.0)
    with pytest.raises(WidthError, match=r"width 0\.3 is not one of 0\.5, 1\.0; add it with 'slimdet calibrate"):
        manifest.read(folder).engine("onnx", 0.3)


def test_an_engine_of_other_weights_is_refused(folder: Path, document: dict[str, Any]) -> None:
    document["weights"]["sha256"] = sha256(b"newer weights")
    with pytest.raises(BundleError, match="made from other weights; make it anew with 'slimdet export"):
        altered(folder, document).engine("onnx", 0.5)


def test_openvinos_weights_are_checked_too(folder: Path, document: dict[str, Any]) -> None:
    entry = document["engines"]["onnx"]["0.5"] | {"file": "width-0.5.xml"}
    document["engines"]["openvino"] = {"0.5": entry}
    (folder / "width-0.5.xml").write_bytes(ENGINE)
    (folder / "width-0.5.bin").write_bytes(b"values")
    with pytest.raises(BundleError, match=r"no sha256 of its .bin; make it anew with 'slimdet export .*openvino"):
        altered(folder, document).engine("openvino", 0.5)
    entry["bin_sha256"] = sha256(b"values")
    found = [folder / "width-0.5.xml", folder / "width-0.5.bin"]
    assert altered(folder, document).engine("openvino", 0.5) == found
    (folder / "width-0.5.bin").write_bytes(b"other values")
    with pytest.raises(BundleError, match=r"width-0\.5\.bin is not the file that model\.json describes"):
        manifest.read(folder).engine("openvino", 0.5)
    (folder / "width-0.5.bin").unlink()
    with pytest.raises(BundleError, match=r"lacks its file 'width-0\.5\.bin'"):
        manifest.read(folder).engine("openvino", 0.5)


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_files_that_are_not_those_described_are_refused(folder: Path, damage: str) -> None:
    read = manifest.read(folder)
    for name in ("width-0.5.onnx", "weights.safetensors"):
        (folder / name).unlink() if damage == "missing" else (folder / name).write_bytes(b"another")
    for use in (read.weights, lambda: read.engine("onnx", 0.5)):
        with pytest.raises(BundleError, match="get the bundle again"):
            use()


@pytest.mark.parametrize("name", ["", "."])
def test_files_without_a_name_are_refused(folder: Path, document: dict[str, Any], name: str) -> None:
    document["engines"]["onnx"]["0.5"]["file"] = name
    with pytest.raises(BundleError, match="engines are not widths with file"):
        altered(folder, document)


@pytest.mark.parametrize("name", ["../width-0.5.onnx", "/etc/hostname", ".."])
def test_files_outside_the_folder_are_refused(folder: Path, document: dict[str, Any], name: str) -> None:
    document["engines"]["onnx"]["0.5"]["file"] = document["weights"]["file"] = name
    read = altered(folder, document)
    with pytest.raises(BundleError, match="lacks its file"):
        read.engine("onnx", 0.5)
    with pytest.raises(BundleError, match="lacks its file"):
        read.weights()


@pytest.mark.parametrize(
    "engines", [None, [], {"onnx": None}, {"onnx": {"0.5": {}}}, {"onnx": {"wide": {}}}, {"onnx": {"0.5": [1]}}]
)
def test_malformed_engines_are_refused(folder: Path, document: dict[str, Any], engines: Any) -> None:
    with pytest.raises(BundleError, match="export them again"):
        altered(folder, document | {"engines": engines})


RUNG = {"point": {"width": 0.5, "imgsz": 64}, "metrics": {"AP": 0.4}, "images": 9, "data": "val", "weights": "abc"}
TIMED = {"engine": "torch", "device": "cpu", "threads": None, "versions": {}, "date": "", "points": []}


def test_a_ladder_and_its_latencies_are_read(folder: Path, document: dict[str, Any]) -> None:
    timing = {"point": RUNG["point"], "p50_ms": 4.5, "p90_ms": 5, "n": 9}
    read = altered(folder, document | {"ladder": [RUNG], "latencies": {"here": TIMED | {"points": [timing]}}})
    assert [rung.ap for rung in read.ladder] == [0.4]
    assert read.latencies["here"].medians == {read.ladder[0].point: 4.5}
    assert (altered(folder, document).ladder, altered(folder, document).latencies) == ((), {})


@pytest.mark.parametrize(
    "part",
    [
        {"ladder": {}},
        {"ladder": [None]},
        {"ladder": [{"point": 3}]},
        {"ladder": [RUNG | {"metrics": {}}]},
        {"ladder": [RUNG | {"point": {"width": 0.25}}]},  # the model does not have it
        {"latencies": []},
        {"latencies": {"here": []}},
        {"latencies": {"here": TIMED | {"points": [{"point": RUNG["point"]}]}}},
    ],
)
def test_a_malformed_ladder_is_refused(folder: Path, document: dict[str, Any], part: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"model\.json: .*anew with 'slimdet tune'$"):
        altered(folder, document | part)


def test_a_bundle_whose_writer_was_killed_is_found_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.rename(folder.with_name(f".{folder.name}-before"))  # where a writer puts it for a moment, see slimdet.files
    manifest.read(folder)
    assert "was being replaced when the writer was killed" in caplog.text


def test_the_bundled_name_is_a_folder_of_the_package() -> None:
    assert manifest.read("bundled").folder == manifest.bundled()


def test_reading_needs_the_standard_library_alone() -> None:
    read = "from slimdet.bundle import manifest; manifest.read('bundled').weights()"
    code = f"{read}; import sys; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_files_that_are_links_are_refused(folder: Path) -> None:
    for name in ("width-0.5.onnx", "weights.safetensors"):
        (folder / name).rename(folder / "elsewhere")
        (folder / name).symlink_to(folder / "elsewhere")
        read = manifest.read(folder)
        with pytest.raises(BundleError, match=f"{name} is a link"):
            read.weights() if name == "weights.safetensors" else read.engine("onnx", 0.5)


def test_a_file_that_is_changed_while_it_is_opened_is_told(folder: Path, document: dict[str, Any]) -> None:
    content = b"\x08\x09"
    document["engines"]["onnx"]["0.5"]["sha256"] = sha256(content)
    (folder / "width-0.5.onnx").write_bytes(content)
    with altered(folder, document).opening("onnx", 0.5) as files:
        assert files == [folder / "width-0.5.onnx"]
    (folder / "new").write_bytes(content)
    opening = manifest.read(folder).opening("onnx", 0.5)
    (folder / "new").write_bytes(content)
    with pytest.raises(BundleError, match="was changed while it was opened"), opening:
        (folder / "new").replace(folder / "width-0.5.onnx")


def test_class_names_do_not_steer_a_terminal(folder: Path, document: dict[str, Any]) -> None:
    assert altered(folder, document | {"classes": ["cat\x1b[2J", "do\ng"]}).classes == ("cat\\x1b[2J", "do\\ng")
