"""Models with shared norms: any width in training, widths and per-layer plans added afterwards."""

import copy
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slimdet
from scenes_detector import scene_batch
from slimdet import Slimmable, slim
from slimdet.core.scopes import Scope
from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import PASSING_TWINS
from slimdet.errors import ConfigError, WidthError
from slimdet.models import builders
from slimdet.report.profiling import profile
from slimdet.training.calibration import collect_statistics
from slimdet.widths import read_plan, widths_between

PLAN = {"backbone.body.layer2": 0.25, "backbone.body.layer3": 0.75, "roi_heads.box_head": 1.0}


def tiny(norms: str = "shared", norm_layer: str | None = "batch") -> Slimmable:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, "resnet18", "light", weights=None, norm_layer=norm_layer, imgsz=64)
    model = slim(detector, (0.25, 1.0), norm_sharing=norms)
    for name, parameter in model.named_parameters():  # norms that start as ones would hide mistakes
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
    return model.eval()


@torch.no_grad()
def features(model: nn.Module, image: Tensor | None = None) -> list[Tensor]:
    image = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64) if image is None else image
    return list(model.backbone(image).values())  # pyright: ignore


def saved_and_loaded(model: Slimmable) -> Slimmable:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_norms_share_weight_and_bias_and_own_their_statistics() -> None:
    model = tiny()
    keys = [key for key in model.state_dict() if key.startswith("twins.")]
    assert keys
    assert all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in keys)
    wide, narrow = model.get_submodule("backbone.body.bn1"), model.twin(0.25).get_submodule("backbone.body.bn1")
    assert isinstance(narrow, Sliced)
    assert isinstance(narrow, nn.BatchNorm2d)
    assert torch.equal(narrow.weight, wide.weight[:16])  # pyright: ignore
    assert narrow.running_mean is not wide.running_mean
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.twin(1.0).parameters())


def test_gradients_reach_the_leading_part_of_shared_norms() -> None:
    model = tiny().train()
    images, targets = scene_batch()
    sum(model(images, targets, width=0.25).values()).backward()
    grad = model.get_parameter("backbone.body.bn1.weight").grad
    assert grad is not None
    assert grad[:16].abs().sum() > 0
    assert not grad[16:].any()


def test_extracted_detectors_equal_their_twins_and_are_plain() -> None:
    model = tiny()
    plain = model.extract(0.25)
    assert not any(isinstance(module, Sliced) for module in plain.modules())
    assert_equal(features(plain), features(model.twin(0.25)))
    assert plain.get_parameter("backbone.body.bn1.weight").shape == (16,)


@pytest.mark.parametrize("operation", ["deepcopy", "save", "state", "double"])
def test_operations_keep_the_sharing(operation: str) -> None:
    model = tiny()
    expected = features(model.twin(0.25))
    if operation == "deepcopy":
        model = copy.deepcopy(model)
    elif operation == "save":
        model = saved_and_loaded(model)
    elif operation == "state":
        other = tiny()
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        other.load_state_dict(model.state_dict(), assign=True)
        model = other
    else:
        model = model.double().float()
    assert_equal(features(model.twin(0.25)), expected)
    nn.init.ones_(model.get_parameter("backbone.body.bn1.weight"))
    assert torch.equal(model.twin(0.25).get_submodule("backbone.body.bn1").weight, torch.ones(16))  # pyright: ignore


def test_any_width_trains_and_none_is_rebuilt_every_step() -> None:
    model = tiny().train()
    images, targets = scene_batch()
    losses = model(images, targets, width=0.6)
    assert all(math.isfinite(value.item()) for value in losses.values())
    assert model.twin(0.6) is model.twin(0.6)
    assert model.widths == (0.25, 1.0)
    assert "0_6" not in "".join(model.state_dict())
    first = model.twin(0.6)
    for step in range(PASSING_TWINS):
        model.twin(0.61 + step / 100)
    assert len(model._passing) == PASSING_TWINS
    assert model.twin(0.6) is not first  # the one used longest ago made room
    assert not copy.deepcopy(model)._passing
    with pytest.raises(WidthError, match=r"slimdet calibrate --width 0\.6"):
        model.eval()(images, width=0.6)


def test_moved_models_do_not_keep_stale_twins() -> None:
    model = tiny().train()
    model.twin(0.5)
    model.double()
    twin = model.twin(0.5)
    weight = twin.get_submodule("backbone.body.conv1")._parameters["weight"]
    assert weight is model.get_parameter("backbone.body.conv1.weight")
    assert weight is not None
    assert weight.dtype == torch.float64


def test_models_with_own_norms_have_their_widths_only() -> None:
    with pytest.raises(WidthError, match=r"0\.6 is not one of 0\.25, 1\.0"):
        tiny("own").train().twin(0.6)
    with pytest.raises(ConfigError, match="norm_sharing 'common' is not one of own, shared"):
        tiny("common")


@pytest.mark.parametrize("norms", ["own", "shared"])
@pytest.mark.parametrize("norm_layer", [None, "batch", "group"])
def test_an_added_width_starts_as_the_leading_channels_of_the_next_wider(norms: str, norm_layer: str | None) -> None:
    model = tiny(norms, norm_layer)
    model.add(0.75)
    narrow, wide = model.twin(0.75).get_submodule("backbone.body.bn1"), model.get_submodule("backbone.body.bn1")
    nn.init.constant_(wide.running_mean, 7.0)  # pyright: ignore
    nn.init.constant_(narrow.running_mean, 3.0)  # pyright: ignore
    twin = model.add(0.5)
    assert model.widths == (0.25, 0.5, 0.75, 1.0)
    assert torch.equal(twin.get_submodule("backbone.body.bn1").running_mean, torch.full((32,), 3.0))  # pyright: ignore
    model.borrowed.clear()
    assert_equal(features(model.extract(0.5)), features(twin))
    rebuilt = slim(builders.build(model.twin(1.0).architecture), model.widths, norm_sharing=norms)  # pyright: ignore
    rebuilt.load_state_dict(model.state_dict())
    assert_equal(features(rebuilt.eval().twin(0.5)), features(twin))


