"""What each width of a bundle costs on an engine: the verb `profile`, without torch where the engine is another."""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from rich.console import Group

from slimdet import manifest, report
from slimdet.errors import ConfigError
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engines import choose

MB = 2**20


def costs(
    model: str | Path,
    engine: str = "auto",
    imgsz: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    repeats: int = 10,
) -> dict[str, Any]:
    """Measure every width of a bundle.

    Args:
        model: a bundle's folder, or "bundled".
        engine: as for `Runtime`. With torch it is `slimdet.profiling.profile` that measures.
        imgsz: side of the square picture in pixels; the torch engine alone can choose it.
        device, threads: as for `Runtime`.
        repeats: timed runs of every width.

    Returns:
        {"engine", "device", "threads" (null: the engine's choice), "imgsz" (pixels), "repeats", "widths": {"0.25":
        {...}, ...}, "all": {...}} with

        - "latency_ms", "latency_spread_ms": as `slimdet.profiling.profile` has them, on a picture of noise;
        - "disk_mb": the files that the width reads, in MiB;
        - "memory_mb": what the width adds to a process's resident memory, in MiB; absent where it cannot be told;
        - "parameters", "macs": as recorded in the bundle, absent where they were not.

        "all" has "disk_mb" and "memory_mb" of all widths in one process. With torch: what `profile` returns, and
        "engine".

    Raises:
        BundleError, ConfigError: as for `Runtime`.
    """
    name = choose(engine, manifest.read(model))
    if name == "torch":
        return {"engine": name} | _with_torch(model, imgsz, device, threads, repeats)
    if repeats < 1:
        raise ConfigError(f"repeats {repeats} must be 1 or more")
    runtime = Runtime(model, engine=name, device=device, threads=threads, imgsz=imgsz).prepare()
    side = runtime.session(1.0).sides[0]
    widths: dict[str, dict[str, float]] = {}
    for width, runs in latencies(runtime, side, repeats).items():
        low, _, high = quantiles(runs, n=4) if len(runs) > 1 else (runs[0],) * 3
        recorded = runtime.manifest.metrics.get(str(width), {}).get("cost", {})
        widths[str(width)] = recorded | {"latency_ms": median(runs), "latency_spread_ms": high - low}
    sizes = {
        key: {what.replace("_bytes", "_mb"): value / MB for what, value in size.items()}
        for key, size in runtime.footprint().items()
    }
    report = {"engine": name, "device": runtime.engine.device, "threads": threads, "imgsz": side, "repeats": repeats}
    return report | {"widths": {key: widths[key] | sizes[key] for key in widths}, "all": sizes["all"]}


def view(found: Mapping[str, Any]) -> Group:
    """The table, and what all widths take together."""
    total = found.get("all", {})
    words = {"disk_mb": "on disk", "memory_mb": "of memory"}
    parts = [f"{total[key]:.0f} MB {where}" for key, where in words.items() if key in total]
    line = f"all widths in one process: {', '.join(parts)}" if parts else ""
    return Group(report.cost_table(found["widths"]), f"{found['engine']} on {found['device']}", line)


def latencies(runtime: Runtime, side: int, repeats: int) -> dict[float, list[float]]:
    """Milliseconds of every run by width, on a square of noise; the widths take turns, after a warm one each."""
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    runs: dict[float, list[float]] = {width: [] for width in runtime.widths}
    for turn in range(repeats + 1):
        for width, times in runs.items():
            session = runtime.session(width)
            start = time.perf_counter()
            session(noise)
            if turn > 0:
                times.append(1000 * (time.perf_counter() - start))
    return runs


def _with_torch(model: str | Path, imgsz: int | None, device: str, threads: int | None, repeats: int) -> dict[str, Any]:
    import torch

    from slimdet import bundle, profiling

    if threads:
        torch.set_num_threads(threads)
    return profiling.profile(bundle.load(model), imgsz, device, repeats)
