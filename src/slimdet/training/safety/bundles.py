"""The bundles of a run: `model`, what the last checkpoint holds and at the end the result, and `best`."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from slimdet.bundle import manifest, store
from slimdet.bundle.card import Card, read
from slimdet.errors import SlimdetError
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
        weights = store.weights_of(state.result)
        card = Card(state.dataset.classes, state.dataset.category_ids, facts)
        if (before := _of_same(path, weights)) is not None:
            if before.weights.keys() > weights.keys() and not metrics:
                return path  # it has further widths, that were calibrated later
            card = replace(before, training=facts)
        with torch.random.fork_rng(devices=[]):  # to describe a detector is to build it once more, at random
            store.save(state.result, path, card.record(weights, metrics, calibrations))
    return path


def _of_same(path: Path, weights: Mapping[str, str]) -> Card | None:
    """The card of the bundle that is there, if it holds these weights already."""
    if not (path / manifest.MODEL).is_file():
        return None
    try:
        found = read(path)
    except SlimdetError:
        return None
    return found if weights.items() <= found.weights.items() else None


class LastBundle(Callback):
    """Writes `model` with every checkpoint, so that a run can be predicted with while it goes on or once it stopped."""

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        """Replace the bundle; before the first step there is nothing to predict with."""
        if state.step:
            keep(state, MODEL)
