"""The model that a training starts from: a pretrained backbone or a bundle; never a silent random start."""

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from slimdet.bundle import manifest, store
from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import ConfigError, WeightsError
from slimdet.images.decoding import is_resizable
from slimdet.messages import listed
from slimdet.models import architecture, builders
from slimdet.models.image_size import set_image_size, sides_of
from slimdet.models.kinds import kind_of, require
from slimdet.models.sorting import sort_channels, sort_detector
from slimdet.models.suppression import set_suppression
from slimdet.training.distillation import as_teacher
from slimdet.training.settings import TrainSettings

# What belongs to certain classes; the RPN's outputs do not, they tell objects from background.
CLASS_LAYERS = re.compile(r"roi_heads\.(box_predictor|mask_predictor\.mask_fcn_logits)\.")

logger = logging.getLogger("slimdet")


def starting_model(
    settings: TrainSettings, classes: Sequence[str], sort_by: Iterable[Tensor] | None = None, blank: bool = False
) -> Slimmable:
    """Build the slimmable detector to train.

    Args:
        settings: what kind of detector it is and where it starts. A bundle's detector is taken as it is: backbone,
            neck and norms are the defaults of `TrainSettings` there, or what it has.
        classes: names of the labels 1..K.
        sort_by: images [3, H, W] by which channels are sorted before slimming: the backbone's, or all of a bundle's.
        blank: load nothing: a checkpoint will fill the model.

    Raises:
        WeightsError: weights that cannot be had or that do not fit.
        ConfigError: a bundle of another kind of detector, or with other parts than were asked for.
    """
    weights = settings.weights
    if is_bundle(weights):
        return _fine_tuned(settings, classes, None if blank else sort_by)
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise WeightsError(f"--weights {weights}: no such file or bundle; others are 'imagenet' and 'none'")
    detector = builders.BUILDERS[settings.model](
        len(classes) + 1,
        backbone=settings.backbone,
        neck=settings.neck,
        norm_layer=None if settings.head_norm == "none" else settings.head_norm,
        backbone_norm="frozen" if settings.freeze_backbone_norm else "batch",
        weights=None if blank else weights,
        imgsz=settings.largest_size,
    )
    set_suppression(detector, settings.nms or "class")
    if sort_by is not None and not blank:
        count = sort_channels(detector.backbone, _batches(detector, sort_by))
        logger.info("sorted the channels of %d groups of layers", count)
    return slim(detector, settings.widths, settings.scope, norm_sharing=settings.norm_sharing)


def starting_teacher(settings: TrainSettings, classes: Sequence[str]) -> nn.Module:
    """The detector that a bundle starts from, as it was: for settings whose `teacher` is "start".

    Raises:
        ConfigError: the training does not start from a detector, or from one of other classes; or its channels are to
            be sorted, and would not be those of the teacher any more.
        BundleError: the bundle is damaged.
    """
    path = settings.weights
    if not is_bundle(path):
        raise ConfigError(f"--teacher start: --weights {path} is no detector that could teach; give a BUNDLE")
    if settings.sort:
        raise ConfigError("--teacher start does not go with --sort: channel k would not be the teacher's channel k")
    source, found = store.load(path), manifest.read(path).classes
    if found != tuple(classes):
        raise ConfigError(f"--teacher start: {path} finds {listed(found)}, and the data has {listed(classes)}")
    if settings.largest_size is not None:
        set_image_size(source, settings.largest_size)
    return as_teacher(source.extract(1.0))


def is_bundle(weights: str) -> bool:
    """Whether a training's `weights` are a whole detector, to be fine-tuned."""
    return weights == "bundled" or (Path(weights) / store.MODEL).is_file()


def resolved(settings: TrainSettings, model: Slimmable) -> TrainSettings:
    """The settings with what they leave open filled in as `model` was made: what a run stores and resumes by."""
    description = architecture.describe(model.twin(1.0))
    changes: dict[str, Any] = {"lr": settings.peak_lr, "weight_decay": settings.decay}
    changes["recalibrate"] = settings.statistics_images
    changes["nms"] = description.get("nms", "class")
    if not settings.sizes:
        transform: Any = model.twin(1.0).get_submodule("transform")
        changes["imgsz"] = int(transform.min_size[-1])
    changes |= _parts(description)
    return replace(settings, **changes)


