"""Which engine, on how many threads, is the quickest here: timed, and kept in the bundle for engine "auto"."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from slimdet.bundle import card, manifest
from slimdet.bundle.ladder import Latencies, Point
from slimdet.devices import cores
from slimdet.errors import ConfigError
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineName
from slimdet.runtime.latency import latencies, timing
from slimdet.runtime.machine import machine_key, versions

EXPORTED: tuple[EngineName, ...] = ("onnxruntime", "openvino")
SIZE = (480, 640)  # of the picture that is timed, pixels


def save_latencies(model: str | Path, repeats: int) -> dict[str, Latencies]:
    """Time each width and each point of the ladder on every engine for exported files; the bundle keeps it.

    On one thread, two, four and so on, to one for each core; from a decoded image to its boxes. All that one width does
    takes turns.

    Args:
        model: a bundle's folder.
        repeats: timed runs of each.

    Returns:
        What was written, by machine, as `slimdet.runtime.machine.machine_key` names it.

    Raises:
        ConfigError: the model is "bundled", which belongs to the package, or has no engine files.
    """
    bundle = manifest.read(model)
    if bundle.name == "bundled":
        raise ConfigError(f"the bundled model belongs to the package; copy {bundle.folder} and give the copy")
    engines: list[EngineName] = [
        name for name in EXPORTED if find_spec(name) and (bundle.engines("onnx") or bundle.engines(name))
    ]
    if not engines:
        raise ConfigError(f"{model} has no engine files to compare; make them with 'slimdet export --model {model}'")
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    found: dict[str, Latencies] = {}
    for width in bundle.widths:
        points = [Point(width), *(rung.point for rung in bundle.ladder if rung.point.width == width)]
        calls: dict[tuple[str, Point], Callable[[], Any]] = {}
        for name, threads in product(engines, _counts()):
            runtime = Runtime(model, engine=name, threads=threads)
            engine, key = runtime.engine, machine_key(runtime.engine, threads)
            own = Latencies(engine.name, engine.device, threads, versions(engine), str(date.today()), ())
            found.setdefault(key, own)
            complete = {runtime.complete(point) for point in points if runtime.has(point)}
            calls |= {(key, point): partial(runtime, picture, point=point) for point in complete}
        for (key, point), runs in latencies(calls, repeats).items():
            found[key] = replace(found[key], points=(*found[key].points, timing(point, runs)))
    card.write_latencies(model, found)
    return found


def _counts() -> list[int]:
    return sorted({min(2**power, cores()) for power in range(cores().bit_length() + 1)})
