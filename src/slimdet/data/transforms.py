"""Augmentation by level, from torchvision's transforms v2."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from slimdet.messages import check_choice

LEVELS = ("none", "flip", "default", "strong", "mosaic")
# What shows around an image that became smaller: ImageNet's mean colour, which detectors normalise to zero.
_FILL = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: 0, "others": 0}


def augmentation(level: str) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Build the random transforms of a level; image, boxes, labels and masks go through them together.

    * none: the image as it is.
    * flip: a horizontal flip, half of the time: the paper's.
    * default: flip, colour and scale, each mildly: brightness, contrast and saturation within a fifth, the image at
      0.8 to 1.25 times its size in its own frame.
    * strong: flip, colour (brightness, contrast, saturation, hue), scale jitter and an IoU crop, the one of SSD
      (https://arxiv.org/abs/1512.02325, section 3.6). Detectors resize what they are given to a fixed side, so the
      jitter scales inside the image's own frame: resizing the whole image would be undone.
    * mosaic: as default; the loader puts four images into one, half of the time (`slimdet.data.mosaic`).

    Objects that leave the image, or whose mask does, are removed with their labels and masks.

    Raises:
        ConfigError: a level that is not one of `LEVELS`.
    """
    check_choice("augmentation", level, LEVELS)
    if level == "none":
        return v2.Identity()
    if level == "flip":
        return v2.RandomHorizontalFlip()
    if level in ("default", "mosaic"):
        return v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                v2.RandomApply([_scale_jitter(0.8, 1.25)]),
                v2.SanitizeBoundingBoxes(),
                DropEmptyMasks(),
            ]
        )
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomPhotometricDistort(),
            v2.RandomApply([_scale_jitter(0.5, 1.5)]),
            v2.RandomIoUCrop(),
            v2.SanitizeBoundingBoxes(),
            DropEmptyMasks(),
        ]
    )


def _scale_jitter(smallest: float, largest: float) -> v2.Transform:
    return v2.RandomAffine(
        degrees=(0.0, 0.0),
        translate=(0.1, 0.1),
        scale=(smallest, largest),
        interpolation=InterpolationMode.BILINEAR,
        fill=_FILL,
    )


class ShrinkInto(v2.Transform):
    """Resize as the detector will: to a shorter side of `shorter` pixels, the longer one at most `longest`.

    As bytes, once, where images are loaded: what travels from there, and what every width resizes again to its own
    size, is small then. An image that is smaller already stays as it is: enlarging is left to the detector.
    """

    def __init__(self, shorter: int, longest: int) -> None:
        super().__init__()
        self.shorter, self.longest = shorter, longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The new size (height, width) of the image; None for one that stays."""
        height, width = F.get_size(next(one for one in flat_inputs if isinstance(one, tv_tensors.Image)))
        scale = min(self.shorter / min(height, width), self.longest / max(height, width))
        # Rounded, not floored: the detector finds the side it wants and leaves the image alone.
        return {"size": [max(1, round(height * scale)), max(1, round(width * scale))] if scale < 1 else None}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Bilinear without low-pass, the detector's own way; boxes and masks go with the image."""
        if params["size"] is None:
            return inpt
        return self._call_kernel(F.resize, inpt, params["size"], antialias=False)


class DropEmptyMasks(nn.Module):
    """Remove the objects of which a crop left a piece of box but no pixel of mask."""

    def forward(self, image: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Filter boxes [N, 4], labels [N] and masks [N, H, W] together; targets without masks pass."""
        if "masks" not in target:
            return image, target
        seen = target["masks"].flatten(1).amax(1) > 0  # [N]
        return image, {name: tv_tensors.wrap(value[seen], like=value) for name, value in target.items()}  # type: ignore[call-arg]
