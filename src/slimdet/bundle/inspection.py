"""What an exported file would make an engine read or run, looked at before any engine opens it.

An .onnx file may keep tensors in other files, at any path, or name an address of memory as their place; it may hold
loops, functions and operators of other makers. What `slimdet export` writes has none of this, but for tensors in the
bundle's own weights file. So all else is refused here, by reading the file's fields (Protocol Buffers) one by one.
The numbers are those of onnx.proto.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from slimdet.errors import BundleError

_WHOLE, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_GRAPH, _OPERATORS, _TRAINING, _FUNCTIONS = 7, 8, 20, 25  # of a model
_VERSION = 2  # of a set of operators
NEWEST = 99  # set of operators; ONNX has had one or two a year, and OpenVINO counts down from what a file says
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of a graph
_ATTRIBUTE, _DOMAIN = 5, 7  # of a node
_TENSOR, _TENSORS = 5, 10  # of an attribute
_NESTED = {6: "a graph within a graph", 11: "graphs within a graph", 22: "a sparse tensor", 23: "sparse tensors"}
_DIMS, _TYPE, _EXTERNAL, _LOCATION = 1, 2, 13, 14  # of a tensor
# Of OpenVINO's XML. It computes with a convolution that lacks any of these, and writes where it should not.
_CONVOLUTIONS, _MOVES = ("Convolution", "GroupConvolution"), ("strides", "pads_begin", "pads_end", "dilations")
_PAIR = re.compile(r"\d{1,3}, ?\d{1,3}")
_ITEM_BYTES = {1: 4, 10: 2}  # of the types that linked tensors have: float, float16

Value = int | memoryview


def check_engine(files: list[Path]) -> None:
    """Refuse an engine file that would read anything but the files given, or run what no export writes.

    Args:
        files: as `slimdet.bundle.manifest.Manifest.engine` gives them: the .onnx or .xml file, and its weights if any.

    Raises:
        BundleError: it names the file and what is in it.
    """
    file, weights = files[0], files[1] if len(files) > 1 else None
    if file.suffix not in (".onnx", ".xml"):  # engines go by it
        raise BundleError(f"{file} is not called .onnx or .xml, as engine files are")
    content = file.read_bytes()
    size = weights.stat().st_size if weights else 0
    try:
        if file.suffix == ".xml":
            _check_ir(content, size)
        else:
            _check_model(memoryview(content), weights.name if weights else "", size)
    except BundleError as error:
        raise BundleError(f"{file} {error}; get the bundle again from where you trust, or export it anew") from None


def _check_model(model: memoryview, weights: str, size: int) -> None:
    if model[4:8] == b"ORTM":
        raise BundleError("is a file of onnxruntime's own format, not ONNX")
    for number, value in _fields(model):
        if number in (_TRAINING, _FUNCTIONS):
            raise BundleError("has functions of its own")
        if number == _OPERATORS and _numbers(value).get(_VERSION) not in range(1, NEWEST):
            raise BundleError("is of a set of operators that there is not")
        if number == _GRAPH:
            _check_graph(_message(value), weights, size)


def _numbers(message: Value) -> dict[int, Any]:
    """The last value of each field of a message, by number."""
    return dict(_fields(_message(message)))


def _check_graph(graph: memoryview, weights: str, size: int) -> None:
    for number, value in _fields(graph):
        if number == _NODE:
            _check_node(_message(value))
        elif number == _INITIALIZER:
            _check_tensor(_message(value), weights, size)
        elif number == _SPARSE:
            raise BundleError("has sparse tensors")


def _check_node(node: memoryview) -> None:
    for number, value in _fields(node):
        if number == _DOMAIN and _text(value) not in ("", "ai.onnx"):
            raise BundleError(f"has an operator of {_text(value)!r:.80}")
        if number == _ATTRIBUTE:
            for part, inner in _fields(_message(value)):
                if part in _NESTED:
                    raise BundleError(f"has {_NESTED[part]}")
                if part in (_TENSOR, _TENSORS):
                    _check_tensor(_message(inner), "", 0)


def _check_tensor(tensor: memoryview, weights: str, size: int) -> None:
    """Refuse a tensor that lies elsewhere than in the file, or within the weights file."""
    place: dict[str, str] = {}
    dims: list[int] = []
    kind = external = 0
    for number, value in _fields(tensor):
        if number == _EXTERNAL:
            entry = {part: _text(inner) for part, inner in _fields(_message(value))}
            if entry.get(1, "") in place:
                raise BundleError(f"has a tensor with two values of {entry.get(1)!r:.80}")
            place[entry.get(1, "")] = entry.get(2, "")
        elif number == _DIMS:
            dims += [value] if isinstance(value, int) else _whole_numbers(value)
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _LOCATION:
            external = value
    if not place and not external:
        return
    if place.keys() != {"location", "offset", "length"} or not weights or place["location"] != weights:
        raise BundleError(
            f"has a tensor in {place.get('location', 'no file')!r:.80}, outside the bundle's weights file"
        )
    offset, length = (_number(place[name]) for name in ("offset", "length"))
    if offset + length > size or length != math.prod(dims) * _ITEM_BYTES.get(kind, 0):
        raise BundleError(f"has a tensor of {length} bytes at {offset}, which is not one of {weights}")


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """(number, value) of a message's fields: a whole number, or bytes."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _WHOLE:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise BundleError("is not an ONNX file")
        if length > end - at:
            raise BundleError("is cut off")
        yield number, message[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A whole number, 7 bits to the byte, and the place behind it."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise BundleError("is not an ONNX file")


def _whole_numbers(packed: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _varint(packed, at)
        numbers.append(number)
    return numbers


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise BundleError("is not an ONNX file")
    return value


def _text(value: Value) -> str:
    return bytes(_message(value)).decode(errors="replace")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BundleError(f"has a tensor at {text!r:.80}, which is no place in a file")
    return int(text)


def _check_ir(content: bytes, size: int) -> None:
    """Refuse OpenVINO's XML with constants outside the weights' `size` bytes, or with what no export writes."""
    silent: set[str] = set()  # convolutions that have not said yet how they move

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag in ("body", "then_body", "else_body"):
            raise BundleError("has a graph within a graph")
        if tag == "layer" and attributes.get("type") in _CONVOLUTIONS:
            silent.add(attributes.get("id", ""))
        if tag == "data" and silent and all(_PAIR.fullmatch(attributes.get(name, "")) for name in _MOVES):
            silent.clear()
        if tag != "data" or "offset" not in attributes:
            return
        if _number(attributes["offset"]) + _number(attributes.get("size", "")) > size:
            raise BundleError("has a constant outside its weights")

    def end(tag: str) -> None:
        if tag == "layer" and silent:
            raise BundleError("has a convolution without strides, padding and dilations")

    def refuse(*_: object) -> None:
        raise BundleError("declares a document type")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BundleError(f"is not XML: {expat.ErrorString(error.code)}") from None
