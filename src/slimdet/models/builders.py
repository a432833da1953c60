"""Faster and Mask R-CNN over any backbone, assembled from torchvision's parts only.

Two necks: "full" is torchvision's own feature pyramid (identical structure and names), for an accelerator; "light"
is a three-level one that a CPU can train. See docs/detectors.md for what each costs.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign

from slimdet.errors import ConfigError
from slimdet.images.sides import scaled_sides
from slimdet.messages import check_choice
from slimdet.models.backbones import BACKBONES, STRIDES, trunk
from slimdet.models.suppression import set_suppression

ROI_SIZE = 7  # cells a side of what the box head sees; the mask head sees twice as many
GROUP = 16  # channels per group of group norm: constant, so that every quarter of a layer's channels fits


@dataclass(frozen=True)
class Neck:
    """What lies between backbone and classes: pyramid levels, their anchors, the sizes of the heads.

    Attributes:
        strides: pyramid levels taken from the backbone, in pixels per cell.
        pool: one coarser level on top, subsampled from the last (for proposals only).
        channels: of every level.
        anchors: for each level, the anchors' sides in pixels at aspect ratio 1 (each comes in 1:2, 1:1 and 2:1).
        box_features: outputs of the box head's two linear layers.
        mask_channels: outputs of the mask head's convolutions.
        proposals: options of torchvision's FasterRCNN that say how many boxes are looked at.
        imgsz: shorter and longest side in pixels that images are resized to, unless told otherwise.
    """

    strides: tuple[int, ...]
    pool: bool
    channels: int
    anchors: tuple[tuple[int, ...], ...]
    box_features: int
    mask_channels: tuple[int, ...]
    proposals: dict[str, int]
    imgsz: tuple[int, int]


NECKS = {
    # torchvision's fasterrcnn_resnet50_fpn, to the last number
    "full": Neck(
        strides=STRIDES,
        pool=True,
        channels=256,
        anchors=((32,), (64,), (128,), (256,), (512,)),
        box_features=1024,
        mask_channels=(256, 256, 256, 256),
        proposals={},
        imgsz=(800, 1333),
    ),
    "light": Neck(
        strides=STRIDES[1:],
        pool=False,
        channels=128,
        anchors=((16, 32), (64, 104), (160, 256)),
        box_features=512,
        mask_channels=(64, 64),
        proposals={
            "rpn_pre_nms_top_n_train": 500,
            "rpn_post_nms_top_n_train": 300,
            "rpn_pre_nms_top_n_test": 500,
            "rpn_post_nms_top_n_test": 150,
            "rpn_batch_size_per_image": 128,
            "box_batch_size_per_image": 64,
        },
        imgsz=(256, 352),
    ),
}

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class HeadNorms:
    """Which norm follows the layers of pyramid and heads; None where the layer keeps its bias instead."""

    conv: Norm | None = None  # pyramid and mask head
    shared: Norm | None = None  # RPN head: one layer that serves every pyramid level
    linear: Norm | None = None  # box head


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)


NORM_LAYERS: dict[str | None, HeadNorms] = {
    None: HeadNorms(),
    # No batch norm in the RPN head, as in torchvision's v2 detectors: in training each level would be normalised by
    # its own statistics, in inference all by one mixture of them.
    "batch": HeadNorms(conv=nn.BatchNorm2d, linear=nn.BatchNorm1d),
    "group": HeadNorms(conv=_group_norm, shared=_group_norm, linear=_group_norm),
}


def faster_rcnn(
    num_classes: int,
    backbone: str = "resnet50",
    neck: str = "full",
    weights: str | Path | None = "imagenet",
    norm_layer: str | None = None,
    backbone_norm: str = "batch",
    imgsz: int | Sequence[int] | None = None,
) -> FasterRCNN:
    """Faster R-CNN (Ren et al. 2015) with a feature pyramid (Lin et al. 2017).

    Args:
        num_classes: classes *including* background, torchvision's meaning: K object classes make K + 1.
        backbone: a key of `slimdet.models.backbones.BACKBONES`.
        neck: "full" (torchvision's, five levels, 256 channels) or "light" (strides 8, 16, 32, 128 channels).
        weights: the backbone's start: "imagenet" (torchvision's download), a file, or None / "none" for random.
        norm_layer: norm in pyramid and heads: None (torchvision's way), "batch" or "group" (16 channels a group).
        backbone_norm: "batch", or "frozen" for batch norm that never changes.
        imgsz: shorter side in pixels that images are resized to (the longer is capped in the neck's usual ratio),
            or both: (shorter, longest). Default: 800, 1333 for "full" and 256, 352 for "light".

    Returns:
        A plain torchvision detector, with two more attributes: `architecture`, what `build` needs to make the same
        again without weights (JSON-able), and `weights_loaded`, where the backbone's start came from.

    Raises:
        ConfigError: an option that is unknown or out of range.
        WeightsError: the weights cannot be had or do not fit; there is never a silent random start.
    """
    parts = {"backbone": backbone, "neck": neck, "norm_layer": norm_layer, "backbone_norm": backbone_norm}
    return _assemble(FasterRCNN, num_classes, weights, parts, imgsz)


def mask_rcnn(
    num_classes: int,
    backbone: str = "resnet50",
    neck: str = "full",
    weights: str | Path | None = "imagenet",
    norm_layer: str | None = None,
    backbone_norm: str = "batch",
    imgsz: int | Sequence[int] | None = None,
) -> MaskRCNN:
    """Mask R-CNN (He et al. 2017): `faster_rcnn` with a mask head. Arguments, result and errors are the same."""
    parts = {"backbone": backbone, "neck": neck, "norm_layer": norm_layer, "backbone_norm": backbone_norm}
    return _assemble(MaskRCNN, num_classes, weights, parts, imgsz)


BUILDERS: dict[str, Callable[..., FasterRCNN]] = {"faster_rcnn": faster_rcnn, "mask_rcnn": mask_rcnn}


def build(architecture: Mapping[str, Any]) -> FasterRCNN:
    """Make the module tree that `detector.architecture` describes, with random weights.

    Raises:
        ConfigError: an unknown builder or option, or one that is missing.
    """
    options = dict(architecture)
    builder, nms = options.pop("builder", None), options.pop("nms", "class")
    check_choice("builder", builder, BUILDERS)
    for option in options:
        check_choice(f"option of {builder}", option, _OPTIONS)
    if "num_classes" not in options:
        raise ConfigError(f"architecture of {builder} lacks num_classes")
    detector = BUILDERS[builder](**options, weights=None)
    set_suppression(detector, nms)
    return detector


_OPTIONS = ("num_classes", "backbone", "neck", "norm_layer", "backbone_norm", "imgsz")


def _assemble(
    kind: type[FasterRCNN],
    num_classes: int,
    weights: str | Path | None,
    parts: Mapping[str, Any],
    imgsz: int | Sequence[int] | None,
) -> Any:
    backbone, neck, norm_layer = parts["backbone"], parts["neck"], parts["norm_layer"]
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 2:
        raise ConfigError(f"num_classes {num_classes!r} must be an integer of at least 2: background and one class")
    check_choice("neck", neck, NECKS)
    check_choice("norm_layer", norm_layer, NORM_LAYERS)
    plan, norms = NECKS[neck], NORM_LAYERS[norm_layer]
    shorter, longest = _image_size(imgsz, plan.imgsz)
    body, loaded = trunk(backbone, weights, parts["backbone_norm"])
    options: dict[str, Any] = {
        "backbone": _pyramid(body, backbone, plan, norms.conv),
        "rpn_anchor_generator": AnchorGenerator(plan.anchors, ((0.5, 1.0, 2.0),) * len(plan.anchors)),
        "rpn_head": _rpn_head(plan, norms.shared),
        "box_roi_pool": _roi_pool(plan, ROI_SIZE),
        "box_head": _box_head(plan, norms.linear),
        "box_predictor": FastRCNNPredictor(plan.box_features, num_classes),
        "min_size": shorter,
        "max_size": longest,
        **plan.proposals,
    }
    if kind is MaskRCNN:
        options["mask_roi_pool"] = _roi_pool(plan, 2 * ROI_SIZE)
        options["mask_head"] = MaskRCNNHeads(plan.channels, plan.mask_channels, 1, norm_layer=norms.conv)
        options["mask_predictor"] = MaskRCNNPredictor(plan.mask_channels[-1], plan.mask_channels[-1], num_classes)
    detector: Any = kind(**options)
    detector.architecture = {
        "builder": "mask_rcnn" if kind is MaskRCNN else "faster_rcnn",
        "num_classes": num_classes,
        **parts,
        "imgsz": [shorter, longest],
    }
    detector.weights_loaded = loaded
    return detector


def _image_size(imgsz: int | Sequence[int] | None, usual: tuple[int, int]) -> tuple[int, int]:
    """(shorter side, cap of the longer one) in pixels."""
    if imgsz is None:
        return usual
    if type(imgsz) is int:
        imgsz = scaled_sides(usual, imgsz)
    sides = tuple(imgsz) if isinstance(imgsz, Sequence) else ()
    if len(sides) != 2 or not all(type(side) is int for side in sides) or not 32 <= sides[0] <= sides[1]:
        raise ConfigError(
            f"imgsz {imgsz!r} must be the shorter side in pixels (32 or more), or (shorter, longest) as in (256, 352)"
        )
    return sides[0], sides[1]


def _pyramid(body: nn.Module, backbone: str, plan: Neck, norm: Norm | None) -> BackboneWithFPN:
    levels = [
        level for stride, level in zip(STRIDES, BACKBONES[backbone].levels, strict=True) if stride in plan.strides
    ]
    pyramid = BackboneWithFPN(
        body,
        return_layers={name: str(number) for number, (name, _) in enumerate(levels)},
        in_channels_list=[channels for _, channels in levels],
        out_channels=plan.channels,
        norm_layer=norm,
    )
    if not plan.pool:
        pyramid.fpn.extra_blocks = None  # BackboneWithFPN would always add the pooled level
    return pyramid


def _rpn_head(plan: Neck, norm: Norm | None) -> RPNHead:
    head = RPNHead(plan.channels, num_anchors=3 * len(plan.anchors[0]))
    if norm is not None:
        conv = Conv2dNormActivation(plan.channels, plan.channels, norm_layer=norm)
        nn.init.normal_(conv.get_parameter("0.weight"), std=0.01)  # as RPNHead starts its own
        head.conv = nn.Sequential(conv)
    return head


def _roi_pool(plan: Neck, size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign([str(number) for number in range(len(plan.strides))], size, sampling_ratio=2)


def _box_head(plan: Neck, norm: Norm | None) -> nn.Module:
    inputs = plan.channels * ROI_SIZE**2
    if norm is None:
        return TwoMLPHead(inputs, plan.box_features)
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    for name in ("6", "7"):  # torchvision's names of these two layers
        layers[f"fc{name}"] = nn.Linear(inputs, plan.box_features, bias=False)
        layers[f"norm{name}"] = norm(plan.box_features)
        layers[f"relu{name}"] = nn.ReLU(inplace=True)
        inputs = plan.box_features
    return nn.Sequential(OrderedDict(layers))
