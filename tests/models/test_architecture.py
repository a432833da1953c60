"""Settings of a description: those of honest detectors are taken, those that would stop a machine refused by name."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection as D

from slimdet.errors import BundleError
from slimdet.models import architecture, builders


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return architecture.describe(builders.faster_rcnn(3, backbone="resnet18", neck="light", weights=None))


def built(description: dict[str, Any], path: str, **values: Any) -> nn.Module:
    return architecture.build(description | {"settings": {path: values}})


@pytest.mark.parametrize(
    ("path", "setting", "value"),
    [
        ("roi_heads.box_roi_pool", "sampling_ratio", 300),
        ("roi_heads.box_roi_pool", "sampling_ratio", 10**6),
        ("roi_heads.box_roi_pool", "output_size", [7, 65]),
        ("roi_heads.box_roi_pool", "scales", [0.125, 0, 0.03]),
        ("roi_heads.box_roi_pool", "scales", [0.125, float("inf"), 0.03]),
        ("roi_heads.box_roi_pool", "scales", "none"),
        ("roi_heads", "detections_per_img", -5),
        ("roi_heads", "detections_per_img", 10**6),
        ("roi_heads", "score_thresh", float("nan")),
        ("roi_heads", "score_thresh", None),
        ("rpn", "nms_thresh", -1.0),
        ("rpn", "_pre_nms_top_n", {"training": 1, "testing": 10**18}),
        ("rpn", "_post_nms_top_n", {"training": 1}),
        ("rpn.anchor_generator", "sizes", [[1e30]]),
        ("rpn.anchor_generator", "sizes", 5),
        ("rpn.anchor_generator", "aspect_ratios", [[1.0] * 400] * 3),
        ("transform", "image_std", [0, 0, 0]),
        ("transform", "image_std", [1.0, float("inf"), 1.0]),
        ("transform", "image_mean", [float("nan")] * 3),
        ("transform", "min_size", []),
        ("transform", "min_size", [0]),
        ("transform", "min_size", [[[[[800]]]]]),
        ("transform", "size_divisible", 0),
        ("backbone.body.conv1", "padding", 10**5),
    ],
)
def test_settings_that_no_detector_has_are_refused(
    description: dict[str, Any], path: str, setting: str, value: Any
) -> None:
    with pytest.raises(BundleError, match=path):
        built(description, path, **{setting: value})


@pytest.mark.parametrize(
    ("path", "setting", "value"),
    [
        ("roi_heads.box_roi_pool", "sampling_ratio", 0),
        ("roi_heads.box_roi_pool", "sampling_ratio", -1),
        ("roi_heads.box_roi_pool", "scales", None),
        ("roi_heads", "score_thresh", 0),
        ("roi_heads", "nms_thresh", 1.0),
        ("rpn", "min_size", 0.0),
        ("rpn", "_pre_nms_top_n", {"training": 12_000, "testing": 6000}),
        ("transform", "min_size", (480, 512, 800)),
        ("transform", "max_size", 10**6),
        ("transform", "image_mean", (103.5, 116.3, 123.7)),
        ("transform", "image_std", [1 / 255] * 3),
        ("backbone.body.layer4.0.conv1", "dilation", 2),
        ("backbone.body.bn1", "eps", 0.0),
    ],
)
def test_settings_of_honest_detectors_are_taken(
    description: dict[str, Any], path: str, setting: str, value: Any
) -> None:
    assert getattr(built(description, path, **{setting: value}).get_submodule(path), setting) == value


def test_what_could_not_be_built_again_is_not_described() -> None:
    with torch.device("meta"):
        detector: Any = D.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    detector.transform.fixed_size = None
    assert architecture.describe(detector)["settings"] == {"transform": {"fixed_size": None}}
    detector.transform.image_std = [0.0, 0.0, 0.0]
    with pytest.raises(BundleError, match=r"transform\.image_std"):
        architecture.describe(detector)
