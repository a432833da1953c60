"""The rows of a benchmark: each says what was measured, on what, and how it came to be."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from slimdet.bundle.ladder import Point, Precision
from slimdet.files import atomic_write
from slimdet.search.race import front


@dataclass(frozen=True)
class Row:
    """An operating point in a scenario; None is what was not measured, or what the machine does not tell.

    Attributes:
        width, imgsz, proposals, precision: the point.
        scenario: how images came: "single-stream", "server" or "offline".
        front: whether no row of the scenario that takes no longer has as high an AP; never of an overloaded server.
        ap, ap50: of the boxes, 0..1, of this artifact on `images` images of `data`.
        ap_low, ap_high: between them is the AP of 95 % of the resamples of the images.
        p50_ms, p90_ms, p99_ms: latency of an image; a percentile with too few runs beyond it is None.
        images_per_s: how many were done in a second.
        mb: by how much the point, alone in a process, makes it larger, MiB.
        n, warmup: images that were timed, and before them images that do not count.
        rate, overloaded: of a server: images that arrived in a second, and whether that was more than it can do.
        timed: from where to where; `timed_on` which images.
        throttled, watched, quota_ms, steal_percent, heat, others_percent: as
            `slimdet.benchmarking.disturbance.Disturbance` has them.
        model: the bundle; `artifact` and `sha256` are the files that ran and their digests.
        engine, version, device, threads: what ran; threads is None where the engine chose.
        cpu, cores: the processor, and how many of its cores the process may use.
        slimdet: its version.
        date: of the timing, ISO 8601.
    """

    width: float
    imgsz: int | None
    proposals: int | None
    precision: Precision | None
    scenario: str
    front: bool | None
    ap: float | None
    ap_low: float | None
    ap_high: float | None
    ap50: float | None
    images: int | None
    data: str | None
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    images_per_s: float
    mb: float | None
    n: int
    warmup: int
    rate: float | None
    overloaded: bool | None
    timed: str
    timed_on: str
    throttled: str
    watched: str
    quota_ms: float | None
    steal_percent: float | None
    heat: int | None
    others_percent: float | None
    model: str
    artifact: str
    sha256: str
    engine: str
    version: str
    device: str
    threads: int | None
    cpu: str
    cores: int
    slimdet: str
    date: str

    @property
    def point(self) -> Point:
        """The operating point."""
        return Point(self.width, self.imgsz, self.proposals, self.precision)

    @property
    def ms(self) -> float:
        """What an image costs: the median of its latency; offline its part of the whole."""
        return 1000 / self.images_per_s if self.p50_ms is None else self.p50_ms


COLUMNS = tuple(field.name for field in fields(Row))

UNKNOWN: dict[str, Any] = dict.fromkeys(("ap", "ap_low", "ap_high", "ap50", "images"))  # no accuracy was measured


def with_front(rows: Sequence[Row]) -> list[Row]:
    """The rows of one scenario, told which of them are on the Pareto front, where AP was measured.

    An overloaded server is not: its latencies grow with the number of images.
    """
    if any(row.ap is None for row in rows):
        return list(rows)
    able = [place for place, row in enumerate(rows) if not row.overloaded]
    best = front([rows[place].ms for place in able], [rows[place].ap or 0 for place in able])
    places = {able[place] for place in best}
    return [replace(row, front=place in places) for place, row in enumerate(rows)]


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write the rows, a line each, under the names of their fields; what is None is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    with atomic_write(file) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
