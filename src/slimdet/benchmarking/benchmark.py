"""The verb `benchmark`: accuracy and latency of operating points, on the user's data and machine."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slimdet
from slimdet.assets import PHOTOGRAPHS
from slimdet.benchmarking import page, table
from slimdet.benchmarking.measuring import Measurements, artifact
from slimdet.benchmarking.settings import BenchmarkSettings
from slimdet.benchmarking.table import Row
from slimdet.bundle.ladder import Point
from slimdet.devices import cores, cpu_name
from slimdet.errors import ConfigError
from slimdet.files import atomic_write, new_run_dir
from slimdet.messages import with_fields
from slimdet.runtime.detector import Runtime
from slimdet.runtime.machine import machine_key, versions
from slimdet.search.rows import Rows

if TYPE_CHECKING:  # they need torch, which latencies alone do without
    from slimdet.benchmarking.accuracy import Validation
    from slimdet.search.trials import Told

ROWS = "rows"  # the folder of what was measured
PICTURES = 8  # images that are timed, in turn
TIMED = {
    "single-stream": "one image at a time, from decoded pixels to boxes",
    "server": "from an image's arrival to its boxes, with the time in which it waited; decoded pixels",
    "offline": "all images at once, from decoded pixels to boxes",
}
logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and how the contract fared.

    Attributes:
        run: the folder of the tables, the page and the pictures.
        rows: by scenario and point, in the order in which they were asked for.
        contract: as it was given, or None.
        keeping: the rows that keep it.
        nearest: where none does, the row that misses it least, and None.
        values: what the nearest has of the contract's metrics, in words.
    """

    run: Path
    rows: list[Row]
    contract: str | None
    keeping: list[Row]
    nearest: Row | None
    values: str

    @property
    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        contract = None
        if self.contract is not None:
            keeping = [self.rows.index(row) for row in self.keeping]
            nearest = None if self.nearest is None else self.rows.index(self.nearest)
            contract = {"text": self.contract, "keeping": keeping, "nearest": nearest, "values": self.values}
        return {"run": str(self.run), "contract": contract, "rows": [asdict(row) for row in self.rows]}


def benchmark(
    model: str | Path,
    data: str | Path | None = None,
    settings: BenchmarkSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: "Told | None" = None,
    **fields: Any,
) -> Benchmark:
    """Measure operating points of a bundle: a table (CSV, JSON), a page (HTML), with data a picture of the front.

        slimdet.benchmark("runs/train-1/model", "data.yaml", contract="ap>=0.3,p90_ms<=40").keeping

    Args:
        model: a bundle's folder, or "bundled".
        data: DATA.yaml, whose `val:` is taken; without it latency and memory alone are measured, on the photographs
            that ship with slimdet.
        settings: what is measured, and how; the default is `BenchmarkSettings()`.
        out: the run's folder, in place of the next free `runs/benchmark-N`.
        resume: the folder of a run that was stopped, to go on with.
        progress: told how far it is.
        fields: fields of `BenchmarkSettings`, in place of those that `settings` has.

    Raises:
        SlimdetError: a model, point or data set that cannot be used, or a run to go on with that is of others.
    """
    settings = with_fields(settings or BenchmarkSettings(), fields)
    settings.check_measurable(data)
    page.check_installed()
    runtime = Runtime(model, engine=settings.engine, device=settings.device, threads=settings.threads)
    points = points_of(runtime, settings)
    val = None if data is None else _validation(runtime, data, points, settings)
    files = sorted(PHOTOGRAPHS.glob("*.jpg")) if val is None else val.files(PICTURES)
    known = [_known(runtime, point, settings) for point in points]
    identity = {
        "weights": runtime.manifest.weights_sha256,
        "data": None if val is None else val.fingerprint,
        "machine": machine_key(runtime.engine, settings.threads),
        "points": [point.entry for point in points],
        "artifacts": [one["sha256"] for one in known],
        **{name: getattr(settings, name) for name in ("scenario", "rate", "images", "repeats", "seed")},
        "slimdet": slimdet.__version__,
    }
    if resume and not (Path(resume) / ROWS).is_dir():
        raise ConfigError(f"--resume {resume} is no run of benchmark; leave it out to start one")
    run = Path(resume) if resume else new_run_dir("benchmark", out)
    pictures = [runtime.read(file).pixels for file in files]
    measured = Measurements(runtime, points, pictures, Rows(run / ROWS, identity), settings, progress)
    timings = {scenario: measured.timings(scenario) for scenario in settings.scenario}
    memory = measured.memory()
    aps = [table.UNKNOWN] * len(points) if val is None else measured.accuracies(val.accuracy)
    source = "the photographs that ship with slimdet" if val is None else f"{len(files)} images of {val.name}"
    common = {"data": val and val.name, "timed_on": source, "front": None}
    parts = [
        vars(point) | one | ap | {"mb": mb} | common
        for point, one, ap, mb in zip(points, known, aps, memory, strict=True)
    ]
    rows: list[Row] = []
    for scenario, timed in timings.items():
        how = {"scenario": scenario, "timed": TIMED[scenario], "rate": settings.rate if scenario == "server" else None}
        rows += table.with_front([Row(**part, **time, **how) for part, time in zip(parts, timed, strict=True)])
    found = _judged(run, rows, settings)
    _write(found, runtime, files[0])
    return found


