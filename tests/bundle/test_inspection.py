"""What an engine file may hold: nothing that an export would not write."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimdet.bundle.inspection import check_engine
from slimdet.errors import BundleError

WEIGHTS = "weights.safetensors"
FLOATS = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])


def model(*nodes: Any, tensors: Any = ()) -> onnx.ModelProto:
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    relu = helper.make_node("Relu", ["x"], ["y"])
    return helper.make_model(helper.make_graph([*nodes, relu], "g", [FLOATS], [result], initializer=list(tensors)))


def external(**place: Any) -> TensorProto:
    """Two floats that lie elsewhere; a value None leaves an entry out."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in ({"location": WEIGHTS, "offset": 8, "length": 8} | place).items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def check(folder: Path, content: bytes, weights: int | None = 16) -> None:
    (folder / "width-0.5.onnx").write_bytes(content)
    (folder / WEIGHTS).write_bytes(bytes(weights or 0))
    check_engine([folder / "width-0.5.onnx"] + [folder / WEIGHTS] * (weights is not None))


def test_what_an_export_writes_passes(tmp_path: Path) -> None:
    own = numpy_helper.from_array(np.ones(2, np.float32), "own")
    constant = helper.make_node("Constant", [], ["c"], value=own)
    check(tmp_path, model(constant, tensors=[own, external()]).SerializeToString())
    check(tmp_path, model(constant, tensors=[own]).SerializeToString(), weights=None)


@pytest.mark.parametrize(
    "place",
    [
        {"location": "../weights.safetensors"},
        {"location": "/etc/passwd"},
        {"location": "*/_ORT_MEM_ADDR_/*"},  # an address in memory to onnxruntime and OpenVINO
        {"location": "model.json"},
        {"location": None},
        {"offset": 9},  # 8 bytes more than the file has
        {"offset": -8},
        {"offset": "0x8"},
        {"offset": "9" * 30},
        {"length": 12},  # of 8
        {"length": None},
        {"checksum": "abc"},
    ],
)
def test_a_tensor_outside_the_weights_is_refused(tmp_path: Path, place: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"width-0\.5\.onnx has a tensor .*get the bundle again"):
        check(tmp_path, model(tensors=[external(**place)]).SerializeToString())


def _in_parts() -> bytes:
    """A location told apart from that it counts: readers put two parts of one tensor together."""
    node = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2, np.float32)))
    attribute = node.attribute[0].SerializeToString()
    second = TensorProto(data_location=TensorProto.EXTERNAL).SerializeToString()
    attribute += bytes([5 << 3 | 2, len(second)]) + second
    node = b"\x22\x08Constant" + bytes([5 << 3 | 2, len(attribute)]) + attribute
    graph = bytes([1 << 3 | 2, len(node)]) + node
    return bytes([7 << 3 | 2, len(graph)]) + graph


def _nested() -> bytes:
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "b", [], [FLOATS])
    return model(helper.make_node("Loop", ["n", "c"], ["z"], body=body)).SerializeToString()


def _function() -> bytes:
    made = model()
    made.functions.append(helper.make_function("d", "F", ["x"], ["z"], [], []))
    return made.SerializeToString()


def _of_operators(version: int) -> bytes:
    made = model()
    made.opset_import[0].version = version
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (model(helper.make_node("Constant", [], ["c"], value=external())).SerializeToString(), "has a tensor in"),
        (_in_parts(), "has a tensor in"),
        (_nested(), "has a graph within a graph"),
        (_function(), "has functions of its own"),
        (
            model(helper.make_node("EPContext", ["x"], ["z"], domain="com.microsoft")).SerializeToString(),
            "com.microsoft",
        ),
        (model().SerializeToString() + model(tensors=[external(location="x")]).SerializeToString(), "has a tensor in"),
        (_of_operators(2**31), "set of operators that there is not"),  # OpenVINO would count down from it
        (_of_operators(-1), "set of operators that there is not"),
        (model().SerializeToString() + b"\x42\x03\x12\x01a", "set of operators that there is not"),  # text for a number
        (model().SerializeToString()[:-20], "is cut off"),
        (b"\x0b" * 9, "is not an ONNX file"),
        (b"\xff" * 30, "is not an ONNX file"),
        (b"\x30\x01\x00\x00ORTM" + b"\0" * 50, "own format"),
    ],
)
def test_what_no_export_writes_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        check(tmp_path, content)


CONVOLUTION = (
    '<layer id="1" type="Convolution">'
    '<data strides="2, 2" pads_begin="1, 1" pads_end="1, 1" dilations="1, 1" auto_pad="explicit"/></layer>'
)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ('<net><layer><data offset="8" size="8" shape="2"/></layer></net>', ""),
        ('<net><data offset="9" size="8"/></net>', "outside its weights"),
        ('<net><data offset="-1" size="8"/></net>', "no place in a file"),
        ('<net><data offset="8"/></net>', "no place in a file"),
        (f"<net>{CONVOLUTION}</net>", ""),
        (f"<net>{CONVOLUTION.replace('strides', 'stride')}</net>", "convolution without strides"),
        (f"<net>{CONVOLUTION.replace('1, 1', '1')}</net>", "convolution without strides"),
        (f'<net><layer id="0" type="GroupConvolution"/>{CONVOLUTION}</net>', "convolution without strides"),
        ("<net><body/></net>", "graph within a graph"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><net>&a;</net>', "document type"),
        ("<net>", "is not XML"),
    ],
)
def test_openvino(tmp_path: Path, xml: str, reason: str) -> None:
    files = [tmp_path / "width-0.5.xml", tmp_path / "width-0.5.bin"]
    files[0].write_text(xml)
    files[1].write_bytes(bytes(16))
    if not reason:
        check_engine(files)
        return
    with pytest.raises(BundleError, match=reason):
        check_engine(files)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"not called \.onnx or \.xml"):
        check_engine([tmp_path / "width-0.5.ort"])
