"""Is a budget held while another process takes part of the core, and at what accuracy?

    python benchmarks/control/budget.py [--model bundled] [--seconds 4] [--rounds 2] [--out FILE]

Everything shares one core: the detector (one thread) and a process that computes 0, 50 or 100 % of the time, in turn,
in periods of 20 ms. Calls go from the bytes of an image file to boxes. In each round and at each load, for so many
seconds each:

* fixed: all points of the ladder take turns. What each keeps of a budget, and the oracle that knows the load (of each
  load the most accurate point whose 95th percentile is within the budget), follow from these calls for every budget.
* controller: `Runtime(model, budget_ms=...)`, one for each budget, which goes through all loads.
* three detectors: the ladder's cheapest, middle and dearest point, each a model and a file of its own, resident side by
  side and switched by thresholds as RAMS (2606.14716) does it: a step narrower when a mean of the last calls is above
  90 % of the budget, a step wider when it is below half of it.

Budgets go from 1.2 times the cheapest point's median without load to the dearest's. AP is the ladder's, or that of the
widths in the card. Memory is what a process of its own grows by (PSS, Linux). Others may have used the machine: compare
within the run.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from slimdet import Runtime
from slimdet.assets import VAL
from slimdet.bundle.ladder import Point
from slimdet.bundle.manifest import read
from slimdet.exporting.engine_files import export
from slimdet.exporting.settings import ExportSettings
from slimdet.runtime.budget import Budget, accuracies
from slimdet.runtime.machine import machine_key

LOADS = (0, 50, 100)
BUDGETS = 4
PERIOD_S = 0.02
BUSY = """
import sys, time
share, period = float(sys.argv[1]) / 100, float(sys.argv[2])
while True:
    end = time.perf_counter() + share * period
    while time.perf_counter() < end:
        pass
    if share < 1:
        time.sleep((1 - share) * period)
"""
GROWTH = """
import json, sys
from pathlib import Path
from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle.ladder import Point
import slimdet.runtime.onnxruntime_engine
def pss():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
points = [Point.of(entry) for entry in json.loads(sys.argv[1])]
before = pss()
runtimes = [Runtime(model, threads=1) for model in sys.argv[2:]]
for place, point in enumerate(points):
    runtimes[place % len(runtimes)](PHOTOGRAPHS / "tabby.jpg", point=point)
