"""Is a budget held? The same question as `budget.py`, on a core whose other load is computed and not suffered.

    python benchmarks/control/replay.py [--model bundled] [--images 16] [--seconds 20] [--out FILE]

Measured is the work of a call at each point, from the file's bytes to boxes: CPU milliseconds of the process, image by
image, all points in turn, one thread. What else goes on at the machine hardly counts in it. The rest is arithmetic:
another process is ready to run during 0, 50 or 100 % of each 20 ms, and while it is, a fair scheduler gives both the
core in turns of 3 ms. The controller, every fixed point, thresholds on three detectors (as in `budget.py`) and an
oracle, which knows the load and takes the most accurate point whose 95th percentile is within the budget, meet the same
loads and images: 0, 50, 100 % for so many seconds each, three times.
"""

import argparse
import json
import random
import time
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

import numpy as np
from budget import BUDGETS, LOADS, PERIOD_S, Thresholds

from slimdet import Runtime
from slimdet.assets import VAL
from slimdet.bundle.ladder import Point
from slimdet.control.controller import Controller
from slimdet.runtime.budget import accuracies
from slimdet.runtime.machine import machine_key

SLICE_MS = 3.0
PERIOD_MS = 1000 * PERIOD_S
CYCLES = 3
NOISE = 0.03  # of a call's work, log units: caches, clock


class Policy(Protocol):
    """Says the rung of a call, and is told how long it took."""

    def choose(self, now_s: float) -> int: ...
    def observe(self, rung: int, took_ms: float) -> None: ...


class Held:
    """The controller with one budget."""

    def __init__(self, costs_ms: list[float], budget_ms: float) -> None:
        self.controller, self.budget_ms = Controller(costs_ms), budget_ms
        self.observe = self.controller.observe

    def choose(self, now_s: float) -> int:
        return self.controller.choose(now_s, self.budget_ms).rung


class Fixed:
    """Always the same."""

    def __init__(self, rung: int) -> None:
        self.rung = rung

    def choose(self, now_s: float) -> int:
        return self.rung

    def observe(self, rung: int, took_ms: float) -> None:
        pass


class Three:
    """The cheapest, the middle and the dearest, by thresholds."""

    def __init__(self, rungs: list[int], budget_ms: float) -> None:
        self.rungs, self.thresholds = rungs, Thresholds(len(rungs), budget_ms)

    def choose(self, now_s: float) -> int:
        return self.rungs[self.thresholds.now]

    def observe(self, rung: int, took_ms: float) -> None:
        self.thresholds.observe(took_ms)


