"""Validation on the way: when, what is kept, when it ends a training, what it does not break."""

from pathlib import Path
from typing import Any

import pytest
import torch

import slimdet
from scenes_detector import small_settings, tiny_model
from slimdet.bundle import card
from slimdet.data.coco import CocoDataset
from slimdet.errors import DataError
from slimdet.training.safety.bundles import BEST
from slimdet.training.watching import validating
from slimdet.training.watching.callbacks import Callback
from slimdet.training.watching.log import read_rows
from slimdet.training.watching.validating import HISTORY, Validation
from watching import measured, state_of


class Heard(Callback):
    def __init__(self) -> None:
        self.found: list[dict[float, float]] = []

    def on_validation(self, state: Any, found: Any) -> None:
        self.found.append({width: one.numbers["bbox"]["AP"] for width, one in found.items()})


@pytest.fixture
def state(scenes: Path, tmp_path: Path) -> Any:
    settings = small_settings(scenes, val_widths=(0.5, 1.0), val_every=1)
    dataset = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images")
    model = tiny_model()
    return state_of(tmp_path, settings=settings, result=model, dataset=dataset, callbacks=[Heard()], total=100)


def go_on(validation: Validation, state: Any, accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch for each accuracy, which both widths have."""
    for accuracy in accuracies:
        found = list(measured(w0_5=accuracy, w1_0=accuracy).values())
        monkeypatch.setattr(validating, "measure", lambda *_, found=found: iter(found))
        state.step += 10
        validation.on_epoch(state)


def test_the_best_is_kept_and_told(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = Validation(state.dataset)
    validation.on_start(state)
    go_on(validation, state, [0.1, 0.3, 0.2], monkeypatch)
    assert state.callbacks[0].found == [{0.5: 0.1, 1.0: 0.1}, {0.5: 0.3, 1.0: 0.3}, {0.5: 0.2, 1.0: 0.2}]
    assert [row["score"] for row in read_rows(state.folder / HISTORY)] == pytest.approx([0.1, 0.3, 0.2])
    kept = card.read(state.folder / BEST)
    assert kept.metrics["0.5"]["bbox"]["AP"] == 0.3
    assert kept.training["steps"] == 20
    assert state.stop == ""


def test_patience_ends_a_training_also_a_resumed_one(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state.settings = small_settings(Path(state.settings.data), val_widths=(1.0,), patience=2, evaluate=True)
    validation = Validation(state.dataset)
    validation.on_start(state)
    go_on(validation, state, [0.1, 0.3, 0.2], monkeypatch)
    assert state.stop == ""
    again = Validation(state.dataset)
    again.on_start(state)
    go_on(again, state, [0.3], monkeypatch)  # not better
    assert state.stop == "no better than after epoch 2 for 2 validations"


def test_what_a_resumed_run_repeats_is_forgotten(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = Validation(state.dataset)
    go_on(validation, state, [0.1, 0.3], monkeypatch)
    state.step = 15  # of the checkpoint
    again = Validation(state.dataset)
    again.on_start(state)
    assert [row["step"] for row in again.rows] == [10]


def test_every_few_epochs(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state.settings = small_settings(Path(state.settings.data), val_widths=(1.0,), val_every=2)
    validation = Validation(state.dataset)
    go_on(validation, state, [0.1] * 5, monkeypatch)
    assert [row["epoch"] for row in validation.rows] == [2, 4]


def test_the_training_is_as_it_was_before(state: Any) -> None:
    """Measured for once: the model trains on, no random number was taken."""
    state.result.train()
    state.step = 10
    before = torch.get_rng_state()
    weights = {name: value.clone() for name, value in state.result.state_dict().items()}
    Validation(state.dataset).on_epoch(state)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in state.result.modules())
    assert all(torch.equal(value, weights[name]) for name, value in state.result.state_dict().items())
    assert set(state.callbacks[0].found[0]) == {0.5, 1.0}
    assert slimdet.load(state.folder / BEST).widths == (0.5, 1.0)


def test_data_that_cannot_be_read_ends_no_training(
    state: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise DataError("b.png is broken")

    monkeypatch.setattr(validating, "measure", broken)
    validation = Validation(state.dataset)
    for state.step in (10, 20):
        validation.on_epoch(state)
    assert [record.getMessage() for record in caplog.records] == ["no validation in this training: b.png is broken"]
