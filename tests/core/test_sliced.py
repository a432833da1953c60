"""A twin's layers: what is written through them reaches the shared weights, or is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.small import assert_tied
from slimdet.core.scopes import Scope
from slimdet.core.slimmable import Slimmable, slim
from slimdet.errors import SharingError

LAYERS = ("conv", "grouped", "up", "norm", "first", "last")


class Net(nn.Module):
    """One layer of each kind that shares its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.up(self.grouped(self.conv(x))))
        return self.last(self.first(x.mean((2, 3))))


def shared() -> Slimmable:
    scope = Scope("all", (".*",), keep=("last",))
    return slim(Net(), (0.5, 1.0), scope, example=(torch.zeros(1, 3, 8, 8),), norm_sharing="shared")


def with_data(weight: Tensor) -> None:
    weight.data.fill_(7)


def with_data_copy(weight: Tensor) -> None:
    weight.data.copy_(torch.full_like(weight, 7))


@torch.no_grad()
def without_gradients(weight: Tensor) -> None:
    weight.mul_(0).add_(7)


@torch.no_grad()
def by_index(weight: Tensor) -> None:
    weight[...] = 7


def initialized(weight: Tensor) -> None:
    nn.init.constant_(weight, 7)


def detached(weight: Tensor) -> None:
    weight.detach().fill_(7)


@pytest.mark.parametrize(
    "write", [with_data, with_data_copy, without_gradients, by_index, initialized, detached], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("kind", ["weight", "bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_written_in_place_is_the_shared_corner(name: str, kind: str, write: Callable[[Tensor], None]) -> None:
    model = shared()
    wide: Any = model.twin(1.0).get_parameter(f"{name}.{kind}")
    narrow = model.twin(0.5).get_submodule(name)
    before = wide.detach().clone()
    write(getattr(narrow, kind))
    corner = narrow.corner(kind)  # pyright: ignore[reportCallIssue]
    assert torch.equal(wide[corner], torch.full_like(wide[corner], 7))
    assert int((wide != before).sum()) == wide[corner].numel()


@pytest.mark.parametrize("name", LAYERS)
def test_writing_where_gradients_are_recorded_raises(name: str) -> None:
    layer: Any = shared().twin(0.5).get_submodule(name)
    with pytest.raises(RuntimeError, match="in-place operation"):
        layer.weight.mul_(0)


@pytest.mark.parametrize("name", LAYERS)
def test_a_shared_parameter_is_not_replaced(name: str) -> None:
    model = shared()
    narrow, wide = model.twin(0.5).get_submodule(name), model.twin(1.0).get_submodule(name)
    for value in (nn.Parameter(torch.zeros(4)), None):
        with pytest.raises(SharingError, match=r"weight is shared .*write into it in place.*model\.extract"):
            narrow.weight = value  # pyright: ignore
    assert narrow._parameters["weight"] is wide._parameters["weight"]


class Doubled(nn.Linear):
    """A linear with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_linears_equal_extracted_ones_to_the_last_bit_and_keep_their_own_forward() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(50, 400), nn.Linear(400, 300), Doubled(300, 7))
    model = slim(network, (0.3, 1.0), Scope("all", (".*",)), example=(torch.zeros(1, 50),))
    x = torch.randn(33, 50)
    plain: Any = model.extract(0.3)
    hidden = model.twin(0.3)[1](model.twin(0.3)[0](x))  # pyright: ignore[reportIndexIssue]
    assert torch.equal(hidden, plain[1](plain[0](x)))
    torch.testing.assert_close(model(x, width=0.3), plain(x))
    torch.testing.assert_close(plain(x), 2 * F.linear(hidden, plain[2].weight, plain[2].bias))


class ScaledConv(nn.Conv2d):
    """A subclass with a forward of its own, such as libraries have for padding or weight standardisation."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * self._conv_forward(F.pad(input, (1, 1, 1, 1)), self.weight, self.bias)


def test_subclasses_keep_their_own_forward() -> None:
    network = nn.Sequential(ScaledConv(3, 8, 3), nn.Conv2d(8, 4, 1))
    model = slim(network, (0.5, 1.0), Scope("all", (".*",)), example=(torch.zeros(1, 3, 4, 4),))
    x = torch.randn(1, 3, 4, 4)
    plain = model.extract(0.5)
    assert type(plain[0]) is ScaledConv  # pyright: ignore[reportIndexIssue]
    expected = 2 * F.conv2d(x, network[0].weight[:4], network[0].bias[:4], padding=1)  # pyright: ignore
    expected = F.conv2d(expected, network[1].weight[:2, :4], network[1].bias[:2])  # pyright: ignore
    torch.testing.assert_close(plain(x), expected)
    assert_tied(copy.deepcopy(model))
    assert torch.equal(copy.deepcopy(model)(x, width=0.5), plain(x))