print(pss() - before)
"""

Detect = Callable[[bytes], Point]


@contextmanager
def contention(percent: int) -> Iterator[None]:
    """Another process on this core that computes so much of the time, if it is let."""
    if not percent:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(percent), str(PERIOD_S)])
    time.sleep(0.3)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def timed(detect: Detect, images: Sequence[bytes], seconds: float, least: int = 1) -> list[tuple[Point, float]]:
    """Calls one after the other: what ran, and milliseconds."""
    calls, end = [], time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end or len(calls) < least:
        point = detect(images[len(calls) % len(images)])
        calls.append((point, 1000 * (time.perf_counter() - begin)))
    return calls


class ThreeDetectors:
    """Separate detectors, of which the one runs that a mean of the last calls decides."""

    def __init__(self, models: Sequence[Path], points: Sequence[Point], budget_ms: float) -> None:
        self.runtimes = [Runtime(model, threads=1) for model in models]
        self.points = points
        for runtime, point in zip(self.runtimes, points, strict=True):
            runtime.prepare([point.width])
        self.budget_ms, self.now, self.mean, self.switches = budget_ms, len(models) - 1, 0.0, 0

    def __call__(self, image: bytes) -> Point:
        begin = time.perf_counter()
        point = self.runtimes[self.now](image, point=self.points[self.now]).point
        took = 1000 * (time.perf_counter() - begin)
        self.mean = took if not self.mean else 0.8 * self.mean + 0.2 * took
        step = int(self.mean < 0.5 * self.budget_ms) - int(self.mean > 0.9 * self.budget_ms)
        if step and 0 <= self.now + step < len(self.runtimes):
            self.now, self.mean, self.switches = self.now + step, 0.0, self.switches + 1
        return point


def separate(model: str, widths: Sequence[float], folder: Path) -> list[Path]:
    """Bundles of one width each, whose engine file has weights of its own."""
    source, found = read(model), []
    for place, width in enumerate(widths):
        written = export(model, ExportSettings(width=width), out=folder / f"files-{place}")
        file = folder / f"files-{place}" / Path(written.widths[str(width)].file).name
        bundle = folder / f"separate-{place}"
        bundle.mkdir()
        target = bundle / f"{place}-{file.name}"
        target.write_bytes(file.read_bytes())
        entry = source.document["engines"]["onnx"][str(width)]
        entry = entry | {"file": target.name, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
        document = {key: value for key, value in source.document.items() if key not in ("ladder", "latencies")}
        (bundle / "model.json").write_text(json.dumps(document | {"engines": {"onnx": {str(width): entry}}}))
        found.append(bundle)
    return found


def growth(models: Sequence[str | Path], points: Sequence[Point]) -> int:
    """Bytes that a fresh process grows by when it loads these models and runs each point once.

    Each point runs on the model of its place, all of them on a single model.
    """
    entries = json.dumps([point.entry for point in points])
    words = [sys.executable, "-c", GROWTH, entries, *map(str, models)]
    return int(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def figures(calls: Sequence[tuple[Point, float]], budget_ms: float, ap: dict[Point, float]) -> dict[str, float]:
    ms = np.array([took for _, took in calls])
    return {
        "calls": len(ms),
        "p50_ms": round(float(np.median(ms)), 2),
        "p95_over_budget": round(float(np.quantile(ms, 0.95)) / budget_ms, 3),
        "in_time": round(float((ms <= budget_ms).mean()), 4),
        "mean_AP": round(fmean(ap[point] for point, _ in calls), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    images = [file.read_bytes() for file in sorted((VAL / "images").glob("*.jpg"))]

    runtime = Runtime(options.model, threads=1, budget_ms=1e6)
    assert runtime.budget
    points = runtime.budget.points
    ap = accuracies(runtime, points)
    idle: dict[Point, list[float]] = {point: [] for point in points}
    for image in images[:1] + images:
        for point in points:
            begin = time.perf_counter()
            runtime(image, point=point)
            idle[point].append(1000 * (time.perf_counter() - begin))
    cost = {point: median(runs[1:]) for point, runs in idle.items()}
    low, high = 1.2 * min(cost.values()), max(cost.values())
    budgets = [round(low * (high / low) ** (step / (BUDGETS - 1)), 2) for step in range(BUDGETS)]

    places = sorted({0, len(points) // 2, len(points) - 1})
    chosen = [points[place] for place in places]
    with tempfile.TemporaryDirectory() as folder:
        models = separate(options.model, [point.width for point in chosen], Path(folder))
        memory = {
            "all points": growth([options.model], points),
            "cheapest, middle, dearest": growth([options.model], chosen),
            "these as three detectors": growth(models, chosen),
        }
        held = {budget: Runtime(options.model, threads=1, budget_ms=budget) for budget in budgets}
        for budget, one in held.items():
            one.budget = Budget(budget, {point: cost[point] for point in points})  # all know the same costs
        three = {budget: ThreeDetectors(models, chosen, budget) for budget in budgets}
        fixed: dict[int, list[tuple[Point, float]]] = {load: [] for load in LOADS}
        ran: dict[tuple[str, float, int], list[tuple[Point, float]]] = {}
        for turn in range(options.rounds):
            for load in LOADS:
                with contention(load):
                    take_turns = [partial(runtime_point, runtime, point) for point in points]
                    fixed[load] += timed(in_turn(take_turns), images, 2 * options.seconds, 2 * len(points))
                    for budget in budgets:
                        policies: dict[str, Detect] = {
                            "controller": partial(runtime_point, held[budget], None),
                            "three detectors": three[budget],
                        }
                        for name, detect in policies.items():
                            ran.setdefault((name, budget, load), []).extend(timed(detect, images, options.seconds))
                print(f"round {turn + 1}, load {load} %", file=sys.stderr)
    table = [row for budget in budgets for row in rows(budget, fixed, ran, ap)]
    switching = [ms for one in held.values() if one.budget for ms in one.budget.switch_ms]
    result = {
        "machine": machine_key(runtime.engine, 1),
        "note": "one core; other work on the machine was not under control",
        "model": options.model,
        "points": [{**point.entry, "AP": round(ap[point], 4), "idle_ms": round(cost[point], 2)} for point in points],
        "seconds": options.seconds,
        "rounds": options.rounds,
        "memory_bytes": memory,
        "switch_ms": {"n": len(switching), "p50": quantile(switching, 0.5), "p99": quantile(switching, 0.99)},
        "switches": {
            "controller": {str(budget): one.budget.controller.switches for budget, one in held.items() if one.budget},
            "three detectors": {str(budget): one.switches for budget, one in three.items()},
        },
        "rows": table,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def runtime_point(runtime: Runtime, point: Point | None, image: bytes) -> Point:
    return runtime(image, point=point).point


def in_turn(detects: Sequence[Detect]) -> Detect:
    turns = cycle(detects)
    return lambda image: next(turns)(image)


def quantile(values: Sequence[float], part: float) -> float:
    return round(float(np.quantile(values, part)), 3) if values else 0.0


def rows(
    budget: float,
    fixed: dict[int, list[tuple[Point, float]]],
    ran: dict[tuple[str, float, int], list[tuple[Point, float]]],
    ap: dict[Point, float],
) -> list[dict[str, Any]]:
    """What each policy keeps of a budget, at each load and over all loads."""
    of_points = {load: {point: [c for c in calls if c[0] == point] for point in ap} for load, calls in fixed.items()}
    policies = {name: {load: ran[name, budget, load] for load in LOADS} for name in ("controller", "three detectors")}
    policies |= {f"fixed {point}": {load: of_points[load][point] for load in LOADS} for point in ap}
    policies["oracle"] = {}
    for load in LOADS:
        fits = [p for p in ap if quantile([ms for _, ms in of_points[load][p]], 0.95) <= budget]
        policies["oracle"][load] = of_points[load][max(fits, key=ap.__getitem__, default=min(ap, key=ap.__getitem__))]
    found = []
    for name, calls in policies.items():
        by_load = {str(load): figures(calls[load], budget, ap) for load in LOADS}
        means = {key: round(fmean(row[key] for row in by_load.values()), 4) for key in ("in_time", "mean_AP")}
        found.append({"budget_ms": budget, "policy": name, **means, "loads": by_load})
    return found


if __name__ == "__main__":
    main()
