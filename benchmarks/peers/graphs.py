"""Graph files in ONNX Runtime and OpenVINO, all with the same options; where a graph's time goes."""

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
from timing import Run

# What multiplies weights by activations, as ONNX Runtime and OpenVINO name it.
PRODUCTS = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv"}
OPENVINO_PRODUCTS = {"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul"}
RUNS = 15


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def onnx_session(file: Path, threads: int, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """A session as slimdet's engine makes it: threads do not wait awake, for others run in turns with them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])


def run_onnx(file: Path, inputs: Mapping[str, np.ndarray], threads: int) -> Run:
    session = onnx_session(file, threads)
    return lambda: session.run(None, dict(inputs))


def run_openvino(file: Path, inputs: Mapping[str, np.ndarray], threads: int, precision: str = "f32") -> Run:
    request = _compiled(file, threads, precision).create_infer_request()
    return lambda: request.infer(dict(inputs), share_inputs=True)


def _compiled(file: Path, threads: int, precision: str, **more: Any) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        **more,
    }
    return openvino.Core().compile_model(file, "CPU", settings)


def onnx_times(file: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Milliseconds of a graph's operators by kind, one thread, by ONNX Runtime's own counters: {"Conv": ...}.

    Of several runs the least of every node: what else the machine does only adds to them.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = onnx_session(file, 1, Path(folder) / "profile")
        for _ in range(RUNS):
            session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["args"]["op_name"], event["name"]
            least[node] = min(least.get(node, math.inf), event["dur"] / 1000)
    return _by_kind(least)


def openvino_times(file: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The same by OpenVINO's counters, in f32."""
    request = _compiled(file, 1, "f32", PERF_COUNT=True).create_infer_request()
    least: dict[tuple[str, str], float] = {}
    for _ in range(RUNS):
        request.infer(dict(inputs))
        for one in request.profiling_info:
            node = one.node_type, one.node_name
            least[node] = min(least.get(node, math.inf), one.real_time.total_seconds() * 1000)
    return _by_kind(least)


def rest(by_kind: Mapping[str, float]) -> float:
    """The share, 0..1, of everything but convolutions and linears."""
    products = PRODUCTS | OPENVINO_PRODUCTS
    return 1 - sum(ms for kind, ms in by_kind.items() if kind in products) / sum(by_kind.values())


def _by_kind(nodes: Mapping[tuple[str, str], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for (kind, _), ms in nodes.items():
        found[kind] = found.get(kind, 0.0) + ms
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))
