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
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx.operators import shape_as_tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from slimdet.exporting.sizes import longer_limit, quotient, resized
from slimdet.models.image_size import settle_scales, sides_of
from slimdet.models.kinds import require

DROPPED = -1.0  # score of a box that was suppressed or never was one


class Graph(nn.Module):
    """The whole detector.

    Args:
        detector: torchvision's `FasterRCNN` or `MaskRCNN` in eval mode; `settle_scales` is done to it.

    Raises:
        ConfigError: another kind of detector.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        require(detector, "export")
        self.detector: Any = detector
        settle_scales(detector)

    def forward(self, images: Tensor, imgsz: Tensor, proposals: Tensor) -> tuple[Tensor, ...]:
        """Detect objects in images of one size.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            imgsz: int64 scalar, shorter side in pixels that images are resized to.
            proposals: int64 scalar, boxes of an image that the second stage looks at.

        Returns:
            boxes [N, 4] (x1, y1, x2, y2 in pixels of the input), labels [N] in 1..K, scores [N], image_index [N] and,
            of a Mask R-CNN, masks [N, 28, 28] in 0..1 over the boxes. In order of image, then of falling score.
        """
        heads = self.detector.roi_heads
        canvas, size, ratio = self.prepare(images, imgsz)
        features = self.detector.backbone(canvas)
        rois, objectness = self.propose(features, canvas, _extent(size), proposals)
        boxes, labels, scores, image = self.classify(features, rois, objectness, _extent(size))
        found = (boxes * _extent(ratio), labels, scores, image)
        if not heads.has_mask():
            return found
        pooled, order = self.pool(heads.mask_roi_pool, features, boxes, image)
        logits = heads.mask_predictor(heads.mask_head(pooled))  # [N, K + 1, 28, 28]
        cells = logits[torch.arange(labels.shape[0]), labels[order]].sigmoid()  # [N, 28, 28]
        return *found, cells[torch.zeros_like(order).scatter(0, order, torch.arange(order.shape[0]))]

    def prepare(self, images: Tensor, imgsz: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """GeneralizedRCNNTransform: uint8 [B, H, W, 3] -> [B, 3, canvas], [2] (h, w), [2] (H / h, W / w)."""
        transform = self.detector.transform
        sides = _shape(images)[1:3]
        size: Any = resized(sides, imgsz, longer_limit(imgsz, *sides_of(self.detector)))
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = functional.interpolate(pixels, size=[size[0], size[1]], mode="bilinear", align_corners=False)
        mean, deviation = torch.tensor([transform.image_mean, transform.image_std])[..., None, None]
        pixels = pixels * (1 / (255 * deviation)) - mean / deviation  # [B, 3, h, w]
        padding = -size % transform.size_divisible
        canvas = functional.pad(pixels, [0, padding[1], 0, padding[0]])
        return canvas, size, sides.float() / size.float()

    def propose(
        self, features: Mapping[str, Tensor], canvas: Tensor, extent: Tensor, limit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """RegionProposalNetwork: -> boxes [B, P, 4] in resized pixels, scores [B, P], DROPPED where there is no box."""
        rpn = self.detector.rpn
        levels = list(features.values())
        parts = []
        for number, (level, logits, codes, cell) in enumerate(
            zip(levels, *rpn.head(levels), rpn.anchor_generator.cell_anchors, strict=True)
        ):
            logits = logits.permute(0, 2, 3, 1).flatten(1)  # [B, A]
            codes = codes.permute(0, 2, 3, 1).reshape(codes.shape[0], -1, 4)  # [B, A, 4]
            logits, best = logits.topk(_at_most(torch.tensor(rpn.pre_nms_top_n()), logits), dim=1)  # [B, R]
            codes = codes.gather(1, best[..., None].expand(-1, -1, 4))  # [B, R, 4]
            parts.append((logits, codes, _anchors(best, cell, level, canvas), torch.full_like(best[:1], number)))
        logits, codes, anchors, number = (torch.cat(own, dim=1) for own in zip(*parts, strict=True))  # R of all levels
        boxes = _clip(_decode(codes, anchors, rpn.box_coder), extent)  # [B, R, 4]
        scores = logits.sigmoid()
        scores = torch.where(_large(boxes, rpn.min_size) & (scores >= rpn.score_thresh), scores, DROPPED)
        own = number[:, None] == torch.arange(len(levels))[:, None]  # [1, levels, R]
        by_level = torch.where(own, scores[:, None], DROPPED)
        chosen = _suppress(boxes, by_level, limit, rpn.nms_thresh, DROPPED / 2).index_select(1, torch.tensor([0, 2]))
        kept = _put(torch.full_like(scores, DROPPED), chosen, _take(scores, chosen))
        kept, best = kept.topk(_at_most(limit, kept), dim=1)  # [B, P]
        return boxes.gather(1, best[..., None].expand(-1, -1, 4)), kept

    def classify(
        self, features: Mapping[str, Tensor], proposals: Tensor, objectness: Tensor, extent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """RoIHeads: -> boxes [N, 4] in resized pixels, labels [N], scores [N], image [N]."""
        heads = self.detector.roi_heads
        batch, count = proposals.shape[0], proposals.shape[1]
        image = torch.arange(batch)[:, None].expand_as(objectness).flatten()  # [B * P]
        pooled, order = self.pool(heads.box_roi_pool, features, proposals.flatten(0, 1), image)
        rois, image, place = proposals.flatten(0, 1)[order], image[order], order % count  # by level from here on
        logits, codes = heads.box_predictor(heads.box_head(pooled))
        scores = logits.softmax(-1)[:, 1:]  # [B * P, K]
        classes = scores.shape[1]
        # Boxes are decoded where a score passes, which few do. M pairs of a proposal and a class.
        real = (objectness.flatten() > DROPPED)[order, None]
        pairs = torch.nonzero(real & (scores > heads.score_thresh))  # [M, 2]
        row, label = pairs.unbind(1)
        rois, codes = rois[row], _take(codes.reshape(-1, classes + 1, 4), pairs + torch.tensor([0, 1]))
        boxes = _clip(_decode(codes, rois, heads.box_coder), extent)  # [M, 4]
        scores = torch.where(_large(boxes, 1e-2), _take(scores, pairs), DROPPED)
        # A group for each class of each image, its boxes in the order of the proposals.
        at = torch.stack([image[row] * classes + label, torch.zeros_like(row), place[row]], dim=1)
        outer = torch.tensor([0, 2])
        groups = _put(boxes.new_zeros(batch * classes, count, 4), at.index_select(1, outer), boxes)
        grouped = _put(boxes.new_full((batch * classes, 1, count), DROPPED), at, scores)
        limit = torch.tensor(heads.detections_per_img)
        chosen = _suppress(groups, grouped, limit, heads.nms_thresh, heads.score_thresh)  # [N, 3]
        boxes, scores, group = _take(groups, chosen.index_select(1, outer)), _take(grouped, chosen), chosen[:, 0]
        # The best of each image; one more column, for there may be none.
        own = torch.where(quotient(group, classes) == torch.arange(batch)[:, None], scores, DROPPED)  # [B, N]
        own = functional.pad(own, [0, 1], value=DROPPED)
        own, best = own.topk(_at_most(limit, own), dim=1)
        kept = torch.nonzero(own > DROPPED)
        best = _take(best, kept)  # [N]
        return boxes[best], group[best] % classes + 1, scores[best], kept[:, 0]

    def pool(
        self, pool: MultiScaleRoIAlign, features: Mapping[str, Tensor], boxes: Tensor, image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """MultiScaleRoIAlign: boxes [R, 4] in resized pixels, each of the image [R] -> [R, C, side, side], order [R].

        Boxes come out by their level; `order` is where each came from. To put what is pooled back into its order would
        take longer than to put what is made of it.
        """
        levels = [level for name, level in features.items() if name in pool.featmap_names]
        scales: Any = pool.scales
        rois = torch.cat([image[:, None].float(), boxes], dim=1)
        options = pool.output_size, pool.sampling_ratio
        if len(levels) == 1:
            return roi_align(levels[0], rois, options[0], scales[0], options[1]), torch.arange(boxes.shape[0])
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
        return torch.cat(pooled), torch.cat(rows)


class _Suppress(torch.autograd.Function):
    """Non-maximum suppression of each class of each group by itself, as the ONNX operator has it."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, limit: Tensor, threshold: float, least: float) -> Tensor:
        """boxes [G, R, 4], scores [G, C, R] -> (group, class, box) of what is kept, [N, 3]."""
        chosen = []
        for group, number in product(*map(range, scores.shape[:2])):
            score = scores[group, number]
            rows = torch.where(score > least)[0]
            rows = rows[nms(boxes[group, rows], score[rows], threshold)[: int(limit)]]
            chosen.append(torch.stack([torch.full_like(rows, group), torch.full_like(rows, number), rows], dim=1))
        return torch.cat(chosen)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, limit: Any, threshold: float, least: float) -> Any:
        constants = (g.op("Constant", value_t=torch.tensor([number])) for number in (threshold, least))
        return g.op("NonMaxSuppression", boxes, scores, limit, *constants)


