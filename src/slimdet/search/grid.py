"""The points that are tried where nobody says others."""

from collections.abc import Iterable
from itertools import product
from typing import Any, get_args

from slimdet.bundle.ladder import Point, Precision
from slimdet.runtime.detector import Runtime
from slimdet.search.settings import TuneSettings

STRIDE = 32  # pixels: images are padded to a multiple of it, so that sizes between two of them cost as the larger
SIZES = 5
PROPOSALS = (20, 50, 150, 300)


def grid(runtime: Runtime, settings: TuneSettings) -> list[Point]:
    """Every width at every size and number of proposals, in every precision that it has; each point once.

    Raises:
        BundleError, ConfigError, WidthError: a point that the bundle or the engine does not have.
    """
    widest = runtime.complete(Point())
    sizes = settings.imgsz or usual_sizes(widest.imgsz or 0, runtime.manifest.training.get("imgsz"))
    numbers: Iterable[int | None] = settings.proposals or usual_proposals(widest.proposals)
    widths = runtime.widths if settings.widths is None else settings.widths
    points: dict[Point, None] = {}
    for width in sorted(widths):
        runtime.complete(Point(width))  # says what is wrong with it
        precisions = [one for one in get_args(Precision) if runtime.has(Point(width, precision=one))]
        for values in product(sorted(sizes), sorted(numbers, key=lambda number: number or 0), precisions):
            points[runtime.complete(Point(width, *values))] = None
    return list(points)


def usual_sizes(own: int, trained: Any) -> tuple[int, ...]:
    """Shorter sides from half of the model's own, or from the smallest that it was trained at, to its own, ascending.

    Args:
        own: the model's, pixels.
        trained: what the training settings say: one size, or the two ends of a range.
    """
    low = min([own / 2, *(trained if isinstance(trained, list | tuple) else ())])
    steps = (own * (low / own) ** (step / (SIZES - 1)) for step in range(1, SIZES))
    whole = (STRIDE * max(1, round(step / STRIDE)) for step in steps)
    return tuple(sorted({own, *(size for size in whole if size < own)}))


def usual_proposals(own: int | None) -> tuple[int | None, ...]:
    """Numbers of proposals up to the model's own, ascending; of a detector that has no such number, None alone."""
    return (None,) if own is None else (*(number for number in PROPOSALS if number < own), own)
