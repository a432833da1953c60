"""Data sets and detectors of one's own, handed to `slimdet.train` in Python."""

from dataclasses import dataclass

from torch import nn

from slimdet.core.slimmable import Slimmable, slim
from slimdet.data.own import OwnDataset
from slimdet.errors import ConfigError
from slimdet.models import architecture
from slimdet.models.image_size import set_image_size
from slimdet.models.kinds import require
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
        ConfigError: it is for another number of classes, or its kind has no place in a training.
    """
    description = architecture.describe(detector)  # the end of a training is too late to find out
    require(description, "save", type(detector).__name__)
    if description["num_classes"] != classes + 1:
        raise ConfigError(
            f"the detector is for {description['num_classes']} classes, with the background; the data has {classes}: "
            f"build it with num_classes={classes + 1}"
        )
    if settings.distill:
        require(description, "distil", type(detector).__name__)
    model = slim(detector, settings.widths, settings.scope, norm_sharing=settings.norm_sharing)
    if settings.largest_size is not None:
        set_image_size(model, settings.largest_size)
    return model
