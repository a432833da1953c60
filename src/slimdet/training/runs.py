"""A training from settings and data to a bundle, in a folder of its own; what was interrupted goes on there."""

import copy
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from slimdet.bundle import card, store
from slimdet.core.slimmable import Slimmable
from slimdet.data.check import image_faults
from slimdet.data.coco import CocoDataset
from slimdet.data.own import OwnDataset
from slimdet.data.transforms import ShrinkInto, augmentation
from slimdet.errors import ConfigError, DataError, SlimdetError
from slimdet.evaluation.inference import check_classes
from slimdet.files import new_run_dir
from slimdet.messages import first_line, listed, printable, with_fields
from slimdet.models.image_size import check_image_sizes, set_image_size
from slimdet.training.own import Own, datasets, fingerprint_of, own_model
from slimdet.training.processes.distributed import Place, find_restarts, joined
from slimdet.training.processes.sharing import validate_shares
from slimdet.training.recipes import BUILT, by_recipe, task_of
from slimdet.training.safety.bundles import BEST, MODEL, keep
from slimdet.training.safety.checkpoint import CHECKPOINT, read_checkpoint
from slimdet.training.safety.failures import way_on
from slimdet.training.safety.lock import run_lock
from slimdet.training.settings import RecipeName, TrainSettings, write_settings
from slimdet.training.start import resolved, starting_model, starting_teacher
from slimdet.training.statistics import calibration_batches, collect_statistics
from slimdet.training.trainer import Trainer
from slimdet.training.watching.callbacks import Callback, as_callback
from slimdet.training.watching.usual import watchers

SORTING_IMAGES = 64  # enough for an order of channels
CHECKED_PIXELS = 2e9  # of all images together: half a minute of decoding, some thousand photographs of the usual size
# What a resumed run may have otherwise than before; the data set may be at another place, `epochs` more.
FREE = (
    "data",
    "epochs",
    "device",
    "workers",
    "threads",
    "compile",
    "checkpoint_activations",
    "save_every",
    "evaluate",
    "val_every",
    "val_widths",
    "patience",
    "check",
)

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Training:
    """What a training made: its folder, the bundle in it, steps done, the numbers of every width.

    `widths` is {"0.25": {"bbox": {"AP": ...}}}; empty where nothing was measured.
    """

    run: Path
    model: Path
    steps: int
    widths: dict[str, Any]


def train(
    settings: TrainSettings | None = None,
    *,
    recipe: RecipeName | None = None,
    out: str | Path | None = None,
    own: Own | None = None,
    callbacks: Sequence[Callback] = (),
    **fields: Any,
) -> Training:
    """Train a model and write `runs/train-N`: settings, metrics, checkpoint and the bundle `model`.

        slimdet.train(data="data.yaml")
        slimdet.train(data="data.yaml", recipe="fast", widths=(0.5, 1.0))

    Args:
        settings: what to train and how, to the last value; without them the recipe decides what `fields` do not.
        recipe: "default", "paper" or "fast" (`slimdet.training.recipes`); None is "default".
        out: the folder, in place of the next free `runs/train-N`.
        own: data sets and a detector of one's own, in place of `data`, `model` and what goes with it.
        callbacks: are told of every step, epoch, validation and checkpoint; one that is a
            `slimdet.training.watching.progress.Lines` takes the place of the lines on stderr.
        fields: fields of `TrainSettings`, in place of those that `settings` or the recipe has.

    Raises:
        SlimdetError: settings, data or weights that cannot be used, and nothing is written then; a loss that is not
            finite, memory that does not suffice, an image that cannot be read.
        Stopped: Ctrl-C or SIGTERM. The run can be gone on with, as after all errors of the training itself.
        OSError: the disk is full.
    """
    if settings is not None and recipe is not None:
        raise ConfigError(f"recipe {recipe}: it decides what is not given, and settings are given whole; leave one out")
    whole = settings is not None
    asked = settings or TrainSettings(distill=2.0)  # what the recipe decides has no part in a mistake
    settings, own = _absolute(with_fields(asked, fields)), own or Own()
    callbacks = [as_callback(one) for one in callbacks]
    with joined() as place:
        restarts = find_restarts()
        if restarts.allowed and out is None:
            raise ConfigError("--out is missing: a training that torchrun starts again finds by it where it was")
        if restarts.done and out and place.first((Path(out) / CHECKPOINT).is_file()):
            if place.main:
                _check_own(Path(out), settings, fields)
            return _resume(Path(out), place, own, callbacks, {})
        data = datasets(settings, own)
        if not whole:
            task = task_of(settings, own, data[0], place.world)
            settings = place.first(_absolute(by_recipe(recipe or "default", task, fields)))
        trainer = _prepare(settings, data, place, own)
        folder = None
        if place.main:
            folder = Path(out) if restarts.done and out else new_run_dir("train", out)
        folder = cast(Path, place.first(folder))
        with _locked(folder, place):
            return _run(trainer, folder, callbacks)


