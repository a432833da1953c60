"""bfloat16 stays in the layers: boxes and what is computed of them are float32's."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn, retinanet_resnet50_fpn

from slimdet.models import builders
from slimdet.training.precision import bfloat16_layers


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """An image with a box of a third of a pixel, and one whose corners 8 bits cannot tell."""
    generator = torch.Generator().manual_seed(3)
    boxes = torch.tensor([[300.3, 300.3, 300.6, 300.6], [100.2, 60.7, 301.6, 200.3]])
    return [torch.rand(3, 320, 320, generator=generator)], [{"boxes": boxes, "labels": torch.tensor([1, 1])}]


@pytest.mark.parametrize("build", [fasterrcnn_mobilenet_v3_large_320_fpn, retinanet_resnet50_fpn])
def test_losses_are_finite_and_near_those_in_float32(build: object) -> None:
    torch.manual_seed(0)
    detector = build(weights=None, weights_backbone=None, num_classes=2, min_size=320, max_size=320)  # type: ignore[operator]
    images, targets = batch()

    def losses(enabled: bool) -> dict[str, Tensor]:
        torch.manual_seed(1)
        with bfloat16_layers(detector, enabled):
            return detector.train()(images, targets)

    exact, found = losses(False), losses(True)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.isfinite(value), name
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.02)
    sum(found.values()).backward()  # type: ignore[union-attr]


def test_boxes_and_targets_keep_their_digits() -> None:
    torch.manual_seed(0)
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=2).train()
    images, targets = batch()
    seen: dict[str, Tensor] = {}
    select, encode = detector.roi_heads.select_training_samples, detector.rpn.box_coder.encode

    def selected(proposals: list[Tensor], given: list[dict[str, Tensor]]) -> object:
        seen["proposals"] = proposals[0]
        samples = select(proposals, given)
        seen["box targets"] = samples[3][0]
        return samples

    def encoded(boxes: list[Tensor], anchors: list[Tensor]) -> object:
        seen["matched"], seen["anchors"] = boxes[0], anchors[0]
        return encode(boxes, anchors)

    detector.roi_heads.select_training_samples = selected
    detector.rpn.box_coder.encode = encoded
    with bfloat16_layers(detector):
        detector(images, targets)
    assert {value.dtype for value in seen.values()} == {torch.float32}
    assert torch.any(seen["proposals"] != seen["proposals"].bfloat16().float())


def test_the_layers_do_compute_in_bfloat16_and_are_left_as_they_were() -> None:
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=2).eval()
    kinds = []
    handle = detector.roi_heads.box_head.fc7.register_forward_hook(lambda m, i, o: kinds.append(o.dtype))
    with torch.no_grad():
        with bfloat16_layers(detector):
            detector([torch.rand(3, 64, 64)])
        detector([torch.rand(3, 64, 64)])
    handle.remove()
    assert kinds == [torch.bfloat16, torch.float32]
    assert "forward" not in vars(detector.backbone)


@pytest.mark.parametrize(("backbone", "expected"), [("resnet18", torch.bfloat16), ("mobilenet_v2", torch.float32)])
def test_a_backbone_with_depthwise_convolutions_stays_in_float32(backbone: str, expected: torch.dtype) -> None:
    detector = builders.faster_rcnn(2, backbone, "light", None, imgsz=64).eval()
    kinds: dict[str, torch.dtype] = {}
    for name, layer in detector.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda module, given, output, name=name: kinds.update({name: output.dtype}))
    with torch.no_grad(), bfloat16_layers(detector):
        detector([torch.rand(3, 64, 64)])
    body = {kind for name, kind in kinds.items() if name.startswith("backbone.body")}
    assert body == {expected}
    assert {kind for name, kind in kinds.items() if not name.startswith("backbone.body")} == {torch.bfloat16}
    assert not any("forward" in vars(module) for module in detector.modules())
