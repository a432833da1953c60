"""The verbs of operating points: which are worth having, and what they are worth here."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from slimdet.benchmarking.settings import SCENARIOS, BenchmarkSettings
from slimdet.cli import points_views, views
from slimdet.cli.command import Outcome
from slimdet.cli.flags import (
    AnyPrecision,
    Count,
    Counts,
    Engine,
    EngineByRule,
    EngineDevice,
    Existing,
    Model,
    Natural,
    Positive,
    SomeWidths,
    Threads,
    Width,
    WidthsOrAll,
    some_of,
)
from slimdet.errors import ConfigError
from slimdet.search.settings import SearchSettings, TuneSettings


def tune(
    *,
    model: Model,
    data: Annotated[Existing, "DATA.yaml or folder, whose val: is taken"],
    budget_ms: Annotated[
        Positive | None, "milliseconds for an image: tells the one point to use"
    ] = TuneSettings.budget_ms,
    widths: Annotated[WidthsOrAll, "as 0.25,0.5, or all (default: all)"] = TuneSettings.widths,
    imgsz: Annotated[
        Counts | None, "shorter sides in pixels, as 96,128,186 (default: about five from half of the model's)"
    ] = TuneSettings.imgsz,
    proposals: Annotated[
        Counts | None, "numbers of boxes that the second stage looks at (default: 20,50,150,300 and the model's)"
    ] = TuneSettings.proposals,
    images: Annotated[Count | None, "of val, drawn at random (default: all)"] = TuneSettings.images,
    engine: EngineByRule = TuneSettings.engine,
    device: EngineDevice = TuneSettings.device,
    threads: Threads = TuneSettings.threads,
    repeats: Annotated[Count, "timed runs of each point that stays to the end"] = TuneSettings.repeats,
    seed: Annotated[Natural, "of the order of the images and of the resamples"] = TuneSettings.seed,
    out: Annotated[Path | None, "folder (default runs/tune-N)"] = None,
    resume: Annotated[Existing | None, "folder of a run that was stopped, to go on with"] = None,
) -> Outcome:
    """Measure which widths, image sizes, proposals and precisions are worth having, and write them into the bundle.

    Example:
        slimdet tune --model runs/train-1/model --data data.yaml --budget-ms 20
    """
    from slimdet.search.tuning import tune

    if resume and out is not None:
        raise ConfigError(f"--resume {resume} goes on in its own folder; leave out --out {out}")
    how = TuneSettings(engine, device, threads, widths, imgsz, proposals, images, repeats, budget_ms, seed)
    with views.bars() as progress:
        result = tune(model, data, how, out=out, resume=resume, progress=progress)
    return Outcome(points_views.tuning_document(result), points_views.tuning(result))


def search(
    *,
    model: Model,
    data: Annotated[Existing, "DATA.yaml or folder: statistics of its train: images, accuracy on its val:"],
    budget_ms: Annotated[Positive, "milliseconds for an image"],
    trials: Annotated[Count, "plans that are tried"] = SearchSettings.trials,
    images: Annotated[Count, "of val, drawn at random, that each is tried on"] = SearchSettings.images,
    statistics: Annotated[Count, "training images for each plan's statistics"] = SearchSettings.statistics,
    engine: EngineByRule = SearchSettings.engine,
    device: EngineDevice = SearchSettings.device,
    threads: Threads = SearchSettings.threads,
    repeats: Annotated[Count, "timed runs of each plan"] = SearchSettings.repeats,
    name: Annotated[Width | None, "number of the plan as a width (default: the mean of its stages)"] = None,
    seed: Annotated[Natural, "of the choice of images, and of what the search draws"] = SearchSettings.seed,
    out: Annotated[Path | None, "folder (default runs/search-N)"] = None,
    resume: Annotated[Existing | None, "folder of a run that was stopped, to go on with"] = None,
) -> Outcome:
    """Find the widths of the detector's stages that find most in so many milliseconds, and write them into the bundle.

    The model should have been trained with 'slimdet train --widths 0.25-1.0 --width-sampling stages'.

    Example:
        slimdet search --model runs/train-1/model --data data.yaml --budget-ms 15
    """
    from slimdet.search.searching import search

    if resume and out is not None:
        raise ConfigError(f"--resume {resume} goes on in its own folder; leave out --out {out}")
    how = SearchSettings(budget_ms, engine, device, threads, trials, images, statistics, repeats, name, seed)
    with views.bars() as progress:
        result = search(model, data, how, out=out, resume=resume, progress=progress)
    return Outcome(result, points_views.search(result))


def benchmark(
    *,
    model: Model,
    data: Annotated[Existing | None, "DATA.yaml, whose val: AP is measured on (default: latency only)"] = None,
    contract: Annotated[
        str | None, "what one point is to keep, as 'ap>=0.30,p90_ms<=40'; exit code 1 where none does"
    ] = BenchmarkSettings.contract,
    scenario: Annotated[
        tuple, some_of(*SCENARIOS), f"how images come, one or several of {', '.join(SCENARIOS)}"
    ] = BenchmarkSettings.scenario,
    rate: Annotated[Positive | None, "images in a second that arrive at a server"] = BenchmarkSettings.rate,
    widths: Annotated[SomeWidths | None, "as 0.25,0.5 (default: the ladder, or all)"] = BenchmarkSettings.widths,
    imgsz: Annotated[
        Counts | None, "shorter sides in pixels, as 96,186 (default: the model's)"
    ] = BenchmarkSettings.imgsz,
    proposals: Annotated[
        Counts | None, "numbers of boxes that the second stage looks at (default: the model's)"
    ] = BenchmarkSettings.proposals,
    precision: AnyPrecision = BenchmarkSettings.precision,
    images: Annotated[Count | None, "of val, drawn at random (default: all)"] = BenchmarkSettings.images,
    engine: Engine = BenchmarkSettings.engine,
    device: EngineDevice = BenchmarkSettings.device,
    threads: Threads = BenchmarkSettings.threads,
    repeats: Annotated[Count, "timed images of each point"] = BenchmarkSettings.repeats,
    seed: Annotated[Natural, "of the order of the images and of their arrivals"] = BenchmarkSettings.seed,
    out: Annotated[Path | None, "folder (default runs/benchmark-N)"] = None,
    resume: Annotated[Existing | None, "folder of a run that was stopped, to go on with"] = None,
) -> Outcome:
    """Accuracy, latency and memory of operating points on your data and machine: a table, and a page to show.

    Example:
        slimdet benchmark --model bundled --data data.yaml --contract "ap>=0.30,p90_ms<=40"
    """
    fields = {name: value for name, value in locals().items() if name not in ("model", "data", "out", "resume")}
    from slimdet.benchmarking.benchmark import benchmark

    if resume and out is not None:
        raise ConfigError(f"--resume {resume} goes on in its own folder; leave out --out {out}")
    how = BenchmarkSettings(**fields)
    with views.bars() if data else nullcontext() as progress:  # without data no rich is needed
        result = benchmark(model, data, how, out=out, resume=resume, progress=progress)
    return Outcome(result.document, points_views.benchmark(result), unkept=points_views.unkept(result))
