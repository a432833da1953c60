"""From an ONNX file to OpenVINO's own format."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import openvino

GROUP = "slimdet"  # under which the metadata stand in the model's rt_info


def save_ir(model: onnx.ModelProto, file: Path, metadata: Mapping[str, str]) -> None:
    """Write `file` (.xml) and, beside it, its weights (.bin), in 32 bits and with the ONNX model's dynamic sizes."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / file.name
        onnx.save(model, source)
        converted = openvino.convert_model(source)
        for key, value in metadata.items():
            converted.set_rt_info(value, [GROUP, key])
        openvino.save_model(converted, target, compress_to_fp16=False)
        target.with_suffix(".bin").replace(file.with_suffix(".bin"))
        target.replace(file)
