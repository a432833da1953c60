"""What runs against what, and how it is timed: in turns, wall time and process CPU time side by side."""

import gc
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SHORT_MS = 200.0
SHORT, LONG = 5, 2  # timed runs in a turn of what takes less than that, and of what takes more
PACKAGES = ("torch", "torchvision", "onnxruntime", "openvino", "transformers", "ultralytics", "ncnn")

PIXELS = "decoded pixels to final boxes"
NETWORK = "network only"

Run = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """One thing that is timed.

    Attributes:
        model: what it is, without its width, engine and size.
        engine: the library that runs it, and in which precision where that is not f32.
        image: side of the square image that it is given, pixels.
        timed: `PIXELS`, or `NETWORK` (from a float tensor to raw outputs).
        weights: where they come from.
        make: from a number of threads to what is run.
        width: of a slimmable detector.
    """

    model: str
    engine: str
    image: int
    timed: str
    weights: str
    make: Callable[[int], Run] = field(repr=False)
    width: float | None = None

    @property
    def name(self) -> str:
        width = "" if self.width is None else f" {self.width:g}"
        return f"{self.model}{width}, {self.image} px, {self.engine}"

    @property
    def description(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "make" and value is not None}


def turn(run: Run) -> tuple[float, float]:
    """Median wall and CPU milliseconds of a few runs, after one that fills caches."""
    first, _ = _once(run)
    wall, cpu = zip(*(_once(run) for _ in range(SHORT if first < SHORT_MS else LONG)), strict=True)
    return statistics.median(wall), statistics.median(cpu)


def one_round(contenders: Sequence[Contender], threads: int, number: int) -> dict[str, tuple[float, float]]:
    """A turn of each, in an order of the round's own. Each is made for its turn: all together fill 8 GB."""
    found: dict[str, tuple[float, float]] = {}
    for one in random.Random(number).sample(contenders, len(contenders)):
        run = one.make(threads)
        found[one.name] = turn(run)
        del run
        gc.collect()
    return found


def _once(run: Run) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def machine() -> dict[str, Any]:
    """Processor, cores and the versions of what ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    special = sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"})
    return {
        "processor": named[0] if named else platform.processor(),
        "instructions": special,
        "cores": os.cpu_count(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
