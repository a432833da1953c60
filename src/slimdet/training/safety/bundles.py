"""The bundles of a run: `model`, what the last checkpoint holds and at the end the result, and `best`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slimdet.bundle import store
from slimdet.bundle.card import Card
from slimdet.training.watching.callbacks import Callback

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

MODEL, BEST = "model", "best"


def keep(
    state: "Trainer", name: str, metrics: Mapping[str, Any] | None = None, calibrations: Mapping[str, Any] | None = None
) -> Path:
    """Write the model as it is (its average where there is one) as a bundle in the run's folder; return its folder.

    Of several processes only the first writes.

    Args:
        state: the training.
        name: `MODEL` or `BEST`.
        metrics, calibrations: numbers of these weights by width, as `slimdet.bundle.card.Card` has them.
    """
    path = state.folder / name
    if state.place.main:
        facts = asdict(state.settings) | {"steps": state.step}
        card = Card(state.dataset.classes, state.dataset.category_ids, facts)
        with torch.random.fork_rng(devices=[]):  # to describe a detector is to build it once more, at random
            store.save(state.result, path, card.record(store.weights_of(state.result), metrics, calibrations))
    return path


class LastBundle(Callback):
    """Writes `model` with every checkpoint, so that a run can be predicted with while it goes on or once it stopped."""

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        """Replace the bundle; before the first step there is nothing to predict with."""
        if state.step:
            keep(state, MODEL)
