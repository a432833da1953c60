"""Order channels by importance, so that the leading ones, which narrow widths use, are those that matter.

Permuting the channels of everything that shares them leaves a network's function as it is. Which layers share channels
(a residual stream, the two sides of a depthwise convolution) is read off the traced graph, the grouping of Group Fisher
pruning (arXiv 2108.00708, section 3.2) and DepGraph (arXiv 2301.12900). A channel's importance is what its consumers
make of it: mean |activation| times the L1 norm of their weights for it, each consumer's sum being 1 ("Once for All",
arXiv 1908.09791, sorts by the consumers' L1 norm).

Letters: C channels of a group.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimdet.errors import UnknownLayerError
from slimdet.tracing import CONVOLUTIONS, NORMS

# Functions and methods that keep channels apart, by name; everything else is taken to mix them.
_CHANNELWISE = frozenset(
    {"add", "add_", "iadd", "sub", "mul", "mul_", "imul", "clone", "contiguous"}
    | {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu"}
    | {"leaky_relu", "dropout", "stochastic_depth"}
    | {"interpolate", "max_pool2d", "boolean_dispatch", "avg_pool2d", "adaptive_avg_pool2d"}
)
_CHANNELWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.Hardtanh,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Upsample,
)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, NORMS) or super().is_leaf_module(m, module_qualified_name)


class _Groups:
    """Sets of channels that must move together (union-find), with the layers that give, carry and read them."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.gives: list[tuple[int, nn.Module]] = []
        self.carries: list[tuple[int, nn.Module]] = []
        self.reads: list[tuple[int, nn.Module]] = []
        self.fixed: list[int] = []

    def new(self) -> int:
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def join(self, groups: list[int]) -> int:
        for other in groups[1:]:
            self.parent[self.find(other)] = self.find(groups[0])
        return groups[0]


def channel_groups(backbone: nn.Module) -> _Groups:
    """Read off the graph of a backbone which layers share which channels.

    Raises:
        UnknownLayerError: the backbone's forward cannot be traced.
    """
    try:
        graph = _Tracer().trace(backbone)
    except Exception as error:  # fx raises whatever the traced code raises
        raise UnknownLayerError(f"{type(backbone).__name__} cannot be traced for sorting: {error}") from error
    groups = _Groups()
    of: dict[fx.Node, int] = {}
    for node in graph.nodes:
        inputs = [of[argument] for argument in node.all_input_nodes if argument in of]
        if node.op == "placeholder":
            of[node] = groups.new()
            groups.fixed.append(of[node])
        elif node.op == "call_module":
            of[node] = _through(backbone.get_submodule(str(node.target)), inputs, groups)
        elif node.op in ("call_function", "call_method") and inputs:
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
            if name in ("getattr", "getitem", "size", "shape"):
                continue  # a shape, not a feature map
            of[node] = groups.join(inputs)
            if name not in _CHANNELWISE:
                groups.fixed.append(of[node])
        elif node.op == "output":
            groups.fixed.extend(inputs)
    return groups


def _through(layer: nn.Module, inputs: list[int], groups: _Groups) -> int:
    """The group of a layer's output."""
    group = groups.join(inputs)
    if isinstance(layer, CONVOLUTIONS) and layer.groups == 1 and not layer.transposed:
        groups.reads.append((group, layer))
        out = groups.new()
        groups.gives.append((out, layer))
        return out
    if (isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels) or (
        isinstance(layer, NORMS) and not isinstance(layer, nn.GroupNorm)
    ):
        groups.carries.append((group, layer))
    elif not isinstance(layer, _CHANNELWISE_MODULES):
        groups.fixed.append(group)
    return group


@torch.no_grad()
def sort_channels(backbone: nn.Module, images: Iterable[Tensor]) -> int:
    """Sort a backbone's channels in place, the most important first; its outputs stay as they are, up to rounding.

    Args:
        backbone: a feature extractor, for torchvision's detectors `detector.backbone` (with its pyramid).
        images: batches [B, 3, H, W], as the backbone receives them; some dozens of images suffice.

    Returns:
        The number of groups of channels that were sorted.
    """
    groups = channel_groups(backbone)
    magnitudes = _mean_magnitudes(backbone, [layer for _, layer in groups.reads], images)
    importance: dict[int, Tensor] = {}
    for group, layer in groups.reads:
        weight: Any = layer.weight
        score = magnitudes[layer] * weight.abs().sum((0, *range(2, weight.dim())))  # [C]
        root = groups.find(group)
        importance[root] = importance.get(root, 0) + score / score.sum().clamp_min(1e-12)
    fixed = {groups.find(group) for group in groups.fixed}
    orders = {
        group: score.argsort(descending=True, stable=True) for group, score in importance.items() if group not in fixed
    }
    for group, layer in (*groups.gives, *groups.carries):
        if (order := orders.get(groups.find(group))) is not None:
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.dim():
                    tensor.copy_(tensor[order])
    for group, layer in groups.reads:
        if (order := orders.get(groups.find(group))) is not None:
            weight = layer.weight
            weight.copy_(weight[:, order])
    return len(orders)


def _mean_magnitudes(backbone: nn.Module, layers: list[nn.Module], images: Iterable[Tensor]) -> dict[nn.Module, Tensor]:
    """The mean |input| of each layer, by channel."""
    sums: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean = inputs[0].abs().mean((0, 2, 3))
        sums[layer] = sums.get(layer, torch.zeros_like(mean)) + mean

    training = backbone.training
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        backbone.eval()
        for batch in images:
            backbone(batch)
    finally:
        backbone.train(training)
        for handle in handles:
            handle.remove()
    return sums
