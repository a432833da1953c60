"""What ended a training, in one line with the way out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slimdet.data.own import OwnDataset
from slimdet.errors import ConfigError, DataError, SlimdetError
from slimdet.messages import first_line, listed

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer


def not_finite(trainer: "Trainer", losses: Mapping[float, Mapping[str, Tensor]], image_ids: Sequence[Any]) -> DataError:
    """Which loss of which width is not finite, or the gradient, and on which images."""
    found = [
        f"{name} of width {width} is {value.item()}"
        for width, parts in losses.items()
        for name, value in parts.items()
        if not torch.isfinite(value).all()
    ]
    what = listed(found, 3) if found else "the gradient is not finite"
    return DataError(
        f"step {trainer.step}: {what} on the images {listed(_names(trainer, image_ids), 64)}: look at their boxes, or "
        f"lower --lr (now {trainer.settings.peak_lr:g}) in a new run; the checkpoint of step {trainer.saved} is whole"
    )


def explained(error: BaseException, trainer: "Trainer", whole: bool) -> BaseException:
    """The error that the user gets for one that ended the training; `whole`: between two steps, and saved there."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    ):
        settings = trainer.settings
        return ConfigError(
            f"out of memory at step {trainer.step} ({first_line(error)}): train anew with a smaller --batch (now "
            f"{settings.batch}) or --imgsz, with --accumulate or --checkpoint-activations, or go on where there is "
            f"more; {_kept(trainer)}"
        )
    if isinstance(error, SlimdetError) and whole:
        return type(error)(f"{error}; {_kept(trainer)}")
    return error


def way_on(trainer: "Trainer") -> str:
    """How to go on with a run."""
    return f"slimdet train --resume {trainer.folder}"


def _kept(trainer: "Trainer") -> str:
    return f"saved at step {trainer.saved}; go on with: {way_on(trainer)}"


def _names(trainer: "Trainer", image_ids: Sequence[Any]) -> list[str]:
    if isinstance(trainer.dataset, OwnDataset):
        return [f"item {number - 1}" for number in image_ids]
    files = {record["id"]: record["file_name"] for record in trainer.dataset.coco["images"]}
    return [f"{files[number]} (id {number})" for number in image_ids]
