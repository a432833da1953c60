"""A training step with batches of several sizes: what it costs that oneDNN forgets the code that it has made.

    python benchmarks/training/sizes.py [--rounds 4] [--out FILE]

mobilenet_v2, light neck, four widths, taught, 8 images, two threads; batches of five sizes take turns. Each capacity of
oneDNN's cache (1,024 is its own choice) has a process of its own; seconds are medians after the first round.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, median

CAPACITIES = (1024, 4096, 16384)
SIZES = ((256, 352), (352, 256), (256, 320), (256, 256), (256, 384))


def measure(rounds: int) -> dict[str, float]:
    """Mean over the sizes of a step's median seconds, and the process's memory in MB."""
    import torch
    from step import WIDTHS, made

    from slimdet.training.settings import TrainSettings
    from slimdet.training.step import accumulate_gradients

    model, images, targets = made(argparse.Namespace(imgsz=256, batch=8, backbone="mobilenet_v2"))
    torch.set_num_threads(2)
    seconds: dict[tuple[int, int], list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds + 1):
        for size, found in seconds.items():
            model.zero_grad()
            batch = [torch.rand(3, *size) for _ in images]
            began = time.perf_counter()
            accumulate_gradients(model, batch, targets, WIDTHS, TrainSettings(distill=2.0))
            found.append(time.perf_counter() - began)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"seconds": round(fmean(median(one[1:]) for one in seconds.values()), 2), "mb": round(resident)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.rounds)))
        return
    rows = {}
    for capacity in CAPACITIES:
        environment = os.environ | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(capacity)}
        words = [sys.executable, __file__, "--alone", "--rounds", str(options.rounds)]
        told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
        rows[str(capacity)] = json.loads(told.splitlines()[-1])
        print(capacity, rows[str(capacity)])
    document = {"sizes": SIZES, "capacity": rows}
    options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