# ------------------------------------------------------------------------------------------------- own statistics


def uses(model: Slimmable, folder: Path) -> dict[str, Callable[[], Any]]:
    """Whatever needs the statistics of width 0.5."""
    image = torch.rand(3, 64, 80)
    return {
        "running": lambda: model([image], width=0.5),
        "extracting": lambda: model.extract(0.5),
        "saving": lambda: slimdet.save(model, folder / "model"),
        "profiling": lambda: profile(model, 64, "cpu", 1),
    }


@pytest.mark.parametrize("use", ["running", "extracting", "saving", "profiling"])
@pytest.mark.parametrize("backbone_norm", ["batch", "frozen"])
def test_an_added_width_is_not_used_before_it_has_statistics(use: str, backbone_norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = builders.faster_rcnn(3, "resnet18", "light", weights=None, backbone_norm=backbone_norm, imgsz=64)
    model = slim(detector, (0.25, 1.0)).eval()
    model.add(0.5)
    for each in (model, copy.deepcopy(model), saved_and_loaded(model)):
        with pytest.raises(
            WidthError, match=r"width 0\.5 has no statistics of its own yet: .*'slimdet calibrate --width"
        ):
            uses(each, tmp_path / "other")[use]()
    assert not (tmp_path / "other").exists()
    collect_statistics(model, (0.5,), [scene_batch()])
    uses(model, tmp_path)[use]()
    model.add(0.5)  # anew
    with pytest.raises(WidthError, match="no statistics of its own"):
        uses(model, tmp_path)[use]()


def test_the_other_widths_run_while_one_has_no_statistics() -> None:
    model = tiny()
    model.add(0.5)
    for width in (0.25, 1.0):
        model([torch.rand(3, 64, 80)], width=width)
        model.extract(width)


def test_a_width_that_was_trained_or_loaded_has_statistics_of_its_own() -> None:
    model = tiny()
    model.add(0.5)
    model.train()(*scene_batch(), width=0.5)
    assert not model.eval().borrowed
    model([torch.rand(3, 64, 80)], width=0.5)
    other = tiny()
    other.add(0.5)
    other.add(0.75)
    other.load_state_dict(model.state_dict(), strict=False)
    assert other.borrowed == {0.75}
    other([torch.rand(3, 64, 80)], width=0.5)


def test_a_detector_without_statistics_needs_none() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(4, 8), nn.Conv2d(8, 4, 1))
    model = slim(network, (1.0,), Scope("all", (".*",), keep=("2",)), example=(torch.zeros(1, 3, 4, 4),)).eval()
    model.add(0.5)
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(model(x, width=0.5), model.extract(0.5)(x))


# ------------------------------------------------------------------------------------------------- plans


def test_a_plan_is_a_width_like_any_other() -> None:
    model = tiny()
    model.add(0.5, PLAN)
    assert model.widths == (0.25, 0.5, 1.0)
    body = model.twin(0.5).get_submodule("backbone.body")
    assert body.get_submodule("conv1").out_channels == 32  # the rest has the width itself
    assert body.get_submodule("layer2.1.conv2").out_channels == 32
    assert body.get_submodule("layer3.0.conv1").in_channels == 32
    assert body.get_submodule("layer3.0.conv1").out_channels == 192
    assert model.twin(0.5).get_submodule("roi_heads.box_head.fc7").out_features == 512
    again = slim(builders.build(model.twin(1.0).architecture), model.widths, norm_sharing="shared", plans=model.plans)  # pyright: ignore
    again.load_state_dict(model.state_dict())
    assert_equal(features(again.eval().twin(0.5)), features(model.twin(0.5)))
    model.add(0.5)
    assert not model.plans


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"backbone.body.layer9": 0.5}, "'backbone.body.layer9', where nothing narrows; did you mean backbone.body"),
        ({"layer4": 0.5}, "'layer4', where nothing narrows; did you mean backbone.body.layer4\\?"),
        ({"zzz": 0.5}, "'zzz', where nothing narrows; did you mean "),
        ({"rpn.head.cls_logits": 0.5}, "where nothing narrows"),
        ({"backbone.body.layer1": 0}, "width 0 is not a number"),
        ({"backbone.body.layer1": 0.001}, "leaves backbone.body.layer1"),
        ({"backbone.body.layer1.0.conv2": 0.25}, "what is added together the same width"),
        ({}, "a width plan maps names of stages to widths"),
        ([0.5], "a width plan maps names of stages to widths"),
    ],
)
def test_plans_that_do_not_fit(plan: object, message: str) -> None:
    model = tiny()
    with pytest.raises(WidthError, match=message):
        model.add(0.5, plan)  # pyright: ignore
    assert model.widths == (0.25, 1.0)
    with pytest.raises(WidthError, match="cannot be added"):
        model.add(1.0)


def test_plans_are_read_from_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(PLAN))
    assert read_plan(file) == PLAN
    for text in ("{", '{"backbone": "wide"}', "7"):
        file.write_text(text)
        with pytest.raises(WidthError):
            read_plan(file)
    with pytest.raises(WidthError, match="is no width plan"):
        read_plan(tmp_path / "absent.json")


def test_widths_to_draw_from() -> None:
    widths = widths_between(0.25)
    assert widths[0] > 0.25
    assert widths[-1] < 1
    assert len(widths) == 23
    assert len(widths) <= PASSING_TWINS
