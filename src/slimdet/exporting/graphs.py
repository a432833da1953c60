"""A Faster or Mask R-CNN as one graph: pixels in, detections out, any image size, any number of detections.

`Graph` runs the parts of a torchvision detector, with its weights and its numbers, in operations that an exporter can
keep dynamic; it gives what the detector gives. Shapes are tensors here, never Python numbers: those would be frozen at
the example's. Only one thing is done in another way: non-maximum suppression keeps levels, classes and images apart as
groups of their own, which the ONNX operator has, and not by moving their boxes far away from each other, which costs
precision.

Letters: B images; H x W their pixels, h x w resized, padded to the canvas; C channels; A anchors of a level; P
proposals of an image; K classes without background; R boxes, G groups of them; N detections.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx.operators import shape_as_tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from slimdet.exporting.sizes import resized
from slimdet.models.kinds import require
from slimdet.models.suppression import ExclusiveRoIHeads

DROPPED = -1.0  # score of a box that was suppressed or never was one


class Graph(nn.Module):
    """The whole detector.

    Args:
        detector: torchvision's `FasterRCNN` or `MaskRCNN` in eval mode. What its RoI pooling remembers of the scales of
            the pyramid's levels is kept; where it has not run yet, they are the levels' strides.

    Raises:
        ConfigError: another kind of detector.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        require(detector, "export")
        self.detector: Any = detector
        self.scales = _scales(detector)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect objects in images of one size.

        Args:
            images: uint8 [B, H, W, 3], RGB.

        Returns:
            boxes [N, 4] (x1, y1, x2, y2 in pixels of the input), labels [N] in 1..K, scores [N], image_index [N] and,
            of a Mask R-CNN, masks [N, 28, 28] in 0..1 over the boxes. In order of image, then of falling score.
        """
        heads = self.detector.roi_heads
        canvas, size, ratio = self.prepare(images)
        features = self.detector.backbone(canvas)
        proposals, objectness = self.propose(features, canvas, _extent(size))
        boxes, labels, scores, image = self.classify(features, proposals, objectness, _extent(size))
        found = (boxes * _extent(ratio), labels, scores, image)
        if not heads.has_mask():
            return found
        cells = heads.mask_head(self.pool(heads.mask_roi_pool, features, boxes, image))
        logits = heads.mask_predictor(cells)  # [N, K + 1, 28, 28]
        return *found, logits[torch.arange(labels.shape[0]), labels].sigmoid()

    def prepare(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """GeneralizedRCNNTransform: uint8 [B, H, W, 3] -> [B, 3, canvas], [2] (h, w), [2] (H / h, W / w)."""
        transform = self.detector.transform
        sides = _shape(images)[1:3]
        size: Any = resized(sides, transform.min_size[-1], transform.max_size)
        pixels = images.permute(0, 3, 1, 2).float() / 255
        pixels = functional.interpolate(pixels, size=[size[0], size[1]], mode="bilinear", align_corners=False)
        mean, deviation = torch.tensor([transform.image_mean, transform.image_std])[..., None, None]
        pixels = (pixels - mean) / deviation  # [B, 3, h, w]
        padding = -size % transform.size_divisible
        canvas = functional.pad(pixels, [0, padding[1], 0, padding[0]])
        return canvas, size, sides.float() / size.float()

    def propose(self, features: Mapping[str, Tensor], canvas: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
        """RegionProposalNetwork: -> boxes [B, P, 4] in resized pixels, scores [B, P], DROPPED where there is no box."""
        rpn = self.detector.rpn
        levels = list(features.values())
        kept_boxes, kept_scores = [], []
        for level, logits, codes, cell in zip(
            levels, *rpn.head(levels), rpn.anchor_generator.cell_anchors, strict=True
        ):
            anchors = _anchors(cell, level, canvas)  # [A, 4]
            logits = logits.permute(0, 2, 3, 1).flatten(1)  # [B, A]
            codes = codes.permute(0, 2, 3, 1).reshape(codes.shape[0], -1, 4)  # [B, A, 4]
            logits, best = logits.topk(_at_most(rpn.pre_nms_top_n(), logits), dim=1)  # [B, R]
            codes = codes.gather(1, best[..., None].expand(-1, -1, 4))  # [B, R, 4]
            boxes = _clip(_decode(codes, anchors[best], rpn.box_coder), extent)
            scores = logits.sigmoid()
            scores = torch.where(_large(boxes, rpn.min_size) & (scores >= rpn.score_thresh), scores, DROPPED)
            kept_boxes.append(boxes)
            kept_scores.append(_suppress(boxes, scores, rpn.post_nms_top_n(), rpn.nms_thresh, DROPPED / 2))
        scores = torch.cat(kept_scores, dim=1)
        scores, best = scores.topk(_at_most(rpn.post_nms_top_n(), scores), dim=1)  # [B, P]
        return torch.cat(kept_boxes, dim=1).gather(1, best[..., None].expand(-1, -1, 4)), scores

    def classify(
        self, features: Mapping[str, Tensor], proposals: Tensor, objectness: Tensor, extent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """RoIHeads: -> boxes [N, 4] in resized pixels, labels [N], scores [N], image [N]."""
        heads = self.detector.roi_heads
        batch, count = proposals.shape[0], proposals.shape[1]
        image = torch.arange(batch)[:, None].expand_as(objectness).flatten()  # [B * P]
        rois = proposals.flatten(0, 1)  # [B * P, 4]
        logits, codes = heads.box_predictor(heads.box_head(self.pool(heads.box_roi_pool, features, rois, image)))
        scores = logits.softmax(-1)[:, 1:]  # [B * P, K]
        classes = scores.shape[1]
        codes = codes.reshape(-1, classes + 1, 4)[:, 1:]
        boxes = _clip(_decode(codes, rois[:, None], heads.box_coder), extent)  # [B * P, K, 4]
        real = _large(boxes, 1e-2) & (objectness.flatten()[:, None] > DROPPED)
        scores = torch.where(real, scores, DROPPED)
        boxes = boxes.reshape(batch, count, classes, 4).transpose(1, 2)  # [B, K, P, 4]
        scores = scores.reshape(batch, count, classes).transpose(1, 2)  # [B, K, P]
        limit = heads.detections_per_img
        kept = _suppress(boxes.flatten(0, 1), scores.flatten(0, 1), limit, heads.nms_thresh, heads.score_thresh)
        kept = kept.reshape(batch, -1)  # [B, K * P]
        kept, best = kept.topk(_at_most(limit, kept), dim=1)
        if isinstance(heads, ExclusiveRoIHeads):
            places = best[..., None].expand(-1, -1, 4)
            kept = _suppress(boxes.flatten(1, 2).gather(1, places), kept, limit, heads.nms_thresh, DROPPED / 2)
        image, rank = torch.where(kept > DROPPED)
        best = best[image, rank]  # [N]
        return boxes.flatten(1, 2)[image, best], best // count + 1, kept[image, rank], image

    def pool(self, pool: MultiScaleRoIAlign, features: Mapping[str, Tensor], boxes: Tensor, image: Tensor) -> Tensor:
        """MultiScaleRoIAlign: boxes [R, 4] in resized pixels, each of the image [R] -> [R, C, side, side]."""
        levels = [level for name, level in features.items() if name in pool.featmap_names]
        scales = self.scales[pool]
        rois = torch.cat([image[:, None].float(), boxes], dim=1)
        options = pool.output_size, pool.sampling_ratio
        if len(levels) == 1:
            return roi_align(levels[0], rois, options[0], scales[0], options[1])
        # LevelMapper, without its logarithm: a box rises a level with each doubling of its size.
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        number = torch.zeros_like(image)
        for level in range(_octave(scales[0]) + 1, _octave(scales[-1]) + 1):
            number += side >= pool.canonical_scale * 2 ** (level - pool.canonical_level - 1e-6)
        rows = [torch.where(number == level)[0] for level in range(len(levels))]
        pooled = [
            roi_align(level, rois[row], options[0], scale, options[1])
            for level, row, scale in zip(levels, rows, scales, strict=True)
        ]
        order = torch.cat(rows)
        place = torch.zeros_like(order).scatter(0, order, torch.arange(order.shape[0]))
        return torch.cat(pooled)[place]


class _Suppress(torch.autograd.Function):
    """Non-maximum suppression of each group by itself, as the ONNX operator has it."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, limit: int, threshold: float, least: float) -> Tensor:
        """boxes [G, R, 4], scores [G, 1, R] -> (group, 0, box) of what is kept, [N, 3]."""
        chosen = []
        for group, (own, (score,)) in enumerate(zip(boxes, scores, strict=True)):
            rows = torch.where(score > least)[0]
            rows = rows[nms(own[rows], score[rows], threshold)[:limit]]
            chosen.append(torch.stack([torch.full_like(rows, group), torch.zeros_like(rows), rows], dim=1))
        return torch.cat(chosen)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, limit: int, threshold: float, least: float) -> Any:
        numbers = torch.tensor([limit]), torch.tensor([threshold]), torch.tensor([least])
        constants = (g.op("Constant", value_t=number) for number in numbers)
        return g.op("NonMaxSuppression", boxes, scores, *constants)


