"""Data sets and detectors of one's own, handed to `slimdet.train` in Python."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from slimdet.core.slimmable import Slimmable, slim
from slimdet.data.coco import CocoDataset
from slimdet.data.config import read_data_config
from slimdet.data.fingerprint import fingerprint
from slimdet.data.own import OwnDataset
from slimdet.errors import ConfigError, DataError
from slimdet.models import architecture
from slimdet.models.image_size import set_image_size
from slimdet.models.kinds import kind_of, require
from slimdet.models.suppression import set_suppression
from slimdet.training.settings import TrainSettings


@dataclass(frozen=True)
class Own:
    """What stands in for files and for a detector built by settings.

        data = OwnDataset(mine, ["cat", "dog"])
        slimdet.train(own=Own(data, detector=fasterrcnn_mobilenet_v3_large_fpn(num_classes=3)))

    Attributes:
        train, val: data sets; without the first, those of the setting `data`.
        detector: one of torchvision's, for as many classes as the data set has and the background, or one of
            `slimdet.models.builders`; its weights are the start. It is slimmed to the widths and scope of the settings;
            `model`, `backbone`, `neck`, `weights` and the like are not looked at.
    """

    train: OwnDataset | None = None
    val: OwnDataset | None = None
    detector: nn.Module | None = None


def own_model(settings: TrainSettings, detector: nn.Module, classes: int) -> Slimmable:
    """Slim a detector that was handed over.

    Raises:
        BundleError: a bundle could not say how to build it.
        ConfigError: it is for another number of classes, its kind has no place in a training, or it has another
            suppression than is asked for.
    """
    description = architecture.describe(detector)  # the end of a training is too late to find out
    require(description, "save", type(detector).__name__)
    if description["num_classes"] != classes + 1:
        raise ConfigError(
            f"the detector is for {description['num_classes']} classes, with the background; the data has {classes}: "
            f"build it with num_classes={classes + 1}"
        )
    if settings.teacher == "start":
        raise ConfigError("teacher start is the bundle of `weights`; save the detector as one and leave it out of Own")
    if settings.distill:
        require(description, "distil", type(detector).__name__)
    if settings.nms == "all":
        set_suppression(detector, "all")
    model = slim(detector, settings.widths, settings.scope, norm_sharing=settings.norm_sharing)
    if settings.largest_size is not None:
        set_image_size(model, settings.largest_size)
    return model


def datasets(settings: TrainSettings, own: Own) -> tuple[Any, Any]:
    """The data sets to train and to validate on; None for the second where there is none.

    Raises:
        ConfigError: neither `data` nor `own` names one.
        DataError: there is nothing to train on.
    """
    if own.train is not None:
        train, val = own.train, own.val
    elif not settings.data:
        raise ConfigError("--data DATA.yaml is missing: it names the images and annotations to train on")
    else:
        data = read_data_config(settings.data)
        if data.train is None:
            raise DataError(f"{settings.data} has no 'train:'")
        masks = kind_of({"builder": settings.model}).masks
        train = CocoDataset(data.train.annotations, data.train.images, masks=masks, train=True)
        val = CocoDataset(data.val.annotations, data.val.images, masks=masks) if data.val else None
    if not len(train):
        raise DataError(f"{settings.data or 'the data set'} has no images to train on")
    if isinstance(train, CocoDataset) and not train.objects:
        raise DataError(f"{settings.data} has no objects to train on: {len(train)} images, none with a box")
    return train, val


def fingerprint_of(dataset: CocoDataset | OwnDataset) -> str:
    """What a resumed run tells other data by; of a data set of one's own classes and length are looked at alone."""
    if isinstance(dataset, OwnDataset):
        return f"{len(dataset)} images of {', '.join(dataset.classes)}"
    return fingerprint(dataset.annotations, dataset.folder, (record["file_name"] for record in dataset.coco["images"]))
