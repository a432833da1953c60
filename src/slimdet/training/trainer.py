"""The loop of a training: one set of weights, many widths, a step at a time; it can stop at any moment and go on."""

import copy
import math
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdet.core.slimmable import Slimmable
from slimdet.data.loader import check_shared, loader, to_device
from slimdet.data.mosaic import Mosaic
from slimdet.devices import choose_device
from slimdet.errors import DataError, WidthError
from slimdet.models.image_size import resize_shorter_side
from slimdet.models.stages import stages
from slimdet.training.processes.distributed import Place, reduce_step, running_statistics
from slimdet.training.processes.sharing import Share
from slimdet.training.safety.checkpoint import CHECKPOINT, read_checkpoint, restore, save_checkpoint
from slimdet.training.safety.failures import explained, not_finite
from slimdet.training.safety.stopping import StopFlag, Stopped
from slimdet.training.settings import (
    REDUCTIONS,
    TrainSettings,
    learning_rate,
    sampled_plan,
    sampled_sizes,
    sampled_widths,
)
from slimdet.training.step import accumulate_gradients, average, divide_by_users
from slimdet.training.watching.callbacks import Callback, StepReport
from slimdet.widths import widths_between

Batch = tuple[list[Tensor], list[dict[str, Tensor]], list[Any]]  # images, targets, the images' ids

COMPILER = "inductor"  # of torch.compile


