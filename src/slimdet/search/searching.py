"""The verb `search`: the widths of a detector's stages that find most within a latency measured here.

After AutoSlim (arXiv 1903.11728) and "Once-for-All" (arXiv 1908.09791): widths by stage of one set of weights, tried
without training. What a plan takes is predicted from a table of what each stage saves, and measured for the best.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import numpy as np

from slimdet.bundle import card, manifest, store
from slimdet.bundle.ladder import Latencies, Point, Rung, Timing
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.fingerprint import fingerprint
from slimdet.errors import ConfigError, DataError
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.resampling import resamples
from slimdet.evaluation.validation import measure
from slimdet.exporting.engine_files import export
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.files import new_run_dir
from slimdet.messages import with_fields
from slimdet.models.kinds import require
from slimdet.models.stages import stages
from slimdet.report.profiling import point_macs
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import choose
from slimdet.runtime.machine import machine_key, versions
from slimdet.search.bench import Bench, ap_of
from slimdet.search.plans import LatencyTable, Plan, Trial, equal_within, evolve
from slimdet.search.rows import Rows
from slimdet.search.settings import SearchSettings
from slimdet.search.stopwatch import Stopwatch
from slimdet.search.trials import Told

ROWS = "rows"  # the folder of what was measured
TABLE_WIDTHS = (0.25, 0.5, 0.75)  # of each stage alone; between them it is interpolated
RESAMPLES = 1000
SURE = (0.025, 0.975)

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Found:
    """A plan that was measured: widths by name, AP (0..1) of all val images, predicted and measured milliseconds."""

    plan: dict[str, float]
    ap: float
    predicted_ms: float
    ms: float

    @property
    def error(self) -> float:
        """By how much the prediction was off: 0.1 is a tenth too long."""
        return self.predicted_ms / self.ms - 1


@dataclass(frozen=True)
class Search:
    """What `search` found and wrote; every AP and `ms` is measured.

    Attributes:
        run: the folder of the rows.
        model: the bundle that has the plan.
        width: the number that the plan has there.
        stages: the names of each stage's layers.
        best, equal: the plan, and equal widths for the same budget.
        gain: AP of the best less that of the equal widths: low, middle and high end of the 95 % interval over images.
        trials: all plans that were tried, best first.
        images: how many `best` and `equal` were measured on.
        in_ladder: whether the plan is in the bundle's ladder.
    """

    run: Path
    model: Path
    width: float
    stages: tuple[tuple[str, ...], ...]
    best: Found
    equal: Found
    gain: tuple[float, float, float]
    trials: list[Trial]
    images: int
    in_ladder: bool


def search(
    model: str | Path,
    data: str | Path,
    settings: SearchSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Told | None = None,
    **fields: Any,
) -> Search:
    """Look for the widths of a bundle's stages that find most within a budget, and write them into it as a width.

        search("runs/train-1/model", "data.yaml", budget_ms=15).best

    The model should have been trained with `--width-sampling stages`. A plan that is tried gets statistics of its own
    from a few training images and is measured on a part of val; the best one, and equal widths for the same budget, on
    all of it.

    Args:
        model: a bundle's folder, which gets the plan, or "bundled", of which a copy in the run's folder gets it.
        data: DATA.yaml with `train:` and `val:`.
        settings: the budget, and how plans are tried.
        out: the run's folder, in place of the next free `runs/search-N`.
        resume: the folder of a run that was stopped, to go on with.
        progress: told how far it is.
        fields: fields of `SearchSettings`, in place of those that `settings` has.

    Raises:
        SlimdetError: a model, budget or data set that cannot be used; the bundle stays as it was.
    """
    settings = SearchSettings(**fields) if settings is None else with_fields(settings, fields)
    described = manifest.read(model)
    for task in ("calibrate", "export", "validate"):
        require(described.architecture, task, str(model))
    settings = replace(settings, engine=choose(settings.engine, described))
    slimmable = store.load(model)
    if slimmable.norm_sharing == "own":
        text = "%s was trained at %s: other widths, and unequal ones, are poor; train with --width-sampling stages"
        logger.warning(text, model, ", ".join(map(str, slimmable.widths)))
    if settings.name in slimmable.widths:
        raise ConfigError(f"--name {settings.name} is a width of {model} already; choose another one")
    train, val = _data(data)
    for part in (train, val):
        check_classes(described.classes, part)
    run = Path(resume) if resume else new_run_dir("search", out)
    if resume and not (run / ROWS).is_dir():
        raise ConfigError(f"--resume {resume} is no run of search; leave it out to start one")
    rows = Rows(run / ROWS, {"weights": described.weights_sha256, "data": _fingerprint(val), **vars(settings)})
    parts = stages(slimmable)
    logger.info("%d stages: %s", len(parts), "; ".join(" ".join(names) for names in parts))
    watch = Stopwatch(model, val, settings, run / "timed")
    table = _table(slimmable, parts, watch, rows, progress)
    narrowest = min(width for width in slimmable.widths if width not in slimmable.plans)
    start = equal_within(table, len(parts), narrowest, settings.budget_ms)
    if start is None:
        least = table((narrowest,) * len(parts))
        raise ConfigError(f"--budget-ms {settings.budget_ms:g}: even width {narrowest} takes {least:.1f} ms here")
    bench = Bench(slimmable, parts, train, val, settings)

    def score(plan: Plan) -> float:
        ap = rows.kept("trial-" + "-".join(f"{width:g}" for width in plan), lambda: bench.ap(plan))
        if progress:
            progress("trying plans", len(list((run / ROWS).glob("trial-*"))), settings.trials)
        return ap

    budget = {"narrowest": narrowest, "budget_ms": settings.budget_ms}
    trials = evolve(start, table, score, trials=settings.trials, seed=settings.seed, **budget)
    best, equal, gain = _compared(trials[0].plan, start, bench, watch, table, rows)
    target = run / "model" if described.name == "bundled" else described.folder
    width = _write(model, target, best, bench, settings)
    in_ladder = _into_ladder(target, width, best, bench, settings)
    return Search(run, target, width, parts, best, equal, gain, trials, len(val), in_ladder)


def _data(file: str | Path) -> tuple[CocoDataset, CocoDataset]:
    config = read_data_config(file)
    if config.train is None or config.val is None:
        missing = "train:" if config.train is None else "val:"
        raise DataError(f"{file} has no '{missing}': statistics are of train images, accuracy of val images")
    train = CocoDataset(config.train.annotations, config.train.images, train=True)
    val = CocoDataset(config.val.annotations, config.val.images)
    if not (len(train) and val.coco["annotations"]):
        raise DataError(f"{file} has no images to train on, or no objects to be found in val")
    return train, val


def _fingerprint(dataset: CocoDataset) -> str:
    return fingerprint(dataset.annotations, dataset.folder, [one["file_name"] for one in dataset.coco["images"]])


def _table(
    model: Slimmable, parts: Sequence[Sequence[str]], watch: Stopwatch, rows: Rows, progress: Told | None
) -> LatencyTable:
    """Measure what each stage takes when it alone is narrow, and what equal widths take."""
    equal = [width for width in model.widths if width < 1 and width not in model.plans]
    least = min(equal, default=TABLE_WIDTHS[0])
    widths = sorted({least, *(one for one in TABLE_WIDTHS if one > least)})
    whole = dict.fromkeys((name for names in parts for name in names), 1.0)
    plans = [whole | dict.fromkeys(names, width) for names in [*parts, whole] for width in widths]
    full = float(rows.kept("full", watch.full_ms))
    less = np.array(rows.kept("table", lambda: watch.times_less(plans, progress))).reshape(-1, len(widths))
    *alone, together = [dict(zip(widths, full * row, strict=True)) for row in less]
    return LatencyTable(full, alone, {**together, 1.0: full})


def _compared(
    plan: Plan, start: Plan, bench: Bench, watch: Stopwatch, table: LatencyTable, rows: Rows
) -> tuple[Found, Found, tuple[float, float, float]]:
    """The best plan and equal widths on all of val, and timed; the gain with its interval."""
    plans = {"best": plan, "equal": start}
    less = rows.kept("last", lambda: watch.times_less([bench.names(one) for one in plans.values()]))
    full = float(rows.kept("full", watch.full_ms))
    matches = {name: bench.matches(one) for name, one in plans.items()}
    found = {
        name: Found(bench.names(one), ap_of(matches[name]), table(one), full * part)
        for (name, one), part in zip(plans.items(), less, strict=True)
    }
    drawn = resamples(len(bench.val), RESAMPLES)
    low, high = np.quantile(matches["best"].ap(drawn) - matches["equal"].ap(drawn), SURE)
    return found["best"], found["equal"], (float(low), found["best"].ap - found["equal"].ap, float(high))


def _write(model: str | Path, target: Path, best: Found, bench: Bench, settings: SearchSettings) -> float:
    """Add the plan to the bundle, with its statistics and numbers, and export what was exported; the width it has."""
    said, slimmable, kinds = card.read(model), store.load(model), manifest.read(model).engines
    width = settings.name or _free(slimmable.widths, float(np.mean([*best.plan.values()])))
    slimmable.add(width, best.plan)
    record = bench.calibrate(slimmable, width)
    numbers = next(iter(measure(slimmable, bench.val, [width], "cpu", said.classes))).numbers
    formats = [form for form in get_args(Format) if kinds(form)]
    slimmable.to("cpu")
    said = said.record(store.weights_of(slimmable), {str(width): numbers}, {str(width): record})
    store.save(slimmable, target, said)
    for form in formats:
        export(target, ExportSettings(format=form))
    return width


def _free(widths: Sequence[float], near: float) -> float:
    value = round(min(max(near, 1e-4), 0.9998), 4)
    while value in widths:
        value = round(value - 1e-4, 4)
    return value


def _into_ladder(target: Path, width: float, best: Found, bench: Bench, settings: SearchSettings) -> bool:
    """Put the plan into the bundle's ladder, where it has one and nothing there is as quick and as good."""
    described = manifest.read(target)
    if not described.ladder:
        return False
    runtime = Runtime(target, engine=settings.engine, device=settings.device, threads=settings.threads)
    point = replace(runtime.complete(Point(width)), precision="fp32")
    machine = machine_key(runtime.engine, settings.threads)
    known = described.latencies.get(machine)
    medians = known.medians if known else {}
    if any(medians.get(rung.point, np.inf) <= best.ms and rung.ap >= best.ap for rung in described.ladder):
        return False
    weights = card.digests(described.weights(), described.widths)[str(width)]
    metrics = described.metrics[str(width)]["bbox"]
    macs = point_macs(store.load(target), [point])[point]
    rung = Rung(point, metrics, len(bench.val), bench.val.annotations.stem, weights, macs)
    ladder = sorted([*described.ladder, rung], key=lambda one: one.ap)
    timings = (*(known.points if known else ()), Timing(point, best.ms, best.ms, settings.repeats))
    engine = runtime.engine
    latencies = Latencies(engine.name, engine.device, settings.threads, versions(engine), str(date.today()), timings)
    card.write_ladder(target, ladder, machine, latencies)
    return True
