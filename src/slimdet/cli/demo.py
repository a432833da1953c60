"""The first minute: the bundled model on the bundled photographs, at points of its ladder. No torch, unless it is the
engine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest
from slimdet.bundle.ladder import Point, Rung
from slimdet.errors import BundleError
from slimdet.files import new_run_dir
from slimdet.images.drawing import save, side_by_side
from slimdet.report import plots
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineSettings
from slimdet.runtime.latency import latencies, summary
from slimdet.runtime.prediction import find_images

CONFIDENCE = 0.5
POINTS = 4


@dataclass(frozen=True)
class Demo:
    """Where the pictures are, and for each point, cheapest first, its cost, its recorded AP and what it found."""

    run: Path
    points: dict[str, dict[str, float]]
    found: dict[str, dict[str, list[str]]]  # photograph -> point -> "name score"


def demo(settings: EngineSettings, out: Path | None = None) -> Demo:
    """Run the bundled model on the bundled photographs and write pictures and a plot to `out` or `runs/demo`.

    The plot needs matplotlib and is left out without.

    Raises:
        BundleError: the installation has no bundled model.
        ConfigError: the engine or device is not to be had here.
    """
    if not (manifest.bundled() / manifest.MODEL).is_file():
        raise BundleError("this installation has no bundled model; get slimdet again, or make one with 'make bundled'")
    detector = Runtime(
        "bundled", engine=settings.engine, conf=CONFIDENCE, device=settings.device, threads=settings.threads
    ).prepare()
    folder = new_run_dir("demo", _usual(out))
    rungs, photographs = apart(detector.ladder, POINTS), find_images([str(PHOTOGRAPHS)])
    rows = _rows(detector, rungs, photographs[0])
    found: dict[str, dict[str, list[str]]] = {}
    for photograph in photographs:
        panels: list[tuple[str, Image.Image]] = []
        for rung in reversed(rungs):
            result = detector(photograph, point=rung.point)
            name = _name(rung.point)
            rows[name]["detections"] += len(result)
            found.setdefault(photograph.stem, {})[name] = _listed(result.names, result.scores.tolist())
            panels.append((f"{name}: {rows[name]['latency_ms']:.0f} ms", result.plot()))
        save(side_by_side(panels, height=360), folder / f"{photograph.stem}.jpg", quality=90)
    if find_spec("matplotlib"):
        timed = {name: (row["latency_ms"], row["AP"]) for name, row in rows.items()}
        plots.plot_ladder(timed, {}, folder / "accuracy-latency.png", "one set of weights, points of its ladder")
    return Demo(folder, rows, found)


def apart(ladder: Sequence[Rung], count: int) -> list[Rung]:
    """The cheapest and the dearest rung, and between them those whose costs come nearest to even ratios.

    Args:
        ladder: cheapest first, each with its multiply-adds.
        count: of rungs, 2 or more; where the ladder has no more, all are taken.
    """
    if len(ladder) <= count:
        return list(ladder)
    costs = [math.log(rung.macs or 1) for rung in ladder]
    places = {0, len(ladder) - 1}
    for step in range(1, count - 1):
        wanted = costs[0] + (costs[-1] - costs[0]) * step / (count - 1)
        places.add(min(set(range(len(ladder))) - places, key=lambda place: abs(costs[place] - wanted)))
    return [ladder[place] for place in sorted(places)]


def _usual(out: Path | None) -> Path | None:
    """`runs/demo`, as long as it is free; what an earlier demo wrote stays."""
    first = Path("runs/demo")
    return out if out is not None or first.exists() else first


def _rows(detector: Runtime, rungs: Sequence[Rung], photograph: Path) -> dict[str, dict[str, Any]]:
    """For each point what is recorded of it, its latency here on the photograph, and no detection yet."""
    calls = {
        rung.point: partial(detector.detect, [detector.read(photograph, imgsz=rung.point.imgsz)], point=rung.point)
        for rung in rungs
    }
    timed = latencies(calls, repeats=15)
    return {
        _name(rung.point): {
            **({} if rung.macs is None else {"macs": rung.macs}),
            "latency_ms": summary(timed[rung.point])["latency_ms"],
            "detections": 0,
            "AP": rung.ap,
        }
        for rung in rungs
    }


def _name(point: Point) -> str:
    """The point without its precision, which is everywhere the same."""
    return str(point).removesuffix(f", {point.precision}")


def _listed(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
