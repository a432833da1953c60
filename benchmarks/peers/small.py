"""Two small detectors as ncnn files, trained by others on all of COCO: NanoDet-Plus-m and YOLOX-nano.

What ncnn gives is decoded here, by their papers and by what their files' figures ask for.
S = cells of all levels, K = 80 classes, N detections.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import batched_nms

MOST = 100  # detections an image
BINS = 8  # of a distance to a side, 0..7 strides
BGR_MEAN, BGR_SCALE = np.array([[103.53, 116.28, 123.675], [0.017429, 0.017507, 0.017125]], np.float32)
RGB_MEAN, RGB_DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
GREY = 114  # beside a letterboxed image

Found = tuple[NDArray, NDArray, NDArray]  # boxes [N, 4] in pixels, classes [N] from 0, scores [N]
Network = Callable[[NDArray], list[NDArray]]


def cells(side: int, strides: tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """Columns and rows of all levels' cells [S, 2], and their strides [S]; a part of a cell at the end is one."""
    places, sizes = [], []
    for stride in strides:
        count = -(-side // stride)
        y, x = np.mgrid[:count, :count]
        places.append(np.stack([x.ravel(), y.ravel()], axis=1))
        sizes.append(np.full(count * count, stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def distances(bins: NDArray) -> NDArray:
    """The mean of each side's distribution over its bins (Generalized Focal Loss): [S, 32] -> [S, 4], in strides."""
    powers = bins.reshape(-1, 4, BINS)
    powers = np.exp(powers - powers.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)) @ np.arange(BINS, dtype=np.float32)


@dataclass(frozen=True)
class NanoDet:
    """NanoDet-Plus-m (github.com/RangiLyu/nanodet, Apache-2.0) at 320 or 416 pixels; images are squeezed into a square.

    A cell's point is its upper left corner; the network gives scores, and distances to the four sides in bins.
    """

    side: int
    strides: tuple[int, ...] = (8, 16, 32, 64)
    least, iou = 0.05, 0.6

    @property
    def input(self) -> str:
        return "data"

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{kind}{stride}" for kind in ("cls", "dis") for stride in self.strides)

    def prepare(self, pixels: NDArray) -> NDArray:
        """uint8 [H, W, 3], RGB -> [3, side, side]."""
        image = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BILINEAR)
        values = (np.asarray(image)[..., ::-1] - BGR_MEAN) * BGR_SCALE
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def decode(self, outputs: list[NDArray], height: int, width: int) -> Found:
        """Scores [K, y, x] of each level, then bins [y, x, 32] of each, of an image of that height and width."""
        levels = len(self.strides)
        scores = np.concatenate([level.reshape(len(level), -1) for level in outputs[:levels]], axis=1).T  # [S, K]
        bins = np.concatenate([level.reshape(-1, 4 * BINS) for level in outputs[levels:]])  # [S, 32]
        places, strides = cells(self.side, self.strides)
        rows, classes = np.nonzero(scores > self.least)
        sides = distances(bins[rows]) * strides[rows, None]
        points = places[rows] * strides[rows, None]
        boxes = np.concatenate([points - sides[:, :2], points + sides[:, 2:]], axis=1)
        boxes *= _corner(height, width) / self.side
        return _best(boxes, classes, scores[rows, classes], self.iou, height, width)


@dataclass(frozen=True)
class Yolox:
    """YOLOX-nano (github.com/Megvii-BaseDetection/YOLOX, Apache-2.0) at 416 pixels; images keep their aspect.

    The network takes every second pixel of four shifts as 12 channels, and gives the centre's offset in cells, the
    logarithm of the size in cells, objectness and class scores.
    """

    side: int = 416
    strides: tuple[int, ...] = (8, 16, 32)
    least, iou = 0.01, 0.65

    @property
    def input(self) -> str:
        return "683"

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("output",)

    def prepare(self, pixels: NDArray) -> NDArray:
        """uint8 [H, W, 3], RGB -> [12, side / 2, side / 2]."""
        ratio = self._ratio(*pixels.shape[:2])
        size = int(pixels.shape[1] * ratio), int(pixels.shape[0] * ratio)
        canvas = np.full((self.side, self.side, 3), GREY, np.uint8)
        canvas[: size[1], : size[0]] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        values = ((canvas / np.float32(255) - RGB_MEAN) / RGB_DEVIATION).transpose(2, 0, 1)
        shifts = [values[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        return np.ascontiguousarray(np.concatenate(shifts))

    def decode(self, outputs: list[NDArray], height: int, width: int) -> Found:
        """[S, 5 + K], of an image of that height and width."""
        raw = outputs[0]  # [S, 5 + K]
        scores = raw[:, 4:5] * raw[:, 5:]
        places, strides = cells(self.side, self.strides)
        rows, classes = np.nonzero(scores > self.least)
        centres = (raw[rows, :2] + places[rows]) * strides[rows, None]
        halves = np.exp(raw[rows, 2:4]) * strides[rows, None] / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1) / self._ratio(height, width)
        return _best(boxes, classes, scores[rows, classes], self.iou, height, width)

    def _ratio(self, height: int, width: int) -> float:
        return min(self.side / height, self.side / width)


Detector = NanoDet | Yolox


def _best(boxes: NDArray, classes: NDArray, scores: NDArray, iou: float, height: int, width: int) -> Found:
    """Clip, suppress within classes, keep the best."""
    boxes = boxes.clip(0, _corner(height, width)).astype(np.float32)
    best, labels = torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(classes)
    kept = batched_nms(torch.from_numpy(boxes), best, labels, iou)[:MOST].numpy()
    return boxes[kept], classes[kept], scores[kept]


def _corner(height: int, width: int) -> NDArray:
    """The lower right corner, as [x, y, x, y]."""
    return np.array([width, height, width, height], np.float32)


def network(detector: Detector, files: Path) -> Network:
    """ncnn's network on one thread; `files` has no suffix."""
    import ncnn  # pyright: ignore[reportMissingImports]  # of the peers' environment

    net: Any = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1
    if net.load_param(f"{files}.param") or net.load_model(f"{str(files).removesuffix('_nofocus')}.bin"):
        raise SystemExit(f"{files}: ncnn cannot read it")

    def run(values: NDArray) -> list[NDArray]:
        extractor = net.create_extractor()
        extractor.input(detector.input, ncnn.Mat(values))
        found = []
        for name in detector.outputs:
            _, values_of = extractor.extract(name)
            found.append(np.array(values_of))
        return found

    return run


# Name, detector, files in shared/data/peers.
PEERS: tuple[tuple[str, Detector, str], ...] = (
    ("NanoDet-Plus-m 416", NanoDet(416), "nanodet-plus-m_416"),
    ("NanoDet-Plus-m 320", NanoDet(320), "nanodet-plus-m_320"),
    ("YOLOX-nano 416", Yolox(), "yolox-nano_nofocus"),
)
