"""Write widths of a bundle as engine files, which run without torch."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torchvision

import slimdet
from slimdet.bundle import manifest, store
from slimdet.bundle.manifest import INT8, Manifest
from slimdet.errors import ConfigError
from slimdet.exporting import int8
from slimdet.exporting.int8 import TooInaccurateError
from slimdet.exporting.linked import link
from slimdet.exporting.onnx import OPSET, folded, to_onnx
from slimdet.exporting.settings import ExportSettings, Format
from slimdet.exporting.writing import SUFFIX, EngineFile, Int8File, record, write
from slimdet.files import new_run_dir
from slimdet.messages import with_fields
from slimdet.models.image_size import set_image_size
from slimdet.models.kinds import require


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        out: the folder.
        format: of the files.
        widths: the file of each width in 32 bits, {"0.25": ...}.
        int8: the file of each width in 8 bits, with what was measured of it.
        refused: why a width has none, where 8 bits were asked for.
    """

    out: Path
    format: Format
    widths: dict[str, EngineFile]
    int8: dict[str, Int8File] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def export(
    model: str | Path, settings: ExportSettings | None = None, *, out: str | Path | None = None, **fields: Any
) -> Export:
    """Write one width, or all, as `width-W.onnx` (or `.xml` and `.bin`), each the whole detector from pixels to boxes.

        slimdet.export("runs/train-1/model", width=0.5, format="openvino")

    With `int8` a second file of each width, `width-W-int8.onnx`, computes its convolutions and linear layers in 8 bits
    (the values in between are calibrated on training images). It is compared with the first on val images; a width that
    loses more AP than it may gets none. The bundle records what was measured, and runs a width in 8 bits by itself
    where they are faster.

    Args:
        model: a bundle's folder, which the files are written to and recorded in; or "bundled", for which they go to
            `runs/export-N`.
        settings: which widths, and as what; the default is `ExportSettings()`.
        out: a folder, new or empty, for the files alone. They need nothing else.
        fields: fields of `ExportSettings`, in place of those that `settings` has.

    Raises:
        BundleError, WidthError: what was given cannot be used.
        ConfigError: the detector cannot be exported, `out` is not empty, `linked` has no bundle to link to, or 8 bits
            need a library that is not installed.
        DataError: the data set for 8 bits cannot be used.
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
    data = int8.examples(source, settings) if settings.int8 else None
    folder = source.folder if inside else None
    made = Export(Path(), settings.format, {})
    for value in widths:
        detector: Any = slimmable.extract(value)
        graph = to_onnx(detector, metadata(source, value, detector))
        whole = folded(graph)
        folder = folder or new_run_dir("export", out)  # not before there is something to put into it
        file = folder / f"width-{value}{SUFFIX[settings.format]}"
        graph = link(graph, source.weights_file, value) if settings.linked else whole
        made.widths[str(value)] = write(graph, file, source.weights_sha256)
        if inside:
            record(folder, settings.format, made.widths)
        if data:
            try:
                made.int8[str(value)] = int8.add_int8(whole, source, value, file, settings, data)
            except TooInaccurateError as error:
                made.refused[str(value)] = str(error)
            if inside:
                record(folder, settings.format + INT8, made.int8)
    assert folder is not None  # a bundle has widths
    return replace(made, out=folder)


def metadata(source: Manifest, width: float, detector: Any) -> dict[str, str]:
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
