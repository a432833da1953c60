"""OpenVINO and images of many sizes: how a process grows, and what a model compiled for one size would save.

    python benchmarks/runtime/openvino_sizes.py [--out openvino_sizes.json]

The bundled detector, one thread, CPU milliseconds, medians. "growth": a fresh process detects in images of random
sizes, 186 to 256 pixels a side, with OpenVINO's own bound on the layers it keeps as prepared for a shape (5000) and
with that of the engine; MiB that it has grown by since the first image. "one size": the file as the engine compiles it,
against the same with the image's size, `imgsz` and `proposals` fixed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from slimdet.bundle import manifest
from slimdet.devices import cpu_name
from slimdet.runtime import openvino_engine
from slimdet.runtime.engine import EngineSettings

WIDTHS = (0.25, 1.0)
OWN = 5000  # OpenVINO's
IMAGES, ROUNDS = 300, 20


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def growth(width: float, capacity: int) -> dict[str, float]:
    openvino_engine.SHAPES = capacity
    engine = openvino_engine.OpenvinoEngine(manifest.read("bundled"), EngineSettings(threads=1))
    session = engine.load(width)
    generator = np.random.default_rng(0)
    same = generator.integers(0, 256, (1, 186, 250, 3), dtype=np.uint8)
    session(same)
    before, varying = resident(), []
    for _ in range(IMAGES):
        height, other = generator.integers(186, 257, 2)
        image = generator.integers(0, 256, (1, height, other, 3), dtype=np.uint8)
        varying.append(timed(lambda image=image: session(image)))
    grown = resident() - before
    one = [timed(lambda: session(same)) for _ in range(ROUNDS)]
    return {"MiB": grown, "ms, sizes vary": statistics.median(varying), "ms, one size": statistics.median(one)}


def one_size(width: float) -> dict[str, dict[str, float]]:
    core = openvino.Core()
    image = np.random.default_rng(0).integers(0, 256, (1, 186, 250, 3), dtype=np.uint8)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    runs: dict[str, Callable[[], Any]] = {}
    found: dict[str, dict[str, float]] = {}
    for name in ("any", "fixed"):
        before = resident()
        model = core.read_model(manifest.read("bundled").engine("onnx", width)[0])
        if name == "fixed":  # read as it is, ONNX's defaults are constants
            model.reshape({"images": list(image.shape)})
            feeds = {"images": image}
        else:
            model = openvino_engine._opened(model)
            feeds = {"images": image, "imgsz": np.array(186), "proposals": np.array(150)}
        start = time.process_time()
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        seconds = time.process_time() - start
        request.infer(feeds)
        found[name] = {"seconds to compile": round(seconds, 2), "MiB": round(resident() - before)}
        runs[name] = lambda request=request, feeds=feeds: request.infer(feeds)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(timed(run))
    for name, each in times.items():
        found[name]["ms"] = round(statistics.median(each), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", nargs=2, type=float, metavar=("WIDTH", "CAPACITY"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if given.growth:
        print(json.dumps(growth(given.growth[0], int(given.growth[1]))))
        return
    machine = {"processor": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "threads": 1}
    result: dict[str, Any] = {"machine": {**machine, "openvino": version("openvino")}, "growth": {}, "one size": {}}
    for width in WIDTHS:
        for capacity in (OWN, openvino_engine.SHAPES):
            words = [sys.executable, __file__, "--growth", str(width), str(capacity)]
            told = json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout)
            entry = {key: round(value, 1) for key, value in told.items()}
            result["growth"].setdefault(str(width), {})[f"{capacity} layers"] = entry
        result["one size"][str(width)] = one_size(width)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
