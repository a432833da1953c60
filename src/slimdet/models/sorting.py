"""Order channels by importance, so that the leading ones, which narrow widths use, are those that matter.

Permuting the channels of everything that shares them leaves a network's function as it is. Which layers share channels
(a residual stream, the two sides of a depthwise convolution) is read off the traced graph, the grouping of Group Fisher
pruning (arXiv 2108.00708, section 3.2) and DepGraph (arXiv 2301.12900). A channel's importance is what its consumers
make of it: mean |activation| times the L1 norm of their weights for it, each consumer's sum being 1 ("Once for All",
arXiv 1908.09791, sorts by the consumers' L1 norm).

Channels under a group norm move in whole groups.

Letters: C channels of a group of layers, k positions of a map that is flattened (49 in a box head).
"""

import math
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from slimdet.core.tracing import CONVOLUTIONS, NORMS
from slimdet.errors import UnknownLayerError
from slimdet.models.kinds import require

# Functions and methods that keep channels apart, by name; everything else is taken to mix them.
_CHANNELWISE = frozenset(
    {"add", "add_", "iadd", "sub", "mul", "mul_", "imul", "clone", "contiguous"}
    | {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu"}
    | {"leaky_relu", "dropout", "stochastic_depth"}
    | {"interpolate", "max_pool2d", "boolean_dispatch", "avg_pool2d", "adaptive_avg_pool2d"}
)
_CHANNELWISE_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.LeakyReLU),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d, nn.Identity, nn.Upsample),
)

_WITH_CHANNELS = (*CONVOLUTIONS, nn.Linear, *NORMS)

# What a detector runs on its pyramid: a head, and the layers or modules that read the head's output.
_HEADS = (
    ("rpn.head.conv", ("rpn.head.cls_logits", "rpn.head.bbox_pred")),
    ("roi_heads.box_head", ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")),
    ("roi_heads.mask_head", ("roi_heads.mask_predictor",)),
    ("roi_heads.keypoint_head", ("roi_heads.keypoint_predictor",)),
)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, NORMS) or super().is_leaf_module(m, module_qualified_name)


class ChannelGroups:
    """Sets of channels that must move together (union-find), with the layers that give, carry and read them."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.gives: list[tuple[int, Any]] = []
        self.carries: list[tuple[int, Any]] = []
        self.reads: list[tuple[int, Any]] = []
        self.fixed: list[int] = []
        self.flat: list[int] = []  # of channels that are, somewhere, the last of two dimensions
        self.seen: dict[nn.Module, tuple[int, int]] = {}  # layer -> groups of its input and output

    def new(self, fixed: bool = False) -> int:
        self.parent.append(len(self.parent))
        if fixed:
            self.fixed.append(self.parent[-1])
        return self.parent[-1]

    def find(self, group: int) -> int:
        while self.parent[group] != group:
            self.parent[group] = self.parent[self.parent[group]]
            group = self.parent[group]
        return group

    def join(self, groups: list[int]) -> int:
        for other in groups[1:]:
            self.parent[self.find(other)] = self.find(groups[0])
        return groups[0]

    def among(self, groups: list[int]) -> set[int]:
        return {self.find(group) for group in groups}

    def follow(self, module: nn.Module, start: int) -> list[int]:
        """Add the layers of a module that runs on the channels `start`; return the groups of its outputs.

        Raises:
            UnknownLayerError: the module's forward cannot be traced.
        """
        root = nn.Sequential(module)  # so that a single layer is traced as a call of that layer
        try:
            graph = _Tracer().trace(root)
        except Exception as error:  # fx raises whatever the traced code raises
            raise UnknownLayerError(f"{type(module).__name__} cannot be traced for sorting: {error}") from error
        of: dict[fx.Node, int] = {}
        outputs: list[int] = []
        for node in graph.nodes:
            inputs = [of[argument] for argument in node.all_input_nodes if argument in of]
            if node.op == "placeholder":
                of[node] = start
            elif node.op == "get_attr":
                of[node] = self.new(fixed=True)  # a bare tensor stays as it is, and so does what it is added to
            elif node.op == "call_module":
                of[node] = self._through(root.get_submodule(str(node.target)), inputs)
            elif node.op == "output":
                outputs = inputs
            elif inputs:
                name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
                if name in ("getattr", "size", "dim"):
                    continue  # a shape, not a feature map
                of[node] = self.join(inputs)
                if name == "flatten" and (*node.args[1:], *node.kwargs.values()) == (1,):
                    self.flat.append(of[node])
                elif name not in _CHANNELWISE:
                    self.fixed.append(of[node])
        return outputs

    def _through(self, layer: Any, inputs: list[int]) -> int:
        """The group of a layer's output."""
        group = self.join(inputs) if inputs else self.new(fixed=True)
        if layer in self.seen:  # called again: on the same channels
            self.join([self.seen[layer][0], group])
            return self.seen[layer][1]
        out = group
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            self.flat.append(group)
        elif isinstance(layer, nn.Linear) and self.find(group) in self.among(self.flat):
            out = self.new()
            self.flat.append(out)
        elif isinstance(layer, CONVOLUTIONS) and layer.groups == 1:
            out = self.new()
        elif isinstance(layer, NORMS) or (
            isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels == layer.out_channels
        ):
            self.carries.append((group, layer))
        elif not isinstance(layer, _CHANNELWISE_MODULES):
            self.fixed.append(group)
        if out != group:
            self.reads.append((group, layer))
            self.gives.append((out, layer))
        if isinstance(layer, _WITH_CHANNELS):
            self.seen[layer] = group, out
        return out


