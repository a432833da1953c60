"""How much less time a R50-FPN takes at cheap points of width x image size x proposals, in one interleaved run.

    python benchmarks/peers/points.py [--rounds 9] [--work runs/peers]

CPU milliseconds on one thread from decoded pixels to boxes. Weights are random, so there is no AP: what a ladder of a
trained R50-FPN would keep of these points is not said here. Writes points.json.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path

import ours
import torch
from latency import ROOT, photograph
from others import RANDOM, contenders
from ours import ENGINES, ORIGINAL, R50
from timing import PIXELS, Contender, Run, machine, one_round

import slimdet

OUT = Path(__file__).with_name("points.json")
EAGER = "torchvision Faster R-CNN R50-FPN"
FULL = (1.0, 640, 1000)
POINTS = (FULL, *((0.25, *rest) for rest in ((640, 1000), (640, 300), (640, 100), (480, 100), (320, 50))))


def at_point(bundle: Path, engine: str, point: tuple[float, int, int], threads: int) -> Run:
    width, imgsz, proposals = point
    runtime = slimdet.Runtime(bundle, engine=engine, threads=threads).prepare([width])
    return partial(runtime, photograph(640), width, imgsz=imgsz, proposals=proposals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "peers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = ours.models(given.work)[0]
    photographs = {side: photograph(side) for side in (320, 640)}
    eager = [
        one
        for one in (*contenders(photographs, given.work / "graphs"), *ours.contenders(photographs, given.work))
        if "eager" in one.engine and one.model in (EAGER, ORIGINAL) and one.image == 640
    ]
    names = {f"{width:g}, {imgsz} px, {proposals}": (width, imgsz, proposals) for width, imgsz, proposals in POINTS}
    points = [
        Contender(f"{R50} {name}", engine, 640, PIXELS, RANDOM, partial(at_point, model.bundle, engine, point))
        for name, point in names.items()
        for engine in ENGINES
    ]
    everything = [*eager, *points]
    rounds = [one_round(everything, 1, number) for number in range(given.rounds)]
    cpu = {one.name: [row[one.name][1] for row in rounds] for one in everything}
    described = {one.engine + " " + one.model: one.name for one in everything}
    against = {EAGER: f"torch eager {EAGER}", ORIGINAL: f"torch eager {ORIGINAL}"}
    ratios: dict[str, dict[str, list[float]]] = {}
    for engine in ENGINES:
        slow = {**against, "1.0": f"{engine} {R50} 1, 640 px, 1000"}
        for name in names:
            own = cpu[described[f"{engine} {R50} {name}"]]
            ratios[f"{engine}: {name} proposals"] = {
                what: spread([a / b for a, b in zip(cpu[described[key]], own, strict=True)])
                for what, key in slow.items()
            }
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "rounds": given.rounds,
        "cpu_ms": {name: round(statistics.median(values), 1) for name, values in cpu.items()},
        "times_less (median, least, most of the rounds)": ratios,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n")


def spread(values: list[float]) -> list[float]:
    return [round(one, 1) for one in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    main()
