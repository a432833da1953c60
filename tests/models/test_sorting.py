"""Sorting channels: the function stays, the leading channels matter more."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection as D
from torchvision.models import mobilenet_v3_large
from torchvision.ops import FrozenBatchNorm2d

from slimdet.core.slimmable import slim
from slimdet.errors import ConfigError, UnknownLayerError
from slimdet.models import builders
from slimdet.models.sorting import channel_groups, detector_groups, sort_channels, sort_detector


def batches(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 64, 64, generator=generator)]


def shuffled_norms(module: nn.Module) -> None:
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | FrozenBatchNorm2d):
            nn.init.uniform_(norm.weight, 0.1, 2)
            nn.init.normal_(norm.bias, 0, 0.2)
            norm.running_mean.normal_(0, 0.2)  # pyright: ignore[reportOptionalMemberAccess]
            norm.running_var.uniform_(0.5, 2)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("neck", ["light", "full"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50_thin", "mobilenet_v2", "efficientnet_lite0"])
def test_the_widest_computes_the_same_after_sorting(backbone: str, neck: str) -> None:
    detector: Any = builders.faster_rcnn(3, backbone=backbone, neck=neck, weights=None, norm_layer="batch").eval()
    shuffled_norms(detector.backbone)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = detector.backbone(image)
        state = {key: value.clone() for key, value in detector.backbone.state_dict().items()}
        assert sort_channels(detector.backbone, batches()) > 10
        after = detector.backbone(image)
    for level in before:
        torch.testing.assert_close(after[level], before[level], rtol=1e-4, atol=1e-5 * before[level].abs().max().item())
    assert any(not torch.equal(value, state[key]) for key, value in detector.backbone.state_dict().items())


def test_the_leading_half_keeps_what_matters() -> None:
    """Half of the channels are made useless; sorting moves them behind, and half the width loses nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    useless = torch.randperm(16)[:8]
    with torch.no_grad():
        network[3].weight[:, useless] = 0  # pyright: ignore[reportIndexIssue, reportArgumentType]
    from slimdet.core.scopes import Scope

    scope, x = Scope("first", narrow=("0",)), torch.randn(2, 3, 8, 8)
    example = (torch.zeros(1, 3, 8, 8),)
    with torch.no_grad():
        expected = network(x)
        unsorted = slim(network, (0.5, 1.0), scope, example)(x, width=0.5)
        sort_channels(network, [x])
        sorted_ = slim(network, (0.5, 1.0), scope, example)(x, width=0.5)
    assert not torch.allclose(unsorted, expected, atol=1e-3)
    torch.testing.assert_close(sorted_, expected)


def test_residual_streams_and_depthwise_layers_move_together() -> None:
    detector: Any = builders.faster_rcnn(3, backbone="mobilenet_v2", neck="light", weights=None)
    groups = channel_groups(detector.backbone)
    roots = [groups.find(group) for group, _ in groups.gives]
    assert len(set(roots)) < len(roots)  # blocks of a stage write to one stream


def test_a_network_with_gates_is_sorted_too() -> None:
    torch.manual_seed(0)
    features = mobilenet_v3_large(weights=None).features.eval()  # squeeze-and-excitation multiplies
    shuffled_norms(features)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = features(image)
        sort_channels(features, batches())
        torch.testing.assert_close(features(image), before, rtol=1e-4, atol=1e-4)


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnknownLayerError, match="Branching cannot be traced"):
        sort_channels(Branching(), batches())


_SMALL: dict[str, Any] = {"weights": None, "weights_backbone": None, "min_size": 64, "max_size": 96, "num_classes": 3}

DETECTORS = {
    "light": lambda: builders.faster_rcnn(3, "resnet18", "light", weights=None, imgsz=64),
    "light, frozen norm": lambda: builders.faster_rcnn(
        3, "resnet18", "light", weights=None, backbone_norm="frozen", imgsz=64
    ),
    "light, batch norm, masks": lambda: builders.mask_rcnn(
        3, "mobilenet_v2", "light", weights=None, norm_layer="batch", imgsz=64
    ),
    "full, masks": lambda: builders.mask_rcnn(3, "resnet18", "full", weights=None, imgsz=64),
    "full, batch norm": lambda: builders.faster_rcnn(3, "resnet18", "full", weights=None, norm_layer="batch", imgsz=64),
    "light, group norm": lambda: builders.faster_rcnn(
        3, "resnet18", "light", weights=None, norm_layer="group", imgsz=64
    ),
    "fasterrcnn_resnet50_fpn": lambda: D.fasterrcnn_resnet50_fpn(**_SMALL),
    "maskrcnn_resnet50_fpn": lambda: D.maskrcnn_resnet50_fpn(**_SMALL),
    "fasterrcnn_resnet50_fpn_v2": lambda: D.fasterrcnn_resnet50_fpn_v2(**_SMALL),
    "fasterrcnn_mobilenet_v3_large_fpn": lambda: D.fasterrcnn_mobilenet_v3_large_fpn(**_SMALL),
    "keypointrcnn_resnet50_fpn": lambda: D.keypointrcnn_resnet50_fpn(**_SMALL | {"num_keypoints": 4}),
}


def pronounced(name: str) -> Any:
    """The detector with random weights, its scores spread out, in double precision: no ties that rounding decides."""
    torch.manual_seed(0)
    detector: Any = DETECTORS[name]()
    shuffled_norms(detector)
    for name, parameter in detector.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(detector.rpn.head.cls_logits.weight, std=0.3)
    nn.init.normal_(detector.roi_heads.box_predictor.cls_score.weight, std=0.3)
    detector.roi_heads.score_thresh, detector.roi_heads.detections_per_img = 0.0, 5
    detector.rpn._post_nms_top_n["testing"] = 40
    for norm in detector.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    detector.double().train()
    detector.backbone(detector.transform(photographs((64, 90), (72, 64)))[0].tensors)  # statistics that fit
    return detector.eval()


