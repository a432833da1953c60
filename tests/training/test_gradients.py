"""Gradients divided, weight by weight, by the number of widths that left them."""

import pytest
import torch
from slimdet.training.gradients import divide_by_users

from scenes_detector import scene_batch, tiny_model
from slimdet import slim
from slimdet.core.slimmable import Slimmable
from slimdet.models import builders
from slimdet.training.trainer import accumulate_gradients


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
