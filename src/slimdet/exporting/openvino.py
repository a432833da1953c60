"""From an ONNX model to OpenVINO's own format."""

import tempfile
from pathlib import Path

import onnx
import openvino

from slimdet.runtime.exported import OPTIONS


def converted(model: onnx.ModelProto) -> openvino.Model:
    """The model as OpenVINO has it, with the ONNX model's dynamic sizes.

    What an ONNX run may leave out is an input as all others here: OpenVINO has no defaults. What the ONNX model says of
    itself stands in its rt_info under "framework".
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    weights = [one for one in model.graph.initializer if one.name not in OPTIONS]
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(weights)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        onnx.save(whole, source)
        return openvino.convert_model(source)


def save_ir(model: openvino.Model, file: Path) -> None:
    """Write `file` (.xml) and, beside it, its weights (.bin), none of them rounded to 16 bits."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        target = Path(folder) / file.name
        openvino.save_model(model, target, compress_to_fp16=False)
        target.with_suffix(".bin").replace(file.with_suffix(".bin"))
        target.replace(file)
