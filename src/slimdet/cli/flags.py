"""What flags may hold: a parser takes a flag's text and returns the value, or says in one line what is wrong with it.

The names at the end annotate the arguments of verbs: `batch: Annotated[Count, "images in a step"] = 16`.
"""

import argparse
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

from slimdet.bundle.ladder import Precision
from slimdet.messages import did_you_mean
from slimdet.runtime.engine import EngineName, Memory
from slimdet.widths import WidthRange

Number = TypeVar("Number", int, float)
Item = TypeVar("Item")


def number(kind: type[Number], low: float, high: float = math.inf, above: bool = False) -> Callable[[str], Number]:
    """A parser of whole (`int`) or real (`float`) numbers in `low..high`; `above` leaves out `low` itself."""
    noun = "a whole number" if kind is int else "a number"
    bounds = f"above {low:g}" if above else f"of at least {low:g}"
    if high < math.inf:
        bounds += f" and at most {high:g}"

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not (low <= value <= high) or (above and value == low) or math.isinf(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} {bounds}")
        return value

    return parse


def choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    """A parser of one of the `allowed` words."""

    def parse(text: str) -> str:
        if text not in allowed:
            hint = did_you_mean(text, allowed)
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(allowed)}{hint}")
        return text

    return parse


def one_width(text: str) -> float:
    return round(number(float, 0.0001, 1)(text), 4)


def width_or_all(text: str) -> float | None:
    if text == "all":
        return None
    try:
        return one_width(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'all'") from None


def some_widths_or_all(text: str) -> tuple[float, ...] | None:
    return None if text == "all" else several(one_width)(text)


def width_list(text: str) -> tuple[float, ...] | WidthRange:
    low, dash, high = text.partition("-")
    if not dash or not low:
        return several(one_width)(text)
    if one_width(high.strip()) != 1.0 or one_width(low.strip()) == 1.0:
        raise argparse.ArgumentTypeError(f"{text!r}: a range of widths ends at 1.0, as in 0.25-1.0")
    return WidthRange(one_width(low.strip()))


def one_or_two_sides(text: str) -> int | tuple[int, int]:
    low, dash, high = text.partition("-")
    side = number(int, 1)
    return (side(low.strip()), side(high.strip())) if dash else side(text)


def several(one: Callable[[str], Item]) -> Callable[[str], tuple[Item, ...]]:
    """A parser of a comma-separated list of what `one` parses."""
    return lambda text: tuple(one(part.strip()) for part in text.split(","))


def some_of(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """A parser of a comma-separated list of the `allowed` words."""
    return several(choice(allowed))


def moment(text: str) -> datetime:
    """A time of day, the next one there is, or a date and time; with this machine's time zone where none is named."""
    now = datetime.now().astimezone()
    try:
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            today = datetime.combine(now, datetime.strptime(text, "%H:%M").time()).astimezone()
            return today if today > now else (today.replace(tzinfo=None) + timedelta(days=1)).astimezone()
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, as 18:00 or 2026-05-31T06:00") from None


def existing(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings)
        raise argparse.ArgumentTypeError(f"there is no file or folder {text!r}{hint}")
    return path


def source(text: str) -> str:
    return text if any(sign in text for sign in "*?[") else str(existing(text))  # a glob pattern is expanded later


def convertible(text: str) -> str:
    return text if re.fullmatch(r"(faster|mask)rcnn_\w+", text) else str(existing(text))  # torchvision's detectors


def moving(text: str) -> str:
    return text if "://" in text or text.isdigit() else str(existing(text))


def existing_or(*words: str) -> Callable[[str], str]:
    """A parser of a file or folder that exists, or one of the `words` that stand for something else."""

    def parse(text: str) -> str:
        if text in words:
            return text
        try:
            return str(existing(text))
        except argparse.ArgumentTypeError as error:
            hint = did_you_mean(text, words)
            raise argparse.ArgumentTypeError(f"{error}, nor is it {' or '.join(words)}{hint}") from None

    return parse


def device_name(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:N, mps")
    return text


class ByRecipe:
    """The default of a flag of `train` that the recipe decides."""

    def __str__(self) -> str:
        return "by --recipe"


# Kinds of values.
Count = Annotated[int, number(int, 1)]
Natural = Annotated[int, number(int, 0)]
Positive = Annotated[float, number(float, 0, above=True)]
NonNegative = Annotated[float, number(float, 0)]
Fraction = Annotated[float, number(float, 0, 1)]
Width = Annotated[float, one_width]
Widths = Annotated[tuple[float, ...] | WidthRange, width_list]
SomeWidths = Annotated[tuple[float, ...], several(one_width)]
WidthsOrAll = Annotated[tuple[float, ...] | None, some_widths_or_all]  # None is all
Counts = Annotated[tuple[int, ...], several(number(int, 1))]
Sides = Annotated[int | tuple[int, int], one_or_two_sides]
Parts = Annotated[tuple[str, ...], some_of("features", "classes", "rpn", "masks")]  # of distillation
Moment = Annotated[datetime, moment]
Existing = Annotated[Path, existing]
Source = Annotated[str, source]  # a file, a folder, or a glob pattern
Convertible = Annotated[str, convertible]  # a file, a folder, or the name of a detector
VideoSource = Annotated[str, moving]  # a file, a folder, a camera's number, or an address
Start = Annotated[str, existing_or("imagenet", "none", "bundled")]  # of training: weights, a bundle, or one of these

# Flags of several verbs, with their help.
Model = Annotated[str, existing_or("bundled"), "bundle: a folder, or 'bundled'"]
WidthOrAll = Annotated[float | None, width_or_all, "one width, or all"]  # None is all
Side = Annotated[Count | None, "shorter side in pixels (default: the model's)"]
Proposals = Annotated[Count | None, "boxes that the second stage looks at (default: the model's number)"]
AnyPrecision = Annotated[Precision | None, "of the layers (default: the best that was measured for the width)"]
AnyMemory = Annotated[Memory, "low: no copy of the weights for each width, slower (onnxruntime, linked files)"]
Device = Annotated[str, device_name, "auto, cpu, cuda, cuda:N or mps"]
Engine = Annotated[EngineName, "what runs it; auto: the best by profile --save, else onnxruntime, else torch"]
EngineByRule = Annotated[EngineName, "what runs it; auto: onnxruntime where the model was exported, else torch"]
EngineDevice = Annotated[str, device_name, "auto, cpu, cuda, cuda:N or mps, as far as the engine has it"]
Threads = Annotated[Count | None, "threads of one run (default: the engine's choice)"]