class _Take(torch.autograd.Function):
    """`values` at `places` [N, axes], -> [N, ...]; by itself an exporter makes a dozen nodes of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor) -> Tensor:
        return values[places.unbind(1)]

    @staticmethod
    def symbolic(g: Any, values: Any, places: Any) -> Any:
        return g.op("GatherND", values, places)


class _Put(torch.autograd.Function):
    """`values` with `others` [N, ...] at `places` [N, axes]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor, others: Tensor) -> Tensor:
        return values.index_put(places.unbind(1), others)

    @staticmethod
    def symbolic(g: Any, values: Any, places: Any, others: Any) -> Any:
        return g.op("ScatterND", values, places, others)


def _suppress(boxes: Tensor, scores: Tensor, limit: Tensor, threshold: float, least: float) -> Tensor:
    """Which of the boxes [G, R, 4] whose scores [G, C, R] are above `least` stay, [N, 3] of group, class and row.

    At most `limit` of a class of a group do.
    """
    chosen: Any = _Suppress.apply(boxes, scores, limit, threshold, least)
    return chosen


def _take(values: Tensor, places: Tensor) -> Tensor:
    taken: Any = _Take.apply(values, places)
    return taken


def _put(values: Tensor, places: Tensor, others: Tensor) -> Tensor:
    put: Any = _Put.apply(values, places, others)
    return put


def _shape(tensor: Tensor) -> Any:
    return shape_as_tensor(tensor)  # Any, for torch takes such numbers as sizes, and its annotations say it does not


def _anchors(chosen: Tensor, cell: Tensor, level: Tensor, canvas: Tensor) -> Tensor:
    """AnchorGenerator: the `chosen` [B, R] of a level's anchors, counted cell by cell [B, C, y, x] -> [B, R, 4]."""
    cells = _shape(level)[2:]
    stride = quotient(_shape(canvas)[2:], cells)
    number = quotient(chosen, len(cell))
    y = quotient(number, cells[1])
    corner = torch.stack([number - y * cells[1], y], dim=-1) * stride[[1, 0]]
    return torch.cat([corner, corner], dim=-1) + cell[chosen - number * len(cell)]


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


def _at_most(limit: Tensor, scores: Tensor) -> Any:
    """`limit`, or the number of scores in a row [B, R] where that is less."""
    return torch.minimum(_shape(scores)[1], limit)


def _octave(scale: float) -> int:
    return round(-math.log2(scale))
