"""How much the AP of a bundle's files differs from that of its weights in torch, and what lower scores would add.

    python benchmarks/points/engines.py bundled DATA.yaml > benchmarks/points/engines.json

The narrowest width and the widest, all images of val; torch also with detections down to a score of 0.
"""

import json
import sys
from datetime import date

import slimdet
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_val_split
from slimdet.evaluation.points import measure_points
from slimdet.runtime.machine import machine_key

ENGINES = ("torch", "onnxruntime", "openvino")


def main(model: str, data: str) -> None:
    split = read_val_split(data)
    dataset = CocoDataset(split.annotations, split.images)
    found: dict[str, dict[str, float]] = {}
    machines = []
    for name in (*ENGINES, "torch down to 0"):
        runtime = slimdet.Runtime(model, engine=name.split()[0], threads=1)  # pyright: ignore[reportArgumentType]
        if name not in ENGINES:
            runtime.engine.own_conf = 0.0
        points = [Point(runtime.widths[0]), Point()]
        aps = {str(one.width): one.numbers["bbox"]["AP"] for one in measure_points(runtime, dataset, points)}
        found[name] = aps
        machines.append(machine_key(runtime.engine, 1))
        print(name, aps, file=sys.stderr)
    document = {"date": str(date.today()), "machines": machines, "images": len(dataset), "AP": found}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
