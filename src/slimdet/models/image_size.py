"""The size that images are resized to inside a detector."""

from typing import TYPE_CHECKING, Any

from torch import nn

from slimdet.core.slimmable import Slimmable
from slimdet.errors import ConfigError
from slimdet.images.decoding import check_resizable

if TYPE_CHECKING:
    from slimdet.data.coco import CocoDataset


def set_image_size(model: Slimmable, imgsz: int) -> None:
    """Resize images to a shorter side of `imgsz` pixels at every width; the longer stays capped in the model's ratio.

    Raises:
        ConfigError: below 32 pixels, or the detector takes no size.
    """
    for width in model.widths:
        resize_shorter_side(model.twin(width), imgsz)


def resize_shorter_side(detector: nn.Module, imgsz: int) -> None:
    """The same for a plain detector, such as one width.

    Raises:
        ConfigError: as `set_image_size`.
    """
    if imgsz < 32:
        raise ConfigError(f"--imgsz {imgsz} is too small; use 32 or more")
    transform: Any = getattr(detector, "transform", None)
    if transform is None:
        raise ConfigError(f"{type(detector).__name__} resizes no images; leave --imgsz out")
    if getattr(transform, "fixed_size", None):  # SSD takes squares
        transform.fixed_size = (imgsz, imgsz)
    ratio = transform.max_size / transform.min_size[-1]
    transform.min_size, transform.max_size = (imgsz,), round(imgsz * ratio)


def check_image_sizes(model: Slimmable, *datasets: "CocoDataset") -> None:
    """Make sure, before a long run, that something is left of every image at the model's size.

    Raises:
        ImageError: the first image that is too narrow.
    """
    transform: Any = getattr(model.twin(1.0), "transform", None)
    if transform is None or getattr(transform, "fixed_size", None):  # squares have both sides
        return
    for dataset in datasets:
        for image in dataset.coco["images"]:
            what = f"{dataset.folder / image['file_name']}: "
            check_resizable(what, image["width"], image["height"], transform.max_size)