def _batches(detector: Any, images: Iterable[Tensor], size: int = 8) -> Iterator[Tensor]:
    """The images as the backbone receives them; too narrow ones, which training will refuse by name, are left out."""
    longest = sides_of(detector)[1]
    stream = (image for image in images if is_resizable(image.shape[2], image.shape[1], longest))
    while chunk := list(itertools.islice(stream, size)):
        yield detector.transform(chunk)[0].tensors


def _fine_tuned(settings: TrainSettings, classes: Sequence[str], sort_by: Iterable[Tensor] | None) -> Slimmable:
    """A bundle's detector, with new class outputs where the classes differ, and its norms where the widths agree."""
    path = settings.weights
    source, before = store.load(path), manifest.read(path).classes
    description = architecture.describe(source.twin(1.0))
    kind = require(description, "train", f"--weights {path}")
    if kind != kind_of({"builder": settings.model}):
        fitting = next(name for name in builders.BUILDERS if kind_of({"builder": name}) == kind)
        raise ConfigError(f"--weights {path} is a {kind.name}, not a {settings.model}; say --model {fitting}")
    _check_parts(settings, description)
    detector = architecture.build(description | {"num_classes": len(classes) + 1})
    if settings.nms and settings.nms != description.get("nms", "class"):
        set_suppression(detector, settings.nms)
    given = dict(source.state_dict())
    if tuple(classes) != before:
        given = {key: value for key, value in given.items() if not CLASS_LAYERS.match(key)}
        logger.info("new heads for %s, in place of %s", listed(classes), listed(before))
    kept = _fill(detector, given)  # before slimming: widths that the bundle lacks start from the widest's norms
    if sort_by is not None:
        if len(source.widths) > 1:
            raise ConfigError(f"--sort: the channels of {path} are in order already, its narrow widths rely on it")
        count = sort_detector(detector, sort_by)
        logger.info("sorted the channels of %d groups of layers", count)
    model = slim(detector, settings.widths, settings.scope, norm_sharing=settings.norm_sharing)
    if sort_by is None:
        kept = _fill(model, given)
    dropped = sorted(source.state_dict().keys() - kept)
    which = f": {listed(dropped)}" if dropped else ""
    logger.info("from %s: kept %d tensors, dropped %d%s", path, len(kept), len(dropped), which)
    if settings.largest_size is not None:
        set_image_size(model, settings.largest_size)
    else:
        logger.info("images are resized to the size that %s has; --imgsz changes it", path)
    return model


def _check_parts(settings: TrainSettings, description: Mapping[str, Any]) -> None:
    has = _parts(description)
    for name in ("backbone", "neck", "head_norm", "freeze_backbone_norm"):
        asked, usual = getattr(settings, name), getattr(TrainSettings, name)
        kept = has.get(name, usual)
        if asked not in (usual, kept):
            flag = f"--{name.replace('_', '-')}" + ("" if asked is True else f" {asked}")
            how = f"with {name} {kept}" if name in has else f"a {description['builder']}"
            raise ConfigError(f"{flag}: {settings.weights} is taken as it was built, {how}; leave the flag out")


def _parts(description: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `TrainSettings` that say what a detector was built of; empty for one of torchvision's."""
    if "neck" not in description:
        return {}
    return {name: description[name] for name in ("backbone", "neck")} | {
        "head_norm": description["norm_layer"] or "none",
        "freeze_backbone_norm": description["backbone_norm"] == "frozen",
    }


def _fill(module: nn.Module, given: dict[str, Tensor]) -> set[str]:
    """Load the tensors that are of this module's names and shapes; return their names."""
    own = module.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    module.load_state_dict(own | fitting)
    return set(fitting)
