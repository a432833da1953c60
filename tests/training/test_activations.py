"""Activation checkpointing: the same gradients and statistics, less kept."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn

from scenes_detector import scene_batch, tiny_model
from slimdet import slim
from slimdet.models import builders
from slimdet.training.activations import recomputed_backbone
from slimdet.training.settings import TrainSettings
from slimdet.training.step import accumulate_gradients


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_gradients_and_statistics_are_the_same(backbone: str) -> None:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, backbone, "light", None, "batch", imgsz=64)
    one = slim(detector, (0.5, 1.0)).train()
    other = copy.deepcopy(one)
    images, targets = scene_batch()
    for model, checkpointed in ((one, False), (other, True)):
        torch.manual_seed(1)
        settings = TrainSettings(distill=1.0, bf16=True, checkpoint_activations=checkpointed)
        accumulate_gradients(model, images, targets, [1.0, 0.5], settings)
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(one.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name


def kept(detector: nn.Module, enabled: bool) -> int:
    """Numbers that a forward pass of the backbone leaves for the backward pass."""
    count = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal count
        count += 0 if isinstance(tensor, nn.Parameter) else tensor.numel()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, recomputed_backbone(detector, enabled):
        detector.get_submodule("backbone")(torch.rand(1, 3, 64, 64))
    return count


def test_less_is_kept_and_forward_is_put_back() -> None:
    detector = tiny_model((1.0,)).twin(1.0).train()
    assert kept(detector, True) < 0.6 * kept(detector, False)
    assert not any("forward" in vars(module) for module in detector.modules())


def test_another_detector_of_torchvision() -> None:
    detector = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    images, targets = (
        [torch.rand(3, 64, 64)],
        [{"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])}],
    )
    detector.train()
    with recomputed_backbone(detector):
        torch.stack(list(detector(images, targets).values())).sum().backward()
    assert all(parameter.grad is not None for parameter in detector.backbone.body.layer1.parameters())
