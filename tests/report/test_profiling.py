"""What a width costs: the paper's figures, and counts that can be worked out by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slimdet
from slimdet.bundle.ladder import Point
from slimdet.core.scopes import Scope
from slimdet.core.slimmable import Slimmable
from slimdet.errors import ConfigError
from slimdet.models.backbones import classifier, trunk
from slimdet.models.builders import faster_rcnn, mask_rcnn
from slimdet.report.profiling import MB, count_macs, point_macs, profile

IMAGES = (torch.zeros(1, 3, 224, 224),)


@pytest.fixture(scope="module")
def small() -> Slimmable:
    return slimdet.slim(faster_rcnn(3, "resnet18", "light", weights=None, imgsz=64), widths=(0.5, 1.0))


@pytest.mark.parametrize("whole", [True, False], ids=["classifier", "backbone"])
def test_resnet50_has_the_papers_multiply_adds(whole: bool) -> None:
    # "Slimmable Neural Networks", ICLR 2019: S-ResNet-50 at 224x224. The last layer does not show.
    network = classifier("resnet50") if whole else trunk("resnet50")[0]
    model = slimdet.slim(network, scope=Scope("all", narrow=(".*",), keep=("fc",)), example=IMAGES)
    counted = {width: count_macs(model.extract(width).eval(), IMAGES) for width in model.widths}
    assert {width: float(f"{macs / 1e9:.3g}") for width, macs in counted.items()} == {
        1.0: 4.09,
        0.75: 2.32,
        0.5: 1.05,
        0.25: 0.278,
    }


def test_every_width_of_a_detector(small: Slimmable) -> None:
    report = profile(small, device="cpu", repeats=3)
    assert (report.imgsz, report.device, report.repeats) == (64, "cpu", 3)
    assert list(report.widths) == ["0.5", "1.0"]
    for width, costs in report.widths.items():
        plain = small.extract(float(width))
        assert costs["parameters"] == sum(parameter.numel() for parameter in plain.parameters())
        assert costs["memory_mb"] > sum(t.numel() * t.element_size() for t in plain.state_dict().values()) / MB
        assert costs["latency_ms"] > 0
        assert costs["latency_spread_ms"] >= 0
    narrow, wide = report.widths.values()
    assert 3 < wide["parameters"] / narrow["parameters"] < 4
    assert 3 < wide["macs"] / narrow["macs"] < 4
    assert narrow["memory_mb"] < wide["memory_mb"]


def test_the_model_is_left_as_it_was(small: Slimmable) -> None:
    small.train()
    before = copy.deepcopy(small.state_dict())
    profile(small, imgsz=96, device="cpu", repeats=1)
    assert small.training
    detector: Any = small.twin(1.0)
    assert detector.transform.min_size == (64,)
    assert detector.rpn.nms_thresh == 0.7
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


@pytest.mark.parametrize("builder", [faster_rcnn, mask_rcnn])
def test_multiply_adds_do_not_depend_on_what_is_seen(builder: Callable[..., Any]) -> None:
    counts = set()
    for scale in (0.0, 1.0, 30.0):  # of the class scores: nothing is found, something, much
        torch.manual_seed(0)
        detector = builder(3, "resnet18", "light", weights=None, imgsz=64)
        detector.roi_heads.detections_per_img = 10
        detector.roi_heads.box_predictor.cls_score.weight.data *= scale
        detector.rpn.head.bbox_pred.weight.data *= scale
        counts.add(profile({1.0: detector}, device="cpu", repeats=1).widths["1.0"]["macs"])
    assert len(counts) == 1


def test_a_larger_picture_costs_more(small: Slimmable) -> None:
    counts = [profile(small, imgsz=side, device="cpu", repeats=1).widths["1.0"]["macs"] for side in (64, 128)]
    assert counts[0] < counts[1]


def test_each_point_has_its_multiply_adds(small: Slimmable) -> None:
    few, many, larger, narrow = points = [
        Point(1.0, 64, 10), Point(1.0, 64, 20), Point(1.0, 128, 10), Point(0.5, 64, 10)
    ]  # fmt: skip
    found = point_macs(small, points)
    head: Any = small.extract(1.0).roi_heads
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert found[many] - found[few] == 10 * sum(layer.weight.numel() for layer in layers)
    assert found[larger] > 2 * found[few]
    assert found[narrow] < found[few]
    detector: Any = small.twin(1.0)
    own = Point(1.0, detector.transform.min_size[-1], detector.rpn._post_nms_top_n["testing"])
    assert point_macs(small, [own])[own] == profile(small, device="cpu", repeats=1).widths["1.0"]["macs"]


class Hungry(nn.Module):
    """Holds 4 MiB, allocates 3 and 2 MiB at once, then 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(MB))
        self.linear = nn.Linear(8, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        three = torch.ones(3 * MB, dtype=torch.uint8)
        two = torch.ones(2 * MB, dtype=torch.uint8)
        del three, two
        return torch.ones(MB, dtype=torch.uint8)


def test_memory_is_weights_and_the_peak_of_what_is_allocated() -> None:
    costs = profile({1.0: Hungry()}, device="cpu", repeats=1, example=(torch.zeros(1),)).widths["1.0"]
    assert costs["memory_mb"] == pytest.approx(9, abs=0.01)
    assert costs["parameters"] == MB + 128


def test_multiply_adds_of_a_matrix_product() -> None:
    assert count_macs(nn.Linear(10, 20), (torch.zeros(3, 10),)) == 3 * 10 * 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imgsz": 16}, "--imgsz 16 is too small"),
        ({"repeats": 0}, "repeats 0 must be 1 or more"),
        ({"device": "cuda:99"}, "--device cuda:99"),
    ],
)
def test_mistakes(small: Slimmable, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        profile(small, **options)


def test_a_module_that_is_no_detector_needs_an_example() -> None:
    with pytest.raises(ConfigError, match="pass an example"):
        profile({1.0: nn.Linear(1, 1)}, device="cpu")
