"""From an ONNX model to OpenVINO's own format."""

import tempfile
from pathlib import Path

import onnx
import openvino


def converted(model: onnx.ModelProto) -> openvino.Model:
    """The model as OpenVINO has it, with the ONNX model's dynamic sizes.

    What the ONNX model says of itself stands in its rt_info under "framework".
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        onnx.save(model, source)
        return openvino.convert_model(source)


def save_ir(model: openvino.Model, file: Path) -> None:
    """Write `file` (.xml) and, beside it, its weights (.bin), none of them rounded to 16 bits."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        target = Path(folder) / file.name
        openvino.save_model(model, target, compress_to_fp16=False)
        target.with_suffix(".bin").replace(file.with_suffix(".bin"))
        target.replace(file)
