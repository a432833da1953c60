"""Layers that compute with the leading corner of a wider layer's weight.

A sliced layer is an ordinary layer whose class is a subclass, made at run time, of the class it had: it holds the
widest layer's Parameter objects and reads `weight[:out, :in]`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimdet.core.tracing import NORMS, Geometry
from slimdet.errors import SharingError


class Sliced(nn.Module):
    """Mixin over a convolution, linear or norm class: the layer computes with a corner of shared parameters.

    `_parameters["weight"]` is the widest layer's own Parameter object; `.weight`, which every subclass's forward
    reads, is its leading corner, a view: writing into it in place writes the shared parameter. Shared tensors belong to
    the widest detector: a sliced layer neither saves, loads, converts nor replaces them.
    """

    _corner: tuple[slice, ...]
    _out: int
    _own_bias: bool

    @property
    def weight(self) -> Tensor | None:
        weight = self._parameters["weight"]
        if weight is None:
            return None
        return weight[self._corner]

    @property
    def bias(self) -> Tensor | None:
        bias = self._parameters["bias"]
        return bias if bias is None or self._own_bias else bias[: self._out]

    def corner(self, name: str) -> tuple[slice, ...]:
        """The part that this layer uses of the tensor it holds as "weight" or "bias"."""
        if name == "weight":
            return self._corner
        return () if self._own_bias else (slice(self._out),)

    def _shared(self) -> tuple[str, ...]:
        return ("weight",) if self._own_bias else ("weight", "bias")

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        if name in self._shared():  # `twin.fc.weight = nn.Parameter(...)` comes here too
            raise SharingError(
                f"{name} is shared with the other widths and cannot be replaced: write into it in place, under "
                "torch.no_grad(), or take a detector of its own with model.extract(width)"
            )
        super().register_parameter(name, param)

    def _tie(self, widest: nn.Module) -> None:
        """Hold the widest layer's Parameter objects again, after an operation that made new ones."""
        for name in self._shared():
            self._parameters[name] = widest._parameters[name]

    def _without_shared(self, operation: Callable[[], Any]) -> None:
        everything = self._parameters
        self._parameters = {k: v for k, v in everything.items() if k not in self._shared()}
        try:
            operation()
            everything.update(self._parameters)
        finally:
            self._parameters = everything

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Sliced":
        raise SharingError(
            "a width's layers share their weights with the other widths: convert or move the whole model, "
            "model.to(...), or take a detector of its own with model.extract(width)"
        )

    def _apply_own(self, fn: Callable[..., Any]) -> None:
        self._without_shared(lambda: super(Sliced, self)._apply(fn, recurse=False))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._without_shared(lambda: super(Sliced, self)._save_to_state_dict(*args, **kwargs))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._without_shared(lambda: super(Sliced, self)._load_from_state_dict(*args, **kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_sliced, (self._plain_class(),), self.__dict__  # the class is made at run time: name its parts

    def _plain_class(self) -> type[nn.Module]:
        return type(self).__bases__[1]

    def _unslice(self) -> None:
        """Turn this layer, in place, into the plain narrow layer that it computes."""
        with torch.no_grad():
            own: dict[str, nn.Parameter | None] = {}
            for name, corner in (("weight", self.weight), ("bias", self.bias)):
                trained = self._parameters[name]
                own[name] = (
                    None
                    if trained is None or corner is None
                    else nn.Parameter(corner.detach().clone(), trained.requires_grad)
                )
        self.__class__ = self._plain_class()  # pyright: ignore[reportAttributeAccessIssue]
        self._parameters = own
        for name in ("_corner", "_out", "_own_bias"):
            del self.__dict__[name]


def _linear(self: Any, input: Tensor) -> Tensor:
    # A matrix product depends, in its last bit, on the distance between rows: take the one of an extracted layer.
    return F.linear(input, self.weight.contiguous(), self.bias)


@cache
def _sliced_class(plain: type[nn.Module]) -> type[Sliced]:
    members: dict[str, Any] = {"__module__": __name__}
    if plain.forward is nn.Linear.forward:
        members["forward"] = _linear
    return cast(type[Sliced], type(f"Sliced{plain.__name__}", (Sliced, plain), members))


def _new_sliced(plain: type[nn.Module]) -> Sliced:
    cls = _sliced_class(plain)
    return cls.__new__(cls)


def _slice(layer: nn.Module, corner: tuple[slice, ...], out: int, own_bias: bool) -> None:
    """Turn a layer whose sizes are set, in place, into its sliced form."""
    layer.__class__ = _sliced_class(type(layer))  # pyright: ignore[reportAttributeAccessIssue]
    sliced = cast(Sliced, layer)
    sliced._corner, sliced._out, sliced._own_bias = corner, out, own_bias


def slice_layer(layer: nn.Module, geometry: Geometry) -> None:
    """Turn a convolution or linear, in place, into its sliced form."""
    out, inputs, groups = geometry.outputs, geometry.inputs, geometry.groups
    if isinstance(layer, nn.Linear):
        corner = (slice(out), slice(inputs))
        layer.out_features, layer.in_features = out, inputs
    else:
        conv = cast(nn.Conv2d, layer)
        if isinstance(layer, nn.ConvTranspose2d):  # its weight is [in, out / groups, ...]
            corner = (slice(inputs), slice(out // groups))
        else:  # [out, in / groups, ...]
            corner = (slice(out), slice(inputs // groups))
        conv.out_channels, conv.in_channels, conv.groups = out, inputs, groups
    _slice(layer, corner, out, geometry.own_bias)
    if geometry.own_bias:
        bias = cast(nn.Parameter, layer._parameters["bias"])
        layer._parameters["bias"] = nn.Parameter(bias[:out].detach().clone(), bias.requires_grad)


def slice_norm(norm: nn.Module, channels: int, shared: bool) -> None:
    """Turn a norm, in place, into one over the leading channels.

    Its statistics are its own; so are its weight and bias, unless they are `shared`: then they are leading slices of
    the widest's.
    """
    assert isinstance(norm, NORMS)
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = channels * norm.num_groups // norm.num_channels
        norm.num_channels = channels
    elif isinstance(norm, _BatchNorm):
        norm.num_features = channels
    for name, buffer in norm._buffers.items():
        if buffer is not None:  # num_batches_tracked has no channels
            norm._buffers[name] = (buffer[:channels] if buffer.dim() else buffer).clone()
    if shared and norm._parameters:  # frozen batch norm has no parameters
        _slice(norm, (slice(channels),), channels, own_bias=False)
        return
    for name, parameter in norm._parameters.items():
        if parameter is not None:
            norm._parameters[name] = nn.Parameter(parameter[:channels].detach().clone(), parameter.requires_grad)
