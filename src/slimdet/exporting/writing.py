"""An engine file is written, and what a bundle records of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from slimdet.bundle.manifest import INT8, MODEL
from slimdet.files import atomic_write

if TYPE_CHECKING:
    import openvino

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class EngineFile:
    """One width as a file.

    Attributes:
        bytes: its size; with OpenVINO's .bin file.
        weights: sha256 of the weights that it was made from.
        bin_sha256: of OpenVINO's .bin file.
    """

    file: str
    sha256: str
    bytes: int
    weights: str
    bin_sha256: str | None = None

    @property
    def entry(self) -> dict[str, Any]:
        """As a bundle records it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Int8File(EngineFile):
    """One width as a file in 8 bits, and what was measured of it against the file in 32 bits.

    Attributes:
        AP, fp32_AP: of both files, 0..1, by kind: {"bbox": ...} and of a Mask R-CNN "segm".
        val_images: that AP was measured on.
        speedup: time of the file in 32 bits over this one's, one thread, an image of the model's size.
        processor: that it was measured on.
        fp32_layers: convolutions and linear layers that were left in 32 bits.
    """

    AP: dict[str, float]
    fp32_AP: dict[str, float]
    val_images: int
    speedup: float
    processor: str
    fp32_layers: list[str]

    @classmethod
    def of(cls, written: EngineFile, **measured: Any) -> "Int8File":
        """The file with what was measured of it."""
        return cls(**{one.name: getattr(written, one.name) for one in fields(EngineFile)}, **measured)


def write(graph: "onnx.ModelProto | openvino.Model", file: Path, weights: str) -> EngineFile:
    """Write a graph as `file`, .onnx or .xml, made from the weights of that sha256."""
    if file.suffix == SUFFIX["onnx"]:
        with atomic_write(file) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    else:
        from slimdet.exporting.openvino import converted, save_ir  # an extra of its own

        save_ir(converted(graph) if isinstance(graph, onnx.ModelProto) else graph, file)
    return written(file, weights)


def written(file: Path, weights: str) -> EngineFile:
    """What there is to record of an engine file that was made from the weights of that sha256."""
    content = file.read_bytes()
    if file.suffix != SUFFIX["openvino"]:
        return EngineFile(file.name, _sha256(content), len(content), weights)
    values = file.with_suffix(".bin").read_bytes()
    return EngineFile(file.name, _sha256(content), len(content) + len(values), weights, _sha256(values))


def record(folder: Path, kind: str, entries: Mapping[str, EngineFile]) -> None:
    """Add engines to a bundle's model.json; all else in it stays.

    But a file in 8 bits goes that was compared with another file than the one that is recorded now.
    """
    file = folder / MODEL
    document = json.loads(file.read_text(encoding="utf-8"))
    engines = document.setdefault("engines", {})
    known = engines.setdefault(kind, {})
    for width, written in entries.items():
        if known.get(width, written.entry) != written.entry:
            engines.get(kind + INT8, {}).pop(width, None)
        known[width] = written.entry
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
