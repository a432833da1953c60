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

OPSET = 17
PREFIX = "detector."  # of the weights' names: the detector is a part of the graph's module
_EXAMPLE = (1, 64, 96, 3)  # what is traced; nothing of it but the 3 stays in the graph


def to_onnx(detector: Any, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """A Faster or Mask R-CNN as an ONNX model; weights and norms are as they are, by their names in the detector.

    Input: `images`, uint8 [B, H, W, 3]. Outputs: `boxes`, `labels`, `scores`, `image_index` and, of a Mask R-CNN,
    `masks`, as `Graph.forward` gives them. All sizes but the 3 are dynamic.

    Raises:
        ConfigError: another kind of detector.
    """
    graph = Graph(detector).eval()
    outputs = ["boxes", "labels", "scores", "image_index", "masks"][: 5 if detector.roi_heads.has_mask() else 4]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the trace holds constants: it should
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph,
            (torch.zeros(_EXAMPLE, dtype=torch.uint8),),
            file,
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,  # that is eval mode; EVAL would merge norms into weights
            do_constant_folding=False,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={"images": {0: "B", 1: "H", 2: "W"}} | {name: {0: "N"} for name in outputs},
        )
        model = onnx.load(file)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with norms merged into weights and all constants computed; standard operators only."""
    options = onnxruntime.SessionOptions()
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