def resume(
    folder: str | Path, *, own: Own | None = None, callbacks: Sequence[Callback] = (), **changes: Any
) -> Training:
    """Go on with a run in its folder, with its settings; of a finished one, the end is done again.

    On a CPU the result is that of the run that was not interrupted, to the last bit.

    Args:
        folder: the run's.
        own, callbacks: as `train` was given them.
        changes: settings (`FREE`) to be otherwise. With more `epochs` the run is lengthened: from here on the learning
            rate, and what else follows the length of a training, are those of a training that had them from its start.

    Raises:
        ConfigError: the folder holds no run that was interrupted, another process trains in it, or a setting cannot be
            changed any more.
        DataError: the data is not that of the run.
        others: as `train`.
    """
    with joined() as place:
        return _resume(Path(folder), place, own or Own(), [as_callback(one) for one in callbacks], changes)


def _resume(folder: Path, place: Place, own: Own, callbacks: Sequence[Callback], changes: dict[str, Any]) -> Training:
    file = folder / CHECKPOINT
    if place.main and not file.is_file():
        raise ConfigError(f"--resume {folder}: there is no {CHECKPOINT} of a training in it")
    with _locked(folder, place):
        state = read_checkpoint(file) if place.main else {}
        settings = place.first(_continued(folder, state, changes) if place.main else TrainSettings())
        trainer = _prepare(settings, datasets(settings, own), place, own, start=False)
        if place.main and state["data"] != trainer.fingerprint:
            raise DataError(
                f"--resume {folder}: {settings.data} is not the data of this run any more (other annotations, or files "
                f"of other sizes); put it back, or start a new run on it with --weights {folder / 'model'}"
            )
        if place.main and state.get("val", trainer.val_fingerprint) != trainer.val_fingerprint:
            raise DataError(
                f"--resume {folder}: the val part of {settings.data} is not that of this run any more, and its numbers "
                f"would not compare; put it back, or start a new run with --weights {folder / 'model'}"
            )
        trainer.load(file)
        if place.first(bool(state) and settings.epochs != state["settings"]["epochs"]):
            trainer.stop = ""  # it is lengthened
        return _run(trainer, folder, callbacks)


def _check_own(folder: Path, settings: TrainSettings, fields: dict[str, Any]) -> None:
    """Make sure that a training that torchrun starts again is the one in its folder, and not an older one.

    Raises:
        ConfigError: it was started with other settings.
    """
    before = read_checkpoint(folder / CHECKPOINT)["settings"]
    own = (*BUILT, "freeze_backbone_norm")  # what a bundle has, whatever was asked for
    named = [name for name, value in fields.items() if value is not None and name not in own]
    if other := [name for name in named if _as_plain(getattr(settings, name)) != _as_plain(before.get(name))]:
        flags = listed([f"--{name.replace('_', '-')}" for name in other])
        raise ConfigError(f"--out {folder} holds another training (with another {flags}); give a new folder")


def _as_plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _continued(folder: Path, state: dict[str, Any], changes: dict[str, Any]) -> TrainSettings:
    """The settings of an interrupted run, with the changes that it may have."""
    try:
        before = TrainSettings(**state["settings"])
    except TypeError as error:
        raise ConfigError(f"--resume {folder}: it was trained by another slimdet ({first_line(error)})") from error
    after = _absolute(with_fields(before, changes))
    differing = [name for name in vars(before) if name not in FREE and _differ(before, after, name)]
    if differing:
        named = [name for name in changes if name in differing] or [name for name in changes if name not in FREE]
        fixed = [f"--{name.replace('_', '-')}" for name in named]
        raise ConfigError(
            f"--resume {folder} goes on with the settings of the run: leave out {listed(fixed)}, or start a new run "
            f"with --weights {folder / 'model'}"
        )
    done = (state["epoch"], state["batch"])
    if after.epochs != before.epochs:
        if after.epochs < before.epochs:
            raise ConfigError(f"--epochs {after.epochs:g} is less than the {before.epochs:g} of {folder}")
        text = "%s goes on at step %d (epoch %d, batch %d) with %g epochs in place of %g, at their learning rate"
        logger.info(text, folder, state["step"], *done, after.epochs, before.epochs)
    return after


def _differ(one: TrainSettings, other: TrainSettings, name: str) -> bool:
    return getattr(one, name) != getattr(other, name)


def _absolute(settings: TrainSettings) -> TrainSettings:
    """The settings with paths that mean the same in every folder."""
    weights = Path(settings.weights)
    return replace(
        settings,
        data=str(Path(settings.data).absolute()) if settings.data else "",
        weights=str(weights.absolute()) if weights.exists() and settings.weights != "bundled" else settings.weights,
    )


def _locked(folder: Path, place: Place) -> AbstractContextManager[None]:
    return run_lock(folder) if place.main else nullcontext()


