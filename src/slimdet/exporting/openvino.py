"""From an ONNX model to OpenVINO's own format."""

import tempfile
from pathlib import Path

import onnx
import openvino

from slimdet.runtime.exported import OPTIONS


def save_ir(model: onnx.ModelProto, file: Path) -> None:
    """Write `file` (.xml) and, beside it, its weights (.bin), in 32 bits and with the ONNX model's dynamic sizes.

    What an ONNX run may leave out is an input as all others here: OpenVINO has no defaults.

    What the ONNX model says of itself stands in the file's rt_info under "framework".
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    weights = [one for one in model.graph.initializer if one.name not in OPTIONS]
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(weights)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / file.name
        onnx.save(whole, source)
        openvino.save_model(openvino.convert_model(source), target, compress_to_fp16=False)
        target.with_suffix(".bin").replace(file.with_suffix(".bin"))
        target.replace(file)
