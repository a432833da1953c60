"""COCO's matching of one evaluation, kept small, so that AP can be computed again over resampled images.

T IoU thresholds (0.50, 0.55 .. 0.95), I images, K classes, D detections of all images.
"""

import base64
import contextlib
import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

RECALLS = np.linspace(0, 1, 101)
THRESHOLDS = 10


@dataclass(frozen=True)
class Matches:
    """Which detections hit an object, at each of COCO's ten IoU thresholds (areas of all sizes, 100 an image).

    Attributes:
        objects: uint8 [I, K], objects to be found in each image, crowds left out.
        image: uint16 [D], the row of `objects` that a detection belongs to.
        label: uint8 [D], its class, 0..K-1.
        score: float32 [D].
        hits: uint16 [D], bit t: it matches an object at threshold t.
        ignored: uint16 [D], bit t: it lies on a crowd at threshold t and does not count.
    """

    objects: np.ndarray
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray

    def to_text(self) -> str:
        """The arrays, compressed, as text that fits into JSON."""
        file = io.BytesIO()
        np.savez_compressed(file, **asdict(self))
        return base64.b64encode(file.getvalue()).decode("ascii")

    @staticmethod
    def from_text(text: str) -> "Matches":
        with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
            return Matches(**arrays)

    def ap(self, weights: np.ndarray | None = None) -> float:
        """COCO's AP in 0..1 with image i counted `weights[i]` times; each once without weights."""
        weights = np.ones(len(self.objects)) if weights is None else weights
        order = np.argsort(-self.score, kind="stable")
        objects = weights @ self.objects  # [K]
        found = [
            self._class_ap(order[self.label[order] == label], weights, count)
            for label, count in enumerate(objects)
            if count > 0
        ]
        return float(np.mean(found))

    def _class_ap(self, order: np.ndarray, weights: np.ndarray, objects: float) -> float:
        if not len(order):
            return 0.0
        bits = 1 << np.arange(THRESHOLDS)[:, None]
        counted = np.where(self.ignored[order] & bits, 0.0, weights[self.image[order]])  # [T, D]
        hit = (self.hits[order] & bits) > 0
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
    kinds = {"image": np.uint16, "label": np.uint8, "score": np.float32, "hits": np.uint16, "ignored": np.uint16}
    arrays = {name: np.concatenate([np.empty(0), *parts]).astype(kinds[name]) for name, parts in columns.items()}
    return Matches(objects, **arrays)


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
