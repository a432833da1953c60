"""Images a second of `slimdet predict` on a folder, and how much of the time is not the network's.

    python benchmarks/runtime/throughput.py IMAGES [--before SRC] [--images 1000] [--out FILE]

IMAGES is a folder of JPEG files, of which crops are made in a temporary folder. With --before the folder `src` of
another checkout is measured too, in turns. Each run is a process of its own: seconds from its first line on stderr to
its end, and CPU seconds of the whole process. The network's part is the sum of what `predict` tells for each image.
"""

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

WIDTHS, ROUNDS = (0.25, 1.0), 3
COMMAND = "import sys; from slimdet.cli.verbs import main; sys.exit(main(sys.argv[1:]))"


def crops(images: Path, folder: Path, count: int) -> None:
    """Write `count` crops, each of at least three quarters of a photograph's sides."""
    files, draw = sorted(images.glob("*.jpg")), random.Random(0)
    for number in range(count):
        with Image.open(draw.choice(files)) as image:
            width, height = (round(side * draw.uniform(0.75, 1)) for side in image.size)
            left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
            image.crop((left, top, left + width, top + height)).save(folder / f"{number:05}.jpg", quality=90)


def run(source: Path, folder: Path, width: float) -> dict[str, float]:
    """Seconds, CPU seconds and the network's seconds of one process."""
    with tempfile.TemporaryDirectory() as out:
        words = ["predict", str(folder), "--model", "bundled", "--width", str(width), "--threads", "1"]
        command = [sys.executable, "-c", COMMAND, *words, "--out", f"{out}/run"]
        environment = os.environ | {"PYTHONPATH": str(source)}
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
            assert process.stderr is not None
            lines = [process.stderr.readline()]
            start = time.perf_counter()
            lines += process.stderr.readlines()
            seconds = time.perf_counter() - start
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, lines[-1]
    network = sum(float(re.findall(rb"([0-9.]+) ms$", line.strip())[0]) for line in lines) / 1000
    return {"seconds": seconds, "CPU seconds": usage.ru_utime + usage.ru_stime, "network's seconds": network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    sources = {"now": Path(__file__).resolve().parents[2] / "src"} | ({"before": given.before} if given.before else {})
    runs: dict[tuple[str, float], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        crops(given.photographs, Path(folder), given.images)
        for _ in range(ROUNDS):
            for name, source in sources.items():
                for width in WIDTHS:
                    runs.setdefault((name, width), []).append(run(source, Path(folder), width))
    result: dict[str, Any] = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            **{name: version(name) for name in ("onnxruntime", "pillow", "numpy")},
        },
        "images": given.images,
        "rounds": ROUNDS,
    }
    for (name, width), several in runs.items():
        best = min(several, key=lambda one: one["seconds"])
        result.setdefault(name, {})[str(width)] = {
            "images a second": given.images / best["seconds"],
            "CPU ms an image": 1000 * min(one["CPU seconds"] for one in several) / given.images,
            "share of the time that is not the network's": 1 - best["network's seconds"] / best["seconds"],
        }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
