"""COCO instances as a data set of (image, target).

N boxes, K classes, H x W pixels. Category ids may have gaps; labels have none: label k (1..K) is the k-th category id
in ascending order, and 0 is torchvision's background.
"""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from slimdet.data.annotations import HARMLESS, encoded, rle_functions
from slimdet.data.check import file_faults, load
from slimdet.data.formats.records import ImageRecords, Records, fill_areas
from slimdet.data.loader import floats
from slimdet.data.transforms import ShrinkInto
from slimdet.data.upright import turn_upright
from slimdet.errors import DataError
from slimdet.images.decoding import read_image

log = logging.getLogger(__name__)


def read_coco(annotations: str | Path, masks: bool = False) -> dict[str, Any]:
    """Read and check a COCO instances JSON; fill in `iscrowd` (0) and `area` (of the mask, else of the box).

    Args:
        annotations: the file.
        masks: keep and check the segmentations.

    Returns:
        images (`ImageRecords`), annotations (`Records`) and categories, each to be read like a list of dicts.

    Raises:
        DataError: not COCO instances JSON, or with faults other than the `HARMLESS`: the first is named.
    """
    coco = load(annotations, masks)
    faults = [fault for fault in file_faults(coco, str(annotations), masks) if fault.kind not in HARMLESS]
    if faults:
        more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}; list them all with 'slimdet check'")
    images, records = ImageRecords(coco["images"]), coco["annotations"]
    records.odd.clear()  # boxes without area are what is left of them, and columns hold those
    records.iscrowd = (np.nan_to_num(records.iscrowd) != 0).astype(np.float64)
    fill_areas(records, images.sizes_of(records))
    if not masks:
        records.segmentation = None
    categories = _without_roots(coco["categories"], records)
    return {"images": images, "annotations": records, "categories": categories}


def _without_roots(categories: list[dict[str, Any]], records: Records) -> list[dict[str, Any]]:
    """Leave out a category that others name as theirs and nothing is annotated with: some exports begin with one."""
    above = {one.get("supercategory") for one in categories if one.get("supercategory") != one["name"]}
    used = set(np.unique(records.category_id).tolist())
    return [one for one in categories if one["id"] in used or one["name"] not in above]


