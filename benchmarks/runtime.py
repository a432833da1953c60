"""The bundled detector by engine: latency of every width, bytes on disk and in memory, time to the first result.

    python benchmarks/runtime.py [--out benchmarks/runtime.json]

Latencies are CPU milliseconds of this process on one thread, medians of interleaved runs: a busy machine moves both
sides of a ratio alike. A cold start is a process of its own, from its start to the first result; its wall time is that
of the machine as it was, its CPU time hardly depends on what else ran.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest
from slimdet.runtime.engine import ENGINES, EngineName, EngineSettings, make
from slimdet.runtime.footprint import footprint, together

PHOTOGRAPH = PHOTOGRAPHS / "tabby.jpg"
ROUNDS, STARTS = 15, 7


def latencies() -> dict[str, dict[str, float]]:
    """CPU milliseconds of one photograph, decoded beforehand, by engine and width."""
    runtimes = {engine: Runtime(engine=engine, threads=1).prepare() for engine in ENGINES}
    runs: dict[tuple[str, float], list[float]] = {}
    for _ in range(ROUNDS + 1):
        for engine, runtime in runtimes.items():
            picture = runtime.read(PHOTOGRAPH)
            for width in runtime.widths:
                start = time.process_time()
                runtime.detect([picture], width)
                runs.setdefault((engine, width), []).append(1000 * (time.process_time() - start))
    medians = {key: statistics.median(times[1:]) for key, times in runs.items()}  # the first round warms up
    return {
        engine: {str(width): medians[engine, width] for width in runtime.widths} for engine, runtime in runtimes.items()
    }


def cold_start(width: float) -> dict[str, float]:
    """Seconds from the start of a process to the end of its first detection, onnxruntime, and its CPU seconds."""
    code = f"import slimdet; slimdet.Runtime(width={width}, engine='onnxruntime', threads=1)({str(PHOTOGRAPH)!r})"
    wall, cpu = [], []
    for _ in range(STARTS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        wall.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"least wall": min(wall), "median wall": statistics.median(wall), "median CPU": statistics.median(cpu)}


def sizes(engine: EngineName) -> dict[str, dict[str, Any]]:
    """Bytes on disk and in memory of every width, and of all in one process."""
    bundle, options = manifest.read("bundled"), EngineSettings(engine, threads=1)
    return footprint(make(engine, bundle, options), bundle, options) | {"all": together(bundle, options)}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    out = parser.parse_args().out
    starts = {str(width): cold_start(width) for width in (0.25, 1.0)}
    found = latencies()
    result: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "threads": 1,
            **{name: version(name) for name in ("onnxruntime", "openvino", "torch", "torchvision")},
        },
        "cold start, seconds": starts,
        "CPU ms of one photograph": found,
        "times onnxruntime": {
            engine: {width: value / found["onnxruntime"][width] for width, value in widths.items()}
            for engine, widths in found.items()
        },
        "bytes": {engine: sizes(engine) for engine in ("onnxruntime", "openvino")},
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