def _suppress(boxes: Tensor, scores: Tensor, limit: int, threshold: float, least: float) -> Tensor:
    """The scores [G, R] of boxes [G, R, 4], DROPPED where suppressed, not above `least` or after the `limit` best."""
    chosen: Any = _Suppress.apply(boxes, scores[:, None], limit, threshold, least)
    group, row = chosen[:, 0], chosen[:, 2]
    return torch.full_like(scores, DROPPED).index_put((group, row), scores[group, row])


def _shape(tensor: Tensor) -> Any:
    return shape_as_tensor(tensor)  # Any, for torch takes such numbers as sizes, and its annotations say it does not


def _anchors(cell: Tensor, level: Tensor, canvas: Tensor) -> Tensor:
    """AnchorGenerator: the anchors [A, 4] of a level [B, C, y, x], in the order of its cells."""
    cells = _shape(level)[2:]
    stride = _shape(canvas)[2:] // cells
    y, x = torch.meshgrid(*(torch.arange(cells[axis]) * stride[axis] for axis in (0, 1)), indexing="ij")
    return (torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4) + cell).reshape(-1, 4)


def _decode(codes: Tensor, boxes: Tensor, coder: BoxCoder) -> Tensor:
    """BoxCoder.decode: codes [..., 4] relative to boxes [..., 4] -> boxes [..., 4]."""
    weights = torch.tensor(coder.weights)
    sides = boxes[..., 2:] - boxes[..., :2]
    centre = codes[..., :2] / weights[:2] * sides + (boxes[..., :2] + 0.5 * sides)
    half = 0.5 * (torch.exp((codes[..., 2:] / weights[2:]).clamp(max=coder.bbox_xform_clip)) * sides)
    return torch.cat([centre - half, centre + half], dim=-1)


def _clip(boxes: Tensor, extent: Tensor) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), extent)


def _large(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(-1)


def _extent(size: Tensor) -> Tensor:
    """[2] of y, x -> [4] of x, y, x, y."""
    return size[[1, 0, 1, 0]].float()


def _at_most(limit: int, scores: Tensor) -> Any:
    """`limit`, or the number of scores in a row [B, R] where that is less."""
    return _shape(scores)[1].clamp(max=limit)


def _octave(scale: float) -> int:
    return round(-math.log2(scale))


def _scales(detector: Any) -> dict[nn.Module, Sequence[float]]:
    """For each RoI pooling the scales of its levels, as it found them in its first image; else 1 / stride."""
    with torch.no_grad():
        levels = detector.backbone(torch.zeros(1, 3, 256, 256))
    pools = [pool for pool in (detector.roi_heads.box_roi_pool, detector.roi_heads.mask_roi_pool) if pool is not None]
    strides = {name: level.shape[-1] / 256 for name, level in levels.items()}
    return {pool: pool.scales or [strides[name] for name in strides if name in pool.featmap_names] for pool in pools}