class CocoDataset(Dataset[tuple[Tensor, dict[str, Any]]]):
    """A COCO instances file and its folder of images.

    An item is (image, target): image float32 [3, H, W] in 0..1, upright RGB; target a dict of `boxes` float32 [N, 4]
    (x1, y1, x2, y2 in pixels, clipped to the image), `labels` int64 [N] in 1..K, `image_id` int, and with masks=True
    `masks` uint8 [N, H, W] of 0 and 1. Images without objects have N = 0.

    Attributes:
        classes: K names, in order of category id.
        category_ids: K ids, ascending; label k + 1 stands for category_ids[k].
        image_ids: the ids of the images, in order of the items.
        annotations, folder: the file, and where its images are.
        shrink: set it to resize images, boxes and masks where they are loaded, before `transforms`, which cost
            a tenth then.
        coco: the file as `read_coco` gives it; crowds are all in it.
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
        self.folder, self.annotations = Path(images), Path(annotations)
        if not self.folder.is_dir():
            raise DataError(f"{images}: no such folder of images")
        self.coco = read_coco(annotations, masks)
        turn_upright(self.coco, self.folder)
        categories = sorted(self.coco["categories"], key=lambda category: category["id"])
        self.category_ids: tuple[int, ...] = tuple(category["id"] for category in categories)
        self.classes: tuple[str, ...] = tuple(category["name"] for category in categories)
        self.image_ids: tuple[int, ...] = tuple(self.coco["images"].ids.tolist())
        self.transforms = transforms
        self.shrink: ShrinkInto | None = None
        self.masks = masks
        self._order, self._starts = _by_image(self.coco, str(annotations), with_crowds=not train)
        shapes = self.coco["annotations"].segmentation
        lacking = [place for place in self._order.tolist() if shapes is None or not shapes[place]] if masks else []
        if lacking:
            first = self.coco["annotations"].id[lacking[0]]
            raise DataError(
                f"{annotations}: {len(lacking)} of {len(self._order)} annotations have no segmentation, as {first}; "
                "masks need one each"
            )

    @property
    def used_categories(self) -> frozenset[int]:
        """The category ids that something is annotated with."""
        return frozenset(np.unique(self.coco["annotations"].category_id).tolist())

    @property
    def objects(self) -> int:
        """How many objects there are to find, in all images."""
        return len(self._order)

    @property
    def upright(self) -> np.ndarray:
        """Which images are higher than wide, bool [images]."""
        heights, widths = self.coco["images"].sizes.T
        return heights > widths

    def unaugmented(self) -> "CocoDataset":
        """The same images and targets as they are in the files."""
        plain = copy.copy(self)
        plain.transforms = None  # `shrink` stays
        return plain

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """Decode image `index` and make its target.

        Raises:
            ImageError: the image is missing or broken.
            DataError: its size is not the one in the annotations.
        """
        image, target = self.as_bytes(index)
        return floats(image), target

    def as_bytes(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        """The same with an image of uint8 in 0..255, a quarter of the memory: what travels from data workers.

        Raises:
            ImageError, DataError: as for an item.
        """
        pixels = read_image(self.file(index))  # [H, W, 3]
        self.check_size(index, *pixels.shape[:2])
        image: Any = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))  # [3, H, W]
        target = self.target(index)
        for transform in (self.shrink, self.transforms):
            if transform is not None:
                image, target = transform(image, target)
        plain: dict[str, Any] = {name: value.as_subclass(Tensor) for name, value in target.items()}
        return image.as_subclass(Tensor).contiguous(), plain | {"image_id": self.image_ids[index]}

    def file(self, index: int) -> Path:
        """Where image `index` is."""
        return self.folder / self.coco["images"][index]["file_name"]

    def check_size(self, index: int, height: int, width: int) -> None:
        """Make sure that the annotations say of image `index` what size it is.

        Raises:
            DataError: they say another one.
        """
        record = self.coco["images"][index]
        if (height, width) != (record["height"], record["width"]):
            said = f"{record['width']}x{record['height']}"
            raise DataError(
                f"{self.file(index)}: {width}x{height} pixels, but the annotations say {said}; see 'slimdet check'"
            )

    def target(self, index: int) -> dict[str, Tensor]:
        """Boxes, labels and perhaps masks of image `index`, as tv_tensors at the image's own size."""
        places = self._order[self._starts[index] : self._starts[index + 1]]
        records, (height, width) = self.coco["annotations"], self.coco["images"].sizes[index].tolist()
        boxes = torch.from_numpy(_corners(records.bbox[places], height, width).astype(np.float32))  # [N, 4]
        labels = np.searchsorted(self.category_ids, records.category_id[places]) + 1
        target: dict[str, Tensor] = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),  # type: ignore[call-arg]
            "labels": torch.from_numpy(labels.astype(np.int64)),
        }
        if self.masks:
            shapes = [records.segmentation[place] for place in places.tolist()]
            bitmaps = [rle_functions().decode(encoded(shape, width, height)) for shape in shapes]
            stacked = np.stack(bitmaps) if bitmaps else np.zeros((0, height, width), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))  # [N, H, W]
        return target


def _by_image(coco: dict[str, Any], file: str, with_crowds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Places of the annotations image by image, and where each image's begin: [n], [images + 1].

    Those that have no area inside the image are left out (COCO's own training set has some).
    """
    images, records = coco["images"], coco["annotations"]
    image = images.places_of(records)
    wanted = np.ones(len(records), bool) if with_crowds else records.iscrowd == 0
    heights, widths = images.sizes[image].T
    corners = _corners(records.bbox, heights, widths)
    inside = (corners[:, 2:] > corners[:, :2]).all(1)
    if empty := np.count_nonzero(wanted & ~inside):
        log.warning("%s: %d boxes without area inside their image are left out; see 'slimdet check'", file, empty)
    places = np.flatnonzero(wanted & inside)
    places = places[np.argsort(image[places], kind="stable")]
    starts = np.searchsorted(image[places], np.arange(len(images) + 1))
    return places, starts


def _corners(boxes: np.ndarray, height: Any, width: Any) -> np.ndarray:
    """COCO's [x, y, width, height] [N, 4] as x1, y1, x2, y2, clipped to the image."""
    x, y, w, h = boxes.T
    corners = np.maximum(0, x), np.maximum(0, y), np.minimum(width, x + w), np.minimum(height, y + h)
    return np.stack(corners, axis=1)
