"""Which engine runs, on which device, and what is said where it cannot."""

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest

from runtime.mask_engine import mask_bundle
from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest
from slimdet.bundle.ladder import Point, Precision
from slimdet.errors import BundleError, ConfigError
from slimdet.images.decoding import read_image
from slimdet.runtime import engine as engines
from slimdet.runtime.engine import EngineName, choose
from slimdet.runtime.openvino_engine import core


def without_engines(folder: Path) -> Path:
    document = json.loads((folder / "model.json").read_text())
    document.pop("engines")
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def test_auto_is_onnxruntime_where_exported_else_torch_else_an_error(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose("auto", manifest.read(exported)) == "onnxruntime"
    bare = manifest.read(without_engines(exported))
    assert choose("auto", bare) == "torch"
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=f"run 'slimdet export --model {exported}' where torch is"):
        choose("auto", bare)


def test_an_engine_that_is_asked_for_is_taken(exported: Path) -> None:
    bundle = manifest.read(exported)
    assert [choose(name, bundle) for name in engines.ENGINES] == list(engines.ENGINES)
    with pytest.raises(ConfigError, match="'tensorrt' is not one of auto, onnxruntime, openvino, torch"):
        choose("tensorrt", bundle)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_without_engines_is_told_how_to_get_them(engine: str, exported: Path) -> None:
    runtime = Runtime(without_engines(exported), engine=engine)
    with pytest.raises(BundleError, match=f"no onnx engine of width 0.5; .*slimdet export --model {exported}"):
        runtime.prepare([0.5])


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_device_that_is_not_there_is_an_error(engine: str) -> None:
    with pytest.raises(ConfigError, match="--device cuda:99"):
        Runtime(engine=engine, device="cuda:99")


@pytest.mark.parametrize(("engine", "device"), [("onnxruntime", "mps"), ("onnxruntime", "tpu"), ("openvino", "npu")])
def test_devices_that_are_there_are_named(engine: str, device: str) -> None:
    with pytest.raises(ConfigError, match=rf"--device {device} .*available: .*cpu"):
        Runtime(engine=engine, device=device)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_file_of_an_older_slimdet_runs_at_its_own_size_alone(engine: str, tmp_path: Path) -> None:
    folder, image = mask_bundle(tmp_path / "old"), np.zeros((50, 70, 3), np.uint8)
    runtime = Runtime(folder, engine=engine)
    assert runtime(image).point == runtime(image, imgsz=32).point == Point(1.0, 32, None, "fp32")
    for asked in ({"imgsz": 64}, {"proposals": 10}):
        with pytest.raises(ConfigError, match=r"--\w+ \d+: .* is of an older slimdet .* take engine torch"):
            runtime(image, **asked)
        with pytest.raises(ConfigError, match="is of an older slimdet"):
            Runtime(folder, engine=engine, **asked).prepare()


