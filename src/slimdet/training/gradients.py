"""What becomes of the gradients that several widths left in the weights they share."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import nn

from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import Slimmable


@torch.no_grad()
def divide_by_users(model: Slimmable, widths: Iterable[float], power: float = 1.0) -> None:
    """Divide the sum of the widths' gradients, weight by weight, by the number of widths that use the weight.

    After a pass at 0.25 and one at 1.0, the leading quarter of a layer's channels holds two gradients, its other
    weights one. Where they are summed ("Slimmable Neural Networks", ICLR 2019, algorithm 1), a learning rate that fits
    the weights of the widest alone is too high for those that every width uses.

    Args:
        model: with gradients.
        widths: those whose passes left them.
        power: of the number; 1 is the mean, the step of a detector trained by itself; 0.5 leaves n gradients that
            have nothing in common with the length of one.
    """
    users: dict[nn.Parameter, list[tuple[slice, ...]]] = defaultdict(list)
    for width in widths:
        for module in model.twin(width).modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter.grad is not None:
                    users[parameter].append(module.corner(name) if isinstance(module, Sliced) else ())
    for parameter, corners in users.items():
        if len(corners) > 1 and parameter.grad is not None:
            counts = torch.zeros_like(parameter.grad)
            for corner in corners:
                counts[corner] += 1
            parameter.grad.div_(counts.clamp_min_(1) ** power)
