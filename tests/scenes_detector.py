"""A detector small enough to train in a test, a batch for it, and settings of a training that takes seconds."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimdet import Slimmable, slim
from slimdet.models import builders
from slimdet.training.settings import TrainSettings


def tiny_model(widths: tuple[float, ...] = (0.5, 1.0), masks: bool = False) -> Slimmable:
    torch.manual_seed(0)
    make = builders.mask_rcnn if masks else builders.faster_rcnn
    return slim(make(3, backbone="resnet18", neck="light", weights=None, norm_layer="batch", imgsz=64), widths)


def scene_batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [torch.rand(3, 64, 80), torch.rand(3, 80, 64)]
    boxes = torch.tensor([[10.0, 10, 50, 50]])
    return images, [{"boxes": boxes, "labels": torch.tensor([label])} for label in (1, 2)]


def small_settings(data: Path, **changes: Any) -> TrainSettings:
    """Of a training on made-up scenes; an epoch of six pictures is three steps."""
    fixed: dict[str, Any] = {
        "data": str(data),
        "backbone": "mobilenet_v2",
        "neck": "light",
        "head_norm": "batch",
        "weights": "none",
        "widths": (0.5, 1.0),
        "epochs": 1 / 3,
        "batch": 2,
        "imgsz": 64,
        "evaluate": False,
        "device": "cpu",
    }
    return TrainSettings(**fixed | changes)
