"""Images, boxes and masks as the original trains on them.

G objects of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from slimdet.errors import DataError
from slimdet.original.configs.config import Config
from slimdet.original.data.dataset import PictureSet
from slimdet.original.data.pipeline import normalise, read_bgr, resize
from slimdet.original.detector.boxes import flip, from_inclusive, rescale
from slimdet.original.detector.transform import Frame, pad
from slimdet.original.training.losses import Target


@dataclass(frozen=True)
class Objects:
    """What an annotation file says of one image: half-open boxes in its pixels, labels, and annotations of masks.

    Crowds are kept apart, with their masks, so that the masks that are left belong to the boxes that are left.
    """

    boxes: Tensor
    labels: Tensor
    crowds: Tensor
    shapes: tuple[Any, ...]


def objects_of(pictures: PictureSet) -> dict[int, Objects]:
    """The objects of every image by its id, without ignored and degenerate annotations (under a pixel a side)."""
    labels = {category: label for label, category in enumerate(pictures.category_ids, 1)}
    kept: dict[int, list[dict[str, Any]]] = {number: [] for number in pictures.image_ids}
    for annotation in pictures.coco["annotations"]:
        try:
            _, _, width, height = annotation["bbox"]
            area = annotation.get("area", width * height)
            usable = not annotation.get("ignore") and area > 0 and width >= 1 and height >= 1
            if usable:
                labels[annotation["category_id"]]
                kept[annotation["image_id"]].append(annotation)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"annotation {annotation.get('id')} is malformed: {error!r}") from None
    found = {}
    for number, annotations in kept.items():
        crowds = [a for a in annotations if a.get("iscrowd")]
        objects = [a for a in annotations if not a.get("iscrowd")]
        own = torch.tensor([labels[a["category_id"]] for a in objects], dtype=torch.int64)
        shapes = tuple(a.get("segmentation") for a in objects)
        found[number] = Objects(_boxes(objects), own, _boxes(crowds), shapes)
    return found


def _boxes(annotations: Sequence[dict[str, Any]]) -> Tensor:
    boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def load(
    pictures: PictureSet, index: int, objects: Objects, dataset: Config, scale: tuple[int, int], mirrored: bool
) -> tuple[Tensor, Target]:
    """One training image [3, h, w], padded for itself, and what is in it.

    Args:
        index: the image's place in `pictures`.
        dataset: a config's `data.train`.
        scale: (long, short) in pixels.
    """
    image = read_bgr(pictures.pictures[index].path)
    resized, frame = resize(image, scale)
    values = normalise(resized, dataset.img_norm_cfg)
    values = values[:, ::-1] if mirrored else values
    padded = pad([torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))], dataset.size_divisor)[0]
    size = (int(padded.shape[1]), int(padded.shape[2]))
    masks = None
    if dataset.with_mask:
        masks = _masks(objects.shapes, image.shape[:2], frame, size, mirrored)
    proposals = None
    if pictures.proposals is not None:
        boxes = from_inclusive(torch.from_numpy(pictures.proposals[index][:, :4]))
        proposals = _moved(boxes, frame, mirrored)
    target = Target(
        frame.size,
        size,
        _moved(objects.boxes, frame, mirrored),
        objects.labels,
        masks,
        proposals,
        _moved(objects.crowds, frame, mirrored) if dataset.with_crowd else None,
    )
    return padded, target


def _moved(boxes: Tensor, frame: Frame, mirrored: bool) -> Tensor:
    """Boxes in original pixels as they lie in the input; the original lets them end one pixel outside."""
    height, width = frame.size
    boxes = rescale(boxes, frame.scale)
    boxes = flip(boxes, width) if mirrored else boxes
    low, high = boxes.new_tensor([0, 0, 1, 1]), boxes.new_tensor([width, height, width + 1, height + 1])
    return torch.minimum(torch.maximum(boxes, low), high)


def _masks(
    shapes: Sequence[Any], size: tuple[int, int], frame: Frame, padded: tuple[int, int], mirrored: bool
) -> np.ndarray:
    """uint8 [G, *padded] from polygons or run-length codes of an image of `size`."""
    height, width = frame.size
    found = np.zeros((len(shapes), *padded), np.uint8)
    for place, shape in zip(found, shapes, strict=True):
        mask = cv2.resize(_decode(shape, size), (width, height), interpolation=cv2.INTER_NEAREST)
        place[:height, :width] = mask[:, ::-1] if mirrored else mask
    return found


def _decode(shape: Any, size: tuple[int, int]) -> np.ndarray:
    if not shape:
        raise DataError("an object without a segmentation, but the config has with_mask=True; set with_mask=False")
    if isinstance(shape, list):
        shape = rle.merge(rle.frPyObjects(shape, *size))
    elif isinstance(shape["counts"], list):
        shape = rle.frPyObjects(shape, *size)
    return rle.decode(shape)


def collate(items: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """One batch [B, 3, H, W], zero-padded to its largest image, and the targets."""
    images, targets = zip(*items, strict=True)
    return pad(images, None), list(targets)
