"""In-place distillation: the widest width, in the same step, teaches the narrower ones.

The widest detector's forward pass is watched by hooks, so that it costs nothing more; each narrower width then adds to
its ordinary losses

* features: the neck's maps, each channel standardised over the valid positions, against the widest's leading channels
  (PKD, arXiv 2207.02039, equation 4; leading channels because channel k of every width is the same filter);
* classes: the divergence between both box heads' class distributions on the proposals that the widest sampled
  (Chen et al., NeurIPS 2017, section 3.2; the narrow width sees them through its own features).

Letters: B images, L levels, c channels of the narrow width, N proposals, K classes with background.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Watched:
    """What a detector's forward pass left behind."""

    features: dict[str, Tensor] = field(default_factory=dict)  # level -> [B, c, H, W]
    image_sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each image before padding
    proposals: list[Tensor] = field(default_factory=list)  # B x [N, 4]
    class_logits: Tensor | None = None  # [B * N, K]

    def detached(self) -> "Watched":
        """The same without a graph: a teacher is not taught."""
        logits = None if self.class_logits is None else self.class_logits.detach()
        features = {level: map_.detach() for level, map_ in self.features.items()}
        return Watched(features, self.image_sizes, [boxes.detach() for boxes in self.proposals], logits)


@contextmanager
def watch(detector: nn.Module) -> Iterator[Watched]:
    """Yield what the detector's next forward pass computes: neck features, sampled proposals, class logits."""
    seen = Watched()

    def on_backbone(module: nn.Module, inputs: Any, output: dict[str, Tensor]) -> None:
        seen.features = output

    def on_pool(module: nn.Module, inputs: Any, output: Tensor) -> None:
        _, seen.proposals, seen.image_sizes = inputs

    def on_predictor(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        seen.class_logits = output[0]

    parts: Any = detector
    handles = [
        parts.backbone.register_forward_hook(on_backbone),
        parts.roi_heads.box_roi_pool.register_forward_hook(on_pool),
        parts.roi_heads.box_predictor.register_forward_hook(on_predictor),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def distillation_losses(twin: nn.Module, student: Watched, teacher: Watched) -> dict[str, Tensor]:
    """Return the two losses of one narrower width.

    Args:
        twin: the narrower width's detector, whose box head is run on the teacher's proposals.
        student: what the twin's own forward pass left behind, with its graph.
        teacher: what the widest's left behind, detached.
    """
    roi_heads: Any = twin.roi_heads
    pooled = roi_heads.box_roi_pool(student.features, teacher.proposals, teacher.image_sizes)  # [B * N, c, 7, 7]
    logits, _ = roi_heads.box_predictor(roi_heads.box_head(pooled))  # [B * N, K]
    assert teacher.class_logits is not None
    target = teacher.class_logits.float().softmax(1)
    divergence = F.kl_div(logits.float().log_softmax(1), target, reduction="sum") / max(len(target), 1)
    levels = [
        feature_loss(student.features[level], teacher.features[level], teacher.image_sizes)
        for level in student.features
        if level != "pool"  # a subsampled copy of the level below
    ]
    return {"distill_classes": divergence, "distill_features": torch.stack(levels).mean()}


def feature_loss(student: Tensor, teacher: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
    """Half the mean squared difference of standardised channels, padding left out.

    Args:
        student: [B, c, H, W].
        teacher: [B, C, H, W], C >= c; its leading c channels are used.
        image_sizes: (height, width) in pixels of each image inside the padded batch, whose padded size is a multiple
            of these maps' stride.
    """
    valid = _valid(student, image_sizes)  # [B, 1, H, W]
    teacher = teacher[:, : student.shape[1]]
    difference = (_standardise(student.float(), valid) - _standardise(teacher.float(), valid)) * valid
    return difference.square().sum() / (2 * valid.sum() * student.shape[1])


def _valid(features: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
    height, width = features.shape[-2:]
    stride = 2 ** round(torch.tensor(max(max(size) for size in image_sizes) / max(height, width)).log2().item())
    mask = features.new_zeros(len(image_sizes), 1, height, width, dtype=torch.float32)
    for row, (h, w) in zip(mask, image_sizes, strict=True):
        row[:, : -(-h // stride), : -(-w // stride)] = 1
    return mask


def _standardise(features: Tensor, valid: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1 over the batch's valid positions."""
    count = valid.sum()
    mean = (features * valid).sum((0, 2, 3), keepdim=True) / count
    centred = features - mean
    variance = (centred.square() * valid).sum((0, 2, 3), keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-6)
