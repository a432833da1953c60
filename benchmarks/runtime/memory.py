"""Memory of all widths in one process in both modes, what it costs in time, and how long a width takes to load.

    python benchmarks/runtime/memory.py [--model MODEL ...] [--out memory.json]

ONNX Runtime, one thread. Each figure comes from fresh processes: bytes are what is resident after some images, without
Python and the engine's own code. Times are CPU milliseconds: those of an image are the median of turns in one process,
those of loading the median of processes that load one width after another, the widest first or the narrowest first;
checking the files' digests is part of it. Given several models ("before" and "after"), their processes take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.bundle import manifest
from slimdet.devices import cpu_name
from slimdet.runtime.engine import EngineSettings, Memory, make

STARTS, ROUNDS = 3, 15
MODES: tuple[Memory, ...] = ("fast", "low")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def one_process(model: str, mode: Memory, widths: list[float]) -> dict[str, Any]:
    """What this process, which has done nothing yet, takes for the widths."""
    import slimdet.runtime.onnxruntime_engine  # noqa: F401  its code is not counted

    bundle = manifest.read(model)
    before = resident()
    engine = make("onnxruntime", bundle, EngineSettings(threads=1, memory=mode))
    loading, sessions = {}, {}
    for width in widths:
        start = time.process_time()
        sessions[width] = engine.load(width)
        loading[width] = 1000 * (time.process_time() - start)
    runs: dict[float, list[float]] = {width: [] for width in widths}
    side = sessions[widths[0]].sides[0]
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    for _ in range(ROUNDS + 1):
        for width, session in sessions.items():
            start = time.process_time()
            session(image)
            runs[width].append(1000 * (time.process_time() - start))
    took = {width: statistics.median(times[1:]) for width, times in runs.items()}
    return {"bytes": resident() - before, "loading": loading, "image": took}


def measure(models: list[str]) -> dict[str, Any]:
    cases: dict[tuple[str, Memory, str], list[dict[str, Any]]] = {}
    for _ in range(STARTS):
        for model in models:
            widths = manifest.read(model).widths
            for mode in MODES:
                for name, some in (("widest", widths[-1:]), ("all", widths), ("widest first", widths[::-1])):
                    words = [sys.executable, __file__, "--process", mode, *map(str, some), "--model", model]
                    told = subprocess.run(words, capture_output=True, check=True, text=True).stdout
                    cases.setdefault((model, mode, name), []).append(json.loads(told))

    def middle(case: tuple[str, Memory, str], *path: str) -> float:
        values = []
        for found in cases[case]:
            for key in path:
                found = found[key]
            values.append(found)
        return round(statistics.median(values), 1)

    result: dict[str, Any] = {}
    for model in models:
        alone = middle((model, "fast", "widest"), "bytes")
        widths = [str(width) for width in manifest.read(model).widths]
        for mode in MODES:
            result.setdefault(Path(model).name, {})[mode] = {
                "MiB, widest alone": round(middle((model, mode, "widest"), "bytes") / 2**20, 1),
                "MiB, all": round(middle((model, mode, "all"), "bytes") / 2**20, 1),
                "all / the widest alone in fast": round(middle((model, mode, "all"), "bytes") / alone, 2),
                "ms of loading, ascending": {w: middle((model, mode, "all"), "loading", w) for w in widths},
                "ms of loading, widest first": {w: middle((model, mode, "widest first"), "loading", w) for w in widths},
                "ms of an image": {w: middle((model, mode, "all"), "image", w) for w in widths},
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("widths", nargs="*", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--process", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--model", nargs="+", default=["bundled"])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if given.process:
        print(json.dumps(one_process(given.model[0], given.process, given.widths)))
        return
    names = {"processor": cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "threads": 1}
    result = {"machine": {**names, "onnxruntime": version("onnxruntime")}, **measure(given.model)}
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