def wall_ms(work_ms: float, begin_ms: float, load: int, turn_ms: float) -> float:
    """How long so much work takes that begins then, `turn_ms` before the scheduler's next change of turns."""
    now, left, ours = begin_ms, work_ms, True
    while left > 0:
        until = PERIOD_MS * (now // PERIOD_MS) + PERIOD_MS * load / 100
        contended = now < until - 1e-9
        step = turn_ms if contended else left
        if contended:
            step = min(step, until - now)
        elif load:
            step = min(step, PERIOD_MS * (now // PERIOD_MS + 1) - now)
        if ours or not contended:
            step = min(step, left)
            left -= step
        now += step
        turn_ms -= step
        if turn_ms <= 1e-9:
            turn_ms, ours = SLICE_MS, not ours
    return now - begin_ms


def played(policy: Policy, work: list[list[float]], seconds: float, seed: int) -> dict[int, list[tuple[int, float]]]:
    """Calls one after the other under each load in turn: (rung, milliseconds)."""
    draw, now, calls, images = random.Random(seed), 0.0, {load: [] for load in LOADS}, cycle(range(len(work[0])))
    for load in CYCLES * LOADS:
        end = now + 1000 * seconds
        while now < end:
            rung = policy.choose(now / 1000)
            amount = work[rung][next(images)] * float(np.exp(draw.gauss(0, NOISE)))
            took = wall_ms(amount, now, load, draw.uniform(0, SLICE_MS))
            policy.observe(rung, took)
            calls[load].append((rung, took))
            now += took
    return calls


def measured(model: str, count: int) -> tuple[Runtime, list[Point], list[list[float]]]:
    """The points that are worth having, and the CPU milliseconds of each on each image."""
    runtime = Runtime(model, threads=1, budget_ms=1e6)
    assert runtime.budget
    points = list(runtime.budget.points)
    images = [file.read_bytes() for file in sorted((VAL / "images").glob("*.jpg"))][:count]
    runs = {point: [[] for _ in images] for point in points}
    for _ in range(3):
        for place, image in enumerate(images):
            for point in points:
                begin = time.process_time()
                runtime(image, point=point)
                runs[point][place].append(1000 * (time.process_time() - begin))
    return runtime, points, [[min(times) for times in runs[point]] for point in points]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime, points, work = measured(options.model, options.images)
    order = sorted(range(len(points)), key=lambda rung: median(work[rung]))
    known, kept = accuracies(runtime, points), []
    for rung in order:  # what CPU time finds worth having
        if not kept or known[points[rung]] > known[points[kept[-1]]]:
            kept.append(rung)
    points, work = [points[rung] for rung in kept], [work[rung] for rung in kept]
    ap, costs = [known[point] for point in points], [median(times) for times in work]
    fixed = {rung: played(Fixed(rung), work, options.seconds, 0) for rung in range(len(points))}
    p95 = {
        (rung, load): np.quantile([ms for _, ms in calls[load]], 0.95)
        for rung, calls in fixed.items()
        for load in LOADS
    }
    three = sorted({0, len(points) // 2, len(points) - 1})
    low, high, table = 1.2 * costs[0], costs[-1], []
    for step in range(BUDGETS):
        budget = low * (high / low) ** (step / (BUDGETS - 1))
        held = Held(costs, budget)
        by: dict[str, dict[int, list[tuple[int, float]]]] = {
            "controller": played(held, work, options.seconds, 1),
            "three detectors": played(Three(three, budget), work, options.seconds, 1),
            "oracle": {},
        }
        for load in LOADS:
            best = max((rung for rung in fixed if p95[rung, load] <= budget), default=0)
            by["oracle"][load] = fixed[best][load]
        by |= {f"fixed {points[rung]}": calls for rung, calls in fixed.items()}
        row: dict[str, Any] = {"budget_ms": round(budget, 2), "switches": held.controller.switches, "policies": {}}
        for name, calls in by.items():
            row["policies"][name] = {
                "in_time": share(calls, budget),
                "mean_AP": mean_ap(calls, ap),
                "loads": {
                    str(load): {
                        "p95_over_budget": round(float(np.quantile([ms for _, ms in calls[load]], 0.95)) / budget, 3),
                        "mean_AP": round(fmean(ap[rung] for rung, _ in calls[load]), 4),
                    }
                    for load in LOADS
                },
            }
        table.append(row)
    document = {
        "machine": machine_key(runtime.engine, 1),
        "clock": "the process's own work; load and scheduler are computed",
        "model": options.model,
        "points": [
            {**point.entry, "AP": round(value, 4), "cpu_ms": round(cost, 2)}
            for point, value, cost in zip(points, ap, costs, strict=True)
        ],
        "seconds": CYCLES * options.seconds,
        "budgets": table,
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def share(calls: dict[int, list[tuple[int, float]]], budget: float) -> float:
    """The part of the calls in time, each load counting alike."""
    return round(fmean(fmean(ms <= budget for _, ms in calls[load]) for load in LOADS), 4)


def mean_ap(calls: dict[int, list[tuple[int, float]]], ap: list[float]) -> float:
    """Likewise the mean AP."""
    return round(fmean(fmean(ap[rung] for rung, _ in calls[load]) for load in LOADS), 4)


if __name__ == "__main__":
    main()
