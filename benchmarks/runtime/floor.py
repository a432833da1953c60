"""Where the time of exported detectors goes: layers (convolutions, linears) and everything else.

    python benchmarks/runtime/floor.py export engines/before     # with the code as it was
    python benchmarks/runtime/floor.py export engines/after      # with another
    python benchmarks/runtime/floor.py measure engines/before engines/after [--engines onnxruntime openvino]

`measure` runs the files of all folders, and takes turns. One thread, an image that the graph neither shrinks nor
enlarges, decoded. Of each folder, model, engine and width: CPU milliseconds of a run (median, engines' counters off),
and, from runs of their own with counters on, the share of each kind of operation. The shortest run of each operation
counts; on a busy machine long ones are interrupted in every run, and look longer than they are.

Models: "bundled", the model that ships, and "r50", a Faster R-CNN on ResNet-50 with the full neck, 91 classes, 640 x
640 pixels and 1000 proposals, whose random weights are scaled so that it keeps about as many boxes at each step as a
trained one. What floor.json compares, and what was tried besides, is in floor.md.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.exporting.openvino import converted, save_ir
from slimdet.images.decoding import read_image
from slimdet.models import builders

WIDTHS = (0.25, 1.0)
LAYERS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Convolution", "FullyConnected"}
ROUNDS, PROFILED = 7, 20

Least = dict[tuple[str, str], float]  # microseconds of each operation, by its name and kind
Run = Callable[[dict[str, np.ndarray]], Any]


def r50() -> tuple[dict[float, Any], np.ndarray]:
    torch.manual_seed(0)
    model = slimdet.slim(builders.faster_rcnn(91, "resnet50", "full", None, imgsz=(640, 640)), WIDTHS).eval()
    detectors: dict[float, Any] = {width: model.extract(width) for width in WIDTHS}
    image = picture(640)
    for detector in detectors.values():
        _detecting(detector, torch.from_numpy(image[0]).permute(2, 0, 1) / 255)
    return detectors, image


def _detecting(detector: Any, image: torch.Tensor) -> None:
    """Give a random detector proposals and scores as spread as a trained one's."""
    heads = detector.roi_heads
    parts = [(detector.rpn.head.cls_logits, 2.0), (detector.rpn.head.bbox_pred, 0.3)]
    parts += [(heads.box_predictor.cls_score, 1.5), (heads.box_predictor.bbox_pred, 0.3)]
    for layer, deviation in parts:
        seen: list[torch.Tensor] = []
        handle = layer.register_forward_hook(lambda layer, given, out, seen=seen: seen.append(out.flatten()))
        with torch.no_grad():
            detector([image])
            handle.remove()
            layer.weight.mul_(deviation / torch.cat(seen).std())
            if layer is heads.box_predictor.cls_score:
                layer.bias[0] += 9.0  # background


def bundled() -> tuple[dict[float, Any], np.ndarray]:
    model = slimdet.load("bundled")
    return {width: model.extract(width) for width in WIDTHS}, picture(186)


MODELS = {"r50": r50, "bundled": bundled}


def picture(side: int) -> np.ndarray:
    """uint8 [1, side, side, 3]: horses."""
    from PIL import Image

    photograph = Image.fromarray(read_image(PHOTOGRAPHS / "horses.jpg"))
    return np.asarray(photograph.resize((side, side)))[None].copy()


