"""The Open Inference Protocol: requests in JSON and binary, answers in both."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from slimdet.serving import inference
from slimdet.serving.requests import RequestError

IMAGE = b"\xff\xd8\xff an image"
ROWS = json.dumps(
    [
        {"name": "a", "label": 2, "score": 0.5, "x1": 1, "y1": 2, "x2": 3, "y2": 4.5, "segmentation": {"size": [2, 2]}},
        {"name": "b", "label": 1, "score": 0.25, "x1": 0, "y1": 0, "x2": 1, "y2": 1, "segmentation": {"size": [2, 2]}},
    ]
)


def request(**changes: Any) -> bytes:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(IMAGE).decode()]}
    return json.dumps({"id": "7", "parameters": {"deadline_ms": 50}, "inputs": [tensor]} | changes).encode()


def test_json_in_and_out() -> None:
    asked = inference.read(request(), None)
    assert (asked.id, asked.image, asked.parameters) == ("7", IMAGE, {"deadline_ms": 50})
    body, length = inference.write(asked, "m", ROWS, {"rung": 1})
    assert length is None
    answer = json.loads(body)
    assert (answer["id"], answer["model_name"], answer["parameters"]) == ("7", "m", {"rung": 1})
    outputs = {one["name"]: one for one in answer["outputs"]}
    assert outputs["boxes"]["shape"] == [2, 4]
    assert outputs["boxes"]["data"] == [1, 2, 3, 4.5, 0, 0, 1, 1]
    assert outputs["labels"] == {"name": "labels", "datatype": "INT64", "shape": [2], "data": [2, 1]}
    assert [json.loads(mask) for mask in outputs["masks"]["data"]] == [{"size": [2, 2]}] * 2


def test_binary_in_and_out_as_clients_of_triton_write_it() -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4 + len(IMAGE)}}
    head = request(inputs=[tensor], parameters={"binary_data_output": True}, outputs=None)
    asked = inference.read(head + struct.pack("<I", len(IMAGE)) + IMAGE, str(len(head)))
    assert (asked.image, asked.parameters) == (IMAGE, {})
    body, length = inference.write(asked, "m", ROWS, {})
    answer, behind = json.loads(body[:length]), body[length:]
    values = {}
    for one in answer["outputs"]:
        size = one["parameters"]["binary_data_size"]
        values[one["name"]], behind = behind[:size], behind[size:]
    assert behind == b""
    np.testing.assert_array_equal(np.frombuffer(values["scores"], "<f4"), np.float32([0.5, 0.25]))
    np.testing.assert_array_equal(np.frombuffer(values["labels"], "<i8"), [2, 1])
    (length,) = struct.unpack_from("<I", values["masks"])
    assert json.loads(values["masks"][4 : 4 + length]) == {"size": [2, 2]}


def test_some_outputs_and_no_detections() -> None:
    asked = inference.read(request(outputs=[{"name": "boxes"}]), None)
    (output,) = json.loads(inference.write(asked, "m", "[]", {})[0])["outputs"]
    assert output == {"name": "boxes", "datatype": "FP32", "shape": [0, 4], "data": []}


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None),
        (b"[" * 100_000, None),
        (b"[]", None),
        (request(inputs=[]), None),
        (request(inputs=[{"name": "image", "datatype": "FP32", "shape": [1], "data": [1]}]), None),
        (request(inputs=[{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["no base64!"]}]), None),
        (request(inputs=[{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["", ""]}]), None),
        (request(outputs=3), None),
        (request(outputs=[{"name": "heatmap"}]), None),
        (request(), "x"),
    ],
)
def test_what_is_no_inference_request(body: bytes, length: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        inference.read(body, length)
    assert caught.value.status == 400
    assert "\n" not in caught.value.reason
