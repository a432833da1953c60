"""Accuracy and one-thread latency of others' small detectors and of a slimdet bundle, on the same photographs.

    python benchmarks/peers/accuracy.py --shared ../shared [--model runs/train-1/model] [--engine onnxruntime]
        [--part 1.0] [--check] [--out benchmarks/peers/accuracy.json]

The photographs are those of `everyday`'s val, 20 classes that COCO has under the same names; what the peers find of
COCO's other 60 is left out. They have seen 13 times as many photographs in training as `everyday` has: compare with
that in mind. Each photograph is decoded once and given to one detector after the other, so that all see the same
load. `--check` also measures the peers on all 80 classes of `coco_small`: a check of the decoding against their
published AP (NanoDet-Plus-m 0.304 and 0.270, YOLOX-nano 0.258 on COCO's val2017), no more.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import small
import torch
from numpy.typing import NDArray
from timing import machine

import slimdet
from slimdet.evaluation.matching import accumulate
from slimdet.files import atomic_write
from slimdet.images.decoding import read_image
from slimdet.runtime.engine import ENGINES

COCO_IMAGES = 118_287  # of train2017
SINGLED_OUT = ("person", "car")

Detections = list[tuple[str, list[float], float]]  # class, x1 y1 x2 y2, score


@dataclass(frozen=True)
class Contestant:
    """A detector: of a photograph [H, W, 3] its detections, and CPU milliseconds of the network where it can tell."""

    name: str
    trained_on: str
    detect: Callable[[NDArray], tuple[Detections, float | None]]


def peers(folder: Path, names: Sequence[str]) -> Iterator[Contestant]:
    """The ncnn detectors; `names` are COCO's 80 in its order."""
    for name, detector, file in small.PEERS:
        run = small.network(detector, folder / file)
        yield Contestant(name, f"COCO, {COCO_IMAGES:,} images", partial(_peer, detector, run, names))


def _peer(
    detector: small.Detector, run: small.Network, names: Sequence[str], pixels: NDArray
) -> tuple[Detections, float]:
    values = detector.prepare(pixels)
    start = time.process_time()
    outputs = run(values)
    network = 1000 * (time.process_time() - start)
    height, width = pixels.shape[:2]
    boxes, classes, scores = detector.decode(outputs, height, width)
    found: Any = zip((names[number] for number in classes.tolist()), boxes.tolist(), scores.tolist(), strict=True)
    return list(found), network


def bundle(model: str, engine: Any, classes: Sequence[str]) -> Iterator[Contestant]:
    """A bundle's ladder, or where it has none its widths."""
    runtime = slimdet.Runtime(model, engine=engine, threads=1)
    runtime = slimdet.Runtime(model, engine=engine, threads=1, conf=runtime.engine.least_conf).prepare()
    if lacking := [name for name in classes if name not in runtime.classes]:
        raise SystemExit(f"--model {model} does not know {', '.join(lacking)}: it cannot be measured on everyday")
    steps: dict[str, dict[str, Any]] = {f"slimdet {width:g}": {"width": width} for width in runtime.widths}
    ladder = getattr(runtime, "ladder", ())  # runtimes from before operating points have none
    if ladder:
        steps = {f"slimdet {rung.point}": {"point": number} for number, rung in enumerate(ladder)}
    for name, options in steps.items():
        yield Contestant(name, "see its card", partial(_step, runtime, options))


def _step(runtime: Any, options: Mapping[str, Any], pixels: NDArray) -> tuple[Detections, None]:
    result = runtime(pixels, **options)
    return list(zip(result.names, result.boxes.tolist(), result.scores.tolist(), strict=True)), None


