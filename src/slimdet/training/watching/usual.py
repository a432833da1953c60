"""Who watches a training: what every one has, and what was asked for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slimdet.training.safety.bundles import LastBundle
from slimdet.training.watching.board import TensorBoard
from slimdet.training.watching.callbacks import Callback, Guarded
from slimdet.training.watching.log import MetricsLog
from slimdet.training.watching.pictures import DataPictures
from slimdet.training.watching.progress import Lines
from slimdet.training.watching.validating import Validation

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer


def watchers(state: "Trainer", given: Sequence[Callback]) -> list[Callback]:
    """The callbacks of a training: bundles, logs, pictures and validation, those that were given, lines on stderr."""
    val = state.val if state.settings.evaluate else None
    own = [Guarded(one) for one in (LastBundle(), MetricsLog(), TensorBoard(val), DataPictures())]
    lines = [] if any(isinstance(one, Lines) for one in given) else [Lines()]
    # Validation first: what it finds is told to the others, and what it takes is no time of the steps.
    first = [Validation(val)] if val is not None and state.settings.val_every else []
    return [*first, *own, *given, *lines]
