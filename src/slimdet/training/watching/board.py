"""TensorBoard: losses, gradients and accuracy of every width, detections beside what is there."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from slimdet.core.slimmable import Slimmable
from slimdet.evaluation.validation import Measured
from slimdet.training.watching.callbacks import Callback, StepReport
from slimdet.training.watching.mosaics import comparison, spread

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

EVERY = 10  # steps between two values
SAMPLES = 4  # pictures of the validation set


class TensorBoard(Callback):
    """Writes event files to `tensorboard` in the run's folder; see them with `tensorboard --logdir runs`."""

    def __init__(self, val: Any | None = None) -> None:
        """Show pictures of the data set `val`; without it none."""
        self.val = val
        self.norms = GradientNorms()
        self.board: Any = None

    def on_start(self, state: "Trainer") -> None:
        """Open the event file; what an earlier process wrote after its last checkpoint is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(state.folder / "tensorboard"), purge_step=state.step + 1)
        if self._is_due(state, state.step + 1):
            self.norms.watch(state.model)

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        """Write the losses and gradients of the first step and of every tenth."""
        step, norms = state.step, self.norms.read()
        if self._is_due(state, step):
            values = {"run/lr": report.lr, "run/grad_norm": report.grad_norm}
            for width, parts in report.losses.items():
                values[f"loss/{width}"] = sum(float(value) for value in parts.values())
                values |= {f"{name}/{width}": value for name, value in parts.items()}
            values |= {f"grad_norm/{width}": norm for width, norm in norms.items()}
            self._scalars(step, values)
        if self._is_due(state, step + 1):
            self.norms.watch(state.model)

    def on_validation(self, state: "Trainer", found: Mapping[float, Measured]) -> None:
        """Write accuracies, and detections beside what is there."""
        for width, one in found.items():
            for kind, numbers in one.numbers.items():
                self._scalars(state.step, {f"{name}_{kind}/{width}": numbers[name] for name in ("AP", "AP50", "AP75")})
        if self.val is not None and self.board is not None:
            picture = comparison(state.result, spread(self.val, SAMPLES), sorted(found), state.dataset.classes)
            self.board.add_image("val", np.asarray(picture), state.step, dataformats="HWC")

    def on_checkpoint(self, state: "Trainer", file: Any) -> None:
        """Bring what was written to the disk."""
        if self.board is not None:
            self.board.flush()

    def on_end(self, state: "Trainer", model: Any) -> None:
        """Close the event file."""
        if self.board is not None:
            self.board.close()

    def _is_due(self, state: "Trainer", step: int) -> bool:
        return self.board is not None and (step == 1 or step % EVERY == 0 or step == state.total)

    def _scalars(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if self.board is not None:
                self.board.add_scalar(name, float(value), step)


class GradientNorms:
    """The norm of what each width adds to the gradient, before it is divided, clipped or summed over processes.

    Hooks are there for one step only; a step that is not watched costs nothing.
    """

    def __init__(self) -> None:
        self.squares: dict[float, list[Tensor]] = defaultdict(list)
        self.width = 1.0
        self.handles: list[RemovableHandle] = []

    def watch(self, model: Slimmable) -> None:
        """Look at the next step, at the widths that the model lists."""
        self.read()
        for width in model.widths:
            self.handles.append(model.twin(width).register_forward_pre_hook(self._at(width)))
        self.handles += [one.register_hook(self._add) for one in model.parameters() if one.requires_grad]

    def read(self) -> dict[float, float]:
        """The norms of the step that was watched, by width; empty where none was."""
        for handle in self.handles:
            handle.remove()
        found = {width: float(torch.stack(squares).sum().sqrt()) for width, squares in self.squares.items()}
        self.handles, self.squares = [], defaultdict(list)
        return found

    def _at(self, width: float) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self.width = width

        return enter

    def _add(self, gradient: Tensor) -> None:
        self.squares[self.width].append(gradient.detach().square().sum())
