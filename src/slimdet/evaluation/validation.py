"""Validate a model on a COCO data set: every width's numbers, tables and pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.progress import Progress

from slimdet.bundle import store
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import Split, read_data_config
from slimdet.devices import choose_device
from slimdet.errors import ConfigError, DataError
from slimdet.evaluation.inference import check_classes, detect
from slimdet.evaluation.matching import accumulate, confusion_matrix
from slimdet.files import atomic_write, new_run_dir
from slimdet.models.image_size import check_image_sizes, set_image_size
from slimdet.models.kinds import require
from slimdet.report import plots


@dataclass(frozen=True)
class Validation:
    """What was measured, by width: the 12 numbers of each kind ("bbox", "segm"), and AP by class."""

    widths: dict[str, dict[str, dict[str, float]]]
    classes: dict[str, dict[str, dict[str, dict[str, float]]]]
    run: Path | None = None


def validate(
    model: Slimmable,
    dataset: CocoDataset,
    widths: Sequence[float],
    device: str = "auto",
    out: Path | None = None,
    workers: int = 0,
) -> Validation:
    """Evaluate a model at each of `widths`.

    Args:
        model: a loaded bundle.
        dataset: with `masks=True` where the model gives masks.
        widths: those of the model to evaluate.
        device: as `slimdet.devices.choose_device` takes it.
        out: a folder for detections, numbers and pictures; none are written without it.
        workers: processes that read images.

    Raises:
        DataError: the data set's classes are not the model's, or its annotations are broken.
    """
    place = choose_device(device)
    model.to(place).eval()
    ids = check_classes(model.classes, dataset)
    kinds = ("bbox", "segm") if dataset.masks else ("bbox",)
    numbers: dict[str, Any] = {}
    by_class: dict[str, Any] = {}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for width in widths:
            task = progress.add_task(f"width {width}", total=len(dataset))
            detections = detect(
                lambda images, w=width: model(images, width=w),
                dataset,
                place,
                progress=lambda count, t=task: progress.advance(t, count),
                category_ids=ids,
                workers=workers,
            )
            found = accumulate(dataset.coco, detections, kinds)
            key = str(width)
            numbers[key] = {kind: evaluation.summary() for kind, evaluation in found.items()}
            by_class[key] = {kind: evaluation.per_class() for kind, evaluation in found.items()}
            if out is None:
                continue
            _write_json(out / f"detections-{key}.json", detections)
            matrix = confusion_matrix(dataset.coco, detections)
            plots.plot_confusion_matrix(matrix, dataset.classes, out / f"confusion-{key}.png", f"width {key}")
            for kind, evaluation in found.items():
                title = f"width {key}, {plots.KINDS.get(kind, kind)}, IoU 0.5"
                file = out / f"precision-recall-{kind}-{key}.png"
                plots.plot_precision_recall(evaluation.curves(0.5), evaluation.classes, file, title)
    result = Validation(numbers, by_class, out)
    if out is not None:
        _write_json(out / "metrics.json", {"widths": numbers, "classes": by_class})
    return result


def validate_bundle(
    path: str,
    data: Path,
    images: Path | None = None,
    width: float | None = None,
    imgsz: int | None = None,
    device: str = "auto",
    out: Path | None = None,
    workers: int = 0,
) -> Validation:
    """Load a bundle and validate it at `width`, or at all of its widths; results go to `out` or `runs/val-N`.

    Args:
        data: COCO instances JSON, together with the folder `images`; or a DATA.yaml, whose `val:` is taken.

    Raises:
        BundleError, ConfigError, DataError, ImageError, WidthError: what was given cannot be used.
    """
    split = _val_split(data, images)
    model = store.load(path)
    widths = model.widths if width is None else (width,)
    for asked in widths:
        model.twin(asked)  # an unknown width is told before the data is read
    if imgsz is not None:
        set_image_size(model, imgsz)
    masks = require(model.twin(1.0), "validate", path).masks
    dataset = CocoDataset(split.annotations, split.images, masks=masks)
    check_classes(model.classes, dataset)
    check_image_sizes(model, dataset)
    return validate(model, dataset, widths, device, new_run_dir("val", out), workers)


def view(result: Validation) -> Group:
    """Tables of what was measured."""
    boxes = {width: kinds["bbox"] for width, kinds in result.classes.items()}
    parts = [plots.accuracy_table(result.widths), plots.class_table(boxes)]
    return Group(*parts, f"detections, confusion matrices and precision-recall curves in {result.run}")


def _val_split(data: Path, images: Path | None) -> Split:
    if data.suffix.lower() not in (".yaml", ".yml"):
        if images is None:
            raise ConfigError(f"--data {data} needs --images, the folder that its file names start from")
        return Split(images=images, annotations=data)
    if images is not None:
        raise ConfigError(f"--images {images} goes with a COCO JSON; {data} says itself where its images are")
    split = read_data_config(data).val
    if split is None:
        raise DataError(f"{data} has no 'val:'")
    return split


def _write_json(file: Path, content: Any) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n")
