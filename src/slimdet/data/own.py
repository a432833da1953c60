"""Data sets of one's own, in torchvision's form, for training and validation."""

import copy
from collections.abc import Callable, Sequence, Sized
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from slimdet.data.transforms import ShrinkInto
from slimdet.errors import DataError
from slimdet.images.masks import encode_mask


class OwnDataset(Dataset[tuple[Tensor, dict[str, Any]]]):
    """A data set of (image, target) pairs as torchvision's detectors are trained with, for `slimdet.train`.

    An image is a Pillow image, or a tensor [3, H, W], uint8 or in 0..1; a target a dict of `boxes` [N, 4] (x1, y1, x2,
    y2 in pixels), `labels` [N] in 1..K and, for masks, `masks` [N, H, W] of 0 and 1. Other entries are left out; such
    are the data sets of `torchvision.datasets.wrap_dataset_for_transforms_v2`. Items are numbered from 1: that is their
    `image_id`.

    Attributes:
        classes, category_ids: K names, and their labels 1..K.
        transforms: called with (tv_tensors.Image uint8, dict of tv_tensors), or None.
        shrink: set it to resize images, boxes and masks where they are loaded, before `transforms`, which cost
            a tenth then.
        masks: whether targets have masks.
    """

    def __init__(self, dataset: Dataset[Any], classes: Sequence[str], masks: bool = False) -> None:
        """Take the items of `dataset`, which has a length; its label k is `classes[k - 1]`."""
        self.dataset, self.classes, self.masks = dataset, tuple(classes), masks
        self.category_ids = tuple(range(1, len(classes) + 1))
        self.transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None
        self.shrink: ShrinkInto | None = None

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The ids of the images, in order of the items."""
        return tuple(range(1, len(self) + 1))

    @property
    def used_categories(self) -> frozenset[int]:
        """The labels that there may be."""
        return frozenset(self.category_ids)

    def unaugmented(self) -> "OwnDataset":
        """The same images and targets without `transforms`."""
        plain = copy.copy(self)
        plain.transforms = None
        return plain

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Item `index` as `slimdet.data.coco.CocoDataset` gives it.

        Raises:
            DataError: it is not of the form that the class describes.
        """
        image, target = self._checked(index)
        for transform in (self.shrink, self.transforms):
            if transform is not None:
                image, target = transform(image, target)
        image = F.to_dtype(image, torch.float32, scale=True).as_subclass(Tensor).contiguous()
        return image, {name: value.as_subclass(Tensor) for name, value in target.items()} | {"image_id": index + 1}

    @cached_property
    def coco(self) -> dict[str, Any]:
        """All items as COCO instances, for evaluation; every one is read for it, once."""
        images, annotations = [], []
        for index in range(len(self)):
            image, target = self._checked(index)
            height, width = image.shape[-2:]
            images.append({"id": index + 1, "width": width, "height": height})
            for place, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
                one = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": int(target["labels"][place])}
                one |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                if self.masks:
                    bitmap = target["masks"][place].numpy()
                    one |= {"segmentation": encode_mask(bitmap), "area": int(bitmap.sum())}
                annotations.append(one)
        names = zip(self.category_ids, self.classes, strict=True)
        categories = [{"id": number, "name": name} for number, name in names]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _checked(self, index: int) -> tuple[Any, dict[str, Any]]:
        """Image uint8 [3, H, W] and boxes, labels and masks, as tv_tensors."""
        try:
            image, target = self.dataset[index]
            pixels = _pixels(image)
            size = (int(pixels.shape[1]), int(pixels.shape[2]))
            labels = torch.as_tensor(target["labels"], dtype=torch.int64).reshape(-1)
            boxes = torch.as_tensor(target["boxes"], dtype=torch.float32).reshape(len(labels), 4)
            checked: dict[str, Any] = {
                "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-arg]
                "labels": labels,
            }
            if self.masks:
                masks = torch.as_tensor(target["masks"], dtype=torch.uint8).reshape(len(labels), *size)
                checked["masks"] = tv_tensors.Mask(masks)
        except (TypeError, KeyError, ValueError, RuntimeError) as error:
            kind = f"{type(error).__name__}: {error}"
            raise DataError(f"item {index} of the data set is not an image and a target ({kind})") from error
        if len(labels) and not 1 <= int(labels.min()) <= int(labels.max()) <= len(self.classes):
            raise DataError(f"item {index} of the data set has labels {labels.tolist()}, not 1..{len(self.classes)}")
        sides = boxes[:, 2:] - boxes[:, :2]
        if not (boxes.isfinite().all() and (sides > 0).all()):
            raise DataError(f"item {index} of the data set has boxes that are not x1 < x2, y1 < y2: {boxes.tolist()}")
        return tv_tensors.Image(pixels), checked


def _pixels(image: Any) -> Tensor:
    """An image as uint8 [3, H, W]."""
    if isinstance(image, Image.Image):
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    pixels = torch.as_tensor(image)
    if pixels.dim() != 3 or len(pixels) != 3:
        raise ValueError(f"an image of shape {tuple(pixels.shape)}, not [3, H, W]")
    return pixels if pixels.dtype == torch.uint8 else F.to_dtype(pixels.clamp(0, 1), torch.uint8, scale=True)
