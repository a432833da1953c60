"""ONNX files without weights of their own: they point into a bundle's weights.safetensors, as ONNX's external data.

A narrower width is the leading corner of the widest's weights, so that one file of weights serves all widths:
stored tensor (16 or 32 bits) -> Slice -> Cast -> layer. onnxruntime computes that once, when a session is made.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from slimdet.exporting.onnx import PREFIX
from slimdet.widths import width_key

_TYPES = {"F16": (np.float16, TensorProto.FLOAT16), "F32": (np.float32, TensorProto.FLOAT)}


@dataclass(frozen=True)
class _Stored:
    """One tensor of a safetensors file: where it lies and its values."""

    kind: str
    offset: int
    length: int
    values: np.ndarray


def link(model: onnx.ModelProto, weights: Path, width: float) -> onnx.ModelProto:
    """Replace each weight that is a corner of a tensor in the `weights` file by that corner; the others stay.

    Args:
        model: of one width, with its weights as they are (`to_onnx`); it is changed.
        weights: a bundle's safetensors file. The ONNX file has to lie in the same folder.
    """
    stored = dict(_stored(weights))
    kept, linked = [], []
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix(PREFIX)
        values = numpy_helper.to_array(tensor)
        names = (f"twins.{width_key(width)}.{name}", name)  # a width's own tensor, or the widest's
        source = next((key for key in names if key in stored and _is_corner(values, stored[key].values)), None)
        if source is None:
            kept.append(tensor)
        else:
            linked.append((tensor.name, values.shape, source))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = []
    for name, shape, source in linked:
        model.graph.initializer.append(_external(f"stored.{name}", stored[source], weights.name))
        ends = numpy_helper.from_array(np.array(shape, np.int64), f"{name}.shape")
        starts = numpy_helper.from_array(np.zeros(len(shape), np.int64), f"{name}.start")
        model.graph.initializer.extend([starts, ends])
        nodes.append(helper.make_node("Slice", [f"stored.{name}", starts.name, ends.name], [f"{name}.corner"]))
        nodes.append(helper.make_node("Cast", [f"{name}.corner"], [name], to=TensorProto.FLOAT))
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _stored(file: Path) -> Iterator[tuple[str, _Stored]]:
    """The tensors of floating-point numbers in a safetensors file, by name."""
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__" and entry["dtype"] in _TYPES:
            first, last = entry["data_offsets"]
            values = np.frombuffer(content, _TYPES[entry["dtype"]][0], offset=start + first, count=-1)
            values = values[: int(np.prod(entry["shape"], dtype=int))].reshape(entry["shape"])
            yield name, _Stored(entry["dtype"], start + first, last - first, values)


def _is_corner(values: np.ndarray, stored: np.ndarray) -> bool:
    if values.dtype != np.float32 or values.ndim != stored.ndim or np.any(np.array(values.shape) > stored.shape):
        return False
    return np.array_equal(values, stored[tuple(map(slice, values.shape))].astype(np.float32))


def _external(name: str, stored: _Stored, file: str) -> TensorProto:
    tensor = TensorProto(
        name=name, data_type=_TYPES[stored.kind][1], dims=stored.values.shape, data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", file), ("offset", stored.offset), ("length", stored.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
