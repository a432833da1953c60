"""`slimdet benchmark`: every number is that of the very files, and what was measured is measured once."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import slimdet
from slimdet.assets import VAL
from slimdet.benchmarking import measuring, page
from slimdet.benchmarking.accuracy import Validation
from slimdet.benchmarking.benchmark import points_of
from slimdet.benchmarking.settings import BenchmarkSettings
from slimdet.benchmarking.table import UNKNOWN
from slimdet.bundle import card, manifest
from slimdet.bundle.ladder import Latencies, Point, Rung
from slimdet.cli.verbs import main
from slimdet.data.coco import CocoDataset
from slimdet.errors import ConfigError
from slimdet.evaluation.points import measure_points

QUICK = BenchmarkSettings(engine="onnxruntime", threads=1, widths=(0.25,), imgsz=(96, 186), repeats=3)
FEW = replace(QUICK, images=6)
POINTS = [Point(0.25, 96, 150, "fp32"), Point(0.25, 186, 150, "fp32")]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """No processes are started; the list has the size of each point that was asked for."""
    asked: list[Any] = []

    def growth(engine: str, bundle: str, options: Any, widths: list[float]) -> int:
        asked.append((options.imgsz, widths))
        return 3 * 2**20

    monkeypatch.setattr(measuring, "growth", growth)
    return asked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """DATA.yaml of a copy of the sixteen pictures that the package has for its bundled model."""
    shutil.copytree(VAL, tmp_path / "val")
    file = tmp_path / "data.yaml"
    file.write_text("val: {images: val/images, annotations: val/instances_val.json}\n")
    return file


def test_a_row_is_what_the_very_files_reach(data: Path, tmp_path: Path) -> None:
    result = slimdet.benchmark("bundled", data, QUICK, out=tmp_path / "run")
    assert [row.point for row in result.rows] == POINTS
    runtime = slimdet.Runtime("bundled", engine="onnxruntime")
    dataset = CocoDataset(VAL / "instances_val.json", VAL / "images")
    for row, found in zip(result.rows, measure_points(runtime, dataset, POINTS), strict=True):
        numbers = found.numbers["bbox"]
        assert (row.ap, row.ap50) == (pytest.approx(numbers["AP"]), pytest.approx(numbers["AP50"]))
        assert 0 < row.ap_low < row.ap < row.ap_high < 1
        assert (row.images, row.data, row.n, row.warmup) == (16, "instances_val", 3, 8)
        assert 0 < row.p50_ms < 10_000
        assert (row.p90_ms, row.mb) == (None, 3.0)  # three runs have no tenth
        files = runtime.engine.files(0.25, "fp32")
        assert row.artifact == "width-0.25.onnx + weights.safetensors"
        assert row.sha256 == " + ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert (row.engine, row.threads, row.rate, row.overloaded) == ("onnxruntime", 1, None, None)
    best = max(result.rows, key=lambda row: row.ap)
    assert best.front
    # The files say the same.
    assert json.loads((tmp_path / "run" / "benchmark.json").read_text()) == result.document
    with (tmp_path / "run" / "benchmark.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["ap"]) for line in lines] == [row.ap for row in result.rows]
    text = (tmp_path / "run" / "index.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert len(text) < 200_000
    with Image.open(tmp_path / "run" / "front-single-stream.png") as picture:
        picture.load()


def test_without_data_no_accuracy_is_measured_nor_told(tmp_path: Path, capsys: Capture) -> None:
    words = ["benchmark", "--model", "bundled", "--widths", "0.25", "--repeats", "2", "--out", str(tmp_path / "run")]
    words += ["--scenario", "single-stream,server,offline", "--rate", "500"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "no accuracy was measured" in shown
    rows = json.loads((tmp_path / "run" / "benchmark.json").read_text())["rows"]
    assert [row["scenario"] for row in rows] == ["single-stream", "server", "offline"]
    assert {row[name] for row in rows for name in (*UNKNOWN, "data", "front")} == {None}
    assert [row["rate"] for row in rows] == [None, 500, None]
    assert all(row["images_per_s"] > 0 for row in rows)
    assert not list((tmp_path / "run").glob("*.png"))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> Callable[[], list[Point]]:
    """A run that was killed at its second AP; the function gives the points whose AP was measured since."""
    seen: list[Point] = []
    measure = Validation.accuracy

    def accuracy(self: Validation, point: Point, progress: Any = None) -> dict[str, Any]:
        if point == POINTS[1] and len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(point)
        return measure(self, point, progress)

    monkeypatch.setattr(Validation, "accuracy", accuracy)
    with pytest.raises(KeyboardInterrupt):
        slimdet.benchmark("bundled", data, FEW, out=tmp_path / "run")
    assert seen == POINTS[:1]
    seen.clear()
    return lambda: seen


def test_a_run_that_was_killed_takes_up_its_rows(
    stopped: Callable[[], list[Point]], data: Path, memory: list[Any], tmp_path: Path
) -> None:
    kept = json.loads((tmp_path / "run" / "rows" / "single-stream.json").read_text())
    result = slimdet.benchmark("bundled", data, FEW, resume=tmp_path / "run")
    assert stopped() == POINTS[1:]
    assert memory == [(96, [0.25]), (186, [0.25])]  # once each
    assert [row.p50_ms for row in result.rows] == [one["p50_ms"] for one in kept]
    assert [row.date for row in result.rows] == [one["date"] for one in kept]


def retrained(model: Path) -> Path:
    """A bundle with a last bit of its weights changed."""
    document = (model / "model.json").read_text()
    weights = bytearray((model / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "weights.safetensors").write_bytes(weights)
    digests = json.loads(document)["weights"]["sha256"], hashlib.sha256(weights).hexdigest()
    (model / "model.json").write_text(document.replace(*digests))
    return model


def test_a_run_of_something_else_is_refused(stopped: Any, data: Path, exported: Path, tmp_path: Path) -> None:
    def resumed(model: Any = "bundled", **changes: Any) -> None:
        slimdet.benchmark(model, data, replace(FEW, **changes), resume=tmp_path / "run")

    with pytest.raises(ConfigError, match="it is of images 6, not 4; start a new one"):
        resumed(images=4)
    with pytest.raises(ConfigError, match="it is of weights"):
        resumed(retrained(exported))
    annotations = tmp_path / "val" / "instances_val.json"
    annotations.write_text(annotations.read_text() + "\n")
    with pytest.raises(ConfigError, match="it is of data"):
        resumed()
    with pytest.raises(ConfigError, match="is no run of benchmark; leave it out"):
        slimdet.benchmark("bundled", data, QUICK, resume=tmp_path)


def test_a_contract_that_nothing_keeps_ends_with_1(data: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["benchmark", "--model", "bundled", "--data", str(data), "--widths", "0.25,0.5", "--imgsz", "96"]
    words += ["--images", "4", "--repeats", "2"]
    assert main([*words, "--contract", "ap>=0.99,mb<=100", "--out", str(tmp_path / "one"), "--json"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    best = max(document["rows"], key=lambda row: row["ap"])
    contract = document["contract"]
    assert (contract["keeping"], contract["nearest"]) == ([], document["rows"].index(best))
    [said] = [line for line in err.splitlines() if line.startswith("slimdet: ")]
    assert f"no point keeps ap>=0.99,mb<=100; the nearest is width {best['width']} at 96 px" in said
    assert said.endswith(f"single-stream: ap {best['ap']:.3g}, mb 3")
    # Another contract is asked of the same rows.
    assert main([*words, "--contract", "mb<=100", "--resume", str(tmp_path / "one")]) == 0
    assert "contract mb<=100: kept by 2 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--contract ap>0.3", "--contract 'ap>0.3'"),
        ("--contract ap>=0.3", "ap is measured on --data DATA.yaml; give it"),
        ("--contract p90_ms<=3 --scenario offline", "offline has no latencies; use images_per_s"),
        ("--scenario server", "--scenario server and --rate"),
        ("--rate 3", "--scenario server and --rate"),
        ("--images 3", "--images 3 are of --data DATA.yaml"),
        ("--widths 0.3", "width 0.3 is not one of"),
        ("--proposals 0", "'0' is not a whole number of at least 1"),
    ],
)
def test_a_mistake_is_told_before_anything_is_measured(
    words: str, said: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "--model", "bundled", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert not list(tmp_path.iterdir())


def test_without_jinja_it_says_so_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs jinja2; get it with: pip install 'slimdet\[plot\]'"):
        slimdet.benchmark("bundled", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_points_are_the_ladder_where_there_is_one(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = slimdet.Runtime(exported, engine="onnxruntime")
    every = [plain.complete(Point(width)) for width in plain.widths]
    assert points_of(plain, BenchmarkSettings()) == every
    assert points_of(plain, BenchmarkSettings(widths=(0.5, 0.25), imgsz=(96, 96))) == [
        Point(0.25, 96, 150, "fp32"),
        Point(0.5, 96, 150, "fp32"),
    ]
    described = manifest.read(exported)
    digests = card.digests(described.weights(), described.widths)
    ladder = [Point(0.25, 96, 20, "fp32"), Point(0.5, 160, 50, "int8")]
    rungs = [Rung(point, {"AP": 0.3}, 8, "val", digests[str(point.width)]) for point in ladder]
    card.write_ladder(exported, rungs, "a machine", Latencies("onnxruntime", "cpu", 1, {}, "2026-01-02", ()))
    tuned = slimdet.Runtime(exported, engine="onnxruntime")
    assert points_of(tuned, BenchmarkSettings()) == ladder[:1]  # there is no file of the other
    assert "1 points of the ladder do not run on onnxruntime and are left out" in caplog.text
    assert points_of(tuned, BenchmarkSettings(proposals=(50,)))[0] == Point(0.25, 186, 50, "fp32")
