"""Training: every width forward and backward on the same batch, gradients add up, one optimizer step.

"Slimmable Neural Networks" (ICLR 2019), algorithm 1. What is added to it is chosen by settings: the sandwich rule
("Universally Slimmable Networks", ICCV 2019, section 3.2), in-place distillation, an average of the weights.
"""

import copy
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from rich.console import Group
from torch import Tensor, nn

from slimdet.bundle import manifest, store
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.loader import loader
from slimdet.data.transforms import augmentation
from slimdet.devices import choose_device
from slimdet.errors import ConfigError, DataError, WidthError
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.validation import validate
from slimdet.files import atomic_write, new_run_dir
from slimdet.messages import first_line
from slimdet.models.image_size import check_image_sizes
from slimdet.models.kinds import kind_of
from slimdet.report import plots
from slimdet.training.calibration import calibration_batches, collect_statistics
from slimdet.training.distillation import PARTS, Watched, distillation_losses, watch
from slimdet.training.gradients import divide_by_users
from slimdet.training.log import SETTINGS, RunLog
from slimdet.training.settings import GRADIENTS, TrainSettings, learning_rate, sampled_widths
from slimdet.training.start import starting_model
from slimdet.widths import WidthRange, widths_between

CHECKPOINT = "last.pt"
SORTING_IMAGES = 64  # enough for an order of channels


def accumulate_gradients(
    model: Slimmable,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    widths: Sequence[float],
    distill: float = 0.0,
    balance: float = 0.0,
    bf16: bool = False,
    distill_parts: Sequence[str] = PARTS,
    teacher: nn.Module | None = None,
) -> dict[float, dict[str, Tensor]]:
    """Run every width forward and backward on the same batch; gradients add up in the shared parameters.

    Args:
        model: in training mode.
        images, targets: as the detector takes them.
        widths: the widest first where it teaches the others.
        distill: weight of the distillation losses of the others; 0 leaves them out.
        balance: the losses of width w are multiplied by w ** -balance.
        bf16: compute in bfloat16 where autocast does.
        distill_parts: which of `slimdet.training.distillation.PARTS` are taught.
        teacher: a detector of its own, in training mode, that teaches all widths in place of the widest.

    Returns:
        The losses of each width, detached scalars.
    """
    losses: dict[float, dict[str, Tensor]] = {}
    taught: Watched | None = None
    if distill and teacher is not None:
        taught = _lesson(teacher, images, targets, bf16)
    for width in widths:
        twin = model.twin(width)
        with torch.autocast(images[0].device.type, torch.bfloat16, enabled=bf16):
            if not distill:
                parts = model(images, targets, width=width)
            else:
                with watch(twin) as seen:
                    parts = model(images, targets, width=width)
                if taught is None:
                    taught = seen.detached()
                else:
                    extra = distillation_losses(twin, seen, taught, distill_parts)
                    parts = parts | {name: distill * value for name, value in extra.items()}
            total = torch.stack([value.float() for value in parts.values()]).sum()
        (total * width**-balance).backward()
        losses[width] = {name: value.detach() for name, value in parts.items()}
    return losses


