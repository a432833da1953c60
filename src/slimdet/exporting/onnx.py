"""From a detector to an ONNX model.

`torch.onnx.export(dynamo=False)` writes the graph. With `dynamo=True` (torch 2.15) sizes could not be kept dynamic:
`torch.export` wants to know of every tensor whether it may be empty, and stops in the box head, where the number of
proposals follows from the size of the image. The older exporter asks no such question.
"""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from slimdet.exporting.graphs import Graph
from slimdet.models.image_size import sides_of
from slimdet.runtime.exported import OPTIONS

OPSET = 17
PREFIX = "detector."  # of the weights' names: the detector is a part of the graph's module
_EXAMPLE = (1, 64, 96, 3)  # what is traced; nothing of it but the 3 stays in the graph


def to_onnx(detector: Any, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A Faster or Mask R-CNN as an ONNX model; weights and norms are as they are, by their names in the detector.

    Inputs: `images`, uint8 [B, H, W, 3], and two that may be left out, int64 scalars, the detector's own by default:
    `imgsz`, the shorter side in pixels, and `proposals`, the boxes that the second stage looks at. Outputs: `boxes`,
    `labels`, `scores`, `image_index` and, of a Mask R-CNN, `masks`, as `Graph.forward` gives them. All sizes but the 3
    are dynamic.

    Raises:
        ConfigError: another kind of detector.
    """
    graph = Graph(detector).eval()
    given = torch.tensor(sides_of(detector)[0]), torch.tensor(detector.rpn.post_nms_top_n())
    outputs = ["boxes", "labels", "scores", "image_index", "masks"][: 5 if detector.roi_heads.has_mask() else 4]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the trace holds constants: it should
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph,
            (torch.zeros(_EXAMPLE, dtype=torch.uint8), *given),
            file,
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,  # that is eval mode; EVAL would merge norms into weights
            do_constant_folding=False,
            input_names=["images", *OPTIONS],
            output_names=outputs,
            dynamic_axes={"images": {0: "B", 1: "H", 2: "W"}} | {name: {0: "N"} for name in outputs},
        )
        model = onnx.load(file)
    # An input that is an initializer too has that value where a run gives it none.
    for name, value in zip(OPTIONS, given, strict=True):
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with norms merged into weights and all constants computed; standard operators only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of initializers that are inputs
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        smaller = onnx.load(file)
    # The optimizer lists every domain it knows, and forgets what the model says of itself.
    del smaller.opset_import[:]
    smaller.opset_import.extend(model.opset_import)
    del smaller.metadata_props[:]
    smaller.metadata_props.extend(model.metadata_props)
    onnx.checker.check_model(smaller, full_check=True)
    return smaller
