"""`slimdet profile --save`: what is timed, where it stays, and what is answered to mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

import slimdet
from runtime.mask_engine import mask_bundle
from slimdet.bundle import manifest
from slimdet.devices import cores
from slimdet.errors import ConfigError
from slimdet.report.engines import save_latencies


def test_every_engine_and_number_of_threads_stays_in_the_bundle(tmp_path: Path) -> None:
    model = mask_bundle(tmp_path / "masks")
    command = [sys.executable, "-m", "slimdet", "profile", "--model", str(model), "--repeats", "1", "--save"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    bundle = manifest.read(model)
    kept = bundle.latencies.values()
    assert {one.engine for one in kept} == {"onnxruntime", "openvino"}
    assert {one.threads for one in kept} >= {1, cores()}
    assert all([point.width for point in one.medians] == list(bundle.widths) for one in kept)
    chosen = slimdet.Runtime(model)
    count = chosen.options.threads_of(1.0)
    assert f"{chosen.engine.name} on cpu, fp32, threads 1.0 {count}" in told


def test_mistakes(exported: Path) -> None:
    with pytest.raises(ConfigError, match=r"the bundled model belongs to the package; copy .* and give the copy"):
        save_latencies("bundled", 1)
    bare = slimdet.save(slimdet.load(exported), exported.parent / "bare")
    with pytest.raises(ConfigError, match="has no engine files to compare; make them with 'slimdet export"):
        save_latencies(bare, 1)
