"""The ladder of a bundle, what of the AP it keeps at a fraction of the time, and what width or image size alone keep.

    python benchmarks/points/ladder.py MODEL DATA.yaml RUN [--cpu] [--images N] > benchmarks/points/ladder.json

MODEL (not "bundled") gets the ladder; RUN is the folder of `slimdet tune`, gone on with where it exists. With --cpu the
clock is that of the process's own work, which other processes on a busy machine do not lengthen. One thread.
"""

import argparse
import json
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import slimdet
from slimdet.runtime import latency
from slimdet.search.tuning import Step

RATIOS = (1.5, 2.2, 3.4, 6.0, 8.0, 10.0)


def kept(steps: Sequence[Step], full: Step) -> dict[str, dict[str, float | str]]:
    """For each ratio, the best of the steps that are so many times quicker than the full one."""
    found: dict[str, dict[str, float | str]] = {}
    for ratio in RATIOS:
        quick = [step for step in steps if step.timing.p50_ms * ratio <= full.timing.p50_ms]
        if quick:
            best = max(quick, key=lambda step: step.rung.ap)
            times = full.timing.p50_ms / best.timing.p50_ms
            share = best.rung.ap / full.rung.ap
            found[str(ratio)] = {"kept": share, "AP": best.rung.ap, "ratio": times, "point": str(best.rung.point)}
    return found


def row(step: Step, full: Step) -> dict[str, object]:
    """A step as a line of the table."""
    timing, rung = step.timing, step.rung
    numbers = {name: round(rung.metrics[name], 4) for name in ("AP", "AP50", "AP_small", "AP_medium", "AP_large")}
    times = {"p50_ms": timing.p50_ms, "p90_ms": timing.p90_ms, "ratio": full.timing.p50_ms / timing.p50_ms}
    return {"point": rung.point.entry, **numbers, **times, "kept": rung.ap / full.rung.ap}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--images", type=int)
    given = parser.parse_args()
    if given.cpu:
        latency.time = SimpleNamespace(perf_counter=time.process_time)  # pyright: ignore[reportAttributeAccessIssue]
    place = {"resume": given.run} if given.run.exists() else {"out": given.run}
    start = time.monotonic(), time.process_time()
    found = slimdet.tune(given.model, given.data, threads=1, images=given.images, **place)
    spent = {"seconds": round(time.monotonic() - start[0]), "cpu_seconds": round(time.process_time() - start[1])}
    full, steps = found.full, [*found.ladder, *found.others]
    alone = {
        knob: [step for step in steps if step.rung.point.entry | {knob: 0} == full.rung.point.entry | {knob: 0}]
        for knob in ("width", "imgsz")
    }
    document = {
        "date": str(date.today()),
        "machine": found.machine,
        "clock": "the process's own work" if given.cpu else "wall",
        "tune": {"tried": found.tried, "finalists": len(steps), **spent},
        "images": full.rung.images,
        "full": row(full, full),
        "kept": {
            "ladder": kept(found.ladder, full),
            **{f"{knob} alone": kept(line, full) for knob, line in alone.items()},
        },
        "ladder": [row(step, full) for step in found.ladder],
        "others": [row(step, full) for step in found.others],
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