def measure(contestants: Sequence[Contestant], coco: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A row for each: AP, AP50, AP of single classes, median milliseconds of one photograph from pixels to boxes."""
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    results: dict[str, list[dict[str, Any]]] = {one.name: [] for one in contestants}
    times: dict[str, list[tuple[float, float, float | None]]] = {one.name: [] for one in contestants}
    for number, image in enumerate(coco["images"]):
        pixels = read_image(folder / image["file_name"])
        for one in random.Random(number).sample(contestants, len(contestants)):
            wall, cpu = time.perf_counter(), time.process_time()
            found, network = one.detect(pixels)
            taken = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
            times[one.name].append((*taken, network))
            results[one.name] += [
                {"image_id": image["id"], "category_id": ids[name], "bbox": [x, y, right - x, low - y], "score": score}
                for name, (x, y, right, low), score in found
                if name in ids
            ]
        if number % 100 == 99:
            print(f"{number + 1} of {len(coco['images'])} images", flush=True)
    return [_row(one, coco, results[one.name], times[one.name]) for one in contestants]


def _row(
    one: Contestant,
    coco: Mapping[str, Any],
    found: list[dict[str, Any]],
    times: list[tuple[float, float, float | None]],
) -> dict[str, Any]:
    evaluation = accumulate(coco, found)["bbox"]
    numbers, classes = evaluation.summary(), evaluation.per_class()
    aps = {f"AP {name}": classes[name]["AP"] for name in SINGLED_OUT}
    row: dict[str, Any] = {"name": one.name, "trained_on": one.trained_on}
    row |= {name: round(value, 4) for name, value in {"AP": numbers["AP"], "AP50": numbers["AP50"], **aps}.items()}
    wall, cpu, network = zip(*times, strict=True)
    row |= {"wall_ms": round(statistics.median(wall), 2), "cpu_ms": round(statistics.median(cpu), 2)}
    own = [value for value in network if value is not None]
    return row | ({"network_cpu_ms": round(statistics.median(own), 2)} if own else {})


def part_of(coco: dict[str, Any], part: float) -> dict[str, Any]:
    """That part of the images, drawn by seed 0, with its annotations."""
    count = round(part * len(coco["images"]))
    images = coco["images"] if part == 1 else random.Random(0).sample(coco["images"], count)
    kept = {image["id"] for image in images}
    annotations = [annotation for annotation in coco["annotations"] if annotation["image_id"] in kept]
    return {**coco, "images": images, "annotations": annotations}


def known(data: Path) -> dict[str, Any]:
    """`coco_small`, train and val together; part of its images are of COCO's train, which the peers were trained on."""
    halves = [json.loads((data / f"annotations/instances_{half}.json").read_text()) for half in ("train", "val")]
    images = [image for half in halves for image in half["images"]]
    ids = {image["file_name"]: number for number, image in enumerate(images, 1)}
    annotations = []
    for half in halves:
        names = {image["id"]: image["file_name"] for image in half["images"]}
        annotations += [
            {name: one[name] for name in ("category_id", "bbox", "area", "iscrowd") if name in one}
            | {"image_id": ids[names[one["image_id"]]], "id": len(annotations) + number}
            for number, one in enumerate(half["annotations"], 1)
        ]
    numbered = [{**image, "id": ids[image["file_name"]]} for image in images]
    return {"images": numbered, "annotations": annotations, "categories": halves[0]["categories"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/everyday, coco_small and peers")
    parser.add_argument("--model", help="a bundle that knows everyday's 20 classes")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--part", type=float, default=1.0, help="of the photographs, drawn by a seed")
    parser.add_argument("--check", action="store_true", help="measure the peers on coco_small, too")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = given.shared / "data"
    small_coco = known(data / "coco_small")
    names = [one["name"] for one in sorted(small_coco["categories"], key=lambda category: category["id"])]
    others = list(peers(data / "peers", names))
    everyday = data / "everyday" / "annotations"
    coco = part_of(json.loads((everyday / "instances_val.json").read_text()), given.part)
    contestants = list(others)
    if given.model is None:
        print("no --model: the peers alone are measured")
    else:
        contestants += bundle(given.model, given.engine, [one["name"] for one in coco["categories"]])
    document: dict[str, Any] = {
        "machine": {**machine(), "threads": 1, "load": os.getloadavg()[0]},
        "date": time.strftime("%Y-%m-%d"),
        "engine": given.engine if given.model else None,
        "images": len(coco["images"]),
        "objects": len(coco["annotations"]),
        "train_images": len(json.loads((everyday / "instances_train.json").read_text())["images"]),
        "peers_train_images": COCO_IMAGES,
        "rows": measure(contestants, coco, data),
    }
    if given.check:
        checked = part_of(small_coco, given.part)
        rows = measure(others, checked, data / "coco_small" / "images")
        document["check"] = {"images": len(checked["images"]), "rows": rows}
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")
    for row in document["rows"] + document.get("check", {}).get("rows", []):
        print(row)


if __name__ == "__main__":
    main()
