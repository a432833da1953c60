"""What was found in one image.

Legend: N detections, K classes, M cells along a side of a mask, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimdet.errors import ConfigError
from slimdet.files import atomic_write
from slimdet.images.drawing import draw
from slimdet.images.masks import paste_masks
from slimdet.runtime.coco_results import coco_results


@dataclass(frozen=True, eq=False)
class Result:
    """Detections of one image, best first; the same from every engine.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the image.
        labels: int64 [N], 1..K.
        scores: float32 [N], 0..1, falling.
        names: N names of classes.
        width: the width that ran.
        speed: milliseconds: "read_ms" to decode the image, "inference_ms" to detect (a batch's, shared equally).
        image: uint8 [H, W, 3], RGB.
        path: the file, where the image came from one.
        classes: the K names.
        category_ids: the K ids of the data set's annotations.
        mask_cells: float32 [N, M, M], mask probabilities over the boxes, or bool [N, H, W] where the detector pastes by
            itself; None without masks.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: list[str]
    width: float
    speed: dict[str, float]
    image: NDArray[np.uint8] = field(repr=False)
    path: Path | None
    classes: tuple[str, ...] = field(repr=False)
    category_ids: tuple[int, ...] = field(repr=False)
    mask_cells: NDArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """The number of detections."""
        return len(self.scores)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.shape[1], self.image.shape[0]

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """bool [N, H, W], made when they are first asked for; None where the detector has no masks."""
        if self.mask_cells is None or self.mask_cells.dtype == bool:
            return self.mask_cells
        return paste_masks(self.mask_cells, self.boxes, self.image.shape[:2])

    def plot(self) -> Image.Image:
        """The image with boxes, names, scores and masks drawn."""
        return draw(self.image, self.boxes, self.names, self.scores.tolist(), self.masks, self.classes)

    def save(self, path: str | Path) -> Path:
        """Write what `plot` draws, in the format of the path's ending, and return the path."""
        with atomic_write(path) as temporary:
            self.plot().save(temporary, quality=92)
        return Path(path)

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """The detections as COCO results, ready for `json.dump`.

        Args:
            image_id: the image's id in its COCO file.
            category_ids: [K]; the default is the model's own.

        Returns:
            N times {"image_id", "category_id", "bbox" [x, y, width, height], "score"} and, with masks, "segmentation"
            (compressed RLE).

        Raises:
            DataError: a box or score that is not finite.
        """
        ids = self.category_ids if category_ids is None else category_ids
        return coco_results(self.boxes, self.labels, self.scores, self.masks, image_id, ids)

    def to_supervision(self) -> Any:
        """The detections as `supervision.Detections`; class_id is the label (1..K), data["class_name"] the name.

        Raises:
            ConfigError: supervision is not installed.
        """
        try:
            supervision = import_module("supervision")
        except ImportError:
            raise ConfigError("supervision is not installed; get it with: pip install supervision") from None
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )
