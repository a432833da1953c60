"""Which engine "auto" is, and on how many threads each width runs: what measured best on this machine.

`slimdet profile --save` times a bundle's points on every engine, on one thread and on more, and the bundle keeps that
as latencies of the machine. Without them "auto" goes by a rule.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TypeVar

from slimdet.bundle.ladder import Latencies, Point
from slimdet.bundle.manifest import Manifest
from slimdet.runtime.engine import EngineSettings, choose
from slimdet.runtime.machine import is_here

Key = TypeVar("Key", bound=Hashable)


def settled(options: EngineSettings, bundle: Manifest) -> EngineSettings:
    """The options with an engine that is not "auto"; with its device, and threads by width, where they were measured.

    An engine takes the place of the one that the rule names if both were measured here and it was quicker.

    Raises:
        ConfigError, BundleError: as `slimdet.runtime.engine.choose`.
    """
    rule = choose(options.engine, bundle)
    if options.engine != "auto":
        return options
    here = [one for machine, one in bundle.latencies.items() if _fits(one, options) and is_here(machine, one)]
    merged: dict[tuple[str, str], dict[Point, float]] = {}
    for one in here:
        ms = merged.setdefault((one.engine, one.device), {})
        ms |= {point: min(took, ms.get(point, took)) for point, took in _comparable(one).items()}
    best = _quickest(merged) if any(engine == rule for engine, _ in merged) else None
    if best is None:
        return replace(options, engine=rule)
    threads = {}
    for width in bundle.widths:
        by_threads = {
            one.threads: {point: ms for point, ms in _comparable(one).items() if point.width == width}
            for one in here
            if (one.engine, one.device) == best
        }
        count = _quickest(by_threads)
        if count is not None:
            threads[width] = count
    engine, device = best
    return replace(options, engine=engine, device=device, width_threads=tuple(threads.items()))


def _fits(latencies: Latencies, options: EngineSettings) -> bool:
    return (
        options.threads in (None, latencies.threads)
        and options.device in ("auto", latencies.device)
        and (options.memory == "fast" or latencies.engine == "onnxruntime")
    )


def _comparable(latencies: Latencies) -> dict[Point, float]:
    """Milliseconds of points without their precision, in which an engine has its own best."""
    ms: dict[Point, float] = {}
    for point, took in latencies.medians.items():
        bare = replace(point, precision=None)
        ms[bare] = min(took, ms.get(bare, took))
    return ms


def _quickest(ms: Mapping[Key, Mapping[Point, float]]) -> Key | None:
    """Whose geometric mean over the points that all have is least; None where they have none in common."""
    common = set.intersection(*map(set, ms.values())) if ms else set()
    return min(ms, key=lambda key: sum(math.log(ms[key][point]) for point in common)) if common else None
