"""The verb `calibrate`: a bundle gets a width that it was not trained at, with its statistics and its accuracy."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimdet.bundle import card, manifest, store
from slimdet.core.slimmable import Slimmable
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.transforms import ShrinkInto
from slimdet.devices import choose_device
from slimdet.errors import BundleError, DataError
from slimdet.evaluation.inference import check_classes
from slimdet.evaluation.validation import validate
from slimdet.files import new_run_dir
from slimdet.messages import with_fields
from slimdet.models.image_size import check_image_sizes
from slimdet.models.kinds import kind_of, require
from slimdet.training.settings import CalibrateSettings
from slimdet.training.statistics import calibration_batches, collect_statistics
from slimdet.widths import parse_width, read_plan

logger = logging.getLogger("slimdet")


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did: the bundle, the width, images used, its numbers on val (empty where there is none)."""

    model: Path
    width: float
    images: int
    metrics: dict[str, Any]


def calibrate(
    model: str | Path,
    data: str | Path,
    width: float,
    settings: CalibrateSettings | None = None,
    *,
    out: str | Path | None = None,
    **fields: Any,
) -> Calibration:
    """Give a bundle a width that it was not trained at, or new statistics to one that it has; measure it on val.

        slimdet.calibrate("runs/train-1/model", "data.yaml", width=0.6)

    Args:
        model: a bundle's folder, which is replaced by the new bundle, or "bundled".
        data: DATA.yaml: statistics are of its train images, accuracy of its val images.
        width: the width; with a plan, its name.
        settings: how; the default is `CalibrateSettings()`.
        out: a new folder for the bundle, which then leaves `model` as it is; for "bundled", which belongs to the
            package, the default is `runs/calibrate-N`.
        fields: fields of `CalibrateSettings`, in place of those that `settings` has.

    Raises:
        SlimdetError: a model, width, plan or data set that cannot be used; the bundle stays as it was.
    """
    settings = with_fields(settings or CalibrateSettings(), fields)
    target = _target(model, out)
    value = parse_width(width)
    require(manifest.read(model).architecture, "calibrate", str(model))
    slimmable, said = store.load(model), card.read(model)
    _add_width(slimmable, model, value, settings)
    train, val = _data(slimmable, Path(data), said.classes)
    sides: Any = getattr(slimmable.twin(value), "transform", None)
    if sides is not None and not getattr(sides, "fixed_size", None):
        train.shrink = ShrinkInto(sides.min_size[-1], sides.max_size)
    place = choose_device(settings.device)
    slimmable.to(place)
    batches = calibration_batches(train, settings.images, settings.batch, settings.seed, place)
    used = collect_statistics(slimmable, (value,), batches)
    metrics: dict[str, Any] = {}
    if val is not None:
        metrics = validate(slimmable, val, (value,), settings.device, said.classes).widths[str(value)]
    record = {"images": used, "batch": settings.batch, "seed": settings.seed, "data": str(data)}
    slimmable.to("cpu")
    found = {str(value): metrics} if metrics else {}
    said = said.record(store.weights_of(slimmable), found, {str(value): record})
    exported = target == Path(model) and any(map(manifest.read(model).engines, ("onnx", "openvino")))
    target = target or new_run_dir("calibrate") / "model"
    path = store.save(slimmable, target, said)
    if exported:
        logger.warning("the engine files of %s were of the weights before: 'slimdet export --model %s'", path, path)
    return Calibration(path, value, used, metrics)


def _target(model: str | Path, out: str | Path | None) -> Path | None:
    """Where the new bundle goes; None is a folder that is made when there is something to put into it."""
    if out is None:
        return None if str(model) == "bundled" else Path(model)
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise BundleError(f"--out {out} is there already and not empty; choose another folder")
    return Path(out)


def _add_width(slimmable: Slimmable, model: str | Path, value: float, settings: CalibrateSettings) -> None:
    """Add the width where it is not there or has a plan; warn of one that will be poor."""
    stages = None if settings.plan is None else read_plan(Path(settings.plan))
    before = slimmable.widths
    if stages is not None or value not in before:
        slimmable.add(value, stages)
    if slimmable.norm_sharing == "own" and value not in before:
        text = "%s was trained at %s only: other widths are poor without training; train with --widths 0.25-1.0"
        logger.warning(text, model, ", ".join(map(str, before)))
    elif (asked := min([value, *(stages or {}).values()])) < min(before):
        text = "%s has no width under %s: %s is poor without training; train with --widths %s-1.0"
        logger.warning(text, model, min(before), asked, asked)


def _data(slimmable: Slimmable, file: Path, classes: Sequence[str]) -> tuple[CocoDataset, CocoDataset | None]:
    """The images to collect statistics from, as training sees them, and those to measure on."""
    config = read_data_config(file)
    if config.train is None:
        raise DataError(f"{file} has no 'train:', which the statistics are collected from")
    masks = kind_of(slimmable.twin(1.0)).masks
    train = CocoDataset(config.train.annotations, config.train.images, masks=masks, train=True)
    check_classes(classes, train)
    if not len(train):
        raise DataError(f"{config.train.annotations} has no images")
    val = None if config.val is None else CocoDataset(config.val.annotations, config.val.images, masks=masks)
    check_image_sizes(slimmable, *(part for part in (train, val) if part is not None))
    return train, val
