"""TensorBoard: what is in the event files; the norms are those of the widths' own gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scenes_detector import scene_batch, tiny_model
from slimdet.training.step import accumulate_gradients
from slimdet.training.watching.board import GradientNorms, TensorBoard
from watching import measured, report, state_of


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


class Shown:
    """A data set of two images for pictures."""

    classes = ("red", "green")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        images, targets = scene_batch()
        return images[index], targets[index]


def test_losses_gradients_accuracy_and_pictures(tmp_path: Path) -> None:
    model = tiny_model().train()
    state = state_of(tmp_path, model=model, result=model, dataset=Shown())
    board = TensorBoard(Shown())
    board.on_start(state)
    for state.step in range(1, 12):
        accumulate_gradients(model, *scene_batch(), widths=[1.0, 0.5]) if state.step in (1, 5) else None
        board.on_step(state, report(float(state.step)))
    state.step = 10
    board.on_validation(state, measured(w0_5=0.25, w1_0=0.5))
    board.on_end(state, tmp_path)
    found = events(tmp_path)
    assert [(one.step, one.value) for one in found.Scalars("loss/0.5")] == [(1, 1.5), (10, 15.0)]
    assert [one.step for one in found.Scalars("grad_norm/0.5")] == [1]  # step 5 was not watched
    assert [one.value for one in found.Scalars("AP_bbox/1.0")] == [0.5]
    assert {"run/lr", "run/grad_norm", "loss_a/1.0", "AP50_bbox/0.5"} <= set(found.Tags()["scalars"])
    assert found.Tags()["images"] == ["val"]
    assert model.training


def test_norms_are_those_of_each_width_alone() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    norms = GradientNorms()
    norms.watch(model)
    torch.manual_seed(3)
    accumulate_gradients(model, images, targets, [1.0, 0.5])
    found = norms.read()
    torch.manual_seed(3)
    for width in (1.0, 0.5):
        model.zero_grad()
        accumulate_gradients(model, images, targets, [width])
        gradients = [one.grad for one in model.parameters() if one.grad is not None]
        alone = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        assert found[width] == pytest.approx(float(alone), rel=1e-3)
    assert norms.read() == {}  # the hooks are gone