def channel_groups(backbone: nn.Module) -> ChannelGroups:
    """Read off the graph of a backbone which layers share which channels; those of its outputs are fixed.

    Raises:
        UnknownLayerError: the backbone's forward cannot be traced.
    """
    groups = ChannelGroups()
    groups.fixed += groups.follow(backbone, groups.new(fixed=True))
    return groups


def detector_groups(detector: nn.Module) -> ChannelGroups:
    """The same of a whole R-CNN, whose pyramid levels share their channels; its outputs are fixed.

    Raises:
        ConfigError: another kind of detector.
        UnknownLayerError: a part that cannot be traced, or heads that are not named as torchvision's are.
    """
    require(detector, "sort")
    groups = ChannelGroups()
    pyramid = groups.join(groups.follow(detector.get_submodule("backbone"), groups.new(fixed=True)))
    for name, predictors in _HEADS:
        try:
            head, *readers = attrgetter(name, *predictors)(detector)
        except AttributeError as error:
            raise UnknownLayerError(f"{type(detector).__name__} cannot be sorted: {error}") from error
        if head is None:  # no masks
            continue
        features = groups.join(groups.follow(head, pyramid))
        for reader in readers:
            groups.fixed += groups.follow(reader, features)
    return groups


def sort_channels(backbone: nn.Module, images: Iterable[Tensor]) -> int:
    """Sort a backbone's channels in place, the most important first; its outputs stay as they are, up to rounding.

    Args:
        backbone: a feature extractor, for torchvision's detectors `detector.backbone` (with its pyramid).
        images: batches [B, 3, H, W], as the backbone receives them; some dozens of images suffice.

    Returns:
        The number of groups of layers whose channels were sorted.

    Raises:
        UnknownLayerError: the backbone's forward cannot be traced.
    """
    return _sort(backbone, channel_groups(backbone), images)


