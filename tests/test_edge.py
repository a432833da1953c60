"""The programs of docs/edge.md run with the exported file alone and find what the detector finds."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import slimdet
from scenes_detector import tiny_model
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest, store
from slimdet.bundle.card import Card
from slimdet.exporting import engine_files
from slimdet.images.decoding import read_image

PROGRAMS = Path(__file__).resolve().parents[1] / "docs" / "edge"
PHOTOGRAPH = PHOTOGRAPHS / "tabby.jpg"
FOUND = re.compile(r"^(\w+) (\d\.\d\d) at ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)$", re.M)

# What must not be needed: the program runs as if these were not installed.
WITHOUT = "import runpy, sys; sys.modules |= dict.fromkeys(['slimdet', 'torch', 'onnx']); sys.argv = sys.argv[1:]; "


def run(program: str, *words: Path | str, folder: Path) -> str:
    code = WITHOUT + "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(PROGRAMS / program), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(least: float = 0.5) -> list[tuple[str, float, list[float]]]:
    model, classes = slimdet.load("bundled"), manifest.read("bundled").classes
    with torch.no_grad():
        found = model([torch.from_numpy(read_image(PHOTOGRAPH)).permute(2, 0, 1) / 255], width=0.5)[0]
    kept = found["scores"] >= least
    names = [classes[label - 1] for label in found["labels"][kept]]
    return list(zip(names, found["scores"][kept].tolist(), found["boxes"][kept].tolist(), strict=True))


def check(output: str) -> None:
    lines, wanted = FOUND.findall(output), expected()
    assert len(lines) == len(wanted) > 0
    for (name, score, *box), (label, sure, place) in zip(lines, wanted, strict=True):
        assert name == label
        assert float(score) == pytest.approx(sure, abs=0.006)
        assert [float(side) for side in box] == pytest.approx(place, abs=0.11)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    engine_files.export("bundled", width=0.5, out=folder / "onnx")
    engine_files.export("bundled", width=0.5, format="openvino", out=folder / "openvino")
    return folder


def test_onnxruntime(exported: Path, tmp_path: Path) -> None:
    check(run("detect_onnxruntime.py", exported / "onnx" / "width-0.5.onnx", PHOTOGRAPH, "0.5", folder=tmp_path))
    with Image.open(tmp_path / "found.jpg") as drawn, Image.open(PHOTOGRAPH) as photograph:
        assert drawn.size == photograph.size


@pytest.mark.parametrize("file", ["openvino/width-0.5.xml", "onnx/width-0.5.onnx"])
def test_openvino(exported: Path, tmp_path: Path, file: str) -> None:
    check(run("detect_openvino.py", exported / file, PHOTOGRAPH, folder=tmp_path))


def test_masks_are_pasted_as_torchvision_does(tmp_path: Path) -> None:
    folder = store.save(tiny_model(masks=True), tmp_path / "model", Card(("cat", "dog")))
    engine_files.export(folder, width=1.0)
    output = run("detect_onnxruntime.py", folder / "width-1.0.onnx", PHOTOGRAPH, "0", folder=tmp_path)
    sizes = [int(size) for size in re.findall(r"its mask: (\d+) pixels", output)]
    with torch.no_grad():
        found = slimdet.load(folder)([torch.from_numpy(read_image(PHOTOGRAPH)).permute(2, 0, 1) / 255])[0]
    wanted = (found["masks"][:, 0] > 0.5).sum((1, 2)).tolist()
    assert len(sizes) == len(wanted) > 10
    assert np.median(wanted) > 20
    close = np.isclose(np.sort(sizes), np.sort(wanted), rtol=0.05, atol=10)
    assert close.mean() > 0.95  # boxes and masks on an edge move by a pixel


PROGRAM_FILES = [file for kind in ("py", "cpp", "html") for file in PROGRAMS.rglob(f"*.{kind}")]


@pytest.mark.parametrize("program", PROGRAM_FILES, ids=lambda file: file.name)
def test_programs_are_short(program: Path) -> None:
    assert len(program.read_text(encoding="utf-8").splitlines()) < 100
