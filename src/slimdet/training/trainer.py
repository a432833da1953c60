"""Training: from settings and data to a bundle, in the folder of a run that can be interrupted and gone on with."""

import copy
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from slimdet.bundle import store
from slimdet.bundle.card import Card
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.loader import check_shared, loader
from slimdet.data.transforms import ShrinkInto, augmentation
from slimdet.devices import choose_device
from slimdet.errors import ConfigError, DataError, WidthError
from slimdet.evaluation.inference import check_classes
from slimdet.files import new_run_dir
from slimdet.messages import with_fields
from slimdet.models.image_size import check_image_sizes, resize_shorter_side, set_image_size
from slimdet.models.kinds import kind_of
from slimdet.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from slimdet.training.distributed import Place, find_restarts, joined, reduce_step, running_statistics
from slimdet.training.log import SETTINGS, RunLog
from slimdet.training.settings import REDUCTIONS, TrainSettings, learning_rate, sampled_sizes, sampled_widths
from slimdet.training.sharing import Share, validate_shares
from slimdet.training.start import starting_model
from slimdet.training.statistics import calibration_batches, collect_statistics
from slimdet.training.step import accumulate_gradients, average, divide_by_users
from slimdet.widths import widths_between

SORTING_IMAGES = 64  # enough for an order of channels


