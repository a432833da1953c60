"""What fewer bits cost a detector and what they save, width by width, in both engines.

    python benchmarks/precision/int8.py --data animalpose.yaml [--model bundled] [--widths 1.0,0.25]

For each width: files in 8 bits as `slimdet export --int8` makes them, with its own limit (layers may have gone back to
32 bits), and OpenVINO's bf16 from the file in 32 bits. AP is that of the files, on the same val images for all.
Latencies are CPU milliseconds of this process on one thread, medians of interleaved runs on one photograph: a busy
machine moves both sides of a ratio alike. `--methods` compares, at the widest, ways to find the ranges of 8 bits, no
layer left in 32. What was measured before stays in the file, so that a run can be done in parts.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationMethod

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest, store
from slimdet.bundle.ladder import Point, Precision
from slimdet.bundle.manifest import Manifest
from slimdet.devices import cpu_name, cpu_units
from slimdet.evaluation.matching import accumulate
from slimdet.evaluation.points import detect_points, part_of
from slimdet.exporting import int8, quantization
from slimdet.exporting.engine_files import metadata
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.exporting.settings import ExportSettings
from slimdet.exporting.writing import record, write
from slimdet.images.decoding import read_image
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineName

PHOTOGRAPH, ROUNDS = PHOTOGRAPHS / "tabby.jpg", 25
RUNS: tuple[tuple[EngineName, Precision], ...] = (
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "int8"),
    ("openvino", "bf16"),
)


def accuracy(folder: Path, width: float, engine: EngineName, precision: Precision, data: int8.Examples) -> float:
    """AP of boxes, 0..1, of a bundle's file on the val images."""
    runtime, point = Runtime(folder, width, engine, threads=1), Point(width, precision=precision)
    found = detect_points(runtime, data.val, [point], data.places)[point]
    return accumulate(part_of(data.val, data.places), found)["bbox"].summary()["AP"]


def latencies(folder: Path, width: float) -> dict[str, float]:
    """CPU milliseconds of the photograph by engine and precision."""
    image = read_image(PHOTOGRAPH)[None]
    sessions = {}
    for engine, precision in RUNS:
        runtime = Runtime(folder, width, engine, threads=1, precision=precision)
        if (engine, precision) != ("openvino", "bf16") or cpu_units()["bf16"]:
            sessions[f"{engine} {precision}"] = runtime.session()
    runs: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS + 3):
        for name, session in sessions.items():
            start = time.process_time()
            session(image)
            if turn > 2:
                runs[name].append(1000 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in runs.items()}


def one_width(source: Manifest, width: float, settings: ExportSettings, data: int8.Examples) -> dict[str, Any]:
    """What is measured of a width."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(source.folder, Path(temporary) / "model"))
        found: dict[str, Any] = {}
        for format, engine in int8.ENGINE.items():
            written = slimdet.export(folder, settings, width=width, format=format)
            if written.refused:
                return {"refused": written.refused[str(width)]}
            made = written.int8[str(width)]
            found[engine] = {
                "AP": {"fp32": made.fp32_AP["bbox"], "int8": made.AP["bbox"]},
                "fp32_layers": made.fp32_layers,
                "MiB": {"fp32": written.widths[str(width)].bytes / 2**20, "int8": made.bytes / 2**20},
            }
        if cpu_units()["bf16"]:
            found["openvino"]["AP"]["bf16"] = accuracy(folder, width, "openvino", "bf16", data)
        found["CPU ms"] = latencies(folder, width)
        found["times faster"] = {
            name: found["CPU ms"][f"{name.split()[0]} fp32"] / value for name, value in found["CPU ms"].items()
        }
    return found


def methods(source: Manifest, data: int8.Examples) -> dict[str, Any]:
    """AP of the widest in 8 bits by the way that the ranges are found, and by the engine that runs the file."""
    detector = store.load(source.name).extract(1.0)
    graph = folded(to_onnx(detector, metadata(source, 1.0, detector)))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / manifest.MODEL).write_text(json.dumps(source.document | {"engines": {}}))
        for kind, name in (("onnx", "width-1.0.onnx"), ("openvino", "width-1.0.xml")):
            record(folder, kind, {"1.0": write(graph, folder / name, source.weights_sha256)})
        found["fp32"] = {"onnxruntime": accuracy(folder, 1.0, "onnxruntime", "fp32", data)}
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Entropy, CalibrationMethod.Percentile):
            smaller = quantization.quantized_onnx(graph, data.images, method=method)
            entry = write(smaller, folder / "width-1.0-int8.onnx", source.weights_sha256)
            record(folder, "onnx-int8", {"1.0": entry})
            found[method.name] = {"onnxruntime": accuracy(folder, 1.0, "onnxruntime", "int8", data)}
        smaller = quantization.quantized_openvino(graph, data.images)
        entry = write(smaller, folder / "width-1.0-int8.xml", source.weights_sha256)
        record(folder, "openvino-int8", {"1.0": entry})
        found["NNCF"] = {"openvino": accuracy(folder, 1.0, "openvino", "int8", data)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--widths", default="1.0,0.75,0.5,0.25")
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("--images", type=int, default=ExportSettings.images)
    parser.add_argument("--val-images", type=int, default=ExportSettings.val_images)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    source = manifest.read(options.model)
    settings = ExportSettings(int8=True, data=options.data, images=options.images, val_images=options.val_images)
    data = int8.examples(source, settings)
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    result["machine"] = {
        "processor": cpu_name(),
        "cores": os.cpu_count(),
        "instructions": cpu_units(),
        "load": os.getloadavg()[0],
        "threads": 1,
        **{name: version(name) for name in ("onnxruntime", "openvino", "nncf", "torch", "torchvision")},
    }
    result["images"] = {"calibration": len(data.images), "val": len(data.places), "seed": settings.seed}

    def save() -> None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")

    if options.methods:
        result["methods at 1.0, AP"] = methods(source, data)
        save()
    for width in map(float, filter(None, options.widths.split(","))):
        result.setdefault("widths", {})[str(width)] = one_width(source, width, settings, data)
        save()
        print(width, json.dumps(result["widths"][str(width)]), flush=True)


if __name__ == "__main__":
    main()
