"""What exported files give is what the extracted detector gives: every backbone, both engines, any size and batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torchvision.models import detection

import slimdet
from exporting.parity import SIZES, Expected, defaults, in_order, lively, narrow, photographs
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.exporting.openvino import converted, save_ir
from slimdet.models.backbones import BACKBONES
from slimdet.models.image_size import resize_shorter_side
from slimdet.runtime.openvino_engine import core

Run = Callable[..., list[np.ndarray]]  # of images and, by name, of other inputs

# Each backbone once, and among them both detectors, both necks, all norms.
OURS: dict[str, dict[str, Any]] = {
    "resnet18": {"masks": True, "neck": "light", "backbone_norm": "frozen"},
    "resnet34": {"masks": True, "neck": "light", "norm_layer": "batch"},
    "resnet50": {"masks": True, "neck": "full"},
    "resnet101": {"masks": False, "neck": "light"},
    "resnet152": {"masks": False, "neck": "light", "norm_layer": "batch"},
    "resnet50_thin": {"masks": False, "neck": "full", "norm_layer": "group"},
    "mobilenet_v2": {"masks": True, "neck": "light", "norm_layer": "group"},
    "efficientnet_lite0": {"masks": False, "neck": "light"},
}
_NONE: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 5, "min_size": 128, "max_size": 180}
READY_MADE: dict[str, Callable[[], Any]] = {
    name: lambda name=name: getattr(detection, name)(**_NONE)
    for name in (
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "maskrcnn_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2",
    )
}


def engines(model: onnx.ModelProto, folder: Path) -> dict[str, Run]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    save_ir(converted(model), folder / "model.xml")
    usual = defaults(model)
    compiled = core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {
        "onnxruntime": lambda images, **point: session.run(None, {"images": images, **point}),
        "openvino": lambda images, **point: list(compiled({"images": images, **usual, **point}).values()),
    }


def check(
    detector: Any, runs: dict[str, Run], sizes: list[tuple[int, int]], least: int = 4, **point: np.ndarray
) -> None:
    """`least` is the number of firm detections an image."""
    firm = count = 0
    for number, size in enumerate(sizes):
        images = photographs(size, 3 if number % 2 else 1, seed=number)
        expected = Expected(detector, images)
        firm += sum(map(len, expected.firm))
        count += expected.count
        for name, run in runs.items():
            found = run(images.numpy(), **point)
            assert not expected.difference(found), (name, size, expected.difference(found))
            assert in_order(found), (name, size)
    assert firm >= least * len(sizes)
    assert firm >= 0.75 * count


def test_every_backbone_is_here() -> None:
    assert OURS.keys() == BACKBONES.keys()


# Of those that differ in depth alone one is enough.
SLOW = ("resnet34", "resnet50", "resnet101", "resnet152")


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in OURS]
)
def test_our_detectors(backbone: str, tmp_path: Path) -> None:
    detector = narrow(backbone=backbone, **OURS[backbone])
    check(detector, engines(folded(to_onnx(detector, {})), tmp_path), SIZES[:4])


@pytest.mark.parametrize("name", READY_MADE)
@pytest.mark.slow
def test_ready_made_detectors(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    detector = lively(READY_MADE[name]())
    check(detector, engines(folded(to_onnx(detector, {})), tmp_path), SIZES)


@pytest.mark.parametrize("width", [0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_the_bundled_detector_at_every_size(width: float, tmp_path: Path) -> None:
    detector = slimdet.load("bundled").extract(width)
    check(detector, engines(folded(to_onnx(detector, {})), tmp_path), SIZES)


def test_one_file_serves_every_size_and_number_of_proposals(tmp_path: Path) -> None:
    detector = narrow(masks=True, backbone="resnet18", neck="light", backbone_norm="frozen")
    runs = engines(folded(to_onnx(detector, {})), tmp_path)
    for imgsz, proposals in ((96, 300), (200, 20)):
        resize_shorter_side(detector, imgsz)
        detector.rpn._post_nms_top_n["testing"] = proposals
        check(detector, runs, SIZES[:3], 2, imgsz=np.array(imgsz), proposals=np.array(proposals))