class Trainer:
    """A model, its optimizer and its place in the schedule; what a checkpoint holds.

    Attributes:
        step: steps done; the order of images and all that is drawn are functions of the seed and of it.
        seen: the data set as the training sees it: `dataset`, or mosaics of it.
        saved: the step of the last checkpoint.
        stop: why the training ends after this step; a callback may set it.
        fingerprint, val_fingerprint: of the data, as checkpoints hold them; empty without a data set to validate on.
        folder: of the run.
        val: the data set to validate on, or None.
    """

    folder = Path()
    fingerprint = val_fingerprint = ""
    stop = ""
    saved = 0
    val: Any = None

    def __init__(
        self,
        model: Slimmable,
        dataset: Any,
        settings: TrainSettings,
        teacher: nn.Module | None = None,
        place: Place | None = None,
    ) -> None:
        self.model, self.dataset, self.settings, self.teacher = model, dataset, settings, teacher
        self.seen = Mosaic(dataset) if settings.augment == "mosaic" else dataset
        self.place = place or Place()
        check_shared(settings.batch, self.place.world)
        self.device = choose_device(settings.device)
        for module in filter(None, (model, teacher)):
            module.to(self.device)
            if self.device.type == "cpu":
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        model.train()
        self.place.copy_first(model)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(settings, trainable)
        self.average = copy.deepcopy(model) if settings.ema else None
        if settings.compile:
            _compile(model, settings.widths)
        self.between = _fitting(model) if settings.any_width else []
        self.stages: Sequence[Sequence[str]] = ()
        if settings.width_sampling == "stages":
            self.stages = stages(model)
            self.between = [width for width in self.between if width not in settings.widths]
        self.callbacks: Sequence[Callback] = ()
        self.step = 0
        self.steps_per_epoch = math.ceil(len(dataset) / settings.batch)
        self.total = max(1, round(self.steps_per_epoch * settings.epochs))

    @property
    def result(self) -> Slimmable:
        """The model to keep: the average where there is one."""
        return self.average if self.average is not None else self.model

    def run(self, folder: Path, callbacks: Sequence[Callback] = ()) -> None:
        """Train to the end of the schedule, with a checkpoint before, after, every `save_every` seconds between.

        Ctrl-C, SIGTERM and whatever ends it between two steps leave a checkpoint of the last step.

        Raises:
            Stopped: by a signal.
            DataError: a loss or a gradient is not finite, or an image cannot be read; the last checkpoint stays.
            ConfigError: memory does not suffice.
            OSError: the disk is full.
        """
        self.folder, self.callbacks = folder, callbacks
        self._whole = True
        with StopFlag() as self._flag:
            for callback in callbacks:
                callback.on_start(self)
            self.save()
            try:
                self._loop()
            except (Exception, KeyboardInterrupt) as error:
                if self._whole:
                    with suppress(OSError):  # where the disk is full, the last checkpoint stays
                        self.save()
                if self._flag.signal is not None and isinstance(error, DataError):  # it met those who read images, too
                    raise Stopped(self._flag.signal) from None
                told = explained(error, self, self._whole)
                if told is error:
                    raise
                raise told from error
            self.save()

    def _loop(self) -> None:
        saved = began = time.monotonic()
        if self.stop:  # before it was interrupted, or its end is done again
            return
        for batch in self._batches():
            waited = time.monotonic() - began
            self._flag.hush()
            self._whole = False  # some widths are ahead of others
            report = self._train_step(batch, waited)
            self._whole = True
            self._tell(report)
            if number := self._asked_to_stop():
                raise Stopped(number)
            if self.stop and (self._epoch_ended or self.place.world == 1):
                return
            if time.monotonic() - saved >= self.settings.save_every:
                self.save()
                saved = time.monotonic()
            began = time.monotonic()

    def _tell(self, report: StepReport) -> None:
        for callback in self.callbacks:
            callback.on_step(self, report)
        if self._epoch_ended:
            for callback in self.callbacks:
                callback.on_epoch(self)
            self.stop = self.place.first(self.stop)

    @property
    def _epoch_ended(self) -> bool:
        return self.step % self.steps_per_epoch == 0 or self.step == self.total

    def _asked_to_stop(self) -> int | None:
        """The signal by which this process, or another one that trains with it, is to stop after this step."""
        if self.place.world == 1:
            return self._flag.signal
        return (self._flag.signal or signal.SIGTERM) if self._signals else None

    def _train_step(self, batch: Batch, waited: float) -> StepReport:
        settings = self.settings
        images, targets, image_ids = batch
        lr = learning_rate(settings, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        draw = random.Random(settings.seed * 1_000_003 + self.step)  # the same widths after a resume
        widths = sampled_widths(settings.widths, settings.width_sampling, draw, self.between)
        alone = round(settings.widest_only * self.total)
        if self.step < alone:
            widths = widths[:1]
        if self.stages:
            for width in set(widths) & set(self.between):
                self.model.pass_plan(width, sampled_plan(self.stages, width, settings.widths[0], draw))
        for width, size in zip(widths, sampled_sizes(settings, widths, draw), strict=bool(settings.sizes)):
            resize_shorter_side(self.model.twin(width), size)
        taught = settings
        if self.teacher is None:  # an early widest knows nothing yet
            ramp = min(1.0, 4 * max(0, self.step - alone) / self.total)
            taught = replace(settings, distill=ramp * settings.distill)
        share = Share(self.place, self._images_of(self.step), settings.seed, self.step)
        self.optimizer.zero_grad()
        losses: dict[float, dict[str, Tensor]] = {width: {} for width in widths}
        for part in share.split(images, targets, settings.accumulate):
            found = accumulate_gradients(self.model, *part[:2], widths, taught, self.teacher, part[2])
            for width, parts in found.items():
                for name, value in parts.items():
                    losses[width][name] = losses[width].get(name, 0) + value
        parameters = self.optimizer.param_groups[0]["params"]
        numbers = [value for parts in losses.values() for value in parts.values()]
        self._signals = torch.tensor(float(self._flag.signal or 0), device=self.device)  # of all processes, in a moment
        reduce_step(self.place, parameters, running_statistics(self.model), share.weight, [*numbers, self._signals])
        if power := REDUCTIONS[settings.gradient_reduction]:
            divide_by_users(self.model, widths, power)
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
        if not torch.isfinite(norm):
            raise not_finite(self, losses, image_ids)
        self.optimizer.step()
        self.step += 1
        if self.average is not None:
            decay = min(settings.ema, (1 + self.step) / (10 + self.step))  # young averages forget their start
            average(self.average, self.model, decay)
        return StepReport(lr, norm, share.images, losses, waited)

    def _images_of(self, step: int) -> int:
        """The images of a step, of all processes: fewer than a batch at the end of an epoch."""
        return min(self.settings.batch, len(self.dataset) - step % self.steps_per_epoch * self.settings.batch)

    def _batches(self) -> Iterator[Batch]:
        own = self.settings.batch // self.place.world
        while self.step < self.total:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            data = loader(
                self.seen,
                batch=self.settings.batch,
                shuffle=True,
                seed=self.settings.seed,
                workers=self.settings.workers,
                share=(self.place.rank, self.place.world),
            )
            sampler: Any = data.sampler
            sampler.set_epoch(epoch, start=done * own)  # a resumed epoch goes on where it stopped
            for images, targets in data:
                if self.step >= self.total:
                    return
                yield *to_device((images, targets), self.device), [target["image_id"] for target in targets]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, in rank 0."""
        if not self.place.main:
            self.saved = self.step
            return
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        facts = {"step": self.step, "epoch": epoch, "batch": batch}
        facts |= {"settings": asdict(self.settings), "data": self.fingerprint, "val": self.val_fingerprint}
        facts["stop"] = self.stop
        file = self.folder / CHECKPOINT
        save_checkpoint(file, self.model, self.average, self.optimizer, facts)
        self.saved = self.step
        for callback in self.callbacks:
            callback.on_checkpoint(self, file)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint, which rank 0 alone reads.

        Raises:
            ConfigError: the file is damaged or of another training.
        """
        if self.place.main:
            state = read_checkpoint(file)
            restore(state, file, self.model, self.average, self.optimizer)
            self.step, self.stop = state["step"], state.get("stop", "")
            self.saved = self.step
        self.step, self.stop, optimizer = self.place.first((self.step, self.stop, self.optimizer.state_dict()))
        if not self.place.main:
            self.optimizer.load_state_dict(optimizer)
        for module in filter(None, (self.model, self.average)):
            self.place.copy_first(module)


def _optimizer(settings: TrainSettings, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    lr, momentum, decay = settings.peak_lr, settings.momentum, settings.decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=decay)


def _fitting(model: Slimmable) -> list[float]:
    """The widths between the narrowest and 1.0 that the detector can have: norms in groups leave some out."""
    fitting = []
    for width in widths_between(model.widths[0]):
        with suppress(WidthError):
            model.twin(width)
            fitting.append(width)
    return fitting


def _compile(model: Slimmable, widths: Sequence[float]) -> None:
    """Compile the parts of each width's backbone: it, as a whole, gets another `forward` in a step of bfloat16."""
    for width in widths:
        backbone: Any = model.twin(width).backbone
        for part in backbone.children():
            part.compile(backend=COMPILER, dynamic=True)
