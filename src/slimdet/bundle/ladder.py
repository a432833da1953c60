"""Operating points: at what a detector runs, chosen call by call, all of it served by one set of weights.

The ladder of a bundle is the list of points that are worth having, cheapest first. How good each is does not depend on
the machine; how long it takes is known machine by machine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from slimdet.errors import BundleError, ConfigError
from slimdet.images.sides import LEAST
from slimdet.messages import check_choice

Precision = Literal["fp32", "int8", "bf16", "fp16"]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Point:
    """A width, an image size, a number of proposals and a precision.

    Attributes:
        width: a fraction of the widest, above 0 and at most 1.
        imgsz: shorter side that images are resized to, pixels; None is the model's.
        proposals: boxes that the second stage looks at, 1 or more; None is the model's number.
        precision: of the layers; None is the best that there is for the width.

    Raises:
        ConfigError: none of these.
    """

    width: float = 1.0
    imgsz: int | None = None
    proposals: int | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not 0 < self.width <= 1:
            raise ConfigError(f"width {self.width} is not above 0 and at most 1")
        if self.imgsz is not None and self.imgsz < LEAST:
            raise ConfigError(f"--imgsz {self.imgsz} is too small; use {LEAST} or more")
        if self.proposals is not None and self.proposals < 1:
            raise ConfigError(f"--proposals {self.proposals} must be 1 or more")
        if self.precision is not None:
            check_choice("precision", self.precision, get_args(Precision))

    def __str__(self) -> str:
        """As "0.5 at 160 px, 50 proposals, int8"; what is left open is left out."""
        size = "" if self.imgsz is None else f" at {self.imgsz} px"
        proposals = "" if self.proposals is None else f", {self.proposals} proposals"
        return f"{self.width}{size}{proposals}" + (f", {self.precision}" if self.precision else "")

    @property
    def entry(self) -> dict[str, Any]:
        """As JSON holds it: {"width": 0.5, "imgsz": 160, ...}, without what is left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Point":
        """The point that `entry` holds.

        Raises:
            BundleError: it is none.
        """
        try:
            return cls(**entry)
        except (TypeError, ConfigError) as error:
            raise BundleError(f"{entry!r} is no operating point: {error}") from error


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: a point that is worth having, and how good it was measured to be.

    Attributes:
        point: with nothing left open, but the proposals of a detector that has none.
        metrics: COCO's 12 numbers of its boxes, {"AP": ..., "AP50": ...}, each 0..1 or -1.
        images: how many they were measured on.
        data: the data set's name.
        weights: the digest of its width that they are true of, as the card has it.
        macs: multiply-adds of a square image of the point's size, with all its proposals; None is not counted.
    """

    point: Point
    metrics: Mapping[str, float]
    images: int
    data: str
    weights: str
    macs: int | None = None

    @property
    def ap(self) -> float:
        """AP, 0..1."""
        return self.metrics["AP"]

    @property
    def entry(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "point": self.point.entry, "metrics": dict(self.metrics)}

    @classmethod
    def of(cls, entry: Any) -> "Rung":
        """The rung that `entry` holds.

        Raises:
            BundleError: it is none.
        """
        rung = _made(cls, entry, point=Point.of)
        numbers = rung.metrics.values() if isinstance(rung.metrics, Mapping) else [None]
        whole = type(rung.images) is int and (rung.macs is None or (type(rung.macs) is int and rung.macs > 0))
        if not all(map(_is_number, numbers)) or "AP" not in rung.metrics or not whole:
            raise BundleError(f"{entry!r:.200} is no rung of a ladder: it needs numbers, AP among them, and images")
        return rung


@dataclass(frozen=True)
class Timing:
    """How long a point takes, from a decoded image to its boxes: the median and the 90th percentile of `n` runs, ms."""

    point: Point
    p50_ms: float
    p90_ms: float
    n: int

    @property
    def entry(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "point": self.point.entry}

    @classmethod
    def of(cls, entry: Any) -> "Timing":
        """The timing that `entry` holds.

        Raises:
            BundleError: it is none.
        """
        timing = _made(cls, entry, point=Point.of)
        if not all(_is_number(value) and value > 0 for value in (timing.p50_ms, timing.p90_ms, timing.n)):
            raise BundleError(f"{entry!r:.200} is no timing: it needs p50_ms, p90_ms and n above 0")
        return timing


@dataclass(frozen=True)
class Latencies:
    """How long points take on one machine.

    Attributes:
        engine, device: what ran, in their own words.
        threads: of one run; None is the engine's own choice.
        versions: of the libraries, by name.
        date: when, ISO 8601.
        points: the timings.
    """

    engine: str
    device: str
    threads: int | None
    versions: Mapping[str, str]
    date: str
    points: tuple[Timing, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**vars(self), "versions": dict(self.versions), "points": [timing.entry for timing in self.points]}

    @classmethod
    def of(cls, entry: Any) -> "Latencies":
        """The latencies that `entry` holds.

        Raises:
            BundleError: they are none.
        """
        return _made(cls, entry, points=lambda timings: tuple(map(Timing.of, timings)))

    @property
    def medians(self) -> dict[Point, float]:
        """Milliseconds by point."""
        return {timing.point: timing.p50_ms for timing in self.points}


def best_within(ladder: Sequence[Rung], ms: Mapping[Point, float], budget_ms: float) -> tuple[Rung, bool]:
    """The most accurate rung that takes at most `budget_ms`, and True; where none does, the quickest one, and False.

    Args:
        ladder: one rung at least.
        ms: latency of each rung's point.
        budget_ms: milliseconds for an image.
    """
    fitting = [rung for rung in ladder if ms[rung.point] <= budget_ms]
    if fitting:
        return max(fitting, key=lambda rung: rung.ap), True
    return min(ladder, key=lambda rung: ms[rung.point]), False


def _made(kind: type[Made], entry: Any, **readers: Callable[[Any], Any]) -> Made:
    """A dataclass from its JSON object.

    Raises:
        BundleError: it has other fields.
    """
    try:
        return kind(**{name: readers[name](value) if name in readers else value for name, value in entry.items()})
    except (TypeError, AttributeError) as error:
        raise BundleError(f"{entry!r:.200} is no {kind.__name__.lower()} of a ladder: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
