"""In-place distillation: the widest width, in the same step, teaches the narrower ones.

The teacher's forward pass is watched by hooks, so that it costs nothing more; each narrower width then adds to its
ordinary losses

* features: the neck's maps, each channel standardised over the valid positions, against the teacher's leading channels
  (PKD, arXiv 2207.02039, equation 4; leading channels because channel k of every width is the same filter);
* classes: the divergence between both box heads' class distributions on the proposals that the teacher sampled
  (Chen et al., NeurIPS 2017, section 3.2; the narrow width sees them through its own features);
* rpn: the proposal network's objectness and box codes (the same paper's sections 3.2 and 3.3), see `rpn_loss`;
* masks: the mask head's answer for the teacher's positive proposals, see `mask_loss`.

The teacher may as well be a detector of its own, as wide as the student or wider, that saw the same images; and it may
have seen them larger (MutualNet, arXiv 1909.12978, section 3.2): its maps and proposals are then resized to the
student's. Only the RPN's answers belong to one size: the anchors that match an object are others at another.

Letters: B images, L levels, c channels of the narrow width, A anchors a position, N proposals, P positive ones of all
images, K classes with background, M cells along a mask's side.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from slimdet.errors import ConfigError
from slimdet.models.kinds import require

PARTS = ("features", "classes", "rpn", "masks")

# A relative error is larger than the other parts are; a quarter of it has a gradient of their size (on the bundled
# detector at 0.25 and 0.5: features 0.4 and 0.4, classes 0.6 and 1.2, rpn 0.2 and 0.6).
RPN_WEIGHT = 0.25
_BETA = 1 / 9  # where the smooth L1 of box codes turns from a square into a line, as in torchvision's RPN


@dataclass
class Watched:
    """What a detector's forward pass left behind."""

    features: dict[str, Tensor] = field(default_factory=dict)  # level -> [B, c, H, W]
    objectness: list[Tensor] = field(default_factory=list)  # logits, L x [B, A, H, W]
    box_codes: list[Tensor] = field(default_factory=list)  # of the anchors, L x [B, 4 A, H, W]
    image_sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each image before padding
    proposals: list[Tensor] = field(default_factory=list)  # B x [N, 4], pixels of the resized image
    labels: list[Tensor] = field(default_factory=list)  # B x [N], 0 is background
    class_logits: Tensor | None = None  # [B * N, K]
    mask_logits: Tensor | None = None  # of each positive proposal's class, [P, M, M]; None without a mask head

    def detached(self) -> "Watched":
        """The same without a graph: a teacher is not taught."""
        return Watched(**{name: _detach(value) for name, value in vars(self).items()})

    def resized(self, student: "Watched") -> "Watched":
        """The features and proposals as they lie in the images of the student, which saw them at another size."""
        features = {
            level: _resized(maps, self.image_sizes, student.features[level], student.image_sizes)
            for level, maps in self.features.items()
            if level in student.features
        }
        proposals = []
        for boxes, (height, width), (rows, columns) in zip(
            self.proposals, self.image_sizes, student.image_sizes, strict=True
        ):
            proposals.append(boxes * boxes.new_tensor([columns / width, rows / height]).repeat(2))
        return replace(self, features=features, proposals=proposals, image_sizes=student.image_sizes)


def _detach(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: _detach(entry) for key, entry in value.items()}
    return [_detach(entry) for entry in value] if isinstance(value, list) else value


def as_teacher(detector: nn.Module) -> nn.Module:
    """A trained detector made ready to teach: it samples proposals as in training, its norms stay as they are."""
    detector.requires_grad_(False).train()
    for module in detector.modules():
        if isinstance(module, _NormBase):
            module.eval()
    return detector


