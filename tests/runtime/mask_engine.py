"""A bundle whose engine gives masks: the smallest ONNX file that keeps to the interface of exported engines.

Every image has two detections, whatever is in it: the whole image as class 2 (score 0.9), its left half as class 1
(0.6); their masks are the left half of the cells, and all of them.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CELLS = np.zeros((2, 28, 28), dtype=np.float32)
CELLS[0, :, :14] = CELLS[1] = 1


def mask_bundle(folder: Path) -> Path:
    """Write the bundle, of one width, and return its folder."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"none")
    weights = hashlib.sha256(b"none").hexdigest()
    content = _model().SerializeToString()
    (folder / "width-1.0.onnx").write_bytes(content)
    entry = {"file": "width-1.0.onnx", "sha256": hashlib.sha256(content).hexdigest(), "weights": weights}
    document = {
        "format": 1,
        "architecture": {"builder": "mask_rcnn"},
        "classes": ["left", "all"],
        "category_ids": [5, 7],
        "widths": [1.0],
        "scope": "detector",
        "weights": {"file": "weights.safetensors", "sha256": weights},
        "engines": {"onnx": {"1.0": entry}},
    }
    (folder / "model.json").write_text(json.dumps(document))
    return folder


def _model() -> onnx.ModelProto:
    constants = {
        "batch": np.array([0]),
        "sides": np.array([2, 1]),  # of the shape: width, height
        "unit": np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], dtype=np.float32),
        "flat": np.array([-1]),
        "one": np.array([1]),
        "zero": np.array(0),
        "step": np.array(1),
        "labels1": np.array([2, 1]),
        "scores1": np.array([0.9, 0.6], dtype=np.float32),
        "masks1": CELLS,
        "rows": np.array([1, 1]),
    }
    node = helper.make_node
    nodes = [
        node("Shape", ["images"], ["shape"]),
        node("Gather", ["shape", "batch"], ["B"]),  # [1]
        node("Gather", ["shape", "sides"], ["side"]),
        node("Cast", ["side"], ["extent"], to=TensorProto.FLOAT),
        node("Concat", ["extent", "extent"], ["extents"], axis=0),  # [4]
        node("Mul", ["unit", "extents"], ["boxes1"]),  # [2, 4]
        node("Concat", ["B", "one"], ["times2"], axis=0),
        node("Concat", ["B", "rows"], ["times3"], axis=0),
        node("Tile", ["boxes1", "times2"], ["boxes"]),
        node("Tile", ["labels1", "B"], ["labels"]),
        node("Tile", ["scores1", "B"], ["scores"]),
        node("Tile", ["masks1", "times3"], ["masks"]),
        node("Squeeze", ["B"], ["count"]),
        node("Range", ["zero", "count", "step"], ["index"]),
        node("Unsqueeze", ["index", "one"], ["column"]),
        node("Concat", ["column", "column"], ["pairs"], axis=1),
        node("Reshape", ["pairs", "flat"], ["image_index"]),
    ]
    shapes = {"boxes": ["N", 4], "labels": ["N"], "scores": ["N"], "image_index": ["N"], "masks": ["N", 28, 28]}
    whole = {"labels": TensorProto.INT64, "image_index": TensorProto.INT64}
    graph = helper.make_graph(
        nodes,
        "masks",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info(name, whole.get(name, TensorProto.FLOAT), s) for name, s in shapes.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"input": json.dumps({"min_size": 32, "max_size": 64})})
    return model
