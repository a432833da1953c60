"""How much the AP of a bundle's files differs from that of its weights in torch, and what lower scores would add.

    python benchmarks/points/engines.py MODEL DATA.yaml [EVERY] > benchmarks/points/engines.json

The narrowest width and the widest, on every EVERYth image of val (default: all); torch also with detections down to a
score of 0, which `slimdet val` leaves out. One thread.
"""

import json
import sys
from datetime import date

import slimdet
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_val_split
from slimdet.evaluation.matching import evaluate
from slimdet.evaluation.points import detect_points, part_of
from slimdet.runtime.machine import machine_key

ENGINES = ("torch", "onnxruntime", "openvino")


def main(model: str, data: str, every: str = "1") -> None:
    split = read_val_split(data)
    dataset = CocoDataset(split.annotations, split.images)
    places = range(0, len(dataset), int(every))
    part = part_of(dataset, places)
    found: dict[str, dict[str, float]] = {}
    machines = []
    for name in (*ENGINES, "torch down to 0"):
        runtime = slimdet.Runtime(model, engine=name.split()[0], threads=1)  # pyright: ignore[reportArgumentType]
        if name not in ENGINES:
            runtime.engine.own_conf = 0.0
        points = [Point(runtime.widths[0]), Point()]
        detections = detect_points(runtime, dataset, points, places)
        found[name] = {str(point.width): evaluate(part, detections[point])["bbox"]["AP"] for point in points}
        machines.append(machine_key(runtime.engine, 1))
        print(name, found[name], file=sys.stderr)
    print(json.dumps({"date": str(date.today()), "machines": machines, "images": len(places), "AP": found}, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
