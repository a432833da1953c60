"""The size that images are resized to inside a detector."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from slimdet.core.slimmable import Slimmable
from slimdet.errors import ConfigError
from slimdet.images.decoding import check_resizable
from slimdet.images.sides import scaled_sides

if TYPE_CHECKING:
    from slimdet.data.coco import CocoDataset

_SQUARE = 64  # pixels; the least that all strides divide


def set_image_size(model: Slimmable, imgsz: int) -> None:
    """Resize images to a shorter side of `imgsz` pixels at every width; the longer stays capped in the model's ratio.

    Raises:
        ConfigError: as `scaled_sides`, or the detector takes no size.
    """
    for width in model.widths:
        resize_shorter_side(model.twin(width), imgsz)


def resize_shorter_side(detector: nn.Module, imgsz: int) -> None:
    """The same for a plain detector, such as one width.

    Raises:
        ConfigError: as `set_image_size`.
    """
    transform: Any = getattr(detector, "transform", None)
    if transform is None:
        raise ConfigError(f"{type(detector).__name__} resizes no images; leave --imgsz out")
    shortest, longest = scaled_sides(sides_of(detector), imgsz)
    if getattr(transform, "fixed_size", None):  # SSD takes squares
        transform.fixed_size = (shortest, shortest)
    transform.min_size, transform.max_size = (shortest,), longest


def sides_of(detector: nn.Module) -> tuple[int, int]:
    """The shorter side that a detector resizes images to and the longer side's limit, in pixels."""
    transform: Any = detector.transform
    shortest = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
    return int(shortest), int(transform.max_size)


def settle_scales(detector: nn.Module) -> None:
    """Tell RoI pooling that does not know yet how its levels are scaled: by their strides.

    Left alone it asks its first image, and keeps what a very small one answers, which is wrong.
    """
    pools = [part for part in detector.modules() if isinstance(part, MultiScaleRoIAlign) and part.scales is None]
    if pools:
        place = next(detector.parameters()).device
        with torch.no_grad():
            levels = cast(Any, detector).backbone(torch.zeros(1, 3, _SQUARE, _SQUARE, device=place))
        for pool in pools:
            pool(levels, [torch.zeros(0, 4, device=place)], [(_SQUARE, _SQUARE)])


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
