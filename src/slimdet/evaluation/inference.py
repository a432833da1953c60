"""From a detector's tensors to COCO results, for one image or a whole data set.

N detections, K classes, H x W pixels.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from slimdet.data.formats.records import Columns, Records
from slimdet.data.loader import floats, loader
from slimdet.errors import DataError
from slimdet.messages import listed
from slimdet.models.kinds import without_background
from slimdet.runtime.result import coco_results

logger = logging.getLogger("slimdet")

Key = TypeVar("Key")
ModelCall = Callable[[list[Tensor]], list[dict[str, Tensor]]]


class DetectionData(Protocol):
    """What `detect` reads of a data set; slimdet.data.coco.CocoDataset has it."""

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def category_ids(self) -> Sequence[int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Tensor, Mapping[str, Any]]: ...


class ClassData(Protocol):
    """What `check_classes` reads of a data set: [C] names, [C] ids, and the ids of annotations."""

    @property
    def classes(self) -> Sequence[str]: ...
    @property
    def category_ids(self) -> Sequence[int]: ...
    @property
    def used_categories(self) -> frozenset[int]: ...


def to_coco(result: Mapping[str, Tensor], image_id: int, category_ids: Sequence[int | None]) -> list[dict[str, Any]]:
    """A detector's output for one image as COCO results, ready for `json.dump`.

    Args:
        result: boxes [N, 4] (x1, y1, x2, y2 in pixels), labels [N] in 1..K, scores [N], and perhaps masks [N, 1, H, W]
            in 0..1, which are cut at 0.5 and run-length encoded.
        image_id: the image's id in its COCO file.
        category_ids: [K], the category id of labels 1..K; what has None is left out.

    Raises:
        DataError: a box or score that is not finite, or a label outside 1..K.
    """
    boxes, scores = (result[key].detach().cpu().double().numpy() for key in ("boxes", "scores"))
    labels = result["labels"].cpu().numpy()
    masks = result["masks"][:, 0].cpu().numpy() > 0.5 if "masks" in result else None
    return coco_results(boxes, labels, scores, masks, image_id, category_ids)


def detect(
    model_call: ModelCall,
    dataset: DetectionData,
    device: torch.device | str = "cpu",
    batch: int = 1,
    progress: Callable[[int, int], Any] | None = None,
    category_ids: Sequence[int | None] | None = None,
    workers: int = 0,
) -> Records:
    """Run a detector over a data set; the detections of all images as COCO results, in the data set's order.

    Args:
        model_call: images (list of [3, H, W] in 0..1) -> outputs as `to_coco` takes them, one per image. A width is
            chosen here: `lambda images: model(images, width=0.5)`. The model must be in eval mode. Label 0 is left out.
        dataset: items are (image, target), with the image's id in target["image_id"].
        batch: images per call.
        progress: called after each batch with the number of images done and of all.
        category_ids: [K], the category id of the detector's labels; by default the data set's own order
            (see `check_classes` for a detector whose classes come in another).
        workers: processes that read images.

    Raises:
        DataError: as `to_coco`.
    """
    told = None if progress is None else lambda _, done, total: progress(done, total)
    return detect_each({1.0: model_call}, dataset, device, batch, told, category_ids, workers)[1.0]


def detect_each(
    model_calls: Mapping[Key, ModelCall],
    dataset: DetectionData,
    device: torch.device | str = "cpu",
    batch: int = 1,
    progress: Callable[[Key, int, int], Any] | None = None,
    category_ids: Sequence[int | None] | None = None,
    workers: int = 0,
) -> dict[Key, Records]:
    """Run several detectors, such as the widths of one, over a data set: each image is read once for all of them.

    The arguments are those of `detect`; `progress` is told the detector's key first.

    Returns:
        The detections of each; see `slimdet.data.formats.records`: they are read like a list of dicts.

    Raises:
        DataError: as `to_coco`.
    """
    category_ids = dataset.category_ids if category_ids is None else category_ids
    found = {key: Columns() for key in model_calls}
    done = 0
    batches: Any = loader(dataset, batch, workers=workers) if len(dataset) else ()  # pyright: ignore[reportArgumentType]
    for images, targets in batches:
        images = [floats(image.to(device)) for image in images]
        done += len(images)
        for key, model_call in model_calls.items():
            # Not inference mode: tensors a detector caches in it could not be used in training afterwards.
            with torch.no_grad():
                outputs = model_call(images)
            for target, output in zip(targets, outputs, strict=True):
                found[key].add(to_coco(without_background(output), int(target["image_id"]), category_ids))
            if progress:
                progress(key, done, len(dataset))
    return {key: columns.records() for key, columns in found.items()}


def check_classes(model_classes: Sequence[str], dataset: ClassData) -> tuple[int | None, ...]:
    """The data set's category ids in the order of the model's labels, [K]; None for a class that it does not list.

    Classes are told by name, so that a data set that numbers them differently is evaluated rightly. It may list fewer,
    whose detections are left out then, and more that nothing is annotated with, as the root categories of some tools.

    Raises:
        DataError: the data set has objects of a class that the model lacks, or none of the model's.
    """
    if tuple(model_classes) == tuple(dataset.classes):
        return tuple(dataset.category_ids)
    lacking = [name for name in model_classes if name not in dataset.classes]
    unknown = [place for place, name in enumerate(dataset.classes) if name not in model_classes]
    used = dataset.used_categories if unknown else frozenset()
    foreign = [dataset.classes[place] for place in unknown if dataset.category_ids[place] in used]
    if foreign or len(lacking) == len(model_classes) or len(set(dataset.classes)) != len(dataset.classes):
        raise DataError(
            f"the data set's classes are not the model's: only the model has {listed(lacking)}; only the data set has "
            f"{listed(foreign)}; train on this data first: slimdet train --weights BUNDLE --data DATA.yaml"
        )
    if lacking:
        logger.warning("the data set does not list %s: their AP is left out, and so is what is found", listed(lacking))
    by_name = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    return tuple(by_name.get(name) for name in model_classes)
