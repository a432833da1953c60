"""What an exported file is held against: the extracted detector with the same pixels.

A detector takes thousands of yes-or-no decisions: whether an overlap is above a threshold, which box is the 150th. Two
engines differ in the last digits, and where a decision hangs on these, both answers are right. So the reference runs
several times with a little noise on all that its decisions rest on, more than engines differ by. A detection that it
finds every time is firm: an engine must find it. What an engine finds besides, the reference must have found in one of
its runs. Tests assert that firm detections are many and the others few.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from slimdet import slim
from slimdet.assets import PHOTOGRAPHS
from slimdet.images.decoding import read_image
from slimdet.models import builders

BOX, SCORE, MASK = 0.05, 1e-3, 5e-3  # how far an engine may be off: pixels, score, mask probability
NOISE, DRAWS = 1e-4, 8  # of a logit's or code's standard deviation
SIZES = [(200, 333), (333, 200), (97, 400), (120, 700), (256, 256), (161, 300), (50, 37), (611, 407)]


def photographs(size: tuple[int, int], count: int, seed: int) -> Tensor:
    """uint8 [count, H, W, 3]: blurred photographs of those that ship with slimdet, others for another seed."""
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))
    images = []
    for number in range(count):
        picture = Image.fromarray(read_image(files[(number + seed) % len(files)]))
        left = seed % 8  # another part of the picture for each seed
        cells = picture.resize((96, 96), box=(left, left, *picture.size))
        images.append(np.asarray(cells.resize(size[::-1], Image.Resampling.BICUBIC)))
    return torch.from_numpy(np.stack(images))


def reference(detector: nn.Module, images: Tensor) -> list[dict[str, Tensor]]:
    """The detector's own results; masks as they are before they are pasted, [N, 28, 28]."""
    with torch.no_grad(), _unpasted(detector):
        return detector([image.permute(2, 0, 1).float() / 255 for image in images])


def defaults(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The inputs that have values in the file, which OpenVINO has to be given."""
    values = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    return {one.name: values[one.name].copy() for one in model.graph.input if one.name in values}


class Expected:
    """What an engine has to find in images uint8 [B, H, W, 3]: for each image the `firm` detections of the `count` that
    the reference finds without noise, and `loose` ones that it may find."""

    def __init__(self, detector: Any, images: Tensor) -> None:
        torch.manual_seed(0)
        runs = [_listed(reference(detector, images))]
        self.count = sum(map(len, runs[0]))
        with _noise(detector):
            runs += [_listed(reference(detector, images)) for _ in range(DRAWS)]
        self.firm: list[list[Detection]] = []
        self.loose: list[list[Detection]] = []
        for first, *others in zip(*runs, strict=True):
            self.firm.append([one for one in first if all(any(one.like(two) for two in other) for other in others)])
            found = [one for run in (first, *others) for one in run]
            self.loose.append([one for one in found if not any(one.like(two) for two in self.firm[-1])])

    def difference(self, given: Sequence[np.ndarray]) -> str:
        """One difference of an engine's arrays from what is expected, or an empty string."""
        boxes, labels, scores, image = given[:4]
        masks = given[4] if len(given) == 5 else [None] * len(boxes)
        rows = [Detection(*row) for row in zip(labels, scores, boxes, masks, strict=True)]
        for number, (firm, loose) in enumerate(zip(self.firm, self.loose, strict=True)):
            free = [row for row, place in zip(rows, image, strict=True) if place == number]
            for one in firm:
                match = next((row for row in free if one.like(row)), None)
                if match is None:
                    return f"image {number} lacks {one}"
                free = [row for row in free if row is not match]
            for row in free:
                if not any(row.like(one) for one in loose):
                    return f"image {number} has {row}"
        return ""


class Detection(NamedTuple):
    label: int
    score: float
    box: np.ndarray
    mask: np.ndarray | None

    def like(self, other: "Detection") -> bool:
        if self.label != other.label or abs(self.score - other.score) > SCORE:
            return False
        alike = np.abs(self.box - other.box).max() <= BOX
        return bool(alike and (self.mask is None or np.abs(self.mask - other.mask).max() <= MASK))


def _listed(found: list[dict[str, Tensor]]) -> list[list[Detection]]:
    """Each image's detections."""
    listed = []
    for result in found:
        columns = [result[key].numpy() for key in ("labels", "scores", "boxes")]
        masks = result["masks"].numpy() if "masks" in result else [None] * len(columns[0])
        listed.append([Detection(*row) for row in zip(*columns, masks, strict=True)])
    return listed


def in_order(given: Sequence[np.ndarray]) -> bool:
    """Whether detections come by image, and in each image by falling score."""
    return all(np.diff(given[3]) >= 0) and all((np.diff(given[2]) <= 0) | (np.diff(given[3]) > 0))


@contextmanager
def _noise(detector: Any) -> Iterator[None]:
    """Move all that decisions rest on a little."""

    def move(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output + NOISE * output.std() * torch.randn_like(output)

    handles = [layer.register_forward_hook(move) for layer in _deciding(detector)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unpasted(detector: Any) -> Iterator[None]:
    """Masks [N, 28, 28] out of a detector that would paste them into its images."""
    transform = detector.transform

    def postprocess(results: Any, resized: Any, sizes: Any) -> Any:
        cells = [result.pop("masks", None) for result in results]
        results = type(transform).postprocess(transform, results, resized, sizes)
        return [
            result if masks is None else result | {"masks": masks[:, 0]}
            for result, masks in zip(results, cells, strict=True)
        ]

    transform.postprocess = postprocess
    try:
        yield
    finally:
        del transform.postprocess


def _deciding(detector: Any) -> list[nn.Module]:
    rpn, box = detector.rpn.head, detector.roi_heads.box_predictor
    return [rpn.cls_logits, rpn.bbox_pred, box.cls_score, box.bbox_pred]


# ------------------------------------------------------------------------------------------------- detectors


def lively(detector: Any) -> Any:
    """A random detector, in place, that detects: norms fit its activations, logits and codes are of a usual size."""
    images = [image.permute(2, 0, 1).float() / 255 for image in photographs((128, 160), 2, 0)]
    detector.eval()

    def fit(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].transpose(0, 1).flatten(1)  # [channels, all else]
        norm.running_mean.copy_(values.mean(1))
        norm.running_var.copy_(values.var(1))

    norms = [module for module in detector.modules() if isinstance(module, _BatchNorm | FrozenBatchNorm2d)]
    handles = [norm.register_forward_pre_hook(fit) for norm in norms]
    for block in detector.modules():
        if isinstance(block, BasicBlock | Bottleneck | InvertedResidual):
            # Residuals are small, as in trained networks; random ones would amplify every rounding.
            last = [norm for name, norm in block.named_modules() if norm in norms and "downsample" not in name][-1]
            nn.init.constant_(last.weight, 0.3)
    with torch.no_grad():
        detector(images)
    for handle in handles:
        handle.remove()
    heads = detector.roi_heads
    layers = [*zip(_deciding(detector), (2.0, 0.2, 3.0, 0.3), strict=True)]
    if heads.has_mask():
        layers.append((heads.mask_predictor.mask_fcn_logits, 2.0))
    for layer, size in layers:
        outputs: list[Tensor] = []
        handle = layer.register_forward_hook(
            lambda layer, inputs, output, outputs=outputs: outputs.append(output.transpose(0, 1).flatten(1))
        )
        with torch.no_grad():
            detector(images)
            handle.remove()
            values = torch.cat(outputs, dim=1)  # [channels, all else]
            factor = size / values.std(1)
            layer.bias.copy_((layer.bias - values.mean(1)) * factor)
            layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    # Some proposals and detections, not as many as there can be: each is a chance to hang on last digits.
    detector.rpn._pre_nms_top_n["testing"] = 200
    detector.rpn._post_nms_top_n["testing"] = 100
    heads.score_thresh = 0.0
    scores = torch.cat([result["scores"] for result in reference(detector, photographs((128, 160), 6, 1))])
    heads.score_thresh = float(scores.sort(descending=True)[0][: 6 * 8][-1])
    return detector


def narrow(masks: bool, width: float = 0.25, **options: Any) -> Any:
    """A detector of ours with random weights, at a narrow width, extracted."""
    torch.manual_seed(0)
    make = builders.mask_rcnn if masks else builders.faster_rcnn
    model = slim(make(4, weights=None, imgsz=(128, 180), **options), (width, 1.0))
    return lively(model.extract(width))
