"""Four images in one: more objects, smaller ones and other surroundings in a step of the same cost."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

SHARE = 0.5  # of the images are mosaics
CENTRE = (0.3, 0.7)  # where the four meet, as a share of each side
LEAST = 0.25  # of an object's area: one that is cut further goes


class Mosaic(Dataset[tuple[Tensor, dict[str, Any]]]):
    """A data set of which half of the items hold three others beside their own image.

    The mosaic of YOLOv4 (https://arxiv.org/abs/2004.10934, section 3.3), in the size of the item's own image: the four
    meet at a random point, each fills its corner, keeps its aspect and is cut where it does not fit. Which ones, where
    and whether comes from torch's generator.
    """

    def __init__(self, dataset: Any) -> None:
        """Take a data set as `slimdet.data.coco.CocoDataset`, augmented; items keep their `image_id`."""
        self.dataset = dataset
        self.item = getattr(dataset, "as_bytes", dataset.__getitem__)

    @property
    def upright(self) -> Any:
        """Which items are higher than wide, bool [items], where the data set tells; else None."""
        return getattr(self.dataset, "upright", None)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Item `index`, or a mosaic with it in the upper left corner; an image that comes as bytes stays bytes."""
        image, target = self.item(index)
        if torch.rand(()) >= SHARE:
            return image, target
        others = torch.randint(len(self), (3,)).tolist()
        mosaic, found = _joined([(image, target), *map(self.item, others)])
        return mosaic, found | {"image_id": target["image_id"]}


def _joined(items: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Four images [3, h, w] and their targets as one, in the size of the first."""
    height, width = items[0][0].shape[-2:]
    low, high = CENTRE
    y, x = (int(side * (low + (high - low) * torch.rand(()))) for side in (height, width))
    corners = [(0, 0, y, x), (0, x, y, width), (y, 0, height, x), (y, x, height, width)]  # top, left, bottom, right
    canvas = torch.zeros_like(items[0][0])
    parts: list[dict[str, Tensor]] = []
    for (image, target), (top, left, bottom, right) in zip(items, corners, strict=True):
        tile, found = _fitted(image, target, bottom - top, right - left)
        canvas[:, top:bottom, left:right] = tile
        found["boxes"] = found["boxes"] + torch.tensor([left, top, left, top])
        if "masks" in found:
            masks = torch.zeros((len(found["masks"]), height, width), dtype=torch.uint8)
            masks[:, top:bottom, left:right] = found["masks"]
            found["masks"] = masks
        parts.append(found)
    return canvas, {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _fitted(image: Tensor, target: dict[str, Any], height: int, width: int) -> tuple[Tensor, dict[str, Tensor]]:
    """An image and its objects, resized so that it covers height x width pixels, its middle cut out."""
    scale = max(height / image.shape[-2], width / image.shape[-1])
    size = [max(side, round(given * scale)) for side, given in zip((height, width), image.shape[-2:], strict=True)]
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=image.shape[-2:])  # type: ignore[call-arg]
    boxes = F.resize(boxes, size)
    area = _areas(boxes)
    boxes = F.clamp_bounding_boxes(F.center_crop(boxes, [height, width])).as_subclass(Tensor)  # [N, 4]
    kept = _areas(boxes) >= torch.clamp(LEAST * area, min=1.0)  # [N]
    found = {"boxes": boxes[kept], "labels": target["labels"][kept]}
    if "masks" in target:
        masks = F.resize(tv_tensors.Mask(target["masks"][kept]), size)
        found["masks"] = F.center_crop(masks, [height, width]).as_subclass(Tensor)  # [N, height, width]
        seen = (found["masks"] > 0).flatten(1).any(1)
        found = {name: value[seen] for name, value in found.items()}
    return F.center_crop(F.resize(image, size, antialias=False), [height, width]), found


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).as_subclass(Tensor).clamp(min=0).prod(1)
