"""The original's losses, per image batch and width.

B images, A anchors or RoIs, K classes without background, M cells along a side of a mask.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from slimdet.original.configs.config import Config
from slimdet.original.detector.detector import OriginalDetector
from slimdet.original.detector.roi_heads import RoIHeads
from slimdet.original.detector.rpn import RegionProposals
from slimdet.original.training.targets import assign, sample


@dataclass(frozen=True)
class Target:
    """What is in one training image, in pixels of the network's input.

    Attributes:
        size: (height, width) of the resized image.
        padded: (height, width) with its own padding, before it was padded to the batch's size.
        boxes: half-open [G, 4].
        labels: int64 [G] in 1..K.
        masks: uint8 [G, H, W] of 0 and 1, of the padded size; None without.
        proposals: half-open [N, 4], for Fast R-CNN.
        ignored: half-open boxes of crowds [C, 4].
    """

    size: tuple[int, int]
    padded: tuple[int, int]
    boxes: Tensor
    labels: Tensor
    masks: np.ndarray | None = None
    proposals: Tensor | None = None
    ignored: Tensor | None = None

    def to(self, device: torch.device) -> "Target":
        """The same with its boxes and labels on a device; masks are cut on the CPU."""
        moved = {name: getattr(self, name) for name in ("boxes", "labels", "proposals", "ignored")}
        return replace(self, **{name: value.to(device) for name, value in moved.items() if value is not None})


def losses(
    detector: OriginalDetector,
    batch: Tensor,
    targets: Sequence[Target],
    train: Config,
    draw: np.random.RandomState | None = None,
) -> dict[str, Tensor]:
    """All losses of a batch [B, 3, H, W]: loss_rpn_cls and loss_rpn_reg (one number for each level, [L]), loss_cls,
    loss_reg, loss_mask as the detector has the parts, "acc" (percent of RoIs classified rightly, no loss), and the sum
    of all losses under "loss".

    Args:
        train: a config's `train_cfg`.
        draw: where the samplers' chance comes from; by default numpy's global state, as in the original.
    """
    features = detector.backbone(batch)
    found: dict[str, Tensor] = {}
    proposals = [target.proposals for target in targets]
    if detector.rpn is not None:
        maps = list(features.values())
        logits, codes = detector.rpn.head(maps)
        anchors = detector.rpn.anchors.per_level(maps)
        found |= rpn_losses(detector.rpn, logits, codes, anchors, targets, train.rpn, draw)
        with torch.no_grad():
            sizes = [target.size for target in targets]
            proposals = [boxes for boxes, _ in detector.rpn.propose(logits, codes, anchors, sizes)]
    if detector.roi_heads is not None:
        found |= roi_losses(detector.roi_heads, features, proposals, targets, train.rcnn, draw)
    found["loss"] = torch.stack([value.sum() for name, value in found.items() if "loss" in name]).sum()
    return found


def smooth_l1(difference: Tensor, beta: float) -> Tensor:
    """Half the square over beta for differences up to beta, the magnitude less beta / 2 beyond; not summed."""
    return functional.smooth_l1_loss(difference, torch.zeros_like(difference), beta=beta, reduction="none")


# ------------------------------------------------------------------------------------------------- proposals


def rpn_losses(
    rpn: RegionProposals,
    logits: Sequence[Tensor],
    codes: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Sequence[Target],
    train: Config,
    draw: np.random.RandomState | None = None,
) -> dict[str, Tensor]:
    """Losses of each level, [L], from the head's outputs, logits [B, A, H, W] and codes [B, 4 A, H, W].

    Every level is divided by the number of anchors that were sampled on all levels of all images. (The original stopped
    where one image has no usable anchor; such an image gives nothing here.)
    """
    counts = [len(level) for level in anchors]
    every = torch.cat(list(anchors))
    labels, weights, wanted, regressed = [], [], [], []
    total = 0
    for target in targets:
        usable = torch.where(_usable(logits, anchors, rpn.anchors.strides, target, train.allowed_border))[0]
        label, weight, code, positive = (every.new_zeros(len(every), *more) for more in ((), (), (4,), ()))
        inside = every[usable]
        assigned = assign(inside, target.boxes, train.assigner)
        chosen = sample(assigned, train.sampler, draw)
        objects = usable[chosen.positive]
        label[objects] = 1
        weight[objects] = train.pos_weight if train.pos_weight > 0 else 1
        weight[usable[chosen.negative]] = 1
        if len(objects):
            matched = target.boxes[assigned[chosen.positive] - 1]
            code[objects] = rpn.coder.encode_single(matched, every[objects])
        positive[objects] = 1
        total += max(len(objects), 1) + max(len(chosen.negative), 1)
        for parts, part in zip((labels, weights, wanted, regressed), (label, weight, code, positive), strict=True):
            parts.append(part.split(counts))
    classification, regression = [], []
    for level, (logit, given) in enumerate(zip(logits, codes, strict=True)):
        flat = logit.permute(0, 2, 3, 1).flatten(1)  # [B, H * W * A]
        boxes = given.permute(0, 2, 3, 1).reshape(len(targets), -1, 4)  # [B, H * W * A, 4]
        mine = [torch.stack([image[level] for image in part]) for part in (labels, weights, wanted, regressed)]
        entropy = functional.binary_cross_entropy_with_logits(flat, mine[0], weight=mine[1], reduction="sum")
        classification.append(entropy / total)
        distance = smooth_l1(boxes - mine[2], train.smoothl1_beta) * mine[3][..., None]
        regression.append(distance.sum() / total)
    return {"loss_rpn_cls": torch.stack(classification), "loss_rpn_reg": torch.stack(regression)}


def _usable(
    maps: Sequence[Tensor], anchors: Sequence[Tensor], strides: Sequence[int], target: Target, border: float
) -> Tensor:
    """Whether each anchor's cell belongs to the image and, unless `border` is negative, the anchor lies inside it."""
    flags = []
    for level, boxes, stride in zip(maps, anchors, strides, strict=True):
        height, width = level.shape[-2:]
        cells = boxes.new_zeros(height, width, dtype=torch.bool)
        cells[: math.ceil(target.padded[0] / stride), : math.ceil(target.padded[1] / stride)] = True
        flags.append(cells.flatten().repeat_interleave(len(boxes) // (height * width)))
    found, boxes = torch.cat(flags), torch.cat(list(anchors))
    if border >= 0:
        height, width = target.size
        found &= (boxes[:, 0] >= -border) & (boxes[:, 1] >= -border)
        found &= (boxes[:, 2] - 1 < width + border) & (boxes[:, 3] - 1 < height + border)
    return found


# ------------------------------------------------------------------------------------------------- boxes and masks


def roi_losses(
    heads: RoIHeads,
    features: Mapping[str, Tensor],
    proposals: Sequence[Tensor | None],
    targets: Sequence[Target],
    train: Config,
    draw: np.random.RandomState | None = None,
) -> dict[str, Tensor]:
    """Losses of the box head and, where there is one, of the mask head."""
    rois, labels, weights, codes, positives, objects = [], [], [], [], [], []
    for boxes, target in zip(proposals, targets, strict=True):
        boxes = target.boxes.new_zeros(0, 4) if boxes is None else boxes
        assigned = assign(boxes, target.boxes, train.assigner)
        if train.sampler.add_gt_as_proposals:
            boxes = torch.cat([target.boxes, boxes])
            own = torch.arange(1, len(target.boxes) + 1, device=assigned.device)
            assigned = torch.cat([own, assigned])
        if train.assigner.ignore_iof_thr > 0 and target.ignored is not None and len(target.ignored):
            share = _covered(boxes, target.ignored)
            assigned = torch.where((share > train.assigner.ignore_iof_thr) & (assigned <= 0), -1, assigned)
        chosen = sample(assigned, train.sampler, draw)
        positive = boxes[chosen.positive]
        matched = assigned[chosen.positive] - 1
        rois.append(torch.cat([positive, boxes[chosen.negative]]))
        background = torch.zeros_like(chosen.negative)
        labels.append(torch.cat([target.labels[matched], background]))
        weight = train.pos_weight if train.pos_weight > 0 else 1.0
        weights.append(torch.cat([boxes.new_full((len(positive),), weight), boxes.new_ones(len(background))]))
        codes.append(heads.coder.encode_single(target.boxes[matched], positive))
        positives.append(positive)
        objects.append(matched)
    logits, given = heads.box_outputs(features, rois)
    label, weight, code = torch.cat(labels), torch.cat(weights), torch.cat(codes)
    objects_at = torch.where(label > 0)[0]
    given = given.reshape(len(label), -1, 4)[objects_at, 0 if heads.agnostic else label[objects_at]]
    entropy = functional.cross_entropy(logits, label, reduction="none") * weight
    found = {
        "loss_cls": entropy.sum() / max(len(label), 1),
        "acc": (logits.detach().argmax(dim=1) == label).float().sum() * 100 / max(len(label), 1),
        "loss_reg": smooth_l1(given - code, 1.0).sum() / max(len(label), 1),
    }
    if heads.mask_pool is not None:
        found["loss_mask"] = _mask_loss(
            heads, features, positives, objects, label[objects_at], targets, train.mask_size
        )
    return found


def _covered(boxes: Tensor, crowds: Tensor) -> Tensor:
    """The largest share of each box [N] that one crowd covers."""
    low, high = torch.maximum(boxes[:, None, :2], crowds[:, :2]), torch.minimum(boxes[:, None, 2:], crowds[:, 2:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return ((high - low).clamp(min=0).prod(dim=2) / areas[:, None]).max(dim=1).values


def _mask_loss(
    heads: RoIHeads,
    features: Mapping[str, Tensor],
    positives: Sequence[Tensor],
    objects: Sequence[Tensor],
    labels: Tensor,
    targets: Sequence[Target],
    size: int,
) -> Tensor:
    logits = heads.mask_logits(features, positives)
    wanted = [
        mask_targets(boxes, matched, target.masks, size)
        for boxes, matched, target in zip(positives, objects, targets, strict=True)
    ]
    cells = torch.cat(wanted).to(logits.device)
    own = logits[torch.arange(len(labels), device=labels.device), 0 if heads.mask_agnostic else labels]
    if not len(labels):
        return logits.sum() * 0  # no object, no gradient, but a gradient all processes agree on
    return functional.binary_cross_entropy_with_logits(own, cells)


def mask_targets(boxes: Tensor, objects: Tensor, masks: np.ndarray | None, size: int) -> Tensor:
    """The masks' share of each box, [N, size, size] of 0 and 1: cut at whole pixels, resized as bytes.

    Args:
        boxes: half-open [N, 4].
        objects: [N], the index of each box's mask.
        masks: uint8 [G, H, W].
    """
    assert masks is not None
    found = np.zeros((len(boxes), size, size), np.float32)
    inclusive = (boxes - boxes.new_tensor([0, 0, 1, 1])).cpu().numpy().astype(np.int32)
    for place, ((x1, y1, x2, y2), number) in enumerate(zip(inclusive, objects.tolist(), strict=True)):
        cut = masks[number, y1 : y1 + max(y2 - y1 + 1, 1), x1 : x1 + max(x2 - x1 + 1, 1)]
        if cut.size:
            found[place] = cv2.resize(cut, (size, size), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(found)
