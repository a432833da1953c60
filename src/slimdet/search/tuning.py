"""The verb `tune`: a bundle gets its ladder, the operating points that are worth having."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from slimdet.bundle import card, manifest, store
from slimdet.bundle.ladder import Latencies, Point, Rung, Timing, best_within
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_val_split
from slimdet.data.fingerprint import fingerprint
from slimdet.errors import ConfigError
from slimdet.evaluation.points import check_points
from slimdet.files import atomic_folder, new_run_dir
from slimdet.messages import with_fields
from slimdet.models.kinds import require
from slimdet.report.plots import plot_ladder
from slimdet.report.profiling import point_macs
from slimdet.runtime.detector import Runtime
from slimdet.runtime.engine import choose
from slimdet.runtime.machine import machine_key, versions
from slimdet.search.grid import grid
from slimdet.search.race import front
from slimdet.search.rows import Rows
from slimdet.search.settings import TuneSettings
from slimdet.search.trials import Told, Trials

ROWS = "rows"  # the folder of what was measured
FIRST_REPEATS = 8  # timed runs of each point before the race


@dataclass(frozen=True)
class Step:
    """A point with its accuracy and its time, both measured."""

    rung: Rung
    timing: Timing


@dataclass(frozen=True)
class Tuning:
    """What `tune` found and wrote; every number is measured.

    Attributes:
        run: the folder of the rows and the picture.
        model: the bundle that has the ladder.
        machine: what the latencies are true of.
        tried: how many points there were at the start.
        full: the widest point at the largest size, which the others are compared with.
        ladder: cheapest first.
        others: points beside it that were measured on all images too, cheapest first.
        chosen: the step to use for the budget; None where no budget was given.
        fits: whether it keeps the budget; where no step does, the quickest is chosen.
    """

    run: Path
    model: Path
    machine: str
    tried: int
    full: Step
    ladder: list[Step]
    others: list[Step]
    chosen: Step | None
    fits: bool


def tune(
    model: str | Path,
    data: str | Path,
    settings: TuneSettings | None = None,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    progress: Told | None = None,
    **fields: Any,
) -> Tuning:
    """Measure operating points of a bundle on this machine and write those worth having into it, as its ladder.

        slimdet.tune("runs/train-1/model", "data.yaml", budget_ms=20).chosen

    Points are timed first; then they race on ever more images, and those that are surely worse than a quicker one drop
    out. A picture, `ladder.png`, shows the ladder beside what width alone and image size alone give.

    Args:
        model: a bundle's folder, which gets the ladder, or "bundled", of which a copy in the run's folder gets it.
        data: DATA.yaml, whose `val:` is taken.
        settings: what is tried, and how; the default is `TuneSettings()`.
        out: the run's folder, in place of the next free `runs/tune-N`.
        resume: the folder of a run that was stopped, to go on with.
        progress: told how far it is.
        fields: fields of `TuneSettings`, in place of those that `settings` has.

    Raises:
        SlimdetError: a model, point or data set that cannot be used; the bundle stays as it was.
    """
    settings = with_fields(settings or TuneSettings(), fields)
    described, split = manifest.read(model), read_val_split(data)
    require(described.architecture, "validate", str(model))
    engine = choose(settings.engine, described)  # one and its threads: not what measured best, which is by width
    runtime = Runtime(model, engine=engine, device=settings.device, threads=settings.threads)
    dataset = CocoDataset(split.annotations, split.images)
    points = grid(runtime, settings)
    check_points(runtime, dataset, points)
    machine = machine_key(runtime.engine, settings.threads)
    identity = {
        "weights": described.weights_sha256,
        "data": fingerprint(split.annotations, split.images, [one["file_name"] for one in dataset.coco["images"]]),
        "machine": machine,
        "points": [point.entry for point in points],
        "images": settings.images,
        "repeats": settings.repeats,
        "seed": settings.seed,
    }
    if resume and not (Path(resume) / ROWS).is_dir():
        raise ConfigError(f"--resume {resume} is no run of tune; leave it out to start one")
    run = Path(resume) if resume else new_run_dir("tune", out)
    trials = Trials(runtime, dataset, Rows(run / ROWS, identity), settings, progress)
    curves = {"width alone": _alone(points, "width"), "image size alone": _alone(points, "imgsz")}
    first = trials.timings(points, FIRST_REPEATS, "first")
    left = trials.race(points, [one.p50_ms for one in first], [point for line in curves.values() for point in line])
    weights, name = card.digests(described.weights(), described.widths), split.annotations.stem
    macs = point_macs(store.load(model), left)
    steps = {
        one.point: Step(_rung(one.point, trials, name, weights, macs), one)
        for one in trials.timings(left, settings.repeats, "last")
    }
    places = front([step.timing.p50_ms for step in steps.values()], [step.rung.ap for step in steps.values()])
    ladder = [list(steps.values())[place] for place in places]
    target = _write(described, run, machine, ladder, _latencies(runtime, settings, ladder))
    _draw(run, machine, ladder, {name: [steps[point] for point in line] for name, line in curves.items()})
    chosen, fits = None, True
    if settings.budget_ms is not None:
        ms = {step.rung.point: step.timing.p50_ms for step in ladder}
        rung, fits = best_within([step.rung for step in ladder], ms, settings.budget_ms)
        chosen = steps[rung.point]
    others = sorted((s for s in steps.values() if s not in ladder), key=lambda step: step.timing.p50_ms)
    return Tuning(run, target, machine, len(points), steps[_full(points)], ladder, others, chosen, fits)


def _full(points: Sequence[Point]) -> Point:
    """The widest of the points at the largest size with the most proposals, in the finest precision."""
    finest = ("fp32", "bf16", "fp16", "int8")
    best = max(points, key=lambda one: (-finest.index(one.precision or "fp32"), one.width, one.imgsz, one.proposals))
    return best


def _alone(points: Sequence[Point], knob: str) -> list[Point]:
    """The points that differ from the full one by this knob alone."""
    full = _full(points).entry | {knob: None}
    return [point for point in points if point.entry | {knob: None} == full]


def _rung(point: Point, trials: Trials, data: str, weights: Mapping[str, str], macs: Mapping[Point, int]) -> Rung:
    return Rung(point, trials.metrics(point), trials.images, data, weights[str(point.width)], macs[point])


def _latencies(runtime: Runtime, settings: TuneSettings, ladder: Sequence[Step]) -> Latencies:
    engine, today = runtime.engine, str(date.today())
    timings = tuple(step.timing for step in ladder)
    return Latencies(engine.name, engine.device, settings.threads, versions(engine), today, timings)


def _write(described: manifest.Manifest, run: Path, machine: str, ladder: Sequence[Step], latencies: Latencies) -> Path:
    """Write the ladder into the bundle, or into a copy of the bundled one, which belongs to the package."""
    target = described.folder
    if described.name == "bundled":
        target = run / "model"
        with atomic_folder(target) as temporary:
            for file in described.files:
                shutil.copy2(described.folder / file, temporary / file)
    card.write_ladder(target, [step.rung for step in ladder], machine, latencies)
    return target


def _draw(run: Path, machine: str, ladder: Sequence[Step], curves: Mapping[str, Sequence[Step]]) -> None:
    def places(steps: Sequence[Step]) -> list[tuple[float, float]]:
        return [(step.timing.p50_ms, step.rung.ap) for step in steps]

    names = [str(step.rung.point).removesuffix(", fp32") for step in ladder]
    lines = {name: places(steps) for name, steps in curves.items()}
    plot_ladder(dict(zip(names, places(ladder), strict=True)), lines, run / "ladder.png", machine)
