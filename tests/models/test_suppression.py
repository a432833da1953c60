"""One detection a place, whatever the classes, in the detector, its widths and its description."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

import slimdet
from ready_made import ready_made
from slimdet.errors import ConfigError
from slimdet.models import architecture, builders
from slimdet.models.suppression import set_suppression


@pytest.fixture
def detector() -> Any:
    """It finds many boxes, of two classes at nearly the same places."""
    torch.manual_seed(0)
    made: Any = builders.faster_rcnn(3, backbone="resnet18", neck="light", weights=None, norm_layer="batch", imgsz=64)
    made.roi_heads.score_thresh = 0.0
    return made.eval()


def overlaps(found: dict[str, Tensor]) -> int:
    return int((box_iou(found["boxes"], found["boxes"]).fill_diagonal_(0) > 0.5).sum())


@torch.no_grad()
def test_across_classes_one_box_is_left_of_those_that_overlap(detector: Any) -> None:
    image = [torch.rand(3, 64, 80)]
    (each,) = detector(image)
    set_suppression(detector, "all")
    (one,) = detector(image)
    assert overlaps(each) > 0 == overlaps(one)
    assert 0 < len(one["scores"]) < len(each["scores"])
    assert torch.equal(one["scores"][0], each["scores"][0])  # the best of a place is the one that stays
    assert set(one["scores"].tolist()) <= set(each["scores"].tolist())
    assert torch.equal(one["scores"], one["scores"].sort(descending=True).values)
    set_suppression(detector, "class")
    assert torch.equal(detector(image)[0]["boxes"], each["boxes"])


@torch.no_grad()
def test_every_width_and_every_copy_has_it(detector: Any) -> None:
    set_suppression(detector, "all")
    model = slimdet.slim(detector, (0.5, 1.0)).eval()
    image = [torch.rand(3, 64, 80)]
    for width in (0.5, 1.0):
        (found,) = model(image, width=width)
        assert overlaps(found) == 0
        assert torch.equal(model.extract(width)(image)[0]["boxes"], found["boxes"])
    again = architecture.build(architecture.describe(model.twin(1.0)))
    again.load_state_dict(detector.state_dict())
    assert torch.equal(again.eval()(image)[0]["boxes"], copy.deepcopy(detector)(image)[0]["boxes"])


def test_the_description_says_it_where_it_is_not_usual(detector: Any) -> None:
    usual = architecture.describe(detector)
    set_suppression(detector, "all")
    assert architecture.describe(detector) == usual | {"nms": "all"}
    set_suppression(detector, "class")
    assert architecture.describe(detector) == usual
    with pytest.raises(
        ConfigError, match=r"nms all: a FasterRCNN that is not of slimdet\.models\.builders has its own"
    ):
        set_suppression(ready_made("fasterrcnn_resnet50"), "all")
    with pytest.raises(ConfigError, match=r"nms 'al' is not one of class, all; did you mean all\?"):
        set_suppression(detector, "al")
