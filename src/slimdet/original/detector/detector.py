"""The original's detectors: torchvision's backbones, pyramids and heads under the original's conventions.

B images, N boxes, K classes without background, M cells along a side of a mask.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from slimdet.errors import ConfigError
from slimdet.original.configs.config import Config, from_plain, image_scales
from slimdet.original.configs.schema import DETECTOR
from slimdet.original.detector.boxes import clip, rescale
from slimdet.original.detector.masks import paste
from slimdet.original.detector.roi_heads import RoIHeads
from slimdet.original.detector.rpn import RegionProposals
from slimdet.original.detector.transform import Frame, Transform

WIDTHS = (0.25, 0.5, 0.75, 1.0)


class Pyramid(nn.Module):
    """A ResNet's stages under a feature pyramid, named as torchvision's `BackboneWithFPN`.

    torchvision puts the stride on a bottleneck's 3x3 convolution, as the original's style "pytorch" does.
    """

    def __init__(self, backbone: Config, neck: Config) -> None:
        super().__init__()
        body = getattr(resnet, f"resnet{backbone.depth}")(weights=None)
        if backbone.style == "caffe":
            for block in body.modules():
                if isinstance(block, resnet.Bottleneck):
                    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        self.body = IntermediateLayerGetter(body, {f"layer{i + 1}": str(i) for i in backbone.out_indices})
        coarser = Subsampled(neck.num_outs - len(neck.in_channels))
        self.fpn = FeaturePyramidNetwork(list(neck.in_channels), neck.out_channels, coarser)
        for layer in self.fpn.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """[B, 3, H, W] -> the levels [B, C, h, w], finest first."""
        return self.fpn(self.body(x))


class Subsampled(ExtraFPNBlock):
    """`count` coarser levels, each every second cell of the one before."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(
        self,
        results: list[Tensor],
        x: list[Tensor],
        names: list[str],
    ) -> tuple[list[Tensor], list[str]]:
        for number in range(self.count):
            results.append(functional.max_pool2d(results[-1], kernel_size=1, stride=2))
            names.append(f"pool{number}")
        return results, names


