"""What each width of a bundle costs on an engine: the verb `profile`, without torch where the engine is another."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from slimdet.bundle import manifest
from slimdet.errors import ConfigError
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import choose

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
        engine: as for `Runtime`. With torch it is `slimdet.report.profiling.profile` that measures.
        imgsz: side of the square picture in pixels; the torch engine alone can choose it.
        device, threads: as for `Runtime`.
        repeats: timed runs of every width.

    Returns:
        {"engine", "device", "threads" (null: the engine's choice), "imgsz" (pixels), "repeats", "widths": {"0.25":
        {...}, ...}, "all": {...}} with

        - "latency_ms", "latency_spread_ms": as `slimdet.report.profiling.profile` has them, on a picture of noise;
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


def view(found: Mapping[str, Any]) -> str:
    """The table, and what all widths take together."""
    total = found.get("all", {})
    words = {"disk_mb": "on disk", "memory_mb": "of memory"}
    parts = [f"{total[key]:.0f} MB {where}" for key, where in words.items() if key in total]
    line = f"; all widths in one process: {', '.join(parts)}" if parts else ""
    return f"{cost_table(found['widths'])}\n\n{found['engine']} on {found['device']}{line}"


def cost_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """What each width costs, a line per width, ascending.

    Args:
        results: width -> any of "parameters" (count), "macs" (multiply-adds), "latency_ms", "memory_mb", "disk_mb",
            "detections" (count), "AP" (0..1, -1 where it is not known); a number that no width has gets no column.
    """
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "parameters": ("parameters", lambda value: f"{value / 1e6:.2f} M"),
        "macs": ("multiply-adds", lambda value: f"{value / 1e9:.2f} G"),
        "latency_ms": ("latency", lambda value: f"{value:.1f} ms"),
        "memory_mb": ("memory", lambda value: f"{value:.0f} MB"),
        "disk_mb": ("disk", lambda value: f"{value:.1f} MB"),
        "detections": ("detections", lambda value: f"{value:.0f}"),
        "AP": ("AP", lambda value: f"{value:.3f}" if value > -1 else "-"),
    }
    shown = {key: column for key, column in columns.items() if any(key in numbers for numbers in results.values())}
    rows = [["width", *(title for title, _ in shown.values())]]
    for width in sorted(results, key=float):
        numbers = results[width]
        rows.append([width, *(text(numbers[key]) if key in numbers else "-" for key, (_, text) in shown.items())])
    widest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(size) for cell, size in zip(row, widest, strict=True)) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


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

    from slimdet.bundle import store
    from slimdet.report import profiling

    if threads:
        torch.set_num_threads(threads)
    return profiling.profile(store.load(model), imgsz, device, repeats)
