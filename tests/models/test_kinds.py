"""The table of kinds: each row is found by detector and by description; what a row refuses is refused by name."""

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import detection

from slimdet.errors import ConfigError
from slimdet.models import builders, kinds
from slimdet.models.kinds import KINDS, ORIGINAL, TORCHVISION, kind_of, require

BUILDERS = {
    "fasterrcnn_resnet50_fpn": "Faster R-CNN",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "Faster R-CNN",
    "maskrcnn_resnet50_fpn_v2": "Mask R-CNN",
    "keypointrcnn_resnet50_fpn": "Keypoint R-CNN",
    "retinanet_resnet50_fpn": "RetinaNet",
    "retinanet_resnet50_fpn_v2": "RetinaNet",
    "fcos_resnet50_fpn": "FCOS",
    "ssdlite320_mobilenet_v3_large": "SSDLite",
    "ssd300_vgg16": "SSD",
}


@pytest.mark.parametrize("builder", BUILDERS)
def test_torchvisions_detectors_by_class_and_by_description(builder: str) -> None:
    with torch.device("meta"):
        detector = getattr(detection, builder)(weights=None, weights_backbone=None)
    assert kind_of(detector).name == BUILDERS[builder]
    assert kind_of({"builder": f"torchvision.{builder}", "num_classes": 3}) is kind_of(detector)


def test_our_builders_detectors() -> None:
    detector = builders.mask_rcnn(3, "mobilenet_v2", "light", weights=None)
    assert kind_of(detector) is TORCHVISION["maskrcnn"] is kind_of(detector.architecture)
    assert kind_of({"builder": "faster_rcnn"}) is TORCHVISION["fasterrcnn"]


def test_the_originals_detectors() -> None:
    for model in ({}, {"mask_head": None}, None):
        assert kind_of({"builder": "original", "model": model}) is ORIGINAL["FasterRCNN"]
    assert kind_of({"builder": "original", "model": {"mask_head": {"num_convs": 4}}}) is ORIGINAL["MaskRCNN"]


def test_a_subclass_is_of_its_parents_kind_and_a_namesake_is_not() -> None:
    assert kind_of(object.__new__(type("Mine", (detection.KeypointRCNN,), {}))).name == "Keypoint R-CNN"
    assert kind_of(object.__new__(type("FasterRCNN", (nn.Module,), {}))).export is False


def test_what_is_in_no_row_can_be_slimmed_alone() -> None:
    for thing, name in ((nn.Linear(2, 2), "Linear"), ({"builder": "yolo"}, "yolo")):
        kind = kind_of(thing)
        assert kind.name == name
        assert [task for task in kinds.TASKS if getattr(kind, task)] == ["slim"]


@pytest.mark.parametrize("task", kinds.TASKS)
@pytest.mark.parametrize("word", TORCHVISION)
def test_require(word: str, task: str) -> None:
    description: dict[str, Any] = {"builder": f"torchvision.{word}_x"}
    if getattr(TORCHVISION[word], task):
        assert require(description, task) is TORCHVISION[word]
        return
    with pytest.raises(ConfigError) as caught:
        require(description, task)
    refused, able = str(caught.value).split("; those that can: ")
    assert refused == f"{TORCHVISION[word].name} cannot be {kinds.TASKS[task]}"
    assert able == ", ".join(kind.name for kind in KINDS if getattr(kind, task))
