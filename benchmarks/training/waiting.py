"""How threads wait for each other: seconds of a training step on a quiet and a busy machine.

    python benchmarks/training/waiting.py [--imgsz 256] [--steps 5] [--rounds 2]

A step of four taught widths, 8 images, two threads; busy is one process beside it that computes all the time. Each
measurement is a process of its own, because OpenMP reads its settings when it starts: the median of its steps but the
first two. The cases take turns; the best of the rounds counts, for others use the machine too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

OUT = Path(__file__).with_suffix(".json")
CASES: dict[str, dict[str, str]] = {  # of the environment
    "spin (libgomp's default)": {},
    "sleep": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spin 1000 times": {"GOMP_SPINCOUNT": "1000"},
}
THREADS = 2


def steps(imgsz: int, count: int) -> dict[str, float]:
    """Wall and CPU seconds of a step in this process."""
    import step
    import torch

    from slimdet.devices import choose_device

    choose_device("cpu")
    model, images, targets = step.made(argparse.Namespace(backbone="mobilenet_v2", imgsz=imgsz, batch=8))
    torch.set_num_threads(THREADS)
    found = []
    for _ in range(count + 2):
        began = time.monotonic(), time.process_time()
        step.run(model, images, targets, step.WIDTHS, {"distill": 2.0})
        found.append((time.monotonic() - began[0], time.process_time() - began[1]))
    wall, cpu = (statistics.median(column[2:]) for column in zip(*found, strict=True))
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": step.process_mb("VmHWM:")}


@contextmanager
def beside(busy: bool):
    """A process that computes all the time, or none."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="measure in this process")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(steps(given.imgsz, given.steps)))
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    base = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for _ in range(given.rounds):
        for load in ("quiet", "busy"):
            for name, environment in CASES.items():
                words = [sys.executable, __file__, "--here", "--imgsz", str(given.imgsz)]
                with beside(load == "busy"):
                    text = subprocess.check_output([*words, "--steps", str(given.steps)], env=base | environment)
                found.setdefault((load, name), []).append(json.loads(text))
                print(load, name, text.decode().strip(), flush=True)
    best = {
        load: {
            name: {key: round(min(one[key] for one in found[load, name]), 2) for key in ("wall_s", "cpu_s", "peak_mb")}
            for name in CASES
        }
        for load in ("quiet", "busy")
    }
    record = {"date": str(date.today()), "cores": os.cpu_count(), "threads": THREADS, "imgsz": given.imgsz}
    record |= {"steps": given.steps, "rounds": given.rounds} | best
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
