"""How images come to a detector, after MLPerf Inference (Reddi et al., 2020).

* single-stream: the next image comes when the last one is done; what counts is how long each takes.
* server: images arrive at random (a Poisson process) at a given rate, whether the detector is free or not; an image's
  latency starts when it arrives, and so has the time in which it waited.
* offline: all images are there at once; what counts is how many are done in a second.

Of MLPerf's rules these are the orders of work and what is timed. Its least numbers of queries (of minutes, thousands)
are not kept: `n` says how many there were.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from slimdet.runtime.latency import latencies

Key = TypeVar("Key")
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Runs:
    """What was timed.

    Attributes:
        ms: of each image; empty where only the whole was timed.
        images: how many were done.
        seconds: that they took together; in a server's runs, from the start to the end of the last.
        overloaded: whether a server's images arrived faster than they can be done: the queue grows as long as they
            come, and latencies with it.
    """

    ms: Sequence[float]
    images: int
    seconds: float
    overloaded: bool | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """As a row has them: "n", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "overloaded".

        A percentile is None where there are too few runs to have one beyond it: p99 takes 100.
        """
        percentiles = {
            f"p{one}_ms": float(np.percentile(self.ms, one)) if len(self.ms) * (100 - one) >= 100 else None
            for one in PERCENTILES
        }
        rate = self.images / self.seconds
        return {"n": self.images, **percentiles, "images_per_s": rate, "overloaded": self.overloaded}


def single_stream(calls: Mapping[Key, Callable[[], Any]], repeats: int, warm: int) -> dict[Key, Runs]:
    """Each call `repeats` times; they take turns, so that a load from outside hits all alike."""
    return {key: Runs(ms, repeats, sum(ms) / 1000) for key, ms in latencies(calls, repeats, warm).items()}


def arrivals(rate: float, number: int, seed: int) -> list[float]:
    """Seconds at which images arrive, `rate` of them in a second on average, at random."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, number)).tolist()


def server(
    call: Callable[[], Any],
    arrive: Sequence[float],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Any] = time.sleep,
) -> Runs:
    """One call after the other, in the order in which they arrive.

    Args:
        call: detects objects in the next image.
        arrive: seconds after the start, ascending.
        clock, sleep: of the machine.
    """
    ms: list[float] = []
    worked, start = 0.0, clock()
    for second in arrive:
        begin = clock()
        if begin < start + second:
            sleep(start + second - begin)
            begin = clock()
        call()
        end = clock()
        worked += end - begin
        ms.append(1000 * (end - start - second))  # from when it should have come, not from when it was taken
    return Runs(ms, len(ms), clock() - start, worked > arrive[-1])


def offline(call: Callable[[], Any], images: int) -> Runs:
    """One call that detects objects in all of so many images."""
    start = time.perf_counter()
    call()
    return Runs((), images, time.perf_counter() - start)
