"""Which anchors and proposals are objects in training, and which of them are looked at.

N boxes, G objects of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from slimdet.original.configs.config import Config


def assign(boxes: Tensor, objects: Tensor, rule: Config) -> Tensor:
    """For each of N half-open boxes the object it is taken for: int64 [N], g in 1..G, 0 for background, -1 for neither.

    A box is background below `neg_iou_thr` and an object from `pos_iou_thr` on. Then every object whose best overlap is
    at least `min_pos_iou` also gets all boxes that overlap it exactly that much, the later objects in their order
    taking from the earlier ones. (torchvision's Matcher gives such boxes to the object *they* overlap most.)

    Args:
        rule: a config's `assigner`.
    """
    found = torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
    if not len(objects):
        return found.zero_()
    if not len(boxes):
        return found
    overlaps = box_iou(objects, boxes)  # [G, N]
    best, place = overlaps.max(dim=0)
    found[best < rule.neg_iou_thr] = 0
    positive = best >= rule.pos_iou_thr
    found[positive] = place[positive] + 1
    for number, (row, most) in enumerate(zip(overlaps, overlaps.max(dim=1).values, strict=True), 1):
        if most >= rule.min_pos_iou:
            found[row == most] = number
    return found


@dataclass(frozen=True)
class Sample:
    """The boxes that are looked at: indices of objects and of background, each ascending."""

    positive: Tensor
    negative: Tensor


def sample(assigned: Tensor, rule: Config, draw: np.random.RandomState | None = None) -> Sample:
    """Choose `num` of the boxes at random, at most `pos_fraction` of them objects.

    Args:
        assigned: [N] as `assign` returns it.
        rule: a config's `sampler`.
        draw: where chance comes from; by default numpy's global state, as in the original.
    """
    wanted = int(rule.num * rule.pos_fraction)
    positive = torch.where(assigned > 0)[0]
    if len(positive) > wanted:
        positive = (
            _balanced(positive, assigned, wanted, draw) if rule.pos_balance_sampling else _some(positive, wanted, draw)
        )
    wanted = int(rule.num) - len(positive)
    if rule.neg_pos_ub >= 0:
        wanted = min(wanted, int(rule.neg_pos_ub * max(1, len(positive))))
    negative = torch.where(assigned == 0)[0]
    if len(negative) > wanted:
        negative = _some(negative, wanted, draw)
    return Sample(positive.sort().values, negative.sort().values)


def _some(indices: Tensor, count: int, draw: np.random.RandomState | None) -> Tensor:
    order = np.arange(len(indices))
    (draw.shuffle if draw is not None else np.random.shuffle)(order)
    return indices[torch.from_numpy(order[:count]).to(indices.device)]


def _balanced(indices: Tensor, assigned: Tensor, count: int, draw: np.random.RandomState | None) -> Tensor:
    """About the same number for each object, filled up at random."""
    numbers = assigned[indices].unique()
    each = round(count / len(numbers) + 1)
    chosen = torch.cat(
        [_some(mine, each, draw) if len(mine := indices[assigned[indices] == n]) > each else mine for n in numbers]
    )
    if len(chosen) > count:
        return _some(chosen, count, draw)
    rest = indices[~torch.isin(indices, chosen)]
    return torch.cat([chosen, _some(rest, count - len(chosen), draw)])
