"""COCO's matching of one evaluation, kept small, so that AP can be computed again over resampled images.

T IoU thresholds (0.50, 0.55 .. 0.95), I images, K classes, D detections of all images.
"""

import contextlib
import io
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from slimdet.files import atomic_write

RECALLS = np.linspace(0, 1, 101)
THRESHOLDS = 10
COLUMNS = ("image", "label", "hits", "ignored")


@dataclass(frozen=True, eq=False)
class Matches:
    """Which detections hit an object, at each of COCO's ten IoU thresholds (areas of all sizes, 100 an image).

    Detections are in the order of their classes, within a class in that of their scores, best first.

    Attributes:
        objects: uint8 [I, K], objects to be found in each image, crowds left out.
        image: uint16 [D], the row of `objects` that a detection belongs to.
        label: uint16 [D], its class, 0..K-1.
        hits: uint16 [D], bit t: it matches an object at threshold t.
        ignored: uint16 [D], bit t: it lies on a crowd at threshold t and does not count.
    """

    objects: np.ndarray
    image: np.ndarray
    label: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray

    def compact(self) -> "Matches":
        """The same matching for every AP, resampled or not, in an order that compresses.

        AP looks at precision where recall rises, at hits: detections behind the last hit of their class are left out,
        and those between two hits are sorted by image.
        """
        hits = np.flatnonzero(self.hits)
        last = np.full(self.objects.shape[1], -1)
        np.maximum.at(last, self.label[hits], hits)
        kept = np.flatnonzero(np.arange(len(self.hits)) <= last[self.label])
        hit = self.hits[kept] > 0
        order = kept[np.lexsort((self.image[kept], hit, np.cumsum(hit) - hit))]
        return Matches(self.objects, *(getattr(self, name)[order] for name in COLUMNS))

    def ap(self, weights: np.ndarray | None = None) -> float:
        """COCO's AP in 0..1 with image i counted `weights[i]` times; each once without weights."""
        weights = np.ones(len(self.objects)) if weights is None else weights
        objects = weights @ self.objects  # [K]
        ends = np.searchsorted(self.label, np.arange(len(objects) + 1))
        found = [
            self._class_ap(slice(*ends[label : label + 2]), weights, count)
            for label, count in enumerate(objects)
            if count > 0
        ]
        return float(np.mean(found))

    def _class_ap(self, rows: slice, weights: np.ndarray, objects: float) -> float:
        if rows.start == rows.stop:
            return 0.0
        bits = 1 << np.arange(THRESHOLDS)[:, None]
        counted = np.where(self.ignored[rows] & bits, 0.0, weights[self.image[rows]])  # [T, D of the class]
        hit = (self.hits[rows] & bits) > 0
        true = np.cumsum(counted * hit, axis=1)
        every = np.cumsum(counted, axis=1)
        precision = true / np.maximum(every, np.finfo(float).eps)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        total = 0.0
        for curve, recall in zip(precision, true / objects, strict=True):
            at = np.searchsorted(recall, RECALLS - 1e-12, side="left")
            total += curve[at[at < len(curve)]].sum() / len(RECALLS)
        return total / THRESHOLDS


