"""The dry run: channels of every layer at a width, and what it refuses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from core.small import EVERYTHING, SMALL_EXAMPLE, Small, slim_small
from ready_made import ready_made
from slimdet.core.scopes import Scope
from slimdet.core.slimmable import slim
from slimdet.errors import UnknownLayerError, WidthError
from slimdet.widths import channels_at, parse_width


@settings(max_examples=25, deadline=None)
@given(
    channels=st.lists(st.integers(4, 24), min_size=1, max_size=4),
    kinds=st.lists(st.sampled_from(["batch", "frozen", "bias", "depthwise"]), min_size=4, max_size=4),
    width=st.floats(0.25, 0.9999),
)
def test_any_chain_of_layers_narrows_as_written(channels: list[int], kinds: list[str], width: float) -> None:
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, kind in zip(channels, kinds, strict=False):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=kind == "bias"))
        if kind == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        if kind == "frozen":
            layers.append(FrozenBatchNorm2d(outputs))
        if kind == "depthwise":
            layers.append(nn.Conv2d(outputs, outputs, 3, groups=outputs))
        inputs = outputs
    network = nn.Sequential(*layers).eval()
    scope = Scope("all", (".*",), own_bias=True)
    example = (torch.zeros(1, 3, 16, 16),)
    model = slim(network, (width, 1.0), scope, example=example)
    x = torch.randn(2, 3, 16, 16)
    narrow = parse_width(width)
    with torch.no_grad():
        expected = x
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                out, received = channels_at(narrow, layer.out_channels), expected.shape[1]
                corner = layer.weight[:out] if layer.groups > 1 else layer.weight[:out, :received]
                bias = None if layer.bias is None else layer.bias[:out]
                groups = out if layer.groups > 1 else 1
                expected = F.conv2d(expected, corner, bias, padding=layer.padding, groups=groups)  # pyright: ignore
            else:
                norm: Any = layer
                n = expected.shape[1]
                parts = (norm.running_mean[:n], norm.running_var[:n], norm.weight[:n], norm.bias[:n])
                expected = F.batch_norm(expected, *parts, eps=norm.eps)
        torch.testing.assert_close(model(x, width=width), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(x, width=width), model.extract(width)(x))


def test_a_width_that_leaves_no_channel_names_the_layer_and_the_least_width() -> None:
    with pytest.raises(WidthError, match=r"leaves first \(8 channels\) without one; use 0\.125 or more"):
        slim_small((0.1, 1.0))
    assert slim_small((0.125, 1.0)).widths == (0.125, 1.0)


@pytest.mark.parametrize("width", [0.3, 0.35, 2 / 3, 0.9])
def test_groups_that_do_not_fit_name_the_nearest_widths_that_do(width: float) -> None:
    detector = ready_made("fcos_resnet50")
    with pytest.raises(WidthError, match=r"GroupNorm.*not a whole number of groups; the nearest") as caught:
        slim(detector, (width, 1.0))
    text = str(caught.value)
    below, above = (float(word) for word in text.split("that fit are ")[1].split(" and "))
    assert below < width < above
    assert slim(detector, (below, above, 1.0)).widths == (below, above, 1.0)


def test_grouped_convolutions_keep_their_channels_per_group() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 3, padding=1, groups=4))
    scope = Scope("all", (".*",))
    example = (torch.zeros(1, 3, 8, 8),)
    plain: Any = slim(network, (0.5, 1.0), scope, example=example).extract(0.5)
    assert (plain[1].groups, plain[1].in_channels, plain[1].out_channels) == (2, 8, 16)
    with pytest.raises(WidthError, match=r"width 0\.3 gives 1 \(Conv2d\) 4 channels|whole number of groups"):
        slim(network, (0.4, 1.0), scope, example=example)


def test_what_the_dry_run_does_not_reach_or_understand_is_refused() -> None:
    class Aside(Small):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.Conv2d(3, 4, 1)

    with pytest.raises(UnknownLayerError, match="aside is not reached"):
        slim(Aside(), (0.5, 1.0), EVERYTHING, example=SMALL_EXAMPLE)
    fixed = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Unflatten(1, (4, 2)))
    with pytest.raises(UnknownLayerError, match="depends on the number of channels"):
        slim(fixed, (0.3, 1.0), Scope("all", (".*",)), example=SMALL_EXAMPLE)


def test_no_channel_is_lost_to_float_noise() -> None:
    network = nn.Sequential(nn.Conv2d(3, 100, 1), nn.BatchNorm2d(100), nn.Linear(4, 100))
    plain: Any = slim(network, (0.29, 1.0), Scope("all", (".*",)), example=(torch.zeros(1, 3, 4, 4),)).extract(0.29)
    assert (plain[0].out_channels, plain[1].num_features, plain[2].out_features) == (29, 29, 29)
    grouped = nn.Sequential(nn.Conv2d(3, 100, 1), nn.GroupNorm(100, 100), nn.Conv2d(100, 200, 1, groups=100))
    plain = slim(grouped, (0.29, 1.0), Scope("all", (".*",)), example=(torch.zeros(1, 3, 4, 4),)).extract(0.29)
    assert (plain[1].num_groups, plain[2].groups, plain[2].out_channels) == (29, 29, 58)
