"""ONNX files without weights of their own: they point into a bundle's weights.safetensors, as ONNX's external data.

A narrower width is the leading corner of the widest's weights, so that one file of weights serves all widths:
stored tensor (16 or 32 bits) -> Slice -> Cast -> layer. ONNX Runtime computes that once, when a session is made, or in
each run where it is told to keep no copies. What does not depend on weights is computed here, which is most of what a
session has to do before it can run; vectors (norms, biases) stand in the file.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimdet.bundle.mapped import Mapped, mapped
from slimdet.exporting.onnx import PREFIX, folded
from slimdet.runtime.exported import STORED
from slimdet.widths import width_key


def link(model: onnx.ModelProto, weights: Path, width: float) -> onnx.ModelProto:
    """The model with a corner of a tensor in the `weights` file in place of each weight that is one.

    Args:
        model: of one width, with its weights as they are (`to_onnx`); it is changed.
        weights: a bundle's safetensors file. The ONNX file has to lie in the same folder.
    """
    stored = mapped(weights)
    sources: dict[str, str] = {}
    for tensor in model.graph.initializer:
        name, values = tensor.name.removeprefix(PREFIX), numpy_helper.to_array(tensor)
        names = (f"twins.{width_key(width)}.{name}", name)  # a width's own tensor, or the widest's
        source = next((key for key in names if key in stored and _is_corner(values, stored[key].values)), None)
        if source is not None:
            sources[tensor.name] = source
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in sources}
    _set(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name not in sources])
    # Inputs are no constants: weights stay as they are while all else is computed.
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    model.graph.input.extend(given)
    model = folded(model)
    _set(model.graph.input, [one for one in model.graph.input if one.name not in sources])
    nodes: list[onnx.NodeProto] = []
    for name, source in sources.items():
        tensor = stored[source]
        external = _external(STORED + source, tensor, weights.name)
        half, whole = tensor.values.dtype == np.float16, shapes[name] == tensor.values.shape
        corner = external.name if half and whole else f"{name}.corner" if half else name
        if corner != external.name:
            ends = numpy_helper.from_array(np.array(shapes[name], np.int64), f"{name}.shape")
            starts = numpy_helper.from_array(np.zeros(len(shapes[name]), np.int64), f"{name}.start")
            model.graph.initializer.extend([starts, ends])
            nodes.append(helper.make_node("Slice", [external.name, starts.name, ends.name], [corner]))
        if half:
            nodes.append(helper.make_node("Cast", [corner], [name], to=TensorProto.FLOAT))
        model.graph.initializer.append(external)
    _set(model.graph.node, [*nodes, *model.graph.node])
    return model


def _is_corner(values: np.ndarray, stored: np.ndarray) -> bool:
    if (
        values.dtype != np.float32
        or not 1 < values.ndim == stored.ndim
        or np.any(np.array(values.shape) > stored.shape)
    ):
        return False
    return np.array_equal(values, stored[tuple(map(slice, values.shape))].astype(np.float32))


def _external(name: str, tensor: Mapped, file: str) -> TensorProto:
    kind = helper.np_dtype_to_tensor_dtype(tensor.values.dtype)
    made = TensorProto(name=name, data_type=kind, dims=tensor.values.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", file), ("offset", tensor.offset), ("length", tensor.values.nbytes)):
        made.external_data.add(key=key, value=str(value))
    return made


def _set(field: Any, values: Iterable[Any]) -> None:
    """Give a repeated field of a protocol buffer these values."""
    kept = list(values)
    del field[:]
    field.extend(kept)
