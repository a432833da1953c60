"""The first minute: the bundled model on the bundled photographs, at every width."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Group

from slimdet import bundle, manifest, profiling, report
from slimdet.assets import PHOTOGRAPHS
from slimdet.drawing import side_by_side
from slimdet.errors import BundleError
from slimdet.files import atomic_write, new_run_dir
from slimdet.images import read_image
from slimdet.prediction import detect_image, drawn, find_images

CONFIDENCE = 0.5


@dataclass(frozen=True)
class Demo:
    """Where the pictures are, and for each width its cost, its recorded accuracy and what it found."""

    run: Path
    widths: dict[str, dict[str, float]]
    found: dict[str, dict[str, list[str]]]  # photograph -> width -> "name score"


def demo(out: Path | None = None) -> Demo:
    """Run the bundled model on the bundled photographs and write pictures and a plot to `out` or `runs/demo`.

    Raises:
        BundleError: the installation has no bundled model.
    """
    if not (manifest.bundled() / manifest.MODEL).is_file():
        raise BundleError("this installation has no bundled model; get slimdet again, or make one with 'make bundled'")
    model = bundle.load("bundled")
    folder = new_run_dir("demo", _usual(out))
    costs = profiling.profile(model, repeats=15)["widths"]
    found: dict[str, dict[str, list[str]]] = {}
    counts = dict.fromkeys(costs, 0)
    for photograph in find_images([str(PHOTOGRAPHS)]):
        pixels = read_image(photograph)
        panels: list[tuple[str, Image.Image]] = []
        for width in reversed(model.widths):
            result = detect_image(model, pixels, width, CONFIDENCE, torch.device("cpu"))
            key = str(width)
            names = [model.classes[label - 1] for label in result["labels"].tolist()]
            found.setdefault(photograph.stem, {})[key] = _listed(names, result["scores"].tolist())
            counts[key] += len(names)
            title = f"width {width}   {costs[key]['macs'] / 1e9:.2f} G   {costs[key]['latency_ms']:.0f} ms"
            panels.append((title, drawn(pixels, result, model.classes)))
        with atomic_write(folder / f"{photograph.stem}.jpg") as temporary:
            side_by_side(panels, height=360).save(temporary, quality=90)
    rows = {width: _row(costs[width], counts[width], model.metrics.get(width, {})) for width in costs}
    points = {width: (row["latency_ms"], row["AP"]) for width, row in rows.items()}
    report.plot_accuracy_latency(points, folder / "accuracy-latency.png", "one set of weights, every width")
    return Demo(folder, rows, found)


def view(result: Demo) -> Group:
    """The table, the pictures and what to try next."""
    return Group(
        report.cost_table(result.widths),
        f"pictures and the plot are in {result.run}\n\nnext:\n"
        "  slimdet predict YOUR_PHOTO.jpg --model bundled --width 0.5\n"
        "  slimdet profile --model bundled\n"
        "  slimdet train --data DATA.yaml --weights bundled      your own classes",
    )


def _usual(out: Path | None) -> Path | None:
    """`runs/demo`, as long as it is free; what an earlier demo wrote stays."""
    first = Path("runs/demo")
    return out if out is not None or first.exists() else first


def _row(cost: dict[str, Any], detections: int, metrics: dict[str, Any]) -> dict[str, float]:
    kept = {name: cost[name] for name in ("parameters", "macs", "latency_ms")}
    return kept | {"detections": detections, "AP": metrics.get("bbox", {}).get("AP", -1)}


def _listed(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