def match(coco: dict[str, Any], detections: list[dict[str, Any]], iou_type: str = "bbox") -> Matches:
    """Match COCO results to a COCO ground truth by pycocotools' rules, boxes or masks ("segm")."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = coco
        truth.createIndex()
        results = [
            item | {"id": number, "area": item["bbox"][2] * item["bbox"][3], "iscrowd": 0}
            for number, item in enumerate(detections, 1)
        ]
        found.dataset = {"images": coco["images"], "categories": coco["categories"], "annotations": results}
        found.createIndex()
        evaluator = COCOeval(truth, found, iou_type)
        evaluator.params.areaRng = evaluator.params.areaRng[:1]
        evaluator.params.areaRngLbl = ["all"]
        evaluator.evaluate()
    images = {number: row for row, number in enumerate(evaluator.params.imgIds)}
    classes = {number: column for column, number in enumerate(evaluator.params.catIds)}
    objects = np.zeros((len(images), len(classes)), np.uint8)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "label", "score", "hits", "ignored")}
    bits = 1 << np.arange(THRESHOLDS)
    for entry in evaluator.evalImgs:
        if entry is None:
            continue
        row, label = images[entry["image_id"]], classes[entry["category_id"]]
        objects[row, label] = np.sum(np.logical_not(entry["gtIgnore"]))
        count = len(entry["dtScores"])
        columns["image"].append(np.full(count, row))
        columns["label"].append(np.full(count, label))
        columns["score"].append(np.asarray(entry["dtScores"]))
        columns["hits"].append(bits @ (np.asarray(entry["dtMatches"]).reshape(THRESHOLDS, count) > 0))
        columns["ignored"].append(bits @ (np.asarray(entry["dtIgnore"]).reshape(THRESHOLDS, count) > 0))
    kinds = {"image": np.uint16, "label": np.uint16, "score": np.float32, "hits": np.uint16, "ignored": np.uint16}
    arrays = {name: np.concatenate([np.empty(0), *parts]).astype(kinds[name]) for name, parts in columns.items()}
    order = np.lexsort((-arrays.pop("score"), arrays["label"]))
    return Matches(objects, **{name: column[order] for name, column in arrays.items()})


def write(file: Path, matches: Mapping[str, Matches]) -> None:
    """Write evaluations by name, compacted, into one compressed file."""
    entries = [entry.compact() for entry in matches.values()]
    columns = {name: np.concatenate([getattr(entry, name) for entry in entries]) for name in COLUMNS}
    columns["image"] = _gaps(columns["image"], columns["hits"])
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=list(matches),
        counts=[len(entry.image) for entry in entries],
        shapes=[entry.objects.shape for entry in entries],
        objects=np.concatenate([entry.objects.ravel() for entry in entries]),
        **{name: np.stack((column & 255, column >> 8)).astype(np.uint8) for name, column in columns.items()},
    )
    with atomic_write(file) as temporary:
        temporary.write_bytes(lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def read(file: Path) -> dict[str, Matches]:
    """What `write` wrote."""
    with np.load(io.BytesIO(lzma.decompress(file.read_bytes())), allow_pickle=False) as arrays:
        columns = {name: arrays[name][0] + 256 * arrays[name][1].astype(np.uint16) for name in COLUMNS}
        columns["image"] = _images(columns["image"], columns["hits"])
        shapes = arrays["shapes"]
        places = np.cumsum(shapes.prod(axis=1))[:-1]
        objects = [part.reshape(shape) for part, shape in zip(np.split(arrays["objects"], places), shapes, strict=True)]
        rows = zip(*(np.split(columns[name], np.cumsum(arrays["counts"])[:-1]) for name in COLUMNS), strict=True)
        return {str(n): Matches(o, *row) for n, o, row in zip(arrays["names"], objects, rows, strict=True)}


def _gaps(image: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Between two hits the distances of the sorted images: small numbers compress. The images of the hits come last."""
    gaps = np.where(_follows(hits), np.diff(image, prepend=image[:1]), image)
    return gaps[np.argsort(hits > 0, kind="stable")]


def _images(column: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """The inverse of `_gaps`."""
    gaps = np.empty_like(column)
    gaps[np.argsort(hits > 0, kind="stable")] = column
    total = np.cumsum(gaps, dtype=np.int64)
    first = np.maximum.accumulate(np.where(_follows(hits), 0, np.arange(len(hits))))
    return (total - total[first] + gaps[first]).astype(column.dtype)


def _follows(hits: np.ndarray) -> np.ndarray:
    """bool [D], no hit and none before it."""
    return (hits == 0) & (np.roll(hits, 1) == 0) & (np.arange(len(hits)) > 0)


def resampled(matches: Matches, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """AP in 0..1 as it was measured, then of `draws` resamplings of the images with replacement: [1 + draws].

    The same number of images, `draws` and `seed` resample the same images: such APs are paired.
    """
    draw = np.random.default_rng(seed)
    count = len(matches.objects)
    weights = draw.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    return np.array([matches.ap(), *(matches.ap(row) for row in weights)])


def difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> dict[str, float]:
    """Mean AP of `ours` minus mean AP of `theirs`, each as `resampled` gives it, for the same images.

    Returns:
        {"difference", "low", "high"} in 0..1: what was measured and the 2.5 % and 97.5 % quantiles.
    """
    gain = np.mean(ours, axis=0) - np.mean(theirs, axis=0)
    low, high = np.quantile(gain[1:], (0.025, 0.975))
    return {"difference": float(gain[0]), "low": float(low), "high": float(high)}