@torch.no_grad()
def _lesson(teacher: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]], bf16: bool) -> Watched:
    with torch.autocast(images[0].device.type, torch.bfloat16, enabled=bf16), watch(teacher) as seen:
        teacher(images, targets)
    return seen.detached()


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
        self.between = _fitting(model) if settings.sampling == "range" else []
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
        widths = sampled_widths(settings.widths, settings.sampling, draw, self.between)
        alone = round(settings.narrow_start * self.total)
        if self.step < alone:
            widths = widths[:1]
        ramp = min(1.0, 4 * (self.step - alone) / self.total)  # an early teacher knows nothing yet
        self.optimizer.zero_grad()
        losses = accumulate_gradients(
            self.model,
            images,
            targets,
            widths,
            settings.distill * ramp,
            settings.balance,
            settings.bf16,
            settings.distill_parts,
            self.teacher,
        )
        if power := GRADIENTS[settings.gradients]:
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
                yield (
                    [image.to(self.device, non_blocking=True) for image in images],
                    [{k: v.to(self.device) for k, v in t.items() if isinstance(v, Tensor)} for t in targets],
                )

    def save(self, file: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        with atomic_write(file) as temporary:
            torch.save(state, temporary)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ConfigError: the file is damaged or of another training.
        """
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            torch.set_rng_state(state["random"].cpu())
        except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise ConfigError(f"{file} cannot be gone on with ({reason}); start the training anew") from error


def _fitting(model: Slimmable) -> list[float]:
    """The widths between the narrowest and 1.0 that the detector can have: norms in groups leave some out."""
    fitting = []
    for width in widths_between(model.widths[0]):
        with suppress(WidthError):
            model.twin(width)
            fitting.append(width)
    return fitting


@torch.no_grad()
def average(into: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters and statistics: into = decay * into + (1 - decay) * model."""
    for kept, new in zip(_tensors(into), _tensors(model), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def settings_from(flags: Mapping[str, Any]) -> TrainSettings:
    """The settings among the command line's flags.

    Raises:
        ConfigError: no data set is named.
    """
    if flags.get("data") is None:
        raise ConfigError("--data DATA.yaml is missing: it names the images and annotations to train on")
    known = {key: flags[key] for key in TrainSettings.__dataclass_fields__ if key in flags}
    if isinstance(known["widths"], WidthRange):
        known |= {"widths": known["widths"].listed, "sampling": "range"}
    norm = None if flags["norm"] == "none" else flags["norm"]
    return TrainSettings(**known | {"data": str(flags["data"]), "norm": norm})


def train(settings: TrainSettings, out: str | Path | None = None) -> dict[str, Any]:
    """Train a model and write `runs/train-N`: settings, metrics, checkpoint and the bundle `model`.

    Args:
        settings: what to train and how.
        out: the folder, in place of the next free `runs/train-N`.

    Returns:
        {"run": folder, "model": bundle folder, "steps": number, "widths": {"0.25": {"bbox": {"AP": ...}}}}.

    Raises:
        SlimdetError: settings, data or weights that cannot be used; nothing is written then.
    """
    trainer, val = _prepare(settings)
    return _run(trainer, val, new_run_dir("train", out))


def resume(folder: str | Path) -> dict[str, Any]:
    """Go on with an interrupted run, in its folder and with its settings; returns what `train` returns.

    Raises:
        ConfigError: the folder holds no interrupted run.
    """
    folder = Path(folder)
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        settings = TrainSettings(**{key: stored[key] for key in TrainSettings.__dataclass_fields__ if key in stored})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--resume {folder}: no {SETTINGS} of a training run ({error})") from error
    if not (folder / CHECKPOINT).is_file():
        raise ConfigError(f"--resume {folder}: there is no {CHECKPOINT}; the run stopped before its first one")
    trainer, val = _prepare(settings, start=False)
    trainer.load(folder / CHECKPOINT)
    return _run(trainer, val, folder)


def _prepare(settings: TrainSettings, start: bool = True) -> tuple[Trainer, CocoDataset | None]:
    torch.manual_seed(settings.seed)
    data = read_data_config(settings.data)
    if data.train is None:
        raise DataError(f"{settings.data} has no 'train:'")
    masks = kind_of({"builder": settings.model}).masks
    transforms = augmentation(settings.augment)
    dataset = CocoDataset(data.train.annotations, data.train.images, transforms, masks=masks, train=True)
    if not len(dataset):
        raise DataError(f"{data.train.annotations} has no images to train on")
    val = CocoDataset(data.val.annotations, data.val.images, masks=masks) if data.val else None
    if val is not None:
        check_classes(dataset.classes, val)
    model = _model(settings, dataset, start)
    check_image_sizes(model, *(part for part in (dataset, val) if part is not None))
    return Trainer(model, dataset, settings), val


def _model(settings: TrainSettings, dataset: CocoDataset, start: bool) -> Slimmable:
    sample = (dataset[index][0] for index in range(0, len(dataset), math.ceil(len(dataset) / SORTING_IMAGES)))
    return starting_model(
        settings.model,
        dataset.classes,
        settings.widths,
        settings.scope,
        settings.weights,
        backbone=settings.backbone,
        neck=settings.neck,
        norm=settings.norm,
        frozen_norms=settings.frozen_norms,
        imgsz=settings.imgsz,
        sort_by=sample if settings.sort else None,
        blank=not start,
        norms=settings.norms,
    )


def _run(trainer: Trainer, val: CocoDataset | None, folder: Path) -> dict[str, Any]:
    settings = trainer.settings
    try:
        with RunLog(folder, asdict(settings)) as log:
            trainer.run(folder / CHECKPOINT, log)
    except KeyboardInterrupt:
        print(f"saved at step {trainer.step}; go on with: slimdet train --resume {folder}", file=sys.stderr)
        raise
    kept = trainer.result.to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    if settings.statistics_images:
        recalibrate(kept, trainer)
    metrics: dict[str, Any] = {}
    if settings.evaluate and val is not None:
        kept.classes, kept.category_ids = trainer.dataset.classes, trainer.dataset.category_ids
        metrics = validate(kept, val, kept.widths, settings.device).widths
    path = store.save(
        kept,
        folder / "model",
        classes=trainer.dataset.classes,
        category_ids=trainer.dataset.category_ids,
        metrics=metrics,
        training=asdict(settings) | {"steps": trainer.step},
    )
    return {"run": str(folder), "model": str(path), "steps": trainer.step, "widths": metrics}


def recalibrate(model: Slimmable, trainer: Trainer) -> None:
    """Give every width of a trained model the statistics of the finished weights, from the training images."""
    settings, data = trainer.settings, trainer.dataset.unaugmented()
    batches = calibration_batches(data, settings.statistics_images, settings.batch, settings.seed, trainer.device)
    for width in model.widths:
        collect_statistics(model, width, batches)
    record = {"images": sum(len(images) for images, _ in batches), "batch": settings.batch, "seed": settings.seed}
    model.calibrations = {str(width): record for width in model.widths}


def view(result: Mapping[str, Any]) -> Group:
    """What a finished training shows: its numbers and what to do next."""
    parts: list[Any] = [plots.accuracy_table(result["widths"])] if result["widths"] else []
    model, widths = result["model"], manifest.read(result["model"]).widths
    return Group(
        *parts,
        f"{result['steps']} steps; the model is {model}\n\nnext:\n"
        f"  slimdet predict IMAGE --model {model} --width {widths[(len(widths) - 1) // 2]}\n"
        f"  slimdet profile --model {model}",
    )
