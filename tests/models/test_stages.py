"""Stages: what has to be as wide as its neighbours is found out, and every plan of their widths fits."""

import random

import pytest

import slimdet
from slimdet.models import builders
from slimdet.models.stages import stages
from slimdet.training.settings import sampled_plan


def made(backbone: str, scope: str = "detector") -> slimdet.Slimmable:
    detector = builders.faster_rcnn(3, backbone=backbone, neck="light", weights=None, norm_layer="batch", imgsz=64)
    return slimdet.slim(detector, (0.25, 1.0), scope, norm_sharing="shared")


@pytest.mark.parametrize(
    ("backbone", "first", "count"),
    [("mobilenet_v2", ("backbone.body.0", "backbone.body.1"), 10), ("resnet18", ("conv1", "layer1"), 7)],
)
def test_what_is_added_together_is_one_stage(backbone: str, first: tuple[str, ...], count: int) -> None:
    found = stages(made(backbone))
    assert tuple(name.removeprefix("backbone.body.") for name in found[0]) == tuple(
        name.removeprefix("backbone.body.") for name in first
    )
    assert len(found) == count
    assert found[-3:] == (("backbone.fpn",), ("rpn.head",), ("roi_heads.box_head",))


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18"])
def test_any_widths_of_the_stages_fit(backbone: str) -> None:
    model, draw = made(backbone), random.Random(0)
    found = stages(model)
    for _ in range(5):
        plan = sampled_plan(found, draw.choice([0.3, 0.5, 0.8]), 0.25, draw)
        assert plan.keys() == {name for names in found for name in names}
        assert model.fits(plan)


def test_of_a_backbone_alone_the_heads_are_no_stage() -> None:
    assert all(name.startswith("backbone.body") for names in stages(made("resnet18", "backbone")) for name in names)
