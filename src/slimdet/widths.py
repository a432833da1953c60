"""Widths and width plans: what they may be and how they are named."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdet.errors import WidthError

WIDTH_STEPS = 10_000  # widths have 4 decimals
RANGE_STEP = 32  # a training of any width draws multiples of 1/32


def parse_width(width: Any) -> float:
    """Return the width as it is stored and named everywhere: a float in (0, 1], rounded to 4 decimals.

    Raises:
        WidthError: not a number, NaN, or outside (0, 1].
    """
    try:
        value = round(float(width), 4)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(width, bool) or not 0 < value <= 1:
        raise WidthError(f"width {width!r} is not a number in (0, 1], such as 0.25, 0.5 or 1.0")
    return value


def parse_widths(widths: Iterable[Any]) -> tuple[float, ...]:
    """Return the widths in ascending order, each as `parse_width` gives it.

    Raises:
        WidthError: a malformed or repeated width, or 1.0 is missing.
    """
    values = sorted(parse_width(width) for width in widths)
    for first, second in itertools.pairwise(values):
        if first == second:
            raise WidthError(f"width {first} is given twice (widths are rounded to 4 decimals); give each once")
    if not values or values[-1] != 1.0:
        raise WidthError(f"widths {tuple(values)} must contain 1.0, the detector itself; add 1.0")
    return tuple(values)


def channels_at(width: float, channels: int) -> int:
    """How many of a layer's channels a width has: width * channels rounded down, exactly, as if in decimals.

    `int(0.29 * 100)` is 28, because the float nearest to 0.29 is a little less.
    """
    return round(width * WIDTH_STEPS) * channels // WIDTH_STEPS


def least_width(channels: int) -> float:
    """The narrowest width that leaves one of so many channels."""
    return -(-WIDTH_STEPS // channels) / WIDTH_STEPS


def width_key(width: float) -> str:
    """The name of a width inside a state dict; a module's name may not hold a dot: 0.25 -> '0_25'."""
    return str(width).replace(".", "_")


@dataclass(frozen=True)
class WidthRange:
    """Every width from the narrowest to 1.0."""

    narrowest: float

    @property
    def listed(self) -> tuple[float, ...]:
        """The widths that get statistics of their own: the narrowest and the quarters above it."""
        return (self.narrowest, *(width for width in (0.25, 0.5, 0.75, 1.0) if width > self.narrowest))


def widths_between(narrowest: float) -> list[float]:
    """The widths that a training of any width draws from: multiples of 1/32 between the narrowest and 1.0."""
    steps = (parse_width(step / RANGE_STEP) for step in range(1, RANGE_STEP))
    return [width for width in steps if width > narrowest]


def parse_plan(plan: Any) -> dict[str, float]:
    """Return a per-layer width plan, {dotted name of a stage or layer: its width}, each width as `parse_width` does.

    Raises:
        WidthError: not such a mapping.
    """
    if not isinstance(plan, Mapping) or not plan or not all(isinstance(key, str) and key for key in plan):
        example = '{"backbone.body.layer4": 0.5, "roi_heads": 0.75}'
        raise WidthError(f"a width plan maps names of stages to widths, as {example}; this is {plan!r:.80}")
    return {stage: parse_width(width) for stage, width in plan.items()}


def read_plan(file: Path) -> dict[str, float]:
    """Read a per-layer width plan from a JSON file.

    Raises:
        WidthError: the file cannot be read or holds no plan.
    """
    try:
        return parse_plan(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WidthError(f"{file} is no width plan: {error}") from error
