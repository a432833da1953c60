"""The one timer: milliseconds of what takes turns."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median, quantiles
from typing import Any, TypeVar

import numpy as np

from slimdet.runtime.detector import Runtime

Key = TypeVar("Key")


def latencies(calls: Mapping[Key, Callable[[], Any]], repeats: int) -> dict[Key, list[float]]:
    """Milliseconds of every run of every call, after a warm one of each.

    They take turns, so that a load from outside hits all alike. A call returns when its work is done: one on an
    accelerator has to wait for it.
    """
    runs: dict[Key, list[float]] = {key: [] for key in calls}
    for turn in range(repeats + 1):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            if turn > 0:
                runs[key].append(1000 * (time.perf_counter() - start))
    return runs


def runtime_latencies(runtime: Runtime, repeats: int) -> dict[float, list[float]]:
    """`latencies` of every width of a runtime, on a square of noise of the model's size."""
    side = runtime.session(1.0).sides[0]
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    return latencies({width: partial(runtime.session(width), noise) for width in runtime.widths}, repeats)


def summary(runs: list[float]) -> dict[str, float]:
    """The median, "latency_ms", and the distance between the quartiles, "latency_spread_ms"."""
    low, _, high = quantiles(runs, n=4) if len(runs) > 1 else (runs[0],) * 3
    return {"latency_ms": median(runs), "latency_spread_ms": high - low}
