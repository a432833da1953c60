"""Statistics collected for a width: what they are, and whom they touch."""

import pytest
import torch
from torch import nn

from scenes_detector import scene_batch
from slimdet import Slimmable, slim
from slimdet.errors import DataError
from slimdet.models import builders
from slimdet.training.statistics import _Moments, collect_statistics


def tiny(norms: str = "shared", masks: bool = False) -> Slimmable:
    torch.manual_seed(0)
    make = builders.mask_rcnn if masks else builders.faster_rcnn
    return slim(
        make(3, "resnet18", "light", weights=None, norm_layer="batch", imgsz=64), (0.25, 1.0), norm_sharing=norms
    )


def test_moments_of_parts_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 5, 3, 2) * 3 + 100
    moments = _Moments()
    for part in (values[:1], values[1:1], values[1:4], values[4:]):
        moments.add(part)
    flat = values.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean, flat.mean(1))
    torch.testing.assert_close(moments.squares / (moments.count - 1), flat.var(1))


def test_statistics_are_those_of_the_inputs_in_use() -> None:
    model = tiny().eval()
    images, targets = scene_batch()
    collect_statistics(model, (0.25,), [(images, targets)])
    twin: nn.Module = model.twin(0.25)
    seen: list[torch.Tensor] = []
    norm = twin.get_submodule("backbone.body.bn1")
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images, width=0.25)
    handle.remove()
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("masks", [False, True])
def test_nothing_but_the_statistics_of_that_width_changes(masks: bool) -> None:
    model = tiny(masks=masks).eval()
    model.add(0.5)
    images, targets = scene_batch()
    if masks:
        for image, target in zip(images, targets, strict=True):
            target["masks"] = torch.ones(1, *image.shape[1:], dtype=torch.uint8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    collect_statistics(model, (0.5,), [(images, targets)])
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all((key.startswith("twins.0_5.") and "running" in key) or "num_batches" in key for key in changed)
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module.training for module in model.modules())
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_frozen_norms_get_statistics_too() -> None:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, "resnet18", "light", weights=None, backbone_norm="frozen", imgsz=64)
    model = slim(detector, (0.5, 1.0)).eval()
    frozen = model.twin(0.5).get_submodule("backbone.body.layer1.0.bn1")
    before = frozen.running_mean.clone()  # pyright: ignore
    collect_statistics(model, (0.5,), [scene_batch()])
    assert not torch.equal(frozen.running_mean, before)  # pyright: ignore


def test_broken_weights_are_told() -> None:
    model = tiny().eval()
    nn.init.constant_(model.get_parameter("backbone.body.layer1.0.conv1.weight"), float("inf"))
    with pytest.raises((DataError, AssertionError)):
        collect_statistics(model, (0.25,), [scene_batch()])