def sort_detector(detector: nn.Module, images: Iterable[Tensor]) -> int:
    """Sort all channels of a trained R-CNN in place; what it finds stays as it is, up to rounding.

    Backbone, pyramid and heads are sorted, all but the outputs that mean classes, boxes, masks and keypoints.

    Args:
        detector: a plain detector (of a slimmable one `model.extract(1.0)`), its statistics up to date: the heads'
            activations are those of its proposals and detections in eval mode.
        images: [3, H, W] in 0..1, each as the detector takes it; some dozens suffice.

    Returns:
        The number of groups of layers whose channels were sorted.

    Raises:
        ConfigError: another kind of detector.
        UnknownLayerError: a part that cannot be traced, or heads that are not named as torchvision's are.
    """
    return _sort(detector, detector_groups(detector), ([image] for image in images))


@torch.no_grad()
def _sort(network: nn.Module, groups: ChannelGroups, inputs: Iterable[Any]) -> int:
    orders = _orders(groups, _mean_magnitudes(network, [layer for _, layer in groups.reads], inputs))
    for group, layer in groups.gives:
        if (order := orders.get(groups.find(group))) is not None:
            _reorder(layer.weight, 1 - _input_dim(layer), order)
            if layer.bias is not None:
                _reorder(layer.bias, 0, order)
    for group, layer in groups.carries:
        if (order := orders.get(groups.find(group))) is not None:
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.dim():
                    _reorder(tensor, 0, order)
    for group, layer in groups.reads:
        if (order := orders.get(groups.find(group))) is not None:
            _reorder(layer.weight, _input_dim(layer), order)
    return len(orders)


def _mean_magnitudes(network: nn.Module, layers: list[nn.Module], inputs: Iterable[Any]) -> dict[nn.Module, Tensor]:
    """The mean |input| of each layer that is reached, by channel."""
    sums: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if len(x):  # a mask head sees nothing where nothing is detected
            sums[layer] = sums.get(layer, 0) + x.abs().mean((0, *range(2, x.dim())))

    training = network.training
    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        network.eval()
        for batch in inputs:
            network(batch)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return sums


def _orders(groups: ChannelGroups, magnitudes: dict[nn.Module, Tensor]) -> dict[int, Tensor]:
    """For each group of layers that can be sorted, its channels in their new order."""
    channels = {groups.find(group): layer.weight.shape[1 - _input_dim(layer)] for group, layer in groups.gives}
    free = channels.keys() - groups.among(groups.fixed)
    importance: dict[int, Tensor] = {}
    for group, layer in groups.reads:
        if (root := groups.find(group)) in free:
            strength = layer.weight.abs().transpose(0, _input_dim(layer)).flatten(1).sum(1)  # [C] or [C * k]
            # A layer that no image reached is judged by its weights alone.
            score = (strength * magnitudes.get(layer, 1)).view(channels[root], -1).sum(1)  # [C]
            importance[root] = importance.get(root, 0) + score / score.sum().clamp_min(1e-12)
    blocks = dict.fromkeys(importance, 1)
    for group, norm in groups.carries:
        if isinstance(norm, nn.GroupNorm) and (root := groups.find(group)) in blocks:
            size, flattened = norm.num_channels // norm.num_groups, norm.num_channels // channels[root]
            blocks[root] = math.lcm(blocks[root], math.lcm(size, flattened) // flattened)
    return {
        root: _expand(score.view(-1, blocks[root]).sum(1).argsort(descending=True, stable=True), blocks[root])
        for root, score in importance.items()
    }


def _input_dim(layer: Any) -> int:
    """Which dimension of the layer's weight its input channels are."""
    return 0 if isinstance(layer, CONVOLUTIONS) and layer.transposed else 1


def _expand(order: Tensor, size: int) -> Tensor:
    """The order of what comes in runs of `size`."""
    return (order[:, None] * size + torch.arange(size, device=order.device)).flatten()


def _reorder(tensor: Tensor, dim: int, order: Tensor) -> None:
    """Permute channels in place; a flattened one is k entries side by side."""
    tensor.copy_(tensor.index_select(dim, _expand(order, tensor.shape[dim] // len(order))))
