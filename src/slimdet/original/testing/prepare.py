"""A width of a model made ready to run: a plain detector with its norms folded into its convolutions."""

from typing import cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from slimdet.core.slimmable import Slimmable
from slimdet.original.detector.detector import OriginalDetector


def ready(model: Slimmable, width: float, device: torch.device | str = "cpu") -> OriginalDetector:
    """Extract a width for inference. A frozen norm behind a convolution is part of that convolution."""
    detector = cast(OriginalDetector, model.extract(width)).eval().requires_grad_(False)
    _fold(detector.backbone.body)
    return detector.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _fold(module: nn.Module) -> None:
    """Fold each norm into the convolution registered right before it; ResNets register them in the order they run."""
    before = ("", None)
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        _fold(child)
        before = (name, child)
