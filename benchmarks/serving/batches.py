"""Does it pay to run several images at once? CPU milliseconds an image, by width and batch, in turns.

    python benchmarks/serving/batches.py [--model bundled] [--repeats 20] [--out FILE]

Images of one size, decoded and resized; one thread; medians of the process's own CPU time, so that other work on the
machine counts little.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np

from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS
from slimdet.images.decoding import read_image
from slimdet.runtime.machine import machine_key

BATCHES = (1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = Runtime(options.model, threads=1)
    image = runtime.read(read_image(PHOTOGRAPHS / "tabby.jpg"))
    cost: dict[tuple[float, int], list[float]] = {(width, batch): [] for width in runtime.widths for batch in BATCHES}
    for turn in range(options.repeats + 1):
        for (width, batch), runs in cost.items():
            begin = time.process_time()
            runtime.detect([image] * batch, width=width)
            if turn:
                runs.append(1000 * (time.process_time() - begin) / batch)
    table = {
        str(width): {str(batch): round(median(cost[width, batch]), 2) for batch in BATCHES} for width in runtime.widths
    }
    gains = [row[str(batch)] / row["1"] for row in table.values() for batch in BATCHES[1:]]
    document = {
        "machine": machine_key(runtime.engine, 1),
        "cpu_ms_an_image": table,
        "of_one_alone": {"least": round(min(gains), 3), "median": round(float(np.median(gains)), 3)},
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
