"""From an ONNX model to OpenVINO's own format."""

import tempfile
from pathlib import Path

import onnx
import openvino


def save_ir(model: onnx.ModelProto, file: Path) -> None:
    """Write `file` (.xml) and, beside it, its weights (.bin), in 32 bits and with the ONNX model's dynamic sizes.

    What the ONNX model says of itself stands in the file's rt_info under "framework".
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / file.name
        onnx.save(model, source)
        openvino.save_model(openvino.convert_model(source), target, compress_to_fp16=False)
        target.with_suffix(".bin").replace(file.with_suffix(".bin"))
        target.replace(file)
