"""One step: the sum over the widths, who teaches whom, what becomes of shared gradients, the average of the weights."""

import pytest
import torch

from scenes_detector import scene_batch, tiny_model
from slimdet import slim
from slimdet.core.slimmable import Slimmable
from slimdet.models import builders
from slimdet.training.settings import TrainSettings
from slimdet.training.step import accumulate_gradients, average, divide_by_users


def test_gradients_of_a_step_are_the_sum_over_the_widths() -> None:
    model = tiny_model((0.25, 0.5, 1.0)).train()
    images, targets = scene_batch()
    summed = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    for width in (1.0, 0.5, 0.25):  # the samplers draw anew at each width
        model.zero_grad()
        sum(model(images, targets, width=width).values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                summed[name] += parameter.grad
    model.zero_grad()
    torch.set_rng_state(state)
    losses = accumulate_gradients(model, images, targets, [1.0, 0.5, 0.25])
    assert list(losses) == [1.0, 0.5, 0.25]
    assert not any(value.requires_grad for parts in losses.values() for value in parts.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, summed[name], rtol=1e-4, atol=1e-6)


def test_a_detector_of_its_own_may_teach() -> None:
    model, teacher = tiny_model((1.0,)).train(), tiny_model((1.0,)).extract(1.0).train()
    images, targets = scene_batch()
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    losses = accumulate_gradients(model, images, targets, [1.0], TrainSettings(distill=1.0), teacher=teacher)
    assert "distill_features" in losses[1.0]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.named_parameters())
    settings = TrainSettings(distill=1.0, distill_parts=("rpn",))
    chosen = accumulate_gradients(model, images, targets, [1.0], settings, teacher=teacher)
    assert {name for name in chosen[1.0] if name.startswith("distill")} == {"distill_rpn"}


def test_teaching_grows_with_the_ramp() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    losses = []
    for ramp in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        step = accumulate_gradients(model, images, targets, [1.0, 0.5], TrainSettings(distill=2.0 * ramp))
        losses.append(step[0.5])
    assert not any(name.startswith("distill") for name in losses[0])
    torch.testing.assert_close(losses[2]["distill_features"], 2 * losses[1]["distill_features"])


def test_an_exponent_weighs_the_gradients_of_narrow_widths() -> None:
    model = tiny_model().train()
    images, targets = scene_batch()
    name = "twins.0_5.backbone.body.bn1.weight"  # of the narrow width alone
    gradients = []
    for exponent in (0.0, 1.0):
        model.zero_grad()
        torch.manual_seed(0)
        accumulate_gradients(model, images, targets, [0.5], TrainSettings(loss_exponent=exponent))
        gradients.append(model.get_parameter(name).grad)
    torch.testing.assert_close(gradients[1], 2 * gradients[0])


def test_average_moves_towards_the_model_and_copies_counters() -> None:
    first, second = tiny_model(), tiny_model()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    counter = "backbone.body.bn1.num_batches_tracked"
    second.get_buffer(counter).fill_(7)
    expected = {name: 0.9 * p + 0.1 * second.get_parameter(name) for name, p in first.named_parameters()}
    average(first, second, 0.9)
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
    assert first.get_buffer(counter) == 7


def _accumulated(model: Slimmable, widths: list[float]) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    images, targets = scene_batch()
    model.zero_grad()
    for width in widths:
        torch.manual_seed(0)  # the same proposals are drawn whatever ran before
        accumulate_gradients(model, images, targets, [width])
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_each_weights_gradient_is_divided_by_the_widths_that_use_it(power: float) -> None:
    model = tiny_model((0.25, 0.5, 1.0)).train()
    alone = [_accumulated(model, [width]) for width in (1.0, 0.5, 0.25)]
    _accumulated(model, [1.0, 0.5, 0.25])
    divide_by_users(model, [1.0, 0.5, 0.25], power)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        total, users = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for width, gradients in zip((1.0, 0.5, 0.25), alone, strict=True):
            if name not in gradients:  # another width's own
                continue
            total += gradients[name]
            used = torch.zeros_like(parameter)
            if name.startswith("twins") or width == 1.0:
                used += 1
            else:
                layer, _, kind = name.rpartition(".")
                narrow = getattr(model.twin(width).get_submodule(layer), kind)
                used[tuple(slice(size) for size in narrow.shape)] = 1
            users += used
        torch.testing.assert_close(
            parameter.grad, total / users**power, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_one_width_alone_is_left_as_it_is() -> None:
    model = tiny_model().train()
    gradients = _accumulated(model, [0.5])
    divide_by_users(model, [0.5])
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(parameter.grad, gradients[name]), name


@pytest.mark.parametrize("scope", ["detector", "backbone"])
def test_shared_norms_and_whole_layers_are_divided_too(scope: str) -> None:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, backbone="resnet18", neck="light", weights=None, norm_layer="batch", imgsz=64)
    model = slim(detector, (0.5, 1.0), scope, norm_sharing="shared").train()
    gradients = _accumulated(model, [1.0, 0.75])  # 0.75 passes by
    divide_by_users(model, [1.0, 0.75])
    norm, kept = "backbone.body.bn1.weight", "roi_heads.box_predictor.cls_score.bias"
    after = {name: model.get_parameter(name).grad for name in (norm, kept)}
    expected = gradients[norm].clone()
    expected[:48] /= 2
    torch.testing.assert_close(after[norm], expected)
    torch.testing.assert_close(after[kept], gradients[kept] / 2)