def onnxruntime_run(file: Path, profiled: bool) -> tuple[Run, Callable[[], Counter]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.enable_profiling, options.profile_file_prefix = profiled, str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def counters() -> Counter:
        events = json.loads(Path(session.end_profiling()).read_text())
        least: Least = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                _keep(least, event["name"], event["args"]["op_name"], event["dur"])
        return _by_kind(least)

    taken = [one.name for one in (*session.get_inputs(), *session.get_overridable_initializers())]
    return lambda inputs: session.run(None, {name: inputs[name] for name in taken}), counters


def openvino_run(file: Path, profiled: bool) -> tuple[Run, Callable[[], Counter]]:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": profiled}
    compiled = openvino.Core().compile_model(file.with_suffix(".xml"), "CPU", settings)
    request = compiled.create_infer_request()
    least: Least = {}

    taken = [name for one in compiled.inputs for name in one.names]

    def run(inputs: dict[str, np.ndarray]) -> None:
        request.infer({name: inputs[name] for name in taken})
        if profiled:
            for entry in request.get_profiling_info():
                _keep(least, entry.node_name, entry.node_type, entry.real_time.total_seconds() * 1e6)

    return run, lambda: _by_kind(least)


def _keep(least: Least, name: str, kind: str, spent: float) -> None:
    """Of each operation its shortest run: others were interrupted."""
    least[name, kind] = min(spent, least.get((name, kind), spent))


def _by_kind(least: Least) -> Counter:
    counted: Counter = Counter()
    for (_, kind), spent in least.items():
        counted[kind] += round(spent)
    return counted


ENGINES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def export(folder: Path) -> None:
    """Write every model and width, each as .onnx, .xml, and the inputs of a run as .npz."""
    folder.mkdir(parents=True)
    for name, make in MODELS.items():
        detectors, images = make()
        for width, detector in detectors.items():
            graph, file = folded(to_onnx(detector, {})), folder / f"{name}-{width}.onnx"
            file.write_bytes(graph.SerializeToString())
            save_ir(converted(graph), file.with_suffix(".xml"))
            usual = {"imgsz": detector.transform.min_size[-1], "proposals": detector.rpn.post_nms_top_n()}
            np.savez(file.with_suffix(".npz"), images=images, **usual)


def measure(folders: list[Path], name: str, engine: str) -> dict[str, Any]:
    files = {(folder.name, width): folder / f"{name}-{width}.onnx" for folder in folders for width in WIDTHS}
    inputs = {key: dict(np.load(file.with_suffix(".npz"))) for key, file in files.items()}
    runs = {key: ENGINES[engine](file, False)[0] for key, file in files.items()}
    times: dict[tuple[str, float], list[float]] = {key: [] for key in files}
    for turn in range(ROUNDS + 1):
        for key, run in runs.items():
            begin = time.process_time()
            run(inputs[key])
            if turn > 0:
                times[key].append(1000 * (time.process_time() - begin))
    medians = {key: statistics.median(each) for key, each in times.items()}
    del runs
    found: dict[str, Any] = {}
    for folder in folders:
        narrow, wide = (medians[folder.name, width] for width in WIDTHS)
        found[folder.name] = {"1.0 / 0.25": round(wide / narrow, 2)}
        for width in WIDTHS:
            key = folder.name, width
            found[folder.name][str(width)] = {"CPU ms": round(medians[key], 2)} | _shares(
                ENGINES[engine](files[key], True), inputs[key]
            )
    return found


def _shares(started: tuple[Run, Callable[[], Counter]], inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    run, counters = started
    for _ in range(PROFILED):
        run(inputs)
    counted = counters()
    whole = sum(counted.values())
    share = {kind: round(100 * spent / whole, 1) for kind, spent in counted.most_common(12)}
    layers = sum(spent for kind, spent in counted.items() if kind in LAYERS)
    return {"percent beside layers": round(100 - 100 * layers / whole, 1), "percent by operation": share}


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    libraries = {name: version(name) for name in ("onnxruntime", "openvino", "torch", "torchvision")}
    processor = named[0] if named else platform.processor()
    return {"processor": processor, "cores": os.cpu_count(), "load": os.getloadavg()[0], "threads": 1, **libraries}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["export", "measure"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.what == "export":
        for folder in given.folders:
            export(folder)
        return
    result: dict[str, Any] = {"machine": machine()}
    for name in given.models:
        result[name] = {engine: measure(given.folders, name, engine) for engine in given.engines}
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
