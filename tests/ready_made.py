"""torchvision's ready-made detectors, small images and random weights, as the tests hand them over."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as D

_NONE: dict[str, Any] = {"weights": None, "weights_backbone": None}
_SMALL: dict[str, Any] = {"min_size": 96, "max_size": 128}
_RCNN: dict[str, Any] = _NONE | _SMALL | {"box_score_thresh": 0.0}
_ONE_STAGE: dict[str, Any] = _NONE | _SMALL | {"score_thresh": 0.0}

READY_MADE: dict[str, Callable[[], nn.Module]] = {
    "fasterrcnn_resnet50": lambda: D.fasterrcnn_resnet50_fpn(**_RCNN, num_classes=5),
    "fasterrcnn_mobilenet_v3": lambda: D.fasterrcnn_mobilenet_v3_large_fpn(**_RCNN, num_classes=5),
    "maskrcnn_resnet50": lambda: D.maskrcnn_resnet50_fpn(**_RCNN, num_classes=5, box_detections_per_img=30),
    "keypointrcnn_resnet50": lambda: D.keypointrcnn_resnet50_fpn(**_RCNN, num_classes=2, box_detections_per_img=30),
    "retinanet_resnet50": lambda: D.retinanet_resnet50_fpn(**_ONE_STAGE, num_classes=5),
    "retinanet_resnet50_v2": lambda: D.retinanet_resnet50_fpn_v2(**_ONE_STAGE, num_classes=5),
    "fcos_resnet50": lambda: D.fcos_resnet50_fpn(**_ONE_STAGE, num_classes=5),
    "ssdlite_mobilenet_v3": lambda: D.ssdlite320_mobilenet_v3_large(**_NONE, score_thresh=0.0, num_classes=5),
}

# Group norm of 8 channels a group in the heads: in scope "detector" only widths that give whole groups fit.
GROUPED = ("retinanet_resnet50_v2", "fcos_resnet50")


def ready_made(name: str) -> nn.Module:
    """The detector in eval mode, its norms with statistics that tell channels apart."""
    torch.manual_seed(0)
    detector = READY_MADE[name]().eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # pyright: ignore
            module.running_var.uniform_(0.5, 1.5)  # pyright: ignore
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return detector


def photographs(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator) for size in sizes or [(90, 120)]]


def same(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    """Whether two detectors' outputs are equal to the last bit."""
    return len(first) == len(second) and all(
        a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(first, second, strict=True)
    )
