"""bfloat16 for layers, float32 for boxes.

Under one `torch.autocast` around a whole detector torchvision makes anchors in the type of the feature maps, and
proposals, ground truth and regression targets in the type of the anchors. bfloat16 has 8 bits: 300.3 and 301.6 become
300 and 302, and a box that rounds to nothing has a target of minus infinity. So only the parts that are made of layers
compute in bfloat16; what they return is float32 again, and so are anchors, boxes, targets and losses.

Backbones with depthwise convolutions (MobileNet, EfficientNet) stay in float32 on a CPU: in bfloat16
a step takes longer with them (benchmarks/training/step.json).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Parts of torchvision's detectors that are layers alone: Faster, Mask and Keypoint R-CNN; RetinaNet, FCOS and SSD.
_LAYERS = (
    "backbone",
    "rpn.head",
    *(f"roi_heads.{name}" for name in ("box_head", "box_predictor", "mask_head", "mask_predictor")),
    *(f"roi_heads.{name}" for name in ("keypoint_head", "keypoint_predictor")),
    "head",
)


@contextmanager
def bfloat16_layers(detector: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Let the layers of a detector compute in bfloat16 (`torch.autocast`) and return float32, within the block.

    Args:
        detector: one of torchvision's.
        enabled: whether anything is to happen.
    """
    modules = dict(detector.named_modules()) if enabled else {}
    parts = [modules[name] for name in _LAYERS if name in modules]
    slow = _slow_in_bfloat16(detector) if enabled else []
    for part in parts:
        part.__dict__["forward"] = _in_bfloat16(part)
    for part in slow:
        part.__dict__["forward"] = _in_float32(part)
    try:
        yield
    finally:
        for module in {*parts, *slow}:
            module.__dict__.pop(
                "forward", None
            )  # the class's method is seen again; another context may have been first


def _slow_in_bfloat16(detector: nn.Module) -> list[nn.Module]:
    """The body of the backbone, if it has depthwise convolutions and is on a CPU."""
    backbone: Any = detector.backbone
    body = getattr(backbone, "body", backbone)
    layers = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]
    depthwise = any(layer.groups == layer.in_channels > 1 for layer in layers)
    return [body] if depthwise and layers[0].weight.device.type == "cpu" else []


def _in_float32(part: nn.Module) -> Callable[..., Any]:
    forward = type(part).forward

    def run(*args: Any, **options: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(part, *args, **options)

    return run


def _in_bfloat16(part: nn.Module) -> Callable[..., Any]:
    forward, device = part.forward, next(part.parameters()).device.type

    def run(*args: Any, **options: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return _float32(forward(*args, **options))

    return run


def _float32(value: Any) -> Any:
    """Tensors of floating-point numbers, wherever in lists, tuples and dicts they are, in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)((key, _float32(entry)) for key, entry in value.items())
    return type(value)(map(_float32, value)) if isinstance(value, list | tuple) else value
