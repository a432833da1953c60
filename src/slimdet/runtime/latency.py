"""The one timer: milliseconds of what takes turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from slimdet.bundle.ladder import Point, Timing

if TYPE_CHECKING:
    from slimdet.runtime.detector import Runtime

Key = TypeVar("Key")


def latencies(calls: Mapping[Key, Callable[[], Any]], repeats: int, warm: int = 1) -> dict[Key, list[float]]:
    """Milliseconds of every run of every call, after `warm` ones of each that are not counted.

    They take turns, so that a load from outside hits all alike. A call returns when its work is done: one on an
    accelerator has to wait for it.
    """
    runs: dict[Key, list[float]] = {key: [] for key in calls}
    for turn in range(repeats + warm):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= warm:
                runs[key].append(1000 * (time.perf_counter() - start))
    return runs


def runtime_latencies(runtime: "Runtime", repeats: int) -> dict[float, list[float]]:
    """`latencies` of every width of a runtime, on a square of noise of the model's size."""
    side = runtime.session(1.0).sides[0]
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return latencies({width: partial(runtime.session(width), noise) for width in runtime.widths}, repeats)


def summary(runs: list[float]) -> dict[str, float]:
    """The median, "latency_ms", and the distance between the quartiles, "latency_spread_ms"."""
    low, _, high = quantiles(runs, n=4) if len(runs) > 1 else (runs[0],) * 3
    return {"latency_ms": median(runs), "latency_spread_ms": high - low}


def timing(point: Point, runs: Sequence[float]) -> Timing:
    """What many runs of a point say, milliseconds."""
    p50, p90 = np.percentile(runs, [50, 90]).tolist()
    return Timing(point, p50, p90, len(runs))
