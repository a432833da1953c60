"""The Open Inference Protocol, version 2 (KServe's and Triton's): its JSON, and its binary tensors.

https://github.com/kserve/open-inference-protocol and, for bytes behind the JSON, Triton's extension for binary data.
An image is one element of a BYTES tensor: in JSON its file in base64, in binary 4 bytes of length and the file.
"""

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from slimdet.serving.requests import RequestError

INPUT = "image"
OUTPUTS = {"boxes": ("FP32", [-1, 4]), "labels": ("INT64", [-1]), "scores": ("FP32", [-1]), "masks": ("BYTES", [-1])}
HEADER = "inference-header-content-length"
_KINDS = {"FP32": "<f4", "INT64": "<i8"}


@dataclass(frozen=True)
class Inference:
    """What an inference request asks for: the image, its parameters, and which outputs, each as binary or not."""

    id: str | None
    image: bytes
    parameters: dict[str, Any]
    outputs: dict[str, bool]


def metadata(name: str, engine: str, masks: bool) -> dict[str, Any]:
    """What the protocol tells of a model."""
    outputs = [
        {"name": output, "datatype": kind, "shape": shape}
        for output, (kind, shape) in OUTPUTS.items()
        if masks or output != "masks"
    ]
    inputs = [{"name": INPUT, "datatype": "BYTES", "shape": [1]}]
    return {"name": name, "versions": ["1"], "platform": f"slimdet_{engine}", "inputs": inputs, "outputs": outputs}


def read(body: bytes, header_length: str | None) -> Inference:
    """Read an inference request.

    Raises:
        RequestError: 400, what is wrong with it.
    """
    try:
        length = len(body) if header_length is None else int(header_length)
        document = json.loads(body[:length])
        (tensor,) = document["inputs"]
        parameters = dict(document.get("parameters") or {})
        every = bool(parameters.pop("binary_data_output", False))
        asked: list[Any] = document.get("outputs") or [{"name": name} for name in OUTPUTS]
        outputs = {str(one["name"]): bool((one.get("parameters") or {}).get("binary_data", every)) for one in asked}
        image = _image(tensor, body[length:])
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error, struct.error, RecursionError) as error:
        raise RequestError(400, f"this is no inference request with one image in BYTES: {str(error)[:100]}") from None
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise RequestError(400, f"there is no output {unknown[0][:50]!r}; there are {', '.join(OUTPUTS)}")
    return Inference(document.get("id"), image, parameters, outputs)


def _image(tensor: Mapping[str, Any], behind: bytes) -> bytes:
    if tensor["name"] != INPUT or tensor["datatype"] != "BYTES" or list(tensor["shape"]) not in ([1], [1, 1]):
        raise ValueError(f'the input is {{"name": "{INPUT}", "datatype": "BYTES", "shape": [1]}}')
    size = (tensor.get("parameters") or {}).get("binary_data_size")
    if size is None:
        data = tensor["data"]
        while isinstance(data, list):
            (data,) = data
        return base64.b64decode(data, validate=True)
    (length,) = struct.unpack_from("<I", behind)
    if size != len(behind) or length != size - 4:
        raise ValueError(f"the tensor has {len(behind)} bytes, not {size}")
    return behind[4:]


def write(asked: Inference, name: str, detections: str, parameters: dict[str, Any]) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where bytes follow it.

    Args:
        asked: the request.
        name: of the model.
        detections: JSON, as a worker gives them.
        parameters: of the answer.
    """
    rows = json.loads(detections)
    masks = [json.dumps(row["segmentation"]) for row in rows if "segmentation" in row]
    values: dict[str, Any] = {
        "boxes": np.array([[row[corner] for corner in ("x1", "y1", "x2", "y2")] for row in rows]).reshape(-1, 4),
        "labels": np.array([row["label"] for row in rows]),
        "scores": np.array([row["score"] for row in rows]),
    }
    outputs, behind = [], []
    for output, binary in asked.outputs.items():
        kind, _ = OUTPUTS[output]
        if output == "masks":
            shape, plain, packed = [len(masks)], masks, _texts(masks)
        else:
            value = values[output].astype(_KINDS[kind])
            shape, plain, packed = list(value.shape), value.ravel().tolist(), value.tobytes()
        entry: dict[str, Any] = {"name": output, "datatype": kind, "shape": shape}
        if binary:
            behind.append(packed)
            entry["parameters"] = {"binary_data_size": len(packed)}
        else:
            entry["data"] = plain
        outputs.append(entry)
    document = {"model_name": name, "model_version": "1", "parameters": parameters, "outputs": outputs}
    head = json.dumps(document | ({} if asked.id is None else {"id": asked.id})).encode()
    return (head + b"".join(behind), len(head)) if any(asked.outputs.values()) else (head, None)


def _texts(texts: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
