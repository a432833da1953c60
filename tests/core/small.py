"""A network of a few channels in which every rule is needed, and what must hold of every slimmable model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimdet.core.scopes import Scope
from slimdet.core.sliced import Sliced
from slimdet.core.slimmable import Slimmable, slim

EVERYTHING = Scope("everything", narrow=(".*",), keep=("last",), own_bias=True)


class Small(nn.Module):
    """Two convolutions with a norm between them, a linear behind a flatten: every rule in a few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.hidden = nn.Linear(8 * 16, 10)
        self.last = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.up(F.relu(self.second(x))))
        return self.last(F.relu(self.hidden(F.adaptive_avg_pool2d(x, 4).flatten(1))))


SMALL_EXAMPLE = (torch.zeros(1, 3, 8, 8),)


def slim_small(widths: tuple[float, ...] = (0.25, 0.5, 1.0), scope: Scope = EVERYTHING) -> Slimmable:
    return slim(Small(), widths, scope, example=SMALL_EXAMPLE)


def assert_tied(model: Slimmable) -> None:
    """Every sliced layer of every width holds the widest's Parameter objects, and the optimizer sees each once."""
    widest = model.twin(1.0)
    assert widest.training == model.training
    counted = 0
    for width in model.widths[:-1]:
        for name, layer in model.twin(width).named_modules():
            if isinstance(layer, Sliced):
                wide = widest.get_submodule(name)
                assert layer._parameters["weight"] is wide._parameters["weight"]
                if not layer._own_bias:
                    assert layer._parameters["bias"] is wide._parameters["bias"]
                counted += 1
    assert counted
    assert len({id(p) for p in model.parameters()}) == len(list(model.parameters()))
