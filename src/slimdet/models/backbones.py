"""Backbones: torchvision's classification networks, their pyramid levels and their ImageNet weights.

Everything here is assembled from torchvision's own classes, so that a detector built on it, and whatever is
extracted from it, holds no class of slimdet. To add a backbone, add an entry to `BACKBONES` (docs/detectors.md).
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model_builder, get_model_weights
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from slimdet.errors import WeightsError
from slimdet.messages import check_choice, first_line
from slimdet.models.weights import fit, read_state_dict

log = logging.getLogger("slimdet")

Norm = Callable[..., nn.Module]
NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Backbone:
    """One entry of the table: how the classifier is made and where its pyramid levels lie.

    Attributes:
        make: norm layer -> classifier with 1000 classes.
        levels: for each of `STRIDES`, the trunk's child that gives this level and its number of channels.
        trunk: name of the classifier's part that holds the levels; empty for the classifier itself.
        translate: another layout of the same weights -> ours (a state dict of neither comes back as it is).
        downloads: torchvision offers ImageNet weights under this backbone's name.
    """

    make: Callable[[Norm], nn.Module]
    levels: tuple[tuple[str, int], ...]
    trunk: str = ""
    translate: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    downloads: bool = True


def classifier(name: str, weights: str | Path | None = None, norm: str = "batch") -> nn.Module:
    """The whole classification network of a backbone, with its head of 1000 ImageNet classes.

    It takes [B, 3, H, W] images, RGB in 0..1 normalised with ImageNet's mean and deviation, and gives [B, 1000] logits.

    Raises:
        ConfigError: unknown backbone or norm.
        WeightsError: the weights cannot be had or do not fit; those of the head must be there, too.
    """
    network = _make(name, norm)
    _load(name, network, weights, unused=set())
    return network


def trunk(name: str, weights: str | Path | None = None, norm: str = "batch") -> tuple[nn.Sequential, str]:
    """The part of a backbone that a detector uses, and a line saying which weights it starts from.

    Args:
        name: a key of `BACKBONES`.
        weights: "imagenet" (torchvision's download), a file (.pth, .pt, .safetensors), or None / "none" for random.
        norm: "batch" or "frozen" (torchvision's FrozenBatchNorm2d: statistics and affine part never change).

    Returns:
        The layers up to the last pyramid level, by their names in the classifier, and the source of their weights.

    Raises:
        ConfigError: unknown backbone or norm.
        WeightsError: the weights cannot be had or do not fit. Those of layers behind the last level may be missing.
    """
    network, entry = _make(name, norm), BACKBONES[name]
    layers = OrderedDict(network.get_submodule(entry.trunk).named_children())
    while next(reversed(layers)) != entry.levels[-1][0]:
        layers.popitem()
    cut = nn.Sequential(layers)
    prefix = f"{entry.trunk}." if entry.trunk else ""
    unused = network.state_dict().keys() - {prefix + key for key in cut.state_dict()}
    return cut, _load(name, network, weights, unused)


# --- weights -----------------------------------------------------------------------------------------------------


def _make(name: str, norm: str) -> nn.Module:
    check_choice("backbone", name, BACKBONES)
    check_choice("backbone norm", norm, NORMS)
    return BACKBONES[name].make(NORMS[norm])


def _load(name: str, network: nn.Module, weights: str | Path | None, unused: set[str]) -> str:
    """Fill the network, but for the keys `unused`, and return where the weights came from."""
    if weights is None or weights == "none":
        return "none (random start)"
    state, source = _download(name) if weights == "imagenet" else (read_state_dict(weights), str(weights))
    fit(network, BACKBONES[name].translate(state), unused, f"weights {source} do not fit {name}")
    log.info("%s: loaded weights %s", name, source)
    return source


def _download(name: str) -> tuple[dict[str, Tensor], str]:
    """torchvision's ImageNet weights, from the cache of torch.hub or over the network."""
    way_out = "give --weights FILE, --weights bundled (the detector that comes with slimdet) or --weights none"
    if not BACKBONES[name].downloads:
        raise WeightsError(f"torchvision offers no ImageNet weights for {name}; {way_out}")
    # V1 for every backbone: what torchvision's own detectors start from.
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        state = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # network errors are many: URLError, timeouts, wrong hash, a truncated file
        raise WeightsError(
            f"cannot get torchvision's {weights} for {name} ({first_line(error)}); {way_out}, or put it at {cached}"
        ) from error
    return state, f"torchvision {weights}"


# --- networks that torchvision does not have ready-made ------------------------------------------------------------


class _ThinBottleneck:
    """Makes torchvision Bottlenecks of half the width for ResNet's constructor (a factory, not a module)."""

    expansion = 2  # stage outputs 64, 128, 256, 512 times this; inside, the usual 4 times half as many

    def __call__(self, inplanes: int, planes: int, stride: int = 1, *args: Any, **kwargs: Any) -> Bottleneck:
        block = Bottleneck(inplanes, planes // 2, stride, *args, **kwargs)
        # The original ResNet, and these weights, stride in the first 1x1 convolution; torchvision in the 3x3.
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        return block


def _resnet50_thin(norm: Norm) -> nn.Module:
    """ResNet-50 v1 with bottlenecks of 32/64/128/256 and a stem of 64 ("ResNet-50 1by2" of Yahoo's open_nsfw)."""
    return ResNet(_ThinBottleneck(), [3, 4, 6, 3], norm_layer=norm)  # pyright: ignore[reportArgumentType]


def _efficientnet_lite0(norm: Norm) -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le 2019; Google's "lite" variant without squeeze-excite and with ReLU6).

    It is MobileNetV2's layout with other stages and, in three of them, 5x5 depthwise convolutions. Padding is
    symmetric; TensorFlow's "SAME" is the same network with the strided grids shifted by a pixel.
    """
    # expansion, channels, blocks, stride, kernel
    stages = [
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ]
    kernels = iter([kernel for _, _, blocks, _, kernel in stages for _ in range(blocks)])

    def block(*args: Any, **kwargs: Any) -> InvertedResidual:
        made, kernel = InvertedResidual(*args, **kwargs), next(kernels)
        depthwise = made.conv[-3]  # ..., depthwise, pointwise, norm
        assert isinstance(depthwise, nn.Sequential)
        conv = depthwise[0]
        assert isinstance(conv, nn.Conv2d)
        channels, stride = conv.out_channels, (made.stride, made.stride)
        depthwise[0] = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
        return made

    return MobileNetV2(
        inverted_residual_setting=[list(stage[:4]) for stage in stages],
        block=block,
        norm_layer=partial(norm, eps=1e-3),  # TensorFlow's
    )


# --- older and foreign layouts of the same weights -----------------------------------------------------------------

# An inverted residual's layers in order; the first block has no expansion and therefore lacks the first pair.
_BLOCK = ("0.0", "0.1", "1.0", "1.1", "2", "3")
_FIRST_BLOCK = ("0.0", "0.1", "1", "2")


def _from_flat_mobilenet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """MobileNetV2 of older torchvision kept a block's layers in one flat list: conv.0, 1, 3, 4, 6, 7."""
    if "features.1.conv.0.weight" not in state:
        return state
    pattern = re.compile(r"features\.(\d+)\.conv\.([013467])\.(\w+)")
    return {pattern.sub(lambda m: _block_key(int(m[1]), "013467".index(m[2]), m[3]), k): v for k, v in state.items()}


def _from_efficientnet_pytorch(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0 as converted from TensorFlow: _conv_stem, _blocks.N._expand_conv, ..., _fc."""
    ends = {
        "_conv_stem": "features.0.0",
        "_bn0": "features.0.1",
        "_conv_head": "features.17.0",
        "_bn1": "features.17.1",
        "_fc": "classifier.1",
    }
    layers = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")

    def rename(key: str) -> str:
        if found := re.fullmatch(rf"_blocks\.(\d+)\.({'|'.join(layers)})\.(\w+)", key):
            number = int(found[1])
            position = layers.index(found[2]) - (0 if number else 2)
            return _block_key(number + 1, position, found[3]) if position >= 0 else key
        layer, _, leaf = key.partition(".")
        return f"{ends.get(layer, layer)}.{leaf}"

    return {rename(key): value for key, value in state.items()} if "_conv_stem.weight" in state else state


def _block_key(number: int, position: int, leaf: str) -> str:
    names = _FIRST_BLOCK if number == 1 else _BLOCK
    # A position that the first block lacks keeps a name that nothing has, so that it is reported.
    return f"features.{number}.conv.{names[position] if position < len(names) else f'flat{position}'}.{leaf}"


# --- the table -----------------------------------------------------------------------------------------------------


def _resnet(name: str, expansion: int) -> Backbone:
    levels = tuple((f"layer{n + 1}", 64 * 2**n * expansion) for n in range(4))
    return Backbone(lambda norm: get_model_builder(name)(norm_layer=norm), levels)


BACKBONES: dict[str, Backbone] = {
    "resnet18": _resnet("resnet18", 1),
    "resnet34": _resnet("resnet34", 1),
    "resnet50": _resnet("resnet50", 4),
    "resnet101": _resnet("resnet101", 4),
    "resnet152": _resnet("resnet152", 4),
    "resnet50_thin": Backbone(
        _resnet50_thin, (("layer1", 128), ("layer2", 256), ("layer3", 512), ("layer4", 1024)), downloads=False
    ),
    "mobilenet_v2": Backbone(
        lambda norm: MobileNetV2(norm_layer=norm),
        (("3", 24), ("6", 32), ("13", 96), ("17", 320)),
        trunk="features",
        translate=_from_flat_mobilenet,
    ),
    "efficientnet_lite0": Backbone(
        _efficientnet_lite0,
        (("3", 24), ("5", 40), ("11", 112), ("16", 320)),
        trunk="features",
        translate=_from_efficientnet_pytorch,
        downloads=False,
    ),
}
