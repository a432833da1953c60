"""What others may do while a training runs: logs, live tables, validation, early stopping, MLflow, Ray Tune."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from slimdet.errors import ConfigError
from slimdet.messages import first_line

if TYPE_CHECKING:
    from slimdet.evaluation.validation import Measured
    from slimdet.training.trainer import Trainer

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        lr: the learning rate.
        grad_norm: of the gradient before it was clipped, a scalar on the device.
        images: number of images in the batch.
        losses: {width: {name: scalar on the device}}, of the widths trained in this step.
        waited: seconds that the step waited for its batch.
    """

    lr: float
    grad_norm: Tensor
    images: int
    losses: Mapping[float, Mapping[str, Tensor]]
    waited: float


class Callback:
    """A base that does nothing; override what is needed. Methods are called in the training's process, in order.

    `state` is the trainer, to be read: `step` (done so far), `total`, `steps_per_epoch`, `settings`, `model`,
    `average`, `result`, `dataset`, `folder`. One thing may be set: `state.stop = "a reason"` ends the training after
    this step, as if its schedule were over; of several processes (`place`) only the first calls callbacks, and what is
    set there ends them all after the epoch. Whatever a callback draws at random changes the training: put the
    generators back.
    """

    def on_start(self, state: "Trainer") -> None:
        """Once, before the first step, also that of a resumed run."""

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        """After each step."""

    def on_epoch(self, state: "Trainer") -> None:
        """After the last step of each epoch, and after the last step of all."""

    def on_validation(self, state: "Trainer", found: "Mapping[float, Measured]") -> None:
        """After a validation during the training: what was found at each of `--val-widths`."""

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self, state: "Trainer", model: Path) -> None:
        """Once, when the schedule is over and the bundle `model` is written."""


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def as_callback(given: object) -> Callback:
    """A callback as it is; of anything else what it has of a callback's methods.

    Raises:
        ConfigError: it has none of them.
    """
    if isinstance(given, Callback):
        return given
    has = [name for name in METHODS if callable(getattr(given, name, None))]
    if not has:
        raise ConfigError(f"callback {type(given).__name__} has none of {', '.join(METHODS)}")
    adapted = Callback()
    for name in has:
        setattr(adapted, name, getattr(given, name))
    return adapted


class Guarded(Callback):
    """Hands everything on to another callback, whose errors end no training: the first is told, as a warning."""

    def __init__(self, callback: Callback) -> None:
        self.callback, self._warned = callback, False

    @contextmanager
    def _guarding(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._warned:
                name = type(self.callback).__name__
                logger.warning("%s does not work, training goes on without it: %s", name, first_line(error))
            self._warned = True

    def on_start(self, state: "Trainer") -> None:
        with self._guarding():
            self.callback.on_start(state)

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        with self._guarding():
            self.callback.on_step(state, report)

    def on_epoch(self, state: "Trainer") -> None:
        with self._guarding():
            self.callback.on_epoch(state)

    def on_validation(self, state: "Trainer", found: "Mapping[float, Measured]") -> None:
        with self._guarding():
            self.callback.on_validation(state, found)

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        with self._guarding():
            self.callback.on_checkpoint(state, file)

    def on_end(self, state: "Trainer", model: Path) -> None:
        with self._guarding():
            self.callback.on_end(state, model)
