"""Sorting channels: the function stays, the leading channels matter more."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large

from slimdet import detectors
from slimdet.errors import UnknownLayerError
from slimdet.slimmable import slim
from slimdet.sorting import channel_groups, sort_channels


def batches(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 64, 64, generator=generator)]


def shuffled_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.1, 2)
            nn.init.normal_(norm.bias, 0, 0.2)
            norm.running_mean.normal_(0, 0.2)  # pyright: ignore[reportOptionalMemberAccess]
            norm.running_var.uniform_(0.5, 2)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("neck", ["light", "full"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_thin", "mobilenet_v2", "efficientnet_lite0"])
def test_the_widest_computes_the_same_after_sorting(backbone: str, neck: str) -> None:
    detector: Any = detectors.faster_rcnn(3, backbone=backbone, neck=neck, weights=None, norm_layer="batch").eval()
    shuffled_norms(detector.backbone)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = detector.backbone(image)
        state = {key: value.clone() for key, value in detector.backbone.state_dict().items()}
        assert sort_channels(detector.backbone, batches()) > 10
        after = detector.backbone(image)
    for level in before:
        torch.testing.assert_close(after[level], before[level], rtol=1e-4, atol=1e-5 * before[level].abs().max().item())
    assert any(not torch.equal(value, state[key]) for key, value in detector.backbone.state_dict().items())


def test_the_leading_half_keeps_what_matters() -> None:
    """Half of the channels are made useless; sorting moves them behind, and half the width loses nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    useless = torch.randperm(16)[:8]
    with torch.no_grad():
        network[3].weight[:, useless] = 0  # pyright: ignore[reportIndexIssue, reportArgumentType]
    from slimdet.scopes import Scope

    scope, x = Scope("first", narrow=("0",)), torch.randn(2, 3, 8, 8)
    example = (torch.zeros(1, 3, 8, 8),)
    with torch.no_grad():
        expected = network(x)
        unsorted = slim(network, (0.5, 1.0), scope, example)(x, width=0.5)
        sort_channels(network, [x])
        sorted_ = slim(network, (0.5, 1.0), scope, example)(x, width=0.5)
    assert not torch.allclose(unsorted, expected, atol=1e-3)
    torch.testing.assert_close(sorted_, expected)


def test_residual_streams_and_depthwise_layers_move_together() -> None:
    detector: Any = detectors.faster_rcnn(3, backbone="mobilenet_v2", neck="light", weights=None)
    groups = channel_groups(detector.backbone)
    roots = [groups.find(group) for group, _ in groups.gives]
    assert len(set(roots)) < len(roots)  # blocks of a stage write to one stream


def test_a_network_with_gates_is_sorted_too() -> None:
    torch.manual_seed(0)
    features = mobilenet_v3_large(weights=None).features.eval()  # squeeze-and-excitation multiplies
    shuffled_norms(features)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = features(image)
        sort_channels(features, batches())
        torch.testing.assert_close(features(image), before, rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnknownLayerError, match="Branching cannot be traced"):
        sort_channels(Branching(), batches())