class Trainer:
    """A model, its optimizer and its place in the schedule; what a checkpoint holds."""

    def __init__(
        self,
        model: Slimmable,
        dataset: CocoDataset,
        settings: TrainSettings,
        teacher: nn.Module | None = None,
        place: Place | None = None,
    ) -> None:
        self.model, self.dataset, self.settings, self.teacher = model, dataset, settings, teacher
        self.place = place or Place()
        check_shared(settings.batch, self.place.world)
        self.device = choose_device(settings.device)
        model.to(self.device).train()
        if self.device.type == "cpu":
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.place.copy_first(model)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.SGD(
            trainable, lr=settings.peak_lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        self.average = copy.deepcopy(model) if settings.ema else None
        self.between = _fitting(model) if settings.width_sampling == "range" else []
        self.step = 0
        self.steps_per_epoch = math.ceil(len(dataset) / settings.batch)
        self.total = max(1, round(self.steps_per_epoch * settings.epochs))

    @property
    def result(self) -> Slimmable:
        """The model to keep: the average where there is one."""
        return self.average if self.average is not None else self.model

    def run(self, checkpoint: Path, log: RunLog | None) -> None:
        """Train to the end of the schedule; write a checkpoint every `save_every` seconds, at the end and on Ctrl-C.

        Only rank 0 writes it: after each step all processes hold the same.

        Raises:
            DataError: a gradient is not finite; the last checkpoint stays as it is.
        """
        saved = time.monotonic()
        try:
            for images, targets in self._batches():
                self._train_step(images, targets, log)
                if time.monotonic() - saved >= self.settings.save_every:
                    self.save(checkpoint)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            self.save(checkpoint)
            raise
        self.save(checkpoint)

    def _train_step(self, images: list[Tensor], targets: list[dict[str, Tensor]], log: RunLog | None) -> None:
        settings = self.settings
        lr = learning_rate(settings, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        draw = random.Random(settings.seed * 1_000_003 + self.step)  # the same widths after a resume
        widths = sampled_widths(settings.widths, settings.width_sampling, draw, self.between)
        alone = round(settings.widest_only * self.total)
        if self.step < alone:
            widths = widths[:1]
        for width, size in zip(widths, sampled_sizes(settings, widths, draw), strict=bool(settings.sizes)):
            resize_shorter_side(self.model.twin(width), size)
        ramp = min(1.0, 4 * (self.step - alone) / self.total)  # an early teacher knows nothing yet
        taught = replace(settings, distill=ramp * settings.distill)
        share = Share(self.place, self._images_of(self.step), settings.seed, self.step)
        self.optimizer.zero_grad()
        losses = accumulate_gradients(self.model, images, targets, widths, taught, self.teacher, share)
        parameters = self.optimizer.param_groups[0]["params"]
        numbers = [value for parts in losses.values() for value in parts.values()]
        reduce_step(self.place, parameters, running_statistics(self.model), share.weight, numbers)
        if power := REDUCTIONS[settings.gradient_reduction]:
            divide_by_users(self.model, widths, power)
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
        if not torch.isfinite(norm):
            raise DataError(f"the gradient is {norm.item()} at step {self.step}: lower --lr (now {settings.peak_lr:g})")
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            decay = min(settings.ema, (1 + self.step) / (10 + self.step))  # young averages forget their start
            average(self.average, self.model, decay)
        if log:
            log.step(self.step, self.total, self.step / self.steps_per_epoch, lr, float(norm), share.images, losses)

    def _images_of(self, step: int) -> int:
        """The images of a step, of all processes: fewer than a batch at the end of an epoch."""
        return min(self.settings.batch, len(self.dataset) - step % self.steps_per_epoch * self.settings.batch)

    def _batches(self) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
        while self.step < self.total:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            data = loader(
                self.dataset,
                batch=self.settings.batch,
                shuffle=True,
                seed=self.settings.seed,
                workers=self.settings.workers,
                epoch=epoch,
                share=(self.place.rank, self.place.world),
            )
            for images, targets in itertools.islice(data, done, None):  # a resumed epoch goes on where it stopped
                if self.step >= self.total:
                    return
                yield (
                    [image.to(self.device, non_blocking=True) for image in images],
                    [{k: v.to(self.device) for k, v in t.items() if isinstance(v, Tensor)} for t in targets],
                )

    def save(self, file: Path) -> None:
        """Write the checkpoint, whole or not at all, in rank 0."""
        if self.place.main:
            save_checkpoint(file, self.model, self.average, self.optimizer, self.step)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint, which rank 0 alone reads.

        Raises:
            ConfigError: the file is damaged or of another training.
        """
        if self.place.main:
            self.step = load_checkpoint(file, self.model, self.average, self.optimizer, self.device)
        self.step, optimizer = self.place.first((self.step, self.optimizer.state_dict()))
        if not self.place.main:
            self.optimizer.load_state_dict(optimizer)
        for module in filter(None, (self.model, self.average)):
            self.place.copy_first(module)


def _fitting(model: Slimmable) -> list[float]:
    """The widths between the narrowest and 1.0 that the detector can have: norms in groups leave some out."""
    fitting = []
    for width in widths_between(model.widths[0]):
        with suppress(WidthError):
            model.twin(width)
            fitting.append(width)
    return fitting


@dataclass(frozen=True)
class Training:
    """What a training made: its folder, the bundle in it, steps done, the numbers of every width.

    `widths` is {"0.25": {"bbox": {"AP": ...}}}; empty where nothing was measured.
    """

    run: Path
    model: Path
    steps: int
    widths: dict[str, Any]


def train(settings: TrainSettings | None = None, *, out: str | Path | None = None, **fields: Any) -> Training:
    """Train a model and write `runs/train-N`: settings, metrics, checkpoint and the bundle `model`.

        slimdet.train(data="data.yaml", backbone="mobilenet_v2", neck="light", epochs=3)

    Args:
        settings: what to train and how; the default is `TrainSettings()`.
        out: the folder, in place of the next free `runs/train-N`.
        fields: fields of `TrainSettings`, in place of those that `settings` has.

    Raises:
        SlimdetError: settings, data or weights that cannot be used; nothing is written then.
    """
    settings = with_fields(settings or TrainSettings(), fields)
    with joined() as place:
        restarts = find_restarts()
        if restarts.allowed and out is None:
            raise ConfigError("--out is missing: a training that torchrun starts again finds by it where it was")
        if restarts.done and out and place.first((Path(out) / CHECKPOINT).is_file()):
            return _resume(Path(out), place)
        trainer, val = _prepare(settings, place)
        folder = None
        if place.main:
            folder = Path(out) if restarts.done and out else new_run_dir("train", out)
        return _run(trainer, val, cast(Path, place.first(folder)))


def resume(folder: str | Path) -> Training:
    """Go on with an interrupted run, in its folder and with its settings.

    Raises:
        ConfigError: the folder holds no interrupted run.
    """
    with joined() as place:
        return _resume(Path(folder), place)


def _resume(folder: Path, place: Place) -> Training:
    trainer, val = _prepare(place.first(_stored(folder) if place.main else TrainSettings()), place, start=False)
    trainer.load(folder / CHECKPOINT)
    return _run(trainer, val, folder)


def _stored(folder: Path) -> TrainSettings:
    """The settings of an interrupted run."""
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings = TrainSettings(**{name: value for name, value in stored.items() if name != "slimdet"})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--resume {folder}: no {SETTINGS} of a training run ({error})") from error
    if not (folder / CHECKPOINT).is_file():
        raise ConfigError(f"--resume {folder}: there is no {CHECKPOINT}; the run stopped before its first one")
    return settings


def _prepare(settings: TrainSettings, place: Place, start: bool = True) -> tuple[Trainer, CocoDataset | None]:
    if not settings.data:
        raise ConfigError("--data DATA.yaml is missing: it names the images and annotations to train on")
    torch.manual_seed(settings.seed)
    data = read_data_config(settings.data)
    if data.train is None:
        raise DataError(f"{settings.data} has no 'train:'")
    masks = kind_of({"builder": settings.model}).masks
    dataset = CocoDataset(data.train.annotations, data.train.images, masks=masks, train=True)
    if not len(dataset):
        raise DataError(f"{data.train.annotations} has no images to train on")
    val = CocoDataset(data.val.annotations, data.val.images, masks=masks) if data.val else None
    if val is not None:
        check_classes(dataset.classes, val)
    model = _model(settings, dataset, start and place.main)  # the others get rank 0's weights
    check_image_sizes(model, *(part for part in (dataset, val) if part is not None))
    sides: Any = model.twin(1.0).transform
    # What the detector would do at each width is done once, where images are loaded.
    dataset.transforms = v2.Compose([augmentation(settings.augment), ShrinkInto(sides.min_size[-1], sides.max_size)])
    return Trainer(model, dataset, settings, place=place), val


def _model(settings: TrainSettings, dataset: CocoDataset, start: bool) -> Slimmable:
    sample = (dataset[index][0] for index in range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES)))
    return starting_model(settings, dataset.classes, sample if settings.sort else None, blank=not start)


def _run(trainer: Trainer, val: CocoDataset | None, folder: Path) -> Training:
    settings, place = trainer.settings, trainer.place
    try:
        with RunLog(folder, asdict(settings)) if place.main else nullcontext() as log:
            trainer.run(folder / CHECKPOINT, log)
    except KeyboardInterrupt:
        if place.main:
            print(f"saved at step {trainer.step}; go on with: slimdet train --resume {folder}", file=sys.stderr)
        raise
    if settings.sizes:
        set_image_size(trainer.result, settings.sizes[-1])
    kept = trainer.result.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    calibrations = recalibrate(kept, trainer) if settings.statistics_images else {}
    metrics: dict[str, Any] = {}
    if settings.evaluate and val is not None:
        metrics = validate_shares(kept, val, trainer.dataset.classes, trainer.device, place)
    card = Card(trainer.dataset.classes, trainer.dataset.category_ids, asdict(settings) | {"steps": trainer.step})
    path = folder / "model"
    if place.main:
        store.save(kept, path, card.record(store.weights_of(kept), metrics, calibrations))
    return Training(folder, path, trainer.step, metrics)


def recalibrate(model: Slimmable, trainer: Trainer) -> dict[str, Any]:
    """Give every width of a trained model the statistics of the finished weights, from the training images.

    Returns:
        How, by width, as a card holds it.
    """
    settings, data = trainer.settings, trainer.dataset.unaugmented()
    batches = calibration_batches(data, settings.statistics_images, settings.batch, settings.seed, trainer.device)
    for width in model.widths:
        collect_statistics(model, width, batches, settings.sizes)
    record = {"images": sum(len(images) for images, _ in batches), "batch": settings.batch, "seed": settings.seed}
    return {str(width): record for width in model.widths}
