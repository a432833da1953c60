"""The first minute: the bundled model on the bundled photographs, at every width. No torch, unless it is the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from slimdet.assets import PHOTOGRAPHS
from slimdet.bundle import manifest
from slimdet.errors import BundleError
from slimdet.files import new_run_dir
from slimdet.images.drawing import save, side_by_side
from slimdet.report import plots
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import EngineSettings
from slimdet.runtime.latency import runtime_latencies, summary
from slimdet.runtime.prediction import find_images

CONFIDENCE = 0.5


@dataclass(frozen=True)
class Demo:
    """Where the pictures are, and for each width its cost, its recorded accuracy and what it found."""

    run: Path
    widths: dict[str, dict[str, float]]
    found: dict[str, dict[str, list[str]]]  # photograph -> width -> "name score"


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
    rows = _rows(detector)
    found: dict[str, dict[str, list[str]]] = {}
    for photograph in find_images([str(PHOTOGRAPHS)]):
        panels: list[tuple[str, Image.Image]] = []
        for width in reversed(detector.widths):
            result = detector(photograph, width)
            row = rows[str(width)]
            row["detections"] += len(result)
            found.setdefault(photograph.stem, {})[str(width)] = _listed(result.names, result.scores.tolist())
            panels.append((f"width {width}   {row['latency_ms']:.0f} ms", result.plot()))
        save(side_by_side(panels, height=360), folder / f"{photograph.stem}.jpg", quality=90)
    if find_spec("matplotlib"):
        points = {width: (row["latency_ms"], row["AP"]) for width, row in rows.items()}
        plots.plot_accuracy_latency(points, folder / "accuracy-latency.png", "one set of weights, every width")
    return Demo(folder, rows, found)


def _usual(out: Path | None) -> Path | None:
    """`runs/demo`, as long as it is free; what an earlier demo wrote stays."""
    first = Path("runs/demo")
    return out if out is not None or first.exists() else first


def _rows(detector: Runtime) -> dict[str, dict[str, Any]]:
    """For each width what is recorded of it, its latency here, and no detection yet."""
    rows: dict[str, dict[str, Any]] = {}
    for width, runs in runtime_latencies(detector, repeats=15).items():
        recorded = detector.manifest.metrics.get(str(width), {})
        rows[str(width)] = recorded.get("cost", {}) | {
            "latency_ms": summary(runs)["latency_ms"],
            "detections": 0,
            "AP": recorded.get("bbox", {}).get("AP", -1),
        }
    return rows


def _listed(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    return [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