class OriginalDetector(nn.Module):
    """A detector of the original system; made by `build`. It is called like torchvision's detectors.

    Attributes:
        architecture: the plain data that `build` makes the same detector from.
        mask_threshold: where the original's results cut masks.
    """

    def __init__(self, model: Config, test: Config, transform: Transform) -> None:
        super().__init__()
        self.kind: str = model.type
        self.transform = transform
        self.backbone = Pyramid(model.backbone, model.neck)
        self.rpn = None if model.rpn_head is None else RegionProposals(model.rpn_head, test.rpn)
        self.roi_heads = None if model.bbox_head is None else RoIHeads(model, test.rcnn)
        self.mask_threshold: float = test.rcnn.mask_thr_binary if test.rcnn else 0.5
        self.architecture: dict[str, Any] = {}

    def forward(
        self,
        images: Sequence[Tensor],
        targets: None = None,
        proposals: Sequence[Tensor] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Detect objects.

        Args:
            images: B float tensors [3, H, W], RGB in 0..1.
            targets: must be None; training goes through `tools/train.py`.
            proposals: for Fast R-CNN, each image's boxes [N, 4] (x1, y1, x2, y2 in its pixels, half-open); without
                them the whole image is the only proposal.

        Returns:
            For each image boxes [N, 4] in its pixels, labels [N] in 1..K, scores [N] and, with a mask head, masks
            [N, 1, H, W] in 0..1. A region proposal network calls everything 1.
        """
        if targets is not None or self.training:
            raise ConfigError("detectors of the original system are trained by tools/train.py, not by calls")
        batch, frames = self.transform(images)
        features = self.backbone(batch)
        results = []
        for index, (image, frame) in enumerate(zip(images, frames, strict=True)):
            own = OrderedDict((name, level[index : index + 1]) for name, level in features.items())
            inside = None
            if proposals is not None:
                inside = clip(rescale(proposals[index], frame.scale), frame.size)
            found = self.detect(own, frame, inside)
            if "cells" in found:
                size = (int(image.shape[-2]), int(image.shape[-1]))
                cells = found.pop("cells")
                masks = [paste(*pair, size) for pair in zip(cells, found["boxes"], strict=True)]
                found["masks"] = torch.stack(masks)[:, None] if masks else cells.new_zeros(0, 1, *size)
            results.append(found)
        return results

    def detect(
        self, features: Mapping[str, Tensor], frame: Frame, proposals: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Detections in one image, from its pyramid ([1, C, h, w] each), in original pixels.

        Args:
            proposals: [N, 4] in pixels of the network's input; by default the region proposal network's, or the whole
                image where there is none.

        Returns:
            boxes [N, 4], labels [N], scores [N] and, with a mask head, "cells" [N, M, M]: masks in 0..1 over the boxes.
        """
        scores = None
        if proposals is None:
            proposals, scores = self.proposals(features, frame)
        if self.roi_heads is None:
            assert scores is not None
            boxes = rescale(proposals, 1 / frame.scale)
            return {"boxes": boxes, "labels": torch.ones_like(scores, dtype=torch.int64), "scores": scores}
        found = self.roi_heads.detect(features, proposals, frame.size, frame.scale)
        if self.roi_heads.mask_pool is not None:
            inside = rescale(found["boxes"], frame.scale)
            found["cells"] = self.roi_heads.masks(features, inside, found["labels"])
        return found

    def proposals(self, features: Mapping[str, Tensor], frame: Frame) -> tuple[Tensor, Tensor]:
        """Boxes [N, 4] in pixels of the network's input and scores [N] of one image."""
        if self.rpn is not None:
            return self.rpn(features, [frame.size])[0]
        first = next(iter(features.values()))
        return first.new_tensor([[0, 0, frame.size[1], frame.size[0]]]), first.new_ones(1)


def build(architecture: Mapping[str, Any]) -> OriginalDetector:
    """Make a detector, with random weights, from its `architecture`.

    Raises:
        ConfigError: the description is malformed, or its parts do not fit one another.
    """
    plain = {key: value for key, value in architecture.items() if key not in ("builder", "num_classes")}
    config = from_plain(plain, DETECTOR, "architecture")
    _check_channels(config.model)
    image = config.image
    scales = image_scales(image.img_scale)
    if not scales:
        raise ConfigError(f"architecture: img_scale={image.img_scale!r} is not (long, short)")
    longest, shortest = scales[0]
    norm = image.img_norm_cfg
    transform = Transform(shortest, longest, norm.mean, norm.std, norm.to_rgb, image.size_divisor)
    detector = OriginalDetector(config.model, config.test_cfg, transform)
    detector.architecture = dict(architecture)
    return detector


def architecture_of(config: Config) -> dict[str, Any]:
    """The plain data from which `build` makes the detector of a config (as `read_config` returns it)."""
    dataset = config.data.test or config.data.val or config.data.train
    if dataset is None:
        raise ConfigError("the config's data has none of train, val and test, so image sizes are unknown")
    classes = config.model.bbox_head.num_classes if config.model.bbox_head else 2
    image = {key: dataset[key] for key in ("img_scale", "img_norm_cfg", "size_divisor")}
    parts = {"model": config.model, "test_cfg": config.test_cfg, "image": image}
    return {"builder": "original", "num_classes": classes, **_plain(parts)}


def _plain(value: Any) -> Any:
    """Dicts and lists, as JSON has them; what is None is left out."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _check_channels(model: Config) -> None:
    """Where one part's output does not fit the next part's input, say which field is wrong."""
    backbone, neck, rpn, box, mask = (
        model[part] for part in ("backbone", "neck", "rpn_head", "bbox_head", "mask_head")
    )
    expansion = 4 if backbone.depth >= 50 else 1
    stages = tuple(backbone.out_indices)
    if not stages or stages != tuple(sorted(set(stages))) or not all(0 <= i < backbone.num_stages for i in stages):
        raise ConfigError(f"model.backbone.out_indices={stages} are not stages 0..{backbone.num_stages - 1}, ascending")
    for name, usual in (("strides", (1, 2, 2, 2)), ("dilations", (1, 1, 1, 1))):
        if tuple(backbone[name]) != usual[: len(backbone[name])] or len(backbone[name]) < backbone.num_stages:
            raise ConfigError(f"model.backbone.{name}={backbone[name]} is not supported; it can be {usual}")
    expected: dict[str, tuple[Any, Any]] = {
        "neck.in_channels": (tuple(neck.in_channels), tuple(64 * 2**i * expansion for i in stages))
    }
    for name, part in (("rpn_head", rpn), ("bbox_head", box), ("mask_head", mask)):
        if part is not None:
            expected[f"{name}.in_channels"] = (part.in_channels, neck.out_channels)
    for name, part, extractor in (("bbox", box, model.bbox_roi_extractor), ("mask", mask, model.mask_roi_extractor)):
        if part is not None:
            expected[f"{name}_roi_extractor.out_channels"] = (extractor.out_channels, neck.out_channels)
    if rpn is not None:
        levels = neck.num_outs
        expected["rpn_head.anchor_strides"] = (len(rpn.anchor_strides), levels)
        expected["rpn_head.anchor_base_sizes"] = (len(rpn.anchor_base_sizes or rpn.anchor_strides), levels)
    if box is not None:
        expected["bbox_head.roi_feat_size"] = (box.roi_feat_size, model.bbox_roi_extractor.roi_layer.out_size)
    if mask is not None and box is not None and not mask.class_agnostic:
        expected["mask_head.num_classes"] = (mask.num_classes, box.num_classes)
    for name, (given, wanted) in expected.items():
        if given != wanted:
            raise ConfigError(f"model.{name} is {given}, but what it goes with has {wanted}")
    if neck.num_outs < len(neck.in_channels):
        raise ConfigError(f"model.neck.num_outs={neck.num_outs} is fewer than its {len(neck.in_channels)} inputs")