def test_torch_runs_at_other_sizes_and_numbers_of_proposals_and_forgets_them() -> None:
    runtime = Runtime(engine="torch", imgsz=96, proposals=40)
    session = runtime.session(0.25)
    assert (session.sides, session.proposals) == ((96, 132), 40)
    image = read_image(PHOTOGRAPHS / "horses.jpg")[None]
    usual = session(image)
    expected = Runtime(engine="torch", imgsz=64, proposals=7).session(0.25)(image)
    for found, wanted in zip(session(image, 1.0, 64, 7)[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert len(usual.scores) > len(expected.scores)
    for again, before in zip(session(image)[:4], usual[:4], strict=True):
        np.testing.assert_array_equal(again, before)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_threads_are_one_or_more(engine: str) -> None:
    with pytest.raises(ConfigError, match="threads 0 must be 1 or more"):
        Runtime(engine=engine, threads=0)


def test_low_memory_gives_the_same_from_weights_that_are_mapped_once() -> None:
    image = read_image(PHOTOGRAPHS / "horses.jpg")[None]
    fast, low = (Runtime(engine="onnxruntime", threads=1, memory=mode) for mode in engines.get_args(engines.Memory))
    for width in (0.25, 1.0):
        session = low.session(width)
        for found, wanted in zip(session(image)[:4], fast.session(width)(image)[:4], strict=True):
            np.testing.assert_allclose(found, wanted, atol=2e-3)
    del low  # what a session points to lives as long as it does
    gc.collect()
    assert len(session(image).scores) > 0


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (
            "onnxruntime",
            "has weights of its own and no memory 'low'; make it with 'slimdet export .* --linked",
        ),
        ("openvino", "openvino has no memory 'low': leave it out, or take engine onnxruntime"),
        ("torch", "torch has no memory 'low'"),
    ],
)
def test_low_memory_that_cannot_be_is_refused(engine: EngineName, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        Runtime(mask_bundle(tmp_path / "model"), engine=engine, memory="low").prepare()
    with pytest.raises(ConfigError, match="--memory 'least' is not one of fast, low"):
        engines.EngineSettings(memory="least")  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_sides_are_those_of_the_model(engine: str) -> None:
    assert Runtime(engine=engine).session(0.25).sides == (186, 256)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_file_that_cannot_be_run_is_named(engine: str, exported: Path) -> None:
    file, content = exported / "width-0.5.onnx", b"\x08\x09"  # an ONNX file of nothing but its version
    file.write_bytes(content)
    with pytest.raises(BundleError, match="its sha256 differs"):
        Runtime(exported, engine=engine).prepare([0.5])
    document = json.loads((exported / "model.json").read_text())
    document["engines"]["onnx"]["0.5"]["sha256"] = manifest.hashlib.sha256(content).hexdigest()
    (exported / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=rf"{file} cannot be run by {engine}") as caught:
        Runtime(exported, engine=engine).prepare([0.5])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_sessions_keep_to_the_interface(engine: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    found = Runtime(engine=engine, threads=1).session(0.25)(images)
    count = len(found.scores)
    assert found.boxes.shape == (count, 4)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert (found.labels.dtype, found.image_index.dtype) == (np.int64, np.int64)
    assert set(found.image_index) <= {0, 1, 2}
    assert (np.diff(found.image_index) >= 0).all()
    for index in range(3):
        assert (np.diff(found.scores[found.image_index == index]) <= 0).all()
    assert found.masks is None


@pytest.mark.parametrize(
    ("engine", "precision", "said"),
    [
        ("onnxruntime", "bf16", "onnxruntime has no bf16; take precision fp32, int8, or engine openvino"),
        ("torch", "int8", "torch has no int8; take precision fp32, or engine openvino"),
    ],
)
def test_a_precision_that_an_engine_lacks_is_refused_with_the_way_out(
    engine: EngineName, precision: Precision, said: str
) -> None:
    runtime = Runtime(engine=engine, precision=precision)
    with pytest.raises(ConfigError, match=said):
        runtime.session(0.25)
    assert runtime.engine.load(0.25, "fp32").precision == "fp32"


def test_openvino_computes_in_half_the_bits_where_the_processor_has_them() -> None:
    precision: Precision = "bf16"
    image = read_image(PHOTOGRAPHS / "horses.jpg")
    runtime = Runtime(engine="openvino", width=0.5)
    exact = runtime(image)
    has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with pytest.raises(ConfigError, match="openvino on this cpu has no fp16; take precision"):
        runtime(image, point=Point(0.5, precision="fp16"))
    if precision.upper() not in has:
        with pytest.raises(ConfigError, match=f"openvino on this cpu has no {precision}; take precision fp32, int8"):
            runtime(image, point=Point(0.5, precision=precision))
        return
    rough = runtime(image, point=Point(0.5, precision=precision))
    assert (exact.point.precision, rough.point.precision) == ("fp32", precision)
    assert len(exact) == len(rough) > 0
    np.testing.assert_allclose(rough.boxes, exact.boxes, atol=2)
    assert 0 < np.abs(rough.scores - exact.scores).max() < 0.05


def test_a_session_is_one_whether_its_precision_is_named_or_the_best() -> None:
    runtime = Runtime(engine="onnxruntime")
    tabby = PHOTOGRAPHS / "tabby.jpg"
    runtime(tabby, point=Point(0.25, precision="fp32"))
    runtime(tabby, 0.25)
    assert len({id(session) for session in runtime._sessions._ready.values()}) == 1


def test_torch_runs_what_was_not_exported(exported: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = json.loads((exported / "model.json").read_text())
    del document["engines"]["onnx"]["0.25"]
    (exported / "model.json").write_text(json.dumps(document))
    runtime = Runtime(exported)
    image = np.zeros((64, 64, 3), np.uint8)
    with caplog.at_level("WARNING", "slimdet"):
        assert runtime(image, width=0.5).point.width == 0.5
        assert not caplog.text
        assert runtime(image, width=0.25).point.width == 0.25
    assert caplog.text.count("was not exported at width 0.25, which torch runs") == 1
    with pytest.raises(BundleError, match=r"has no onnx engine of width 0\.25"):
        Runtime(exported, engine="onnxruntime").prepare([0.25])


def test_torch_after_a_fork_raises_and_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Runtime("bundled", engine="torch").session(0.25)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ConfigError, match="was loaded before a fork"):
        session(np.zeros((1, 64, 64, 3), np.uint8))
