"""Validation while a training runs: accuracy by epoch, the best bundle, an end where nothing improves."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slimdet.errors import SlimdetError
from slimdet.evaluation.validation import Measured, measure
from slimdet.files import atomic_write
from slimdet.models.image_size import set_image_size
from slimdet.training.safety.bundles import BEST, keep
from slimdet.training.watching.callbacks import Callback
from slimdet.training.watching.log import read_rows

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

HISTORY = "validation.jsonl"
SCORE = "AP"  # of boxes, mean of the validated widths: what the best bundle has most of

logger = logging.getLogger("slimdet")


class Validation(Callback):
    """Measures `--val-widths` every `--val-every` epochs and tells the other callbacks what it found.

    In the run's folder: `validation.jsonl`, a line for each time, and `best`, the bundle with the highest mean AP of
    those widths. With `--patience` the training ends when as many validations in a row were no better. What cannot be
    measured is told once and does not end a training.
    """

    def __init__(self, dataset: Any) -> None:
        """Measure on `dataset`, as `slimdet.evaluation.validation.measure` takes it."""
        self.dataset = dataset
        self.rows: list[dict[str, float]] = []
        self.able = True

    def on_start(self, state: "Trainer") -> None:
        """Read what was measured before the run was interrupted."""
        self.rows = [row for row in read_rows(state.folder / HISTORY) if row["step"] <= state.step]

    def on_epoch(self, state: "Trainer") -> None:
        """Measure if it is time; keep the bundle if it is the best so far; stop if it has been the best for long."""
        done = -(-state.step // state.steps_per_epoch)
        if not self.able or done % state.settings.val_every or any(row["step"] == state.step for row in self.rows):
            return
        try:
            found = self._measure(state)
            row = _row(state, found)
            better = row["score"] > max((before["score"] for before in self.rows), default=-1.0)
            self.rows.append(row)
            self._write(state.folder)
        except (SlimdetError, OSError) as error:
            logger.warning("no validation in this training: %s", error)
            self.able = False
            return
        if better:
            self._keep(state, found)
        for callback in state.callbacks:
            callback.on_validation(state, found)
        patience = state.settings.patience
        best = max(range(len(self.rows)), key=lambda place: self.rows[place]["score"])  # the first of equals
        if patience and len(self.rows) - 1 - best >= patience:
            state.stop = f"no better than after epoch {self.rows[best]['epoch']:g} for {patience} validations"

    def _keep(self, state: "Trainer", found: Mapping[float, Measured]) -> None:
        try:
            keep(state, BEST, {str(width): one.numbers for width, one in found.items()})
        except OSError as error:
            logger.warning("the best bundle so far could not be written: %s", error)

    def _measure(self, state: "Trainer") -> dict[float, Measured]:
        settings, model = state.settings, state.result
        if settings.sizes:
            set_image_size(model, settings.sizes[-1])
        before = torch.get_rng_state()
        try:
            found = measure(
                model, self.dataset, settings.val_widths or (), settings.device, state.dataset.classes, settings.workers
            )
            return {one.width: one for one in found}
        finally:
            torch.set_rng_state(before)
            model.train()

    def _write(self, folder: Path) -> None:
        with atomic_write(folder / HISTORY) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))


def _row(state: "Trainer", found: Mapping[float, Measured]) -> dict[str, float]:
    row: dict[str, float] = {"step": state.step, "epoch": round(state.step / state.steps_per_epoch, 3)}
    for width, one in sorted(found.items()):
        for kind, numbers in one.numbers.items():
            row |= {f"{kind}/{name}/{width}": value for name, value in numbers.items()}
    row["score"] = sum(one.numbers["bbox"][SCORE] for one in found.values()) / len(found)
    return row
