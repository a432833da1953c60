"""A detector small enough to train in a test, and a batch for it."""

import torch
from torch import Tensor

from slimdet import Slimmable, slim
from slimdet.models import builders


def tiny_model(widths: tuple[float, ...] = (0.5, 1.0), masks: bool = False) -> Slimmable:
    torch.manual_seed(0)
    make = builders.mask_rcnn if masks else builders.faster_rcnn
    return slim(make(3, backbone="resnet18", neck="light", weights=None, norm_layer="batch", imgsz=64), widths)


def scene_batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    images = [torch.rand(3, 64, 80), torch.rand(3, 80, 64)]
    boxes = torch.tensor([[10.0, 10, 50, 50]])
    return images, [{"boxes": boxes, "labels": torch.tensor([label])} for label in (1, 2)]
