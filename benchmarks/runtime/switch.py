"""What the first call at another operating point costs more than the next calls there.

    python benchmarks/runtime/switch.py [--moves 250]

The bundled detector's ladder, one thread, random moves from point to point; at each point four calls in a row, CPU time
of the process. A call that reads its image anew (another size) does so every time here: what is compared is the
engine's first run after another. Minor page faults and system time tell whether memory was asked for. Writes
switch.json.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from floor import machine

from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS

OUT = Path(__file__).with_name("switch.json")
CALLS = 4


def measured(engine: str, moves: int) -> dict[str, object]:
    runtime = Runtime("bundled", engine=engine, threads=1, budget_ms=20)
    points = runtime.budget.points
    image = (PHOTOGRAPHS / "tabby.jpg").read_bytes()
    draw = np.random.default_rng(0)
    for point in points:
        runtime(image, point=point)
    rows: dict[int, list[list[tuple[float, ...]]]] = {number: [] for number in range(len(points))}
    before = -1
    for _ in range(moves):
        number = int(draw.choice([n for n in range(len(points)) if n != before]))
        rows[number].append([_call(runtime, image, points[number]) for _ in range(CALLS)])
        before = number
    more = []
    for found in rows.values():
        if found:
            cpu = np.array(found)[:, :, 0]
            more.append(cpu - np.median(cpu[:, 1:]))  # against the usual call at this point
    extra = np.concatenate(more)
    costs = np.array([one for found in rows.values() for one in found])
    return {
        "first_call_more_ms": _quantiles(extra[:, 0]),
        "later_calls_more_ms": _quantiles(extra[:, 1:].ravel()),
        "first_call_page_faults": int(np.median(costs[:, 0, 1])),
        "first_call_system_ms": round(float(costs[:, 0, 2].mean()), 3),
    }


def _call(runtime: Runtime, image: bytes, point: object) -> tuple[float, float, float]:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    runtime(image, point=point)
    ms = 1000 * (time.process_time() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return ms, after.ru_minflt - before.ru_minflt, 1000 * (after.ru_stime - before.ru_stime)


def _quantiles(values: np.ndarray) -> dict[str, float]:
    return {f"p{100 * q:.0f}": round(float(np.quantile(values, q)), 2) for q in (0.5, 0.9, 0.99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=250)
    given = parser.parse_args()
    engines = {engine: measured(engine, given.moves) for engine in ("onnxruntime", "openvino")}
    record = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "moves": given.moves, "engines": engines}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