@contextmanager
def watch(detector: nn.Module) -> Iterator[Watched]:
    """Yield what the detector's next forward pass leaves behind.

    Args:
        detector: in training mode, for that is when proposals are sampled and have classes.

    Raises:
        ConfigError: the detector has no proposals to teach with, or is in eval mode.
    """
    require(detector, "distil")
    if not detector.training:
        raise ConfigError(
            "distillation watches detectors in training mode: call detector.train(); "
            "a teacher's norms stay as they are if they alone are set to eval mode"
        )
    seen = Watched()
    roi_heads: Any = detector.roi_heads
    select = roi_heads.select_training_samples

    def on_backbone(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.features = {"0": output} if isinstance(output, Tensor) else output

    def on_rpn(module: nn.Module, inputs: Any, output: tuple[list[Tensor], list[Tensor]]) -> None:
        seen.objectness, seen.box_codes = output

    def selected(*args: Any) -> Any:
        samples = select(*args)
        seen.labels = samples[2]
        return samples

    def on_pool(module: nn.Module, inputs: Any, output: Tensor) -> None:
        _, seen.proposals, seen.image_sizes = inputs

    def on_predictor(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        seen.class_logits = output[0]

    def on_mask_predictor(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.mask_logits = _of_class(output, seen.labels)

    parts: Any = detector
    handles = [
        parts.backbone.register_forward_hook(on_backbone),
        parts.rpn.head.register_forward_hook(on_rpn),
        roi_heads.box_roi_pool.register_forward_hook(on_pool),
        roi_heads.box_predictor.register_forward_hook(on_predictor),
    ]
    if roi_heads.has_mask():
        handles.append(roi_heads.mask_predictor.register_forward_hook(on_mask_predictor))
    roi_heads.select_training_samples = selected  # the sampled classes appear in no layer's inputs
    try:
        yield seen
    finally:
        del roi_heads.select_training_samples  # the class's method is seen again
        for handle in handles:
            handle.remove()


def distillation_losses(
    twin: nn.Module, student: Watched, teacher: Watched, parts: Sequence[str] = PARTS
) -> dict[str, Tensor]:
    """Return the losses of one narrower width, float32 scalars.

    Args:
        twin: the narrower width's detector, whose box and mask heads are run on the teacher's proposals.
        student: what the twin's own forward pass left behind, with its graph.
        teacher: what the teacher's pass over the same images and targets left behind, detached.
        parts: which of `PARTS` to compute.

    Returns:
        {"distill_<part>": loss}; "masks" is left out where the twin or the teacher has no mask head.

    Raises:
        ConfigError: an unknown part, or "rpn" where the teacher saw the images at another size.
    """
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"distillation part {part!r} is not one of {', '.join(map(repr, PARTS))}")
    if student.image_sizes != teacher.image_sizes:
        if "rpn" in parts:
            raise ConfigError(
                f"distillation part 'rpn' needs one image size; the teacher sees (height, width) "
                f"{teacher.image_sizes}, the student {student.image_sizes}: leave it out"
            )
        teacher = teacher.resized(student)
    sizes = teacher.image_sizes
    losses: dict[str, Tensor] = {}
    if "features" in parts:
        levels = [
            feature_loss(features, teacher.features[level], sizes)
            for level, features in student.features.items()
            if level != "pool"  # a subsampled copy of the level below
        ]
        losses["distill_features"] = torch.stack(levels).mean()
    if "classes" in parts:
        losses["distill_classes"] = class_loss(twin, student, teacher)
    if "rpn" in parts:
        losses["distill_rpn"] = RPN_WEIGHT * rpn_loss(student, teacher)
    if "masks" in parts and student.mask_logits is not None and teacher.mask_logits is not None:
        losses["distill_masks"] = mask_loss(twin, student, teacher)
    return losses


def feature_loss(student: Tensor, teacher: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
    """Half the mean squared difference of standardised channels, padding left out.

    Args:
        student: [B, c, H, W].
        teacher: [B, C, H, W], C >= c; its leading c channels are used.
        image_sizes: (height, width) in pixels of each image inside the padded batch.
    """
    valid = _valid(student, image_sizes)  # [B, 1, H, W]
    teacher = teacher[:, : student.shape[1]]
    difference = (_standardise(student.float(), valid) - _standardise(teacher.float(), valid)) * valid
    return difference.square().sum() / (2 * valid.sum() * student.shape[1])


def class_loss(twin: nn.Module, student: Watched, teacher: Watched) -> Tensor:
    """KL(teacher || student) of the class distributions, summed over classes, mean over the teacher's proposals."""
    roi_heads: Any = twin.roi_heads
    pooled = roi_heads.box_roi_pool(student.features, teacher.proposals, teacher.image_sizes)  # [B * N, c, 7, 7]
    logits, _ = roi_heads.box_predictor(roi_heads.box_head(pooled))  # [B * N, K]
    assert teacher.class_logits is not None
    target = teacher.class_logits.float().softmax(1)
    return F.kl_div(logits.float().log_softmax(1), target, reduction="sum") / max(len(target), 1)


def rpn_loss(student: Watched, teacher: Watched) -> Tensor:
    """Objectness and box codes of the proposal network, over all levels' valid anchors.

    With s and t the two networks' probabilities of an object: sum (s - t)^2 / sum max(s, t)^2, in 0..1, so that
    however much background both agree on counts nothing; plus the smooth L1 of the box codes (sum of four), averaged
    with the weights t^2. Squares, because a thousand anchors of probability 0.01 shall not outweigh ten of 1. Sums of
    weights below 1 count as 1: where there is next to nothing to learn, the loss is small.
    """
    terms = torch.stack(
        [
            _level_sums(*maps, _valid(maps[0], teacher.image_sizes))
            for maps in zip(student.objectness, teacher.objectness, student.box_codes, teacher.box_codes, strict=True)
        ]
    ).sum(0)
    differing, extent, moved, weight = terms
    return differing / extent.detach().clamp_min(1) + moved / weight.clamp_min(1)


def _level_sums(logits: Tensor, taught_logits: Tensor, codes: Tensor, taught_codes: Tensor, valid: Tensor) -> Tensor:
    """The four sums of `rpn_loss` over one level, [4]."""
    s, t = logits.float().sigmoid(), taught_logits.float().sigmoid()  # [B, A, H, W]
    error = F.smooth_l1_loss(codes.float(), taught_codes.float(), reduction="none", beta=_BETA)  # [B, 4 A, H, W]
    error = error.unflatten(1, (-1, 4)).sum(2)  # [B, A, H, W]: an anchor's four codes lie side by side
    parts = (s - t).square(), torch.maximum(s, t).square(), t.square() * error, t.square()
    return torch.stack([(part * valid).sum() for part in parts])


def mask_loss(twin: nn.Module, student: Watched, teacher: Watched) -> Tensor:
    """Binary cross-entropy with the teacher's mask probabilities, on its positive proposals, of their classes."""
    assert teacher.mask_logits is not None
    if not len(teacher.mask_logits):
        return next(iter(student.features.values())).flatten()[:0].float().sum()  # zero, with a graph
    roi_heads: Any = twin.roi_heads
    positives = [boxes[labels > 0] for boxes, labels in zip(teacher.proposals, teacher.labels, strict=True)]
    pooled = roi_heads.mask_roi_pool(student.features, positives, teacher.image_sizes)  # [P, c, M / 2, M / 2]
    logits = _of_class(roi_heads.mask_predictor(roi_heads.mask_head(pooled)), teacher.labels)
    return F.binary_cross_entropy_with_logits(logits.float(), teacher.mask_logits.float().sigmoid())


def _of_class(mask_logits: Tensor, labels: list[Tensor]) -> Tensor:
    """[P, K, M, M] -> [P, M, M]: the masks of the positive proposals' own classes."""
    positive = torch.cat(labels)
    positive = positive[positive > 0]
    return mask_logits[torch.arange(len(positive), device=positive.device), positive]


def _valid(features: Tensor, image_sizes: list[tuple[int, int]]) -> Tensor:
    """1 where a map [B, C, H, W] shows an image, 0 where padding: [B, 1, H, W]."""
    mask = features.new_zeros(len(image_sizes), 1, *features.shape[-2:], dtype=torch.float32)
    for row, (height, width) in zip(mask, _cells(features, image_sizes), strict=True):
        row[:, :height, :width] = 1
    return mask


def _cells(features: Tensor, image_sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """How many cells (down, across) of maps [B, C, H, W] each image fills."""
    # The batch is padded to a multiple of 32 pixels, so that its longest image fills more than half of it.
    stride = 2 ** math.ceil(math.log2(max(map(max, image_sizes)) / max(features.shape[-2:])))
    return [(-(-height // stride), -(-width // stride)) for height, width in image_sizes]


def _resized(maps: Tensor, sizes: list[tuple[int, int]], like: Tensor, new_sizes: list[tuple[int, int]]) -> Tensor:
    """Maps [B, C, H, W] of images of `sizes`, image by image resized to where `like` [B, c, h, w] shows them."""
    resized = maps.new_zeros(len(sizes), maps.shape[1], *like.shape[-2:])
    pairs = zip(_cells(maps, sizes), _cells(like, new_sizes), strict=True)
    for place, ((height, width), (rows, columns)) in enumerate(pairs):
        image = maps[place, None, :, :height, :width]
        small = F.interpolate(image, (rows, columns), mode="bilinear", antialias=True)
        resized[place, :, :rows, :columns] = small[0]
    return resized


def _standardise(features: Tensor, valid: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1 over the batch's valid positions."""
    count = valid.sum()
    mean = (features * valid).sum((0, 2, 3), keepdim=True) / count
    centred = features - mean
    variance = (centred.square() * valid).sum((0, 2, 3), keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-6)
