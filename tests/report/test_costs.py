"""`slimdet profile`: what an engine reports of every width, and how it is shown."""

import json
from pathlib import Path

import pytest

from runtime.mask_engine import mask_bundle
from slimdet.bundle.manifest import read
from slimdet.cli.verbs import main
from slimdet.cli.views import cost_table
from slimdet.errors import ConfigError
from slimdet.report.costs import MB, costs

Capture = pytest.CaptureFixture[str]


def test_every_width_has_latency_disk_and_memory() -> None:
    found = costs("bundled", engine="onnxruntime", threads=1, repeats=2)
    assert (found.engine, found.device, found.threads, found.imgsz) == ("onnxruntime", "cpu", 1, 186)
    assert list(found.widths) == ["0.25", "0.5", "0.75", "1.0"]
    bundle = read("bundled")
    for width, numbers in found.widths.items():
        assert numbers["latency_ms"] > 0
        assert numbers["latency_spread_ms"] >= 0
        assert numbers["disk_mb"] == sum(file.stat().st_size for file in bundle.engine("onnx", float(width))) / MB
        assert numbers["parameters"] == bundle.metrics[width]["cost"]["parameters"]
    memory = [numbers["memory_mb"] for numbers in (*found.widths.values(), found.all["fast"])]
    assert 0 < memory[0] < memory[3] < memory[4]  # the narrowest, the widest, all
    assert found.all["low"]["latency_ms"].keys() == found.all["fast"]["latency_ms"].keys() == found.widths.keys()
    assert found.all["low"]["memory_mb"] < memory[4]
    # Linked engines share one file of weights, which counts once.
    files = {file for width in bundle.widths for file in bundle.engine("onnx", width)}
    assert found.all["fast"]["disk_mb"] == sum(file.stat().st_size for file in files) / MB


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_not_recorded_is_absent(engine: str, tmp_path: Path) -> None:
    found = costs(mask_bundle(tmp_path / "masks"), engine=engine, repeats=1)
    assert found.widths["1.0"].keys() == {"latency_ms", "latency_spread_ms", "disk_mb", "memory_mb"}
    assert "multiply-adds" not in cost_table(found.widths)


def test_torch_keeps_its_own_report(capsys: Capture) -> None:
    words = ["profile", "--model", "bundled", "--engine", "torch", "--imgsz", "64", "--repeats", "1", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["engine"], found["imgsz"], found["all"]) == ("torch", 64, {})
    for numbers in found["widths"].values():
        assert {"parameters", "macs", "latency_ms", "memory_mb"} <= set(numbers)


def test_people_get_a_table(tmp_path: Path, capsys: Capture) -> None:
    assert main(["profile", "--model", str(mask_bundle(tmp_path / "masks")), "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert (
        "onnxruntime on cpu, fp32, median of 1 runs on 32x32 pixels of noise\nall widths in one process, memory " in out
    )
    assert "memory low" not in out  # its file has weights of its own
    assert "disk" in out


def test_at_another_point() -> None:
    found = costs("bundled", engine="onnxruntime", threads=1, repeats=1, imgsz=96, proposals=10)
    assert found.imgsz == 96


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repeats 0 must be 1 or more"):
        costs("bundled", repeats=0)
    with pytest.raises(ConfigError, match=r"--imgsz 640: .* is of an older slimdet"):
        costs(mask_bundle(tmp_path / "masks"), imgsz=640)
    with pytest.raises(ConfigError, match="--proposals 9: torch is measured with the model's own"):
        costs("bundled", engine="torch", proposals=9)
