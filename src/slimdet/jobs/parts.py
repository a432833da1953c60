"""Part files: what was found in a block of images, a JSON line for each, written whole or not at all."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.errors import DataError, ImageError
from slimdet.files import atomic_write

if TYPE_CHECKING:
    from slimdet.runtime.result import Result

STARTED = ".started-"  # in front of a part's name: a file with a byte for each time that a worker began with it


def line(file: str, found: "Result | ImageError", ap: float | None) -> dict[str, Any]:
    """What a part has of an image: the detections, or the error; `ap`: of the point that ran, 0..1, where known."""
    if isinstance(found, ImageError):
        return {"file_name": file, "error": str(found)}
    width, height = found.image_size
    return {
        "file_name": file,
        "width": width,
        "height": height,
        "point": found.point.entry,
        "AP": ap,
        "detections": json.loads(found.to_json()),
    }


def write(part: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a part.

    Raises:
        OSError: the disk is full.
    """
    with atomic_write(part) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(one, allow_nan=False) + "\n" for one in lines)


@dataclass
class Tally:
    """What parts hold.

    Attributes:
        files: names of the images, broken ones too.
        broken: how many could not be read.
        points: images at each point, as text.
        ap: summed over the images whose point's AP is known.
        known: how many these are.
    """

    files: set[str] = field(default_factory=set)
    broken: int = 0
    points: Counter[str] = field(default_factory=Counter)
    ap: float = 0.0
    known: int = 0

    def add(self, part: Path) -> None:
        """Count a part in.

        Raises:
            DataError: it is not as it was written.
        """
        try:
            with part.open(encoding="utf-8") as handle:
                for one in map(json.loads, handle):
                    self._count(one)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{part} is no part of a job ({error}); remove it, so that its images are done again"
            ) from None

    def _count(self, one: dict[str, Any]) -> None:
        self.files.add(one["file_name"])
        if "error" in one:
            self.broken += 1
            return
        self.points[json.dumps(one["point"])] += 1
        if one["AP"] is not None:
            self.ap, self.known = self.ap + one["AP"], self.known + 1


def tallied(folder: Path) -> Tally:
    """What the parts in a folder hold.

    Raises:
        DataError: one is not as it was written.
    """
    tally = Tally()
    for part in sorted(folder.glob("part-*.jsonl")):
        tally.add(part)
    return tally
