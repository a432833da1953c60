"""Training: from settings and data to a bundle, in the folder of a run that can be interrupted and gone on with."""

import copy
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdet.bundle import store
from slimdet.bundle.card import Card
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.loader import loader, to_device
from slimdet.data.transforms import ShrinkInto, augmentation
from slimdet.devices import choose_device
from slimdet.errors import ConfigError, DataError, WidthError
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.validation import validate
from slimdet.files import new_run_dir
from slimdet.messages import with_fields
from slimdet.models.image_size import check_image_sizes, resize_shorter_side, set_image_size
from slimdet.models.kinds import kind_of
from slimdet.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from slimdet.training.log import SETTINGS, RunLog
from slimdet.training.settings import REDUCTIONS, TrainSettings, learning_rate, sampled_sizes, sampled_widths
from slimdet.training.start import starting_model
from slimdet.training.statistics import calibration_batches, collect_statistics
from slimdet.training.step import accumulate_gradients, average, divide_by_users
from slimdet.widths import widths_between

SORTING_IMAGES = 64  # enough for an order of channels


class Trainer:
    """A model, its optimizer and its place in the schedule; what a checkpoint holds."""

    def __init__(
        self, model: Slimmable, dataset: CocoDataset, settings: TrainSettings, teacher: nn.Module | None = None
    ) -> None:
        self.model, self.dataset, self.settings, self.teacher = model, dataset, settings, teacher
        self.device = choose_device(settings.device)
        model.to(self.device).train()
        if self.device.type == "cpu":
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
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

    def run(self, checkpoint: Path, log: RunLog) -> None:
        """Train to the end of the schedule; write a checkpoint every `save_every` seconds, at the end and on Ctrl-C.

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

    def _train_step(self, images: list[Tensor], targets: list[dict[str, Tensor]], log: RunLog) -> None:
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
        self.optimizer.zero_grad()
        losses = accumulate_gradients(self.model, images, targets, widths, settings, ramp, self.teacher)
        if power := REDUCTIONS[settings.gradient_reduction]:
            divide_by_users(self.model, widths, power)
        norm = nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], settings.clip)
        if not torch.isfinite(norm):
            raise DataError(f"the gradient is {norm.item()} at step {self.step}: lower --lr (now {settings.peak_lr:g})")
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            decay = min(settings.ema, (1 + self.step) / (10 + self.step))  # young averages forget their start
            average(self.average, self.model, decay)
        log.step(self.step, self.total, self.step / self.steps_per_epoch, lr, float(norm), len(images), losses)

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
            )
            for images, targets in itertools.islice(data, done, None):  # a resumed epoch goes on where it stopped
                if self.step >= self.total:
                    return
                yield to_device((images, targets), self.device)

    def save(self, file: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        save_checkpoint(file, self.model, self.average, self.optimizer, self.step)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: the file is damaged or of another training.
        """
        self.step = load_checkpoint(file, self.model, self.average, self.optimizer, self.device)


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
    trainer, val = _prepare(with_fields(settings or TrainSettings(), fields))
    return _run(trainer, val, new_run_dir("train", out))


def resume(folder: str | Path) -> Training:
    """Go on with an interrupted run, in its folder and with its settings.

    Raises:
        ConfigError: the folder holds no interrupted run.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings = TrainSettings(**{name: value for name, value in stored.items() if name != "slimdet"})
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"--resume {folder}: no {SETTINGS} of a training run ({error})") from error
    if not (folder / CHECKPOINT).is_file():
        raise ConfigError(f"--resume {folder}: there is no {CHECKPOINT}; the run stopped before its first one")
    trainer, val = _prepare(settings, start=False)
    trainer.load(folder / CHECKPOINT)
    return _run(trainer, val, folder)


def _prepare(settings: TrainSettings, start: bool = True) -> tuple[Trainer, CocoDataset | None]:
    if not settings.data:
        raise ConfigError("--data DATA.yaml is missing: it names the images and annotations to train on")
    torch.manual_seed(settings.seed)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
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
    model = _model(settings, dataset, start)
    check_image_sizes(model, *(part for part in (dataset, val) if part is not None))
    sides: Any = model.twin(1.0).transform
    # What the detector would do at each width is done once, where images are loaded.
    dataset.transforms = augmentation(settings.augment)
    dataset.shrink = ShrinkInto(sides.min_size[-1], sides.max_size)
    return Trainer(model, dataset, settings), val


def _model(settings: TrainSettings, dataset: CocoDataset, start: bool) -> Slimmable:
    sample = (dataset[index][0] for index in range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES)))
    return starting_model(settings, dataset.classes, sample if settings.sort else None, blank=not start)


def _run(trainer: Trainer, val: CocoDataset | None, folder: Path) -> Training:
    settings = trainer.settings
    try:
        with RunLog(folder, asdict(settings)) as log:
            trainer.run(folder / CHECKPOINT, log)
    except KeyboardInterrupt:
        print(f"saved at step {trainer.step}; go on with: slimdet train --resume {folder}", file=sys.stderr)
        raise
    if settings.sizes:
        set_image_size(trainer.result, settings.sizes[-1])
    kept = trainer.result.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    calibrations = recalibrate(kept, trainer) if settings.statistics_images else {}
    metrics: dict[str, Any] = {}
    if settings.evaluate and val is not None:
        metrics = validate(kept, val, kept.widths, settings.device, trainer.dataset.classes).widths
    card = Card(trainer.dataset.classes, trainer.dataset.category_ids, asdict(settings) | {"steps": trainer.step})
    path = store.save(kept, folder / "model", card.record(store.weights_of(kept), metrics, calibrations))
    return Training(folder, path, trainer.step, metrics)


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
