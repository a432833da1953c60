"""What was found in one image.

Legend: N detections, K classes, M cells along a side of a mask, H x W pixels.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from slimdet.bundle.ladder import Point
from slimdet.errors import ConfigError, DataError
from slimdet.images.drawing import draw, save
from slimdet.images.masks import encode_mask, paste_masks
from slimdet.messages import did_you_mean, listed
from slimdet.runtime.preprocessing import DecodedImage

Classes: TypeAlias = str | int | Iterable[str | int]  # names, or labels 1..K


@dataclass(frozen=True, eq=False)
class Result:
    """Detections of one image, best first; the same from every engine.

    It is a sequence: `result[0]` and iterating give a `Detection` each, itself a result of length one; a slice, a
    boolean mask [N] or an array of places gives the result with these alone (`result[result.scores > 0.5]`).

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the image.
        labels: int64 [N], 1..K.
        scores: float32 [N], 0..1, falling.
        names: N names of classes.
        point: what ran: width, image size, number of proposals (None where the detector has none), precision.
        speed: milliseconds: "read_ms" to decode the image, "inference_ms" to detect (a batch's, shared equally), and
            where a budget is held "expected_ms", by when 95 of 100 such calls end: above the budget where not even the
            cheapest point fits.
        source: the image as it was read.
        classes: the K names.
        category_ids: the K ids of the data set's annotations.
        mask_cells: float32 [N, M, M], mask probabilities over the boxes, or bool [N, H, W] where the detector pastes by
            itself; None without masks.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    names: list[str]
    point: Point
    speed: dict[str, float]
    source: DecodedImage = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    category_ids: tuple[int, ...] = field(repr=False)
    mask_cells: NDArray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """The number of detections."""
        return len(self.scores)

    @overload
    def __getitem__(self, index: int) -> "Detection": ...
    @overload
    def __getitem__(self, index: slice | ArrayLike) -> "Result": ...
    def __getitem__(self, index: Any) -> "Result":
        """One detection by its place, or some of them, as numpy indexes an array [N].

        Raises:
            IndexError: a place or mask that does not fit N detections.
        """
        places = np.arange(len(self))[index]
        if places.ndim > 1:
            raise IndexError(f"a result has one dimension; {index!r} has more")
        kept = np.atleast_1d(places)
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["names"] = [self.names[place] for place in kept]
        for name in ("boxes", "labels", "scores", "mask_cells"):
            values[name] = None if values[name] is None else values[name][kept]
        return (Result if places.ndim else Detection)(**values)

    def __iter__(self) -> Iterator["Detection"]:
        """The detections one by one, best first."""
        return (self[place] for place in range(len(self)))

    def filter(self, classes: Classes | None = None, conf: float | None = None) -> "Result":
        """The detections of some classes, of at least some score.

        Args:
            classes: names, or labels 1..K; one or several. None: all.
            conf: least score, 0..1. None: any.

        Raises:
            ConfigError: a class that the detector does not have, or `conf` outside 0..1.
        """
        kept = np.ones(len(self), dtype=bool)
        if classes is not None:
            kept &= np.isin(self.labels, labels_of(classes, self.classes))
        if conf is not None:
            kept &= self.scores >= check_conf(conf)
        return self[kept]

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 [H, W, 3], RGB; a large photograph from a file is decoded whole when this is first asked for."""
        return self.source.pixels

    @property
    def path(self) -> Path | None:
        """The file, where the image came from one."""
        return self.source.path

    @property
    def width(self) -> float:
        """The width that ran."""
        return self.point.width

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.source.size

    @cached_property
    def masks(self) -> NDArray[np.bool_] | None:
        """bool [N, H, W], made when they are first asked for; None where the detector has no masks."""
        if self.mask_cells is None or self.mask_cells.dtype == bool:
            return self.mask_cells
        return paste_masks(self.mask_cells, self.boxes, (self.source.size[1], self.source.size[0]))

    def plot(self) -> Image.Image:
        """The image with boxes, names, scores and masks drawn."""
        return draw(self.image, self.boxes, self.names, self.scores.tolist(), self.masks, self.classes)

    def show(self) -> None:
        """Show what `plot` draws: in a notebook in the page, elsewhere in the system's picture viewer if it has one."""
        self.plot().show(title=None if self.path is None else self.path.name)

    def save(self, path: str | Path) -> Path:
        """Write what `plot` draws, in the format of the path's ending, and return the path."""
        return save(self.plot(), path, quality=92)

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

    def to_json(self) -> str:
        """The detections as a JSON list of {"name", "label", "score", "x1", "y1", "x2", "y2"}, boxes in pixels.

        With masks, also "segmentation", COCO's compressed RLE.

        Raises:
            DataError: a box or score that is not finite.
        """
        return json.dumps(self._rows())

    def to_df(self) -> Any:
        """The detections as a `pandas.DataFrame`: a row each, the columns as the keys of `to_json`.

        Raises:
            ConfigError: pandas is not installed.
            DataError: a box or score that is not finite.
        """
        columns = ["name", "label", "score", *_CORNERS, *([] if self.mask_cells is None else ["segmentation"])]
        return _imported("pandas").DataFrame(self._rows(), columns=columns)

    def to_supervision(self) -> Any:
        """The detections as `supervision.Detections`, whose class_id counts from 0: label - 1.

        The names are in data["class_name"], where its annotators find them.

        Raises:
            ConfigError: supervision is not installed.
        """
        return _imported("supervision").Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _rows(self) -> list[dict[str, Any]]:
        _check_finite(self.boxes, self.scores, "the image" if self.path is None else str(self.path))
        columns = zip(self.names, self.labels.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        rows: list[dict[str, Any]] = [
            {"name": name, "label": label, "score": score, **dict(zip(_CORNERS, box, strict=True))}
            for name, label, score, box in columns
        ]
        for row, mask in zip(rows, () if self.masks is None else self.masks, strict=self.masks is not None):
            row["segmentation"] = encode_mask(mask)
        return rows


class Detection(Result):
    """A result of length one, with its values at hand."""

    @property
    def name(self) -> str:
        """The class's name."""
        return self.names[0]

    @property
    def label(self) -> int:
        """1..K."""
        return int(self.labels[0])

    @property
    def score(self) -> float:
        """0..1."""
        return float(self.scores[0])

    @property
    def box(self) -> NDArray[np.float32]:
        """float32 [4], x1 y1 x2 y2 in pixels of the image."""
        return self.boxes[0]

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """bool [H, W]; None where the detector has no masks."""
        return None if self.masks is None else self.masks[0]


_CORNERS = ("x1", "y1", "x2", "y2")


def check_conf(conf: float) -> float:
    """The least score as a number.

    Raises:
        ConfigError: it is none, or outside 0..1.
    """
    try:
        value = float(conf)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"conf {conf!r} is not a score in 0..1, such as 0.25")
    return value


def labels_of(classes: Classes, known: Sequence[str]) -> list[int]:
    """The labels of classes, one or several, each given by its name in `known` or as its label in 1..K.

    Raises:
        ConfigError: `known` does not have it.
    """
    labels: list[int] = []
    for wanted in [classes] if isinstance(classes, str | int | np.integer) else classes:
        found = [label for label, name in enumerate(known, 1) if wanted in (name, label)]
        if not found:
            hint = did_you_mean(str(wanted), known)
            raise ConfigError(f"class {wanted!r} is none of labels 1..{len(known)}: {listed(known)}{hint}")
        labels += found
    return labels


def coco_results(
    boxes: NDArray,
    labels: NDArray,
    scores: NDArray,
    masks: NDArray[np.bool_] | None,
    image_id: int,
    category_ids: Sequence[int | None],
) -> list[dict[str, Any]]:
    """The detections of one image as COCO results; what `Result.to_coco` gives, from arrays as a result has them.

    What has a label of which the id is None is left out.

    Raises:
        DataError: a box or score that is not finite, or a label outside 1..K.
    """
    _check_finite(boxes, scores, f"image {image_id}")
    for label in labels.tolist():
        if not 1 <= label <= len(category_ids):
            raise DataError(f"image {image_id}: label {label} is not in 1..{len(category_ids)}, the number of classes")
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)  # [N, 4] x, y, width, height
    found: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": box, "score": score}
        for label, box, score in zip(labels.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    ]
    for item, mask in zip(found, () if masks is None else masks, strict=masks is not None):
        item["segmentation"] = encode_mask(mask)
    return [item for item in found if item["category_id"] is not None]


def _check_finite(boxes: NDArray, scores: NDArray, image: str) -> None:
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(f"{image}: the detector gave a box or score that is not finite; its weights are broken")


def _imported(library: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise ConfigError(f"{library} is not installed; get it with: pip install {library}") from None
