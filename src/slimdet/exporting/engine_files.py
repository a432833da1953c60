"""Write widths of a bundle as engine files, which run without torch."""

import hashlib
import json
from collections.abc import Mapping
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
from slimdet.files import atomic_write, new_run_dir
from slimdet.models.image_size import set_image_size

SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


def export(
    model: str,
    width: float | None = None,
    format: str = "onnx",
    imgsz: int | None = None,
    linked: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Write one width, or all, as `width-W.onnx` (or `.xml` and `.bin`), each the whole detector from pixels to boxes.

    Args:
        model: a bundle's folder, which the files are written to and recorded in; or "bundled", for which they go to
            `runs/export-N`.
        width: None for all.
        format: "onnx" or "openvino".
        imgsz: shorter side in pixels that images are resized to; the default is the model's.
        linked: ONNX files that use the bundle's weights file and have no weights of their own.
        out: a folder, new or empty, for the files alone. They need nothing else.

    Returns:
        {"out", "format", "widths": {"0.25": {"file", "sha256", "bytes", "weights"}}}; `weights` is the sha256 of the
        weights that the file was made from; OpenVINO's have "bin_sha256" besides, of the .bin file.

    Raises:
        BundleError, WidthError: what was given cannot be used.
        ConfigError: the detector cannot be exported, `out` is not empty, or `linked` has no bundle to link to.
    """
    source = manifest.read(model)
    inside = out is None and model != "bundled"
    if linked and (format != "onnx" or not inside):
        raise ConfigError("--linked makes ONNX files that need their bundle beside them: leave out --out and --format")
    widths = source.widths if width is None else (source.check_width(width),)
    slimmable = store.load(model)
    if imgsz is not None:
        set_image_size(slimmable, imgsz)
    entries = {}
    folder = source.folder if inside else None
    for value in widths:
        detector: Any = slimmable.extract(value)
        graph = to_onnx(detector, _metadata(source, value, detector))
        graph = link(graph, source.folder / source.document["weights"]["file"], value) if linked else folded(graph)
        folder = folder or new_run_dir("export", out)  # not before there is something to put into it
        file = folder / f"width-{value}{SUFFIX[format]}"
        _write(graph, file)
        entries[str(value)] = _entry(file, source.weights_sha256)
        if inside:
            _record(source, format, entries)
    return {"out": str(folder), "format": format, "widths": entries}


def view(written: Mapping[str, Any]) -> str:
    """What was written, as lines."""
    lines = [f"{entry['file']}: {entry['bytes'] / 2**20:.1f} MiB" for entry in written["widths"].values()]
    return "\n".join([*lines, f"in {written['out']}; how to run them: docs/edge.md"])


def _metadata(source: Manifest, width: float, detector: Any) -> dict[str, str]:
    """What an engine file says of itself; values are text, some of it JSON."""
    transform = detector.transform
    image = {
        "layout": "NHWC uint8 RGB",
        "range": [0, 255],
        "min_size": transform.min_size[-1],
        "max_size": transform.max_size,
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


def _entry(file: Path, weights: str) -> dict[str, Any]:
    content = file.read_bytes()
    entry = {"file": file.name, "sha256": _sha256(content), "bytes": len(content), "weights": weights}
    if file.suffix == SUFFIX["openvino"]:
        values = file.with_suffix(".bin").read_bytes()
        entry |= {"bin_sha256": _sha256(values), "bytes": len(content) + len(values)}
    return entry


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _record(source: Manifest, format: str, entries: Mapping[str, Any]) -> None:
    """Add engines to a bundle's model.json; all else in it stays."""
    file = source.folder / manifest.MODEL
    document = json.loads(file.read_text(encoding="utf-8"))
    document.setdefault("engines", {}).setdefault(format, {}).update(entries)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
