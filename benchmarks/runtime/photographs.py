"""Large photographs: what they cost beyond the network, in memory and time, and what they cost in accuracy.

    python benchmarks/runtime/photographs.py ANIMALPOSE [--images 200] [--out benchmarks/runtime/photographs.json]

ANIMALPOSE is the folder of the data set (`annotations/instances_val.json`, `images/`).

* Time: CPU milliseconds of this process on one thread, medians of interleaved runs: a photograph of 12 megapixels and
  an image of the model's size, decoded beforehand, at widths 1.0 and 0.25.
* Memory: by how much eight photographs of 12 megapixels in one call make a fresh process larger, at its highest.
* Accuracy: AP of the bundled model on every n-th image of the validation set, as they are and enlarged ten times (with
  and without a camera's noise), by the way they are made small. "graph" is what the exported graph does with them when
  it gets them whole, as torch does in `slimdet val`.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from slimdet import Runtime
from slimdet.assets import PHOTOGRAPHS
from slimdet.images.decoding import read_reduced
from slimdet.images.resizing import Sides, fitted, reduction, resize

WIDTHS = (1.0, 0.25)
LARGE, ROUNDS, NOISE = (4032, 3024), 15, 20
KINDS = ("as they are", "enlarged", "enlarged, with noise")


def photograph() -> bytes:
    """A bundled photograph at 12 megapixels, with noise as a camera's."""
    image = Image.open(PHOTOGRAPHS / "tabby.jpg").convert("RGB").resize(LARGE, Image.Resampling.LANCZOS)
    return _jpeg(np.asarray(image) + np.random.default_rng(0).normal(0, 4, (*LARGE[::-1], 3)))


def times(data: bytes) -> dict[str, Any]:
    """CPU milliseconds by size of the image and width; of a photograph, reading it apart."""
    runtime = Runtime(engine="onnxruntime", threads=1).prepare(WIDTHS)
    short, _ = runtime.session(1.0).sides
    small = Image.open(io.BytesIO(data)).resize((short * 4 // 3, short))
    runs: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 1):
        read = {}
        for name, source in (("12 megapixels", data), ("model's size", np.asarray(small))):
            read[name] = _timed(runs, f"{name}, read", partial(runtime.read, source))
        for name, image in read.items():
            for width in WIDTHS:
                _timed(runs, f"{name}, {width}", partial(runtime.detect, [image], width))
    found = {name: statistics.median(values[1:]) for name, values in runs.items()}  # the first round warms up
    ratios = {name: found[f"{name}, 1.0"] / found[f"{name}, 0.25"] for name in read}
    return {"CPU ms": found, "1.0 / 0.25": ratios}


def memory(data: bytes) -> int:
    """Bytes by which a call with eight photographs makes a fresh process larger, at its highest."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.jpg" for number in range(8)]
        for file in files:
            file.write_bytes(data)
        command = [sys.executable, __file__, "--grow", *map(str, files)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grow(files: list[str]) -> int:
    runtime = Runtime(engine="onnxruntime", threads=1)
    runtime(PHOTOGRAPHS / "tabby.jpg")
    before = _kilobytes("VmRSS")
    results = runtime(files)
    assert len(results) == len(files)
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def accuracy(animalpose: Path, count: int) -> dict[str, Any]:
    """AP by kind of image, way and width."""
    from slimdet.data.coco import CocoDataset
    from slimdet.evaluation.matching import accumulate
    from slimdet.runtime.result import coco_results

    data = CocoDataset(animalpose / "annotations/instances_val.json", animalpose / "images")
    runtime = Runtime(engine="onnxruntime", threads=1).prepare(WIDTHS)
    sides = Sides(*runtime.session(1.0).sides)
    records = [dict(data.coco["images"][index]) for index in range(0, len(data), max(1, len(data) // count))][:count]
    chosen = {record["id"] for record in records}
    annotations = [dict(one) for one in data.coco["annotations"] if one["image_id"] in chosen]
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.json"
        part.write_text(json.dumps({**data.coco, "images": records, "annotations": annotations}))
        truth = CocoDataset(part, animalpose / "images").coco
    result: dict[str, Any] = {}
    for kind in KINDS:
        found: dict[tuple[str, float], list[Any]] = {}
        for record in records:
            for way, pixels in _ways(_encoded(data.folder / record["file_name"], kind), sides):
                for width in WIDTHS:
                    one = runtime.session(width)(pixels[None])
                    ratio = np.tile([record["width"] / pixels.shape[1], record["height"] / pixels.shape[0]], 2)
                    rows = coco_results(
                        (one.boxes * ratio).astype(np.float32),
                        one.labels,
                        one.scores,
                        None,
                        record["id"],
                        runtime.category_ids,
                    )
                    found.setdefault((way, width), []).extend(rows)
        for (way, width), rows in found.items():
            ap = accumulate(truth, rows, ("bbox",))["bbox"].summary()["AP"]
            result.setdefault(kind, {}).setdefault(way, {})[str(width)] = round(100 * ap, 2)
    return {"images": len(records), "AP": result}


def _ways(data: bytes, sides: Sides) -> Iterator[tuple[str, np.ndarray]]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size, whole = fitted(image.size, sides), np.asarray(image)
    yield "graph", whole
    yield "one step", resize(whole, size)
    yield "Pillow's low-pass", np.asarray(image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2))
    factor = reduction(image.size, sides)
    cells = image.width / factor, image.height / factor
    yield "averaged, then resized (slimdet, arrays)", resize(np.asarray(image.reduce(factor)), size, cells)
    decoded, _ = read_reduced(data, lambda *_: factor)
    yield "decoded at a fraction, then resized (slimdet, JPEG files)", resize(decoded, size, cells)


def _encoded(file: Path, kind: str) -> bytes:
    if kind == KINDS[0]:
        return file.read_bytes()
    image = Image.open(file).convert("RGB")
    times = 2400 / max(image.size)  # sides that 8 divides
    sides = (round(image.width * times / 8) * 8, round(image.height * times / 8) * 8)
    pixels = np.asarray(image.resize(sides, Image.Resampling.LANCZOS)).astype(np.float32)
    if kind == KINDS[2]:
        pixels += np.random.default_rng(sum(sides)).normal(0, NOISE, (*pixels.shape[:2], 1)).astype(np.float32)
    return _jpeg(pixels)


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _timed(runs: dict[str, list[float]], name: str, function: Callable[[], Any]) -> Any:
    start = time.process_time()
    result = function()
    runs.setdefault(name, []).append(1000 * (time.process_time() - start))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("animalpose", type=Path, nargs="?", help="without it accuracy is left out")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--grow", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.grow:
        print(grow(given.grow))
        return
    data = photograph()
    result: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    result |= {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            **{name: version(name) for name in ("onnxruntime", "pillow", "numpy")},
        },
        "eight photographs of 12 megapixels, bytes more": memory(data),
        "times": times(data),
    }
    if given.animalpose:
        result["accuracy"] = accuracy(given.animalpose, given.images)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
