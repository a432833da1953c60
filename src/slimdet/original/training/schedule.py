"""What happens when in training: the order of images, the learning rate, and chance.

Everything is a function of seed, epoch and iteration alone, so that a resumed training goes on as the interrupted one
would have.
"""

from collections.abc import Sequence

import numpy as np
import torch

from slimdet.original.configs.config import Config


def batches(wide: Sequence[bool], size: int, world: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """The images of each iteration and share: [iteration][share][image].

    Images wider than high never share a batch with others. Each group is filled up, by repeating its shuffled images,
    to whole batches for all shares.

    Args:
        wide: for each image, whether it is wider than high.
        size: images of a batch.
        world: shares, one for each process; each takes a contiguous part of the epoch.
    """
    chance = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order: list[int] = []
    for group in (False, True):
        members = [index for index, is_wide in enumerate(wide) if bool(is_wide) == group]
        if not members:
            continue
        shuffled = [members[i] for i in torch.randperm(len(members), generator=chance).tolist()]
        length = -(-len(members) // (size * world)) * size * world
        order += [shuffled[i % len(shuffled)] for i in range(length)]
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    cut = [cut[i] for i in torch.randperm(len(cut), generator=chance).tolist()]
    each = len(cut) // world
    return [[cut[share * each + iteration] for share in range(world)] for iteration in range(each)]


def chance(seed: int, epoch: int, iteration: int, share: int) -> np.random.RandomState:
    """Where one share of one iteration draws from: mirroring, scales and samples."""
    return np.random.RandomState([seed, epoch, iteration, share])


def draw_scale(scales: Sequence[tuple[int, int]], draw: np.random.RandomState) -> tuple[int, int]:
    """One (long, short): the only one; from two, each side between the two (both included); from more, one of them."""
    if len(scales) == 2:
        longs, shorts = zip(*scales, strict=True)
        long, short = (int(draw.randint(min(sides), max(sides) + 1)) for sides in (longs, shorts))
        return max(long, short), min(long, short)
    return scales[draw.randint(len(scales))] if len(scales) > 1 else scales[0]


def learning_rate(base: float, rule: Config | None, epoch: int, iteration: int) -> float:
    """The rate at an iteration, counted from 0 over all epochs, of an epoch, counted from 0.

    Args:
        rule: a config's `lr_config`.
    """
    if rule is None:
        return base
    rate = base * rule.gamma ** sum(epoch >= step for step in rule.step)
    if rule.warmup is None or iteration >= rule.warmup_iters:
        return rate
    done = iteration / rule.warmup_iters
    if rule.warmup == "linear":
        return rate * (1 - (1 - done) * (1 - rule.warmup_ratio))
    return rate * (rule.warmup_ratio if rule.warmup == "constant" else rule.warmup_ratio ** (1 - done))
