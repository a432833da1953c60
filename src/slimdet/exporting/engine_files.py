"""Write widths of a bundle as engine files, which run without torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision

import slimdet
from slimdet.bundle import manifest, store
from slimdet.bundle.manifest import Manifest
from slimdet.errors import ConfigError
from slimdet.exporting.linked import link
from slimdet.exporting.onnx import OPSET, folded, to_onnx
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.files import atomic_write, new_run_dir
from slimdet.messages import with_fields
from slimdet.models.image_size import set_image_size
from slimdet.models.kinds import require

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


@dataclass(frozen=True)
class Export:
    """The folder that was written to, the files' format, and the file of each width, {"0.25": ...}."""

    out: Path
    format: Format
    widths: dict[str, EngineFile]


def export(
    model: str | Path, settings: ExportSettings | None = None, *, out: str | Path | None = None, **fields: Any
) -> Export:
    """Write one width, or all, as `width-W.onnx` (or `.xml` and `.bin`), each the whole detector from pixels to boxes.

        slimdet.export("runs/train-1/model", width=0.5, format="openvino")

    Args:
        model: a bundle's folder, which the files are written to and recorded in; or "bundled", for which they go to
            `runs/export-N`.
        settings: which widths, and as what; the default is `ExportSettings()`.
        out: a folder, new or empty, for the files alone. They need nothing else.
        fields: fields of `ExportSettings`, in place of those that `settings` has.

    Raises:
        BundleError, WidthError: what was given cannot be used.
        ConfigError: the detector cannot be exported, `out` is not empty, or `linked` has no bundle to link to.
    """
    settings = with_fields(settings or ExportSettings(), fields)
    source = manifest.read(model)
    require(source.architecture, "export", str(model))
    inside = out is None and str(model) != "bundled"
    if settings.linked and (settings.format != "onnx" or not inside):
        raise ConfigError("--linked makes ONNX files that need their bundle beside them: leave out --out and --format")
    widths = source.widths if settings.width is None else (source.check_width(settings.width),)
    slimmable = store.load(model)
    if settings.imgsz is not None:
        set_image_size(slimmable, settings.imgsz)
    entries: dict[str, EngineFile] = {}
    folder = source.folder if inside else None
    for value in widths:
        detector: Any = slimmable.extract(value)
        graph = to_onnx(detector, _metadata(source, value, detector))
        weights = source.folder / source.document["weights"]["file"]
        graph = link(graph, weights, value) if settings.linked else folded(graph)
        folder = folder or new_run_dir("export", out)  # not before there is something to put into it
        file = folder / f"width-{value}{SUFFIX[settings.format]}"
        _write(graph, file)
        entries[str(value)] = _entry(file, source.weights_sha256)
        if inside:
            _record(source, settings.format, entries)
    assert folder is not None  # a bundle has widths
    return Export(folder, settings.format, entries)


def _metadata(source: Manifest, width: float, detector: Any) -> dict[str, str]:
    """What an engine file says of itself; values are text, some of it JSON."""
    transform = detector.transform
    image = {
        "layout": "NHWC uint8 RGB",
        "range": [0, 255],
        "min_size": transform.min_size[-1],
        "max_size": transform.max_size,
        "proposals": detector.rpn.post_nms_top_n(),
    }
    scope = source.scope
    return {
        "slimdet": slimdet.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "opset": str(OPSET),
        "classes": json.dumps(source.classes),
        "category_ids": json.dumps(source.category_ids),
        "width": str(width),
        "scope": scope if isinstance(scope, str) else scope["name"],
        "model": source.architecture["builder"],
        "input": json.dumps(image),
        "weights_sha256": source.weights_sha256,
    }


def _write(graph: onnx.ModelProto, file: Path) -> None:
    if file.suffix == SUFFIX["onnx"]:
        with atomic_write(file) as temporary:
            temporary.write_bytes(graph.SerializeToString())
    else:
        from slimdet.exporting.openvino import save_ir  # an extra of its own

        save_ir(graph, file)


def _entry(file: Path, weights: str) -> EngineFile:
    content = file.read_bytes()
    if file.suffix != SUFFIX["openvino"]:
        return EngineFile(file.name, _sha256(content), len(content), weights)
    values = file.with_suffix(".bin").read_bytes()
    return EngineFile(file.name, _sha256(content), len(content) + len(values), weights, _sha256(values))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(source: Manifest, format: Format, entries: Mapping[str, EngineFile]) -> None:
    """Add engines to a bundle's model.json; all else in it stays."""
    file = source.folder / manifest.MODEL
    document = json.loads(file.read_text(encoding="utf-8"))
    engines = document.setdefault("engines", {}).setdefault(format, {})
    engines.update({width: written.entry for width, written in entries.items()})
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
