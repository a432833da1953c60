"""Box arithmetic of the original in half-open coordinates.

N boxes, [N, 4] float (x1, y1, x2, y2) in pixels, half-open: x2 and y2 are one more than in a legacy (inclusive) box.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import nms


def from_inclusive(boxes: Tensor) -> Tensor:
    """Legacy boxes [N, 4] as half-open ones."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] + 1], dim=1)


def to_inclusive(boxes: Tensor) -> Tensor:
    """Half-open boxes [N, 4] as legacy ones."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - 1], dim=1)


def rescale(boxes: Tensor, scale: float) -> Tensor:
    """Multiply the inclusive coordinates of boxes [N, 4] by `scale`, as the original does.

    A box is one pixel larger on its right and lower side than its scaled corners say, at every scale: that is why
    overlaps, and with them NMS, depend on the scale they are computed at.
    """
    return from_inclusive(to_inclusive(boxes) * scale)


def flip(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes [N, 4] in an image of `width` pixels."""
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Move corners of boxes [N, 4] onto the pixels of an image of `size` (height, width).

    Unlike torchvision's clipping no box loses its last pixel: the inclusive corners end at height - 1 and width - 1.
    """
    height, width = size
    low = boxes.new_tensor([0, 0, 1, 1])
    high = boxes.new_tensor([width - 1, height - 1, width, height])
    return torch.minimum(torch.maximum(boxes, low), high)


class Coder(BoxCoder):
    """torchvision's box coding with the original's means and its clamp of shrinking as well as of growing."""

    def __init__(self, means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__((1.0, 1.0, 1.0, 1.0))
        self.means, self.stds = tuple(means), tuple(stds)

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        codes = super().encode_single(reference_boxes, proposals)
        return (codes - codes.new_tensor(self.means)) / codes.new_tensor(self.stds)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Boxes from codes [N, 4] (dx, dy, dw, dh); growing is limited by torchvision, shrinking here."""
        codes = rel_codes * rel_codes.new_tensor(self.stds) + rel_codes.new_tensor(self.means)
        low = rel_codes.new_tensor([-torch.inf, -torch.inf, -self.bbox_xform_clip, -self.bbox_xform_clip])
        return super().decode_single(torch.maximum(codes, low), boxes)


def nms_per_class(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, most: int) -> Tensor:
    """Indices of the detections that survive NMS within their class, in order of class, then of falling score.

    Where more than `most` survive, the `most` best in order of falling score. Each class is suppressed in its own
    coordinates; torchvision's `batched_nms` moves classes apart by offsets, which costs digits.
    """
    kept = []
    for label in labels.unique().tolist():
        of_class = torch.where(labels == label)[0]
        kept.append(of_class[nms(boxes[of_class], scores[of_class], threshold)])
    keep = torch.cat(kept) if kept else labels.new_zeros(0)
    if len(keep) > most:
        keep = keep[scores[keep].topk(most).indices]
    return keep
