"""The verb `val`: a bundle's numbers on a COCO data set, with its detections and pictures in a folder."""

import json
from pathlib import Path
from typing import Any

from slimdet.bundle import manifest
from slimdet.bundle.ladder import Point
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_val_split
from slimdet.data.formats.annotated import Split
from slimdet.errors import ConfigError
from slimdet.evaluation.confusion import confusion_matrix
from slimdet.evaluation.points import check_points, measure_points
from slimdet.evaluation.validation import Measured, Progress, Validation
from slimdet.files import atomic_write, new_run_dir
from slimdet.messages import with_fields
from slimdet.models.kinds import require
from slimdet.report import plots
from slimdet.report.settings import ValSettings
from slimdet.runtime.detector import Runtime


def val(
    model: str | Path,
    data: str | Path,
    settings: ValSettings | None = None,
    *,
    images: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **fields: Any,
) -> Validation:
    """Measure a bundle at one of its widths, or at all; detections, numbers and pictures go to `runs/val-N`.

        slimdet.val("runs/train-1/model", "data.yaml", width=0.5).widths["0.5"]["bbox"]["AP"]

    An exported engine is measured from its files, those that ship. On every engine, detections of the detector's
    own least score (torchvision's 0.05) and above count.

    Args:
        model: a bundle's folder, or "bundled".
        data: COCO instances JSON, together with the folder `images`; or a DATA.yaml, whose `val:` is taken.
        settings: what is measured; the default is `ValSettings()`.
        images: the folder that the file names of a COCO JSON start from.
        out: the folder, in place of the next free `runs/val-N`.
        progress: called after each batch with the width, the images done and their number.
        fields: fields of `ValSettings`, in place of those that `settings` has.

    Raises:
        BundleError, ConfigError, DataError, ImageError, WidthError: what was given cannot be used.
    """
    settings = with_fields(settings or ValSettings(), fields)
    split = _val_split(Path(data), None if images is None else Path(images))
    masks = require(manifest.read(model).architecture, "validate", str(model)).masks
    runtime = Runtime(model, engine=settings.engine, device=settings.device, threads=settings.threads)
    widths = runtime.widths if settings.width is None else (settings.width,)
    check = runtime.manifest.check_width
    points = [Point(check(width), settings.imgsz, settings.proposals, settings.precision) for width in widths]
    dataset = CocoDataset(split.annotations, split.images, masks=masks)
    check_points(runtime, dataset, points)
    run = new_run_dir("val", out)
    result = Validation({}, {}, run)
    for found in measure_points(runtime, dataset, points, settings.workers, progress):
        key = str(found.width)
        result.widths[key], result.classes[key] = found.numbers, found.classes
        _write(found, dataset, run)
    _write_json(run / "metrics.json", {"widths": result.widths, "classes": result.classes})
    return result


def _write(found: Measured, dataset: CocoDataset, run: Path) -> None:
    """A width's detections and its pictures."""
    with atomic_write(run / f"detections-{found.width}.json") as temporary, temporary.open("w") as file:
        for place, detection in enumerate(found.detections):  # one by one: there may be a million
            file.write(("," if place else "[") + "\n" + json.dumps(detection, allow_nan=False))
        file.write("]\n" if found.detections else "[]\n")
    matrix = confusion_matrix(dataset.coco, found.detections)
    plots.plot_confusion_matrix(matrix, dataset.classes, run / f"confusion-{found.width}.png", f"width {found.width}")
    for kind, evaluation in found.evaluations.items():
        title = f"width {found.width}, {plots.KINDS.get(kind, kind)}, IoU 0.5"
        file = run / f"precision-recall-{kind}-{found.width}.png"
        plots.plot_precision_recall(evaluation.curves(0.5), evaluation.classes, file, title)


def _val_split(data: Path, images: Path | None) -> Split:
    if data.is_file() and data.suffix.lower() not in (".yaml", ".yml"):
        if images is None:
            raise ConfigError(f"--data {data} needs --images, the folder that its file names start from")
        return Split(images=images, annotations=data)
    if images is not None:
        raise ConfigError(f"--images {images} goes with a COCO JSON; {data} says itself where its images are")
    return read_val_split(data)


def _write_json(file: Path, content: Any) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n")