def points_of(runtime: Runtime, settings: BenchmarkSettings) -> list[Point]:
    """The points to measure, with nothing left open: those that were asked for, the ladder, or every width.

    Raises:
        BundleError, ConfigError, WidthError: a point that the bundle or the engine does not have.
    """
    asked = (settings.widths, settings.imgsz, settings.proposals, settings.precision)
    if asked == (None,) * 4 and runtime.ladder:
        points = [rung.point for rung in runtime.ladder if runtime.has(rung.point)]
        if lost := len(runtime.ladder) - len(points):
            logger.warning("%d points of the ladder do not run on %s and are left out", lost, runtime.engine.name)
        if points:
            return points
    several = product(
        sorted(settings.widths or runtime.widths), settings.imgsz or (None,), settings.proposals or (None,)
    )
    return list(dict.fromkeys(runtime.complete(Point(*values, settings.precision)) for values in several))


def _validation(
    runtime: Runtime, data: str | Path, points: Sequence[Point], settings: BenchmarkSettings
) -> "Validation":
    from slimdet.benchmarking.accuracy import Validation

    return Validation(runtime, data, points, settings.images, settings.seed)


def _known(runtime: Runtime, point: Point, settings: BenchmarkSettings) -> dict[str, Any]:
    """What is known of a point's row before anything is measured."""
    engine = runtime.engine
    return {
        **artifact(runtime, point),
        "model": runtime.manifest.name,
        "engine": engine.name,
        "version": versions(engine)[engine.name],
        "device": engine.device,
        "threads": settings.threads,
        "cpu": cpu_name(),
        "cores": cores(),
        "slimdet": slimdet.__version__,
    }


def _judged(run: Path, rows: list[Row], settings: BenchmarkSettings) -> Benchmark:
    """Which rows keep the contract, or which comes nearest."""
    contract = settings.terms
    if contract is None:
        return Benchmark(run, rows, None, [], None, "")
    missed = [contract.shortfall(vars(row)) for row in rows]
    keeping = [row for row, miss in zip(rows, missed, strict=True) if miss == 0]
    nearest = None if keeping else rows[missed.index(min(missed))]
    values = "" if nearest is None else contract.values(vars(nearest))
    return Benchmark(run, rows, contract.text, keeping, nearest, values)


def _write(found: Benchmark, runtime: Runtime, photograph: Path) -> None:
    """The tables, the pictures of the front, and the page."""
    table.write_csv(found.rows, found.run / "benchmark.csv")
    with atomic_write(found.run / "benchmark.json") as temporary:
        temporary.write_text(json.dumps(found.document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for scenario in dict.fromkeys(row.scenario for row in found.rows):
        _draw([row for row in found.rows if row.scenario == scenario], found.run / f"front-{scenario}.png")
    page.write(found.document, found.rows, page.photographs(runtime, photograph, found.rows), found.run / "index.html")


def _draw(rows: Sequence[Row], file: Path) -> None:
    front = sorted((row for row in rows if row.front), key=lambda row: row.ms)
    if not front:  # no AP was measured
        return
    from slimdet.report.plots import plot_ladder

    steps = {str(row.point).removesuffix(", fp32"): (row.ms, row.ap or 0.0) for row in front}
    others = [(row.ms, row.ap or 0.0) for row in rows if not row.front and not row.overloaded]
    plot_ladder(steps, {}, file, f"{front[0].model}, {front[0].scenario}", others)