def photographs(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def assert_same_detections(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> None:
    for one, other in zip(first, second, strict=True):
        assert len(one["boxes"]) > 3
        assert one.keys() == other.keys()
        orders = (one["scores"].argsort(), other["scores"].argsort())
        for key in one:
            torch.testing.assert_close(one[key][orders[0]], other[key][orders[1]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
@torch.no_grad()
def test_a_detector_finds_the_same_after_sorting(name: str) -> None:
    detector = pronounced(name)
    images = photographs((64, 90))
    found = detector(images)
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    assert sort_detector(detector.train(), photographs((64, 80))) > 10
    assert detector.training
    assert_same_detections(detector.eval()(images), found)
    moved = {key for key, value in detector.state_dict().items() if not torch.equal(value, state[key])}
    layers = {"backbone.fpn.inner_blocks.0.0", "backbone.fpn.layer_blocks.1.0", "rpn.head.conv.0.0"}
    layers |= {"rpn.head.bbox_pred", "roi_heads.box_predictor.cls_score", "backbone.body.layer1.0.conv1"}
    layers |= {"roi_heads.mask_head.1.0", "roi_heads.mask_predictor.conv5_mask"}
    layers |= {"roi_heads.mask_predictor.mask_fcn_logits", "roi_heads.box_head.fc6", "roi_heads.box_head.fc7"}
    assert moved >= {f"{layer}.weight" for layer in layers} & state.keys()
    sorted_ = {key: value.clone() for key, value in detector.state_dict().items()}
    sort_detector(detector, photographs((64, 80)))  # they are in order now
    assert all(torch.equal(value, sorted_[key]) for key, value in detector.state_dict().items())


@pytest.mark.parametrize("name", ["light", "light, batch norm, masks", "full, masks", "fasterrcnn_resnet50_fpn_v2"])
@torch.no_grad()
def test_half_a_detector_keeps_what_matters(name: str) -> None:
    """Half of each group's channels are made useless; after sorting, half the width finds what the whole does."""
    detector = pronounced(name)
    groups = detector_groups(detector)
    widths = {groups.find(group): layer.weight.shape[0] for group, layer in groups.gives}
    widths |= {
        groups.find(group): layer.out_channels for group, layer in groups.gives if isinstance(layer, nn.ConvTranspose2d)
    }
    fixed = groups.among(groups.fixed)
    useless = {group: torch.randperm(width)[: width // 2] for group, width in widths.items() if group not in fixed}
    for group, layer in groups.reads:
        if (half := useless.get(groups.find(group))) is not None:
            inputs = layer.weight if isinstance(layer, nn.ConvTranspose2d) else layer.weight.transpose(0, 1)
            inputs.unflatten(0, (widths[groups.find(group)], -1))[half] = 0
    images = photographs((64, 80))
    found = detector(images)
    sort_detector(detector, images)
    model = slim(detector, (0.5, 1.0)).eval()
    assert_same_detections(model(images, width=0.5), found)


@torch.no_grad()
def test_channels_of_a_group_norm_move_in_whole_groups() -> None:
    detector = pronounced("light, group norm")
    norm = detector.backbone.fpn.layer_blocks[0][1]
    norm.bias.copy_(torch.arange(128) // 16)
    sort_detector(detector, photographs((64, 80)))
    assert norm.bias.view(8, 16).var(1).max() == 0
    assert norm.bias.tolist() != sorted(norm.bias.tolist())


@torch.no_grad()
def test_a_head_that_no_image_reaches_is_sorted_by_its_weights() -> None:
    detector = pronounced("light, batch norm, masks")
    detector.roi_heads.score_thresh = 2.0  # nothing is detected
    before = detector.roi_heads.mask_predictor.mask_fcn_logits.weight.clone()
    sort_detector(detector, photographs((64, 80)))
    after = detector.roi_heads.mask_predictor.mask_fcn_logits.weight
    strength = after.abs().sum((0, 2, 3))
    assert torch.equal(strength, strength.sort(descending=True).values)
    assert not torch.equal(after, before)


def test_layers_called_twice_bare_tensors_and_slices_keep_their_meaning() -> None:
    class Irregular(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.give = nn.ModuleList(nn.Conv2d(3, 8, 3) for _ in range(4))
            self.twice = nn.Conv2d(8, 8, 1)
            self.read = nn.ModuleList(nn.Conv2d(8, 2, 1) for _ in range(4))
            self.scale = nn.Parameter(torch.rand(8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            first, second, third, fourth = (give(x) for give in self.give)
            one, other = self.twice(first.relu()), self.twice(second.relu())
            features = one + other.sigmoid(), second, self.scale * third, fourth
            return sum(read(x) for read, x in zip(self.read, features, strict=True)) + fourth[:, :2]

    torch.manual_seed(0)
    network, image = Irregular().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(image)
        assert sort_channels(network, [image]) == 2  # of `first` and `second`, and what is read twice
        torch.testing.assert_close(network(image), before)


def test_other_detectors_are_refused_as_a_whole() -> None:
    retina = D.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    with pytest.raises(ConfigError, match="RetinaNet cannot be sorted as a whole; those that can: Faster R-CNN"):
        sort_detector(retina, [])
    detector = pronounced("light")
    detector.rpn.head.cls_logits, detector.rpn.head.score = None, detector.rpn.head.cls_logits
    del detector.rpn.head.cls_logits
    with pytest.raises(UnknownLayerError, match=r"FasterRCNN cannot be sorted: .*cls_logits"):
        sort_detector(detector, [])
