"""COCO instances as a data set of (image, target).

N boxes, K classes, H x W pixels. Category ids may have gaps; labels have none: label k (1..K) is the k-th category id
in ascending order, and 0 is torchvision's background.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from slimdet.data.annotations import HARMLESS, encoded, rle_functions
from slimdet.data.check import file_faults, load_coco
from slimdet.errors import DataError
from slimdet.images.decoding import read_image

log = logging.getLogger(__name__)


def read_coco(annotations: str | Path, masks: bool = False) -> dict[str, Any]:
    """Parse and check a COCO instances JSON; fill in `iscrowd` (0) and `area` (of the mask, else of the box).

    Args:
        annotations: the file.
        masks: check the segmentations as well.

    Raises:
        DataError: not COCO instances JSON, or with faults other than the `HARMLESS`: the first is named.
    """
    coco = load_coco(annotations)
    faults = [fault for fault in file_faults(coco, str(annotations), masks) if fault.kind not in HARMLESS]
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}; list them all with 'slimdet check'")
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for item in coco["annotations"]:
        if item.get("iscrowd") is None:
            item["iscrowd"] = 0
        if item.get("area") is None:
            shape = item.get("segmentation")
            item["area"] = (
                float(rle_functions().area(encoded(shape, *sizes[item["image_id"]])))
                if shape
                else item["bbox"][2] * item["bbox"][3]
            )
    return coco


class CocoDataset(Dataset[tuple[Tensor, dict[str, Any]]]):
    """A COCO instances file and its folder of images.

    An item is (image, target): image float32 [3, H, W] in 0..1, upright RGB; target a dict of `boxes` float32 [N, 4]
    (x1, y1, x2, y2 in pixels, clipped to the image), `labels` int64 [N] in 1..K, `image_id` int, and with masks=True
    `masks` uint8 [N, H, W] of 0 and 1. Images without objects have N = 0.

    Attributes:
        classes: K names, in order of category id.
        category_ids: K ids, ascending; label k + 1 stands for category_ids[k].
        image_ids: the ids of the images, in order of the items.
        coco: the parsed file, with `area` and `iscrowd` filled in; crowds are all in it.
    """

    def __init__(
        self,
        annotations: str | Path,
        images: str | Path,
        transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
        masks: bool = False,
        train: bool = False,
    ) -> None:
        """Read the annotations; images are opened one by one, when asked for.

        Args:
            annotations: COCO instances JSON.
            images: the folder that its file names start from.
            transforms: called with (tv_tensors.Image uint8, dict of tv_tensors), for example
                `slimdet.data.transforms.augmentation("default")`.
            masks: give masks.
            train: leave crowds out of the targets (torchvision's losses have no regions to ignore).

        Raises:
            DataError: as `read_coco`; no folder `images`; with masks=True, an object without a segmentation.
        """
        self.folder = Path(images)
        if not self.folder.is_dir():
            raise DataError(f"{images}: no such folder of images")
        self.coco = read_coco(annotations, masks)
        categories = sorted(self.coco["categories"], key=lambda category: category["id"])
        self.category_ids: tuple[int, ...] = tuple(category["id"] for category in categories)
        self.classes: tuple[str, ...] = tuple(category["name"] for category in categories)
        self.image_ids: tuple[int, ...] = tuple(image["id"] for image in self.coco["images"])
        self.transforms = transforms
        self.masks = masks
        self._labels = {number: label for label, number in enumerate(self.category_ids, 1)}
        self._objects = _by_image(self.coco, str(annotations), with_crowds=not train)
        if masks:
            for item in chain.from_iterable(self._objects.values()):
                if not item.get("segmentation"):
                    raise DataError(f"{annotations}: annotation {item['id']} has no segmentation; masks need one each")

    def unaugmented(self) -> "CocoDataset":
        """The same images and targets as they are in the files."""
        plain = copy.copy(self)
        plain.transforms = None
        return plain

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Decode image `index` and make its target.

        Raises:
            ImageError: the image is missing or broken.
            DataError: its size is not the one in the annotations.
        """
        record = self.coco["images"][index]
        path = self.folder / record["file_name"]
        pixels = read_image(path)  # [H, W, 3]
        size = (record["height"], record["width"])
        if pixels.shape[:2] != size:
            height, width = pixels.shape[:2]
            raise DataError(
                f"{path}: {width}x{height} pixels, but the annotations say {size[1]}x{size[0]}; see 'slimdet check'"
            )
        image: Any = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))  # [3, H, W]
        target = self._target(self._objects.get(record["id"], []), size)
        if self.transforms is not None:
            image, target = self.transforms(image, target)
        image = F.to_dtype(image, torch.float32, scale=True).as_subclass(Tensor).contiguous()
        plain: dict[str, Any] = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return image, plain | {"image_id": record["id"]}

    def _target(self, objects: list[dict[str, Any]], size: tuple[int, int]) -> dict[str, Tensor]:
        corners = [_corners(item["bbox"], *size) for item in objects]
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
        target: dict[str, Tensor] = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-arg]
            "labels": torch.tensor([self._labels[item["category_id"]] for item in objects], dtype=torch.int64),
        }
        if self.masks:
            height, width = size
            bitmaps = [rle_functions().decode(encoded(item["segmentation"], width, height)) for item in objects]
            stacked = np.stack(bitmaps) if bitmaps else np.zeros((0, *size), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))  # [N, H, W]
        return target


def _by_image(coco: dict[str, Any], file: str, with_crowds: bool) -> dict[int, list[dict[str, Any]]]:
    """Each image's objects, without those that have no area inside the image (COCO's own training set has some)."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    empty = 0
    for item in coco["annotations"]:
        if item["iscrowd"] and not with_crowds:
            continue
        left, top, right, bottom = _corners(item["bbox"], *sizes[item["image_id"]])
        if right > left and bottom > top:
            objects[item["image_id"]].append(item)
        else:
            empty += 1
    if empty:
        log.warning("%s: %d boxes without area inside their image are left out; see 'slimdet check'", file, empty)
    return dict(objects)


def _corners(box: list[float], height: int, width: int) -> tuple[float, float, float, float]:
    """COCO's [x, y, width, height] as x1, y1, x2, y2, clipped to the image."""
    x, y, w, h = box
    return max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