def _prepare(settings: TrainSettings, data: tuple[Any, Any], place: Place, own: Own, start: bool = True) -> Trainer:
    torch.manual_seed(settings.seed)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    dataset, val = data
    if val is not None:
        check_classes(dataset.classes, val)
    parts = [part for part in (dataset, val) if isinstance(part, CocoDataset)]
    if start and settings.check and place.main:
        _check_images(parts)
    if own.detector is not None:
        model = own_model(settings, own.detector, len(dataset.classes))
    else:
        model = _model(settings, dataset, start and place.main)  # the others get rank 0's weights
    check_image_sizes(model, *parts)
    sides: Any = model.twin(1.0).transform
    # What the detector would do at each width is done once, where images are loaded.
    dataset.transforms, dataset.shrink = augmentation(settings.augment), ShrinkInto(sides.min_size[-1], sides.max_size)
    teacher = starting_teacher(settings, dataset.classes) if settings.teacher == "start" else None
    trainer = Trainer(model, dataset, resolved(settings, model), teacher, place)
    trainer.val, trainer.fingerprint = val, fingerprint_of(dataset)
    trainer.val_fingerprint = fingerprint_of(val) if isinstance(val, CocoDataset | OwnDataset) else ""
    if settings.patience and val is None:
        raise DataError(f"--patience {settings.patience}: {settings.data or 'the data'} has no val: to measure on")
    return trainer


def _check_images(datasets: Sequence[CocoDataset]) -> None:
    """Name all images that cannot be used, before a long run meets the first of them."""
    pixels = sum(record["width"] * record["height"] for part in datasets for record in part.coco["images"])
    if pixels > CHECKED_PIXELS:
        logger.info("the images are too many to decode them all now; 'slimdet check' does")
        return
    faults = {fault.file: fault.reason for part in datasets for fault in image_faults(part.coco, part.folder)}
    if faults:
        shown = [f"{file}: {reason}" for file, reason in faults.items()]
        raise DataError(
            f"{len(faults)} images cannot be used: {listed(shown, 20)}; repair them or take them out of the "
            "annotations, or train until the first is met with --no-check"
        )


def _model(settings: TrainSettings, dataset: Any, start: bool) -> Slimmable:
    sample = (dataset[index][0] for index in range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES)))
    return starting_model(settings, dataset.classes, sample if settings.sort else None, blank=not start)


def _run(trainer: Trainer, folder: Path, callbacks: Sequence[Callback]) -> Training:
    main = trainer.place.main
    if main:
        write_settings(folder, trainer.settings)
    try:
        trainer.run(folder, watchers(trainer, callbacks) if main else ())
        result = _finish(trainer)
    except OSError:
        if main and trainer.step == trainer.total:  # no room for the checkpoint, but the bundle is a third of it
            with suppress(OSError):
                print(f"trained to the end: {keep(trainer, MODEL)}", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        if main and (folder / CHECKPOINT).is_file():
            print(printable(f"saved at step {trainer.saved}; go on with: {way_on(trainer)}"), file=sys.stderr)
        raise
    for callback in trainer.callbacks:
        callback.on_end(trainer, result.model)
    return result


def _finish(trainer: Trainer) -> Training:
    """Write the bundle, before anything that can fail, and again with what is found out about it."""
    settings, place, val = trainer.settings, trainer.place, trainer.val
    if trainer.stop:
        logger.info("ended at step %d: %s", trainer.step, trainer.stop)
    if settings.sizes:
        set_image_size(trainer.result, settings.sizes[-1])
    kept = trainer.result.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    metrics: dict[str, Any] = {}
    calibrations: dict[str, Any] = {}
    path = keep(trainer, MODEL)
    try:
        if settings.statistics_images:
            calibrations = recalibrate(kept, trainer)
            keep(trainer, MODEL, metrics, calibrations)
        if settings.evaluate and val is not None:
            metrics = validate_shares(kept, val, trainer.dataset.classes, trainer.device, place)
            keep(trainer, MODEL, metrics, calibrations)
        if settings.statistics_images:
            _finish_best(trainer)
    except (SlimdetError, OSError, RuntimeError, MemoryError) as error:
        text = "%s is trained and whole, but what follows a training failed: %s; do it again with: %s"
        logger.warning(text, path, first_line(error), way_on(trainer))
    return Training(trainer.folder, path, trainer.step, metrics)


def _finish_best(trainer: Trainer) -> None:
    """Give the best bundle, if there is one, what the last one got: statistics of its weights, all numbers."""
    path, place = trainer.folder / BEST, trainer.place
    if not place.first(path.is_dir()):
        return
    model = copy.deepcopy(trainer.result)
    if place.main:
        model.load_state_dict(store.load(path).state_dict())
    place.copy_first(model)
    calibrations = recalibrate(model, trainer)
    metrics = validate_shares(model, trainer.val, trainer.dataset.classes, trainer.device, place)
    if place.main:
        store.save(model, path, card.read(path).record(store.weights_of(model), metrics, calibrations))


def recalibrate(model: Slimmable, trainer: Trainer) -> dict[str, Any]:
    """Give every width of a trained model the statistics of the finished weights, from the training images.

    Returns:
        How, by width, as a card holds it.
    """
    settings, data = trainer.settings, trainer.dataset.unaugmented()
    batches = calibration_batches(data, settings.statistics_images, settings.batch, settings.seed, trainer.device)
    used = collect_statistics(model, model.widths, batches, settings.sizes)
    record = {"images": used, "batch": settings.batch, "seed": settings.seed}
    return {str(width): record for width in model.widths}
