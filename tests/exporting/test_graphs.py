"""The graph is the detector, operation by operation, also where there is nothing to find."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchvision.models import detection

from exporting.parity import BOX, SCORE, defaults, narrow, photographs, reference
from slimdet.errors import ConfigError
from slimdet.exporting.graphs import Graph
from slimdet.exporting.onnx import folded, to_onnx
from slimdet.exporting.openvino import converted, save_ir
from slimdet.models.suppression import set_suppression
from slimdet.runtime.openvino_engine import core


@pytest.fixture(scope="module")
def detector() -> Any:
    return narrow(masks=True, backbone="resnet18", neck="light", norm_layer="batch")


def every_engine(model: onnx.ModelProto, images: np.ndarray, folder: Path) -> dict[str, list[np.ndarray]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    save_ir(converted(model), folder / "model.xml")
    compiled = core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    usual = defaults(model)
    given = {"images": images}
    return {"onnxruntime": session.run(None, given), "openvino": list(compiled(given | usual).values())}


def test_run_in_torch_it_gives_what_the_detector_gives(detector: Any) -> None:
    images = photographs((161, 300), 2, seed=3)
    with torch.no_grad():
        boxes, labels, scores, image, masks = Graph(detector)(images, torch.tensor(128), torch.tensor(100))
    wanted = reference(detector, images)
    assert sum(len(result["labels"]) for result in wanted) > 4
    for number, result in enumerate(wanted):
        own = image == number
        assert torch.equal(labels[own], result["labels"])
        torch.testing.assert_close(boxes[own], result["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(scores[own], result["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(masks[own], result["masks"], rtol=0, atol=1e-4)


def test_suppression_across_classes(tmp_path: Path) -> None:
    own = narrow(masks=False, backbone="resnet18", neck="light", norm_layer="batch")
    images = photographs((161, 300), 2, seed=3)
    by_class = sum(len(result["labels"]) for result in reference(own, images))
    set_suppression(own, "all")
    wanted = reference(own, images)
    assert 0 < sum(len(result["labels"]) for result in wanted) < by_class
    for name, found in every_engine(folded(to_onnx(own, {})), images.numpy(), tmp_path).items():
        for number, result in enumerate(wanted):
            boxes, labels, scores = (torch.from_numpy(array[found[3] == number]) for array in found[:3])
            assert torch.equal(labels, result["labels"]), name
            torch.testing.assert_close(boxes, result["boxes"], rtol=0, atol=BOX)
            torch.testing.assert_close(scores, result["scores"], rtol=0, atol=SCORE)


@pytest.mark.parametrize("nothing", ["detections", "proposals"])
def test_where_there_is_nothing(detector: Any, nothing: str, tmp_path: Path) -> None:
    part = detector.roi_heads if nothing == "detections" else detector.rpn
    usual, part.score_thresh = part.score_thresh, 1.1
    images = photographs((100, 140), 2, seed=0)
    model = folded(to_onnx(detector, {}))
    part.score_thresh = usual
    assert sum(len(result["labels"]) for result in reference(detector, images)) > 0
    for name, found in every_engine(model, images.numpy(), tmp_path).items():
        shapes = [array.shape for array in found]
        assert shapes == [(0, 4), (0,), (0,), (0,), (0, 28, 28)], name


def test_an_image_without_detections_among_others(detector: Any, tmp_path: Path) -> None:
    images = photographs((100, 140), 3, seed=1)
    heads = detector.roi_heads
    usual, heads.score_thresh = heads.score_thresh, 0.0
    best = torch.stack([result["scores"].max() for result in reference(detector, images)])
    images = images[best.argsort()[[1, 0, 2]]]  # the least sure one between the others
    heads.score_thresh = float(best.sort()[0][:2].mean())
    wanted = [len(result["labels"]) for result in reference(detector, images)]
    model = folded(to_onnx(detector, {}))
    heads.score_thresh = usual
    assert wanted[0] > 0 == wanted[1]
    for name, found in every_engine(model, images.numpy(), tmp_path).items():
        assert np.bincount(found[3], minlength=3).tolist() == wanted, name


def test_what_the_file_promises(detector: Any) -> None:
    model = folded(to_onnx(detector, {"classes": '["cat"]'}))
    assert {prop.key: prop.value for prop in model.metadata_props} == {"classes": '["cat"]'}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert not {node.domain for node in model.graph.node} - {""}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    described = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert described == {
        "images": (onnx.TensorProto.UINT8, ["B", "H", "W", 3]),
        "imgsz": (onnx.TensorProto.INT64, []),
        "proposals": (onnx.TensorProto.INT64, []),
        "boxes": (onnx.TensorProto.FLOAT, ["N", 4]),
        "labels": (onnx.TensorProto.INT64, ["N"]),
        "scores": (onnx.TensorProto.FLOAT, ["N"]),
        "image_index": (onnx.TensorProto.INT64, ["N"]),
        "masks": (onnx.TensorProto.FLOAT, ["N", 28, 28]),
    }


def test_thresholds_and_limits_are_the_detectors(detector: Any, tmp_path: Path) -> None:
    heads = detector.roi_heads
    usual = heads.score_thresh, heads.detections_per_img
    heads.score_thresh, heads.detections_per_img = 0.0, 7
    images = photographs((100, 140), 2, seed=1)
    model = folded(to_onnx(detector, {}))
    heads.score_thresh, heads.detections_per_img = usual
    for name, found in every_engine(model, images.numpy(), tmp_path).items():
        assert np.bincount(found[3]).tolist() == [7, 7], name


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None), "RetinaNet"),
        (lambda: detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None), "Keypoint R-CNN"),
        (lambda: nn.Conv2d(3, 3, 1), "Conv2d"),
    ],
)
def test_other_detectors_are_refused_by_name(make: Any, name: str) -> None:
    with torch.device("meta"):
        other = make()
    with pytest.raises(ConfigError, match=f"{name} cannot be exported; those that can: Faster R-CNN, Mask R-CNN"):
        Graph(other)
