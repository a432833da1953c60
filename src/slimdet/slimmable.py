"""One detector at many widths, with one set of weights.

Each width is the ordinary detector built narrower, a *twin*. Its convolutions and linears hold the same Parameter
objects as the widest detector and compute with their leading corner `weight[:out, :in]`; its norms are its own
("Slimmable Neural Networks", ICLR 2019, section 3.2: switchable batch norm). The width is read once, in
`Slimmable.forward`; nothing below knows it.

Letters: B images, C channels of a layer in the widest detector, w width.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from slimdet.errors import SharingError, UnknownLayerError, WidthError
from slimdet.scopes import Scope, get_scope
from slimdet.tracing import CONVOLUTIONS, NORMS, Geometry, trace

# ------------------------------------------------------------------------------------------------- widths


def parse_width(width: Any) -> float:
    """Return the width as it is stored and named everywhere: a float in (0, 1], rounded to 4 decimals.

    Raises:
        WidthError: not a number, NaN, or outside (0, 1].
    """
    try:
        value = round(float(width), 4)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if isinstance(width, bool) or not 0 < value <= 1:
        raise WidthError(f"width {width!r} is not a number in (0, 1], such as 0.25, 0.5 or 1.0")
    return value


def parse_widths(widths: Iterable[Any]) -> tuple[float, ...]:
    """Return the widths in ascending order, each as `parse_width` gives it.

    Raises:
        WidthError: a malformed or repeated width, or 1.0 is missing.
    """
    values = sorted(parse_width(width) for width in widths)
    for first, second in itertools.pairwise(values):
        if first == second:
            raise WidthError(f"width {first} is given twice (widths are rounded to 4 decimals); give each once")
    if not values or values[-1] != 1.0:
        raise WidthError(f"widths {tuple(values)} must contain 1.0, the detector itself; add 1.0")
    return tuple(values)


def width_key(width: float) -> str:
    """The name of a width inside a state dict; a module's name may not hold a dot: 0.25 -> '0_25'."""
    return str(width).replace(".", "_")


# ------------------------------------------------------------------------------------------------- sliced layers


class Sliced(nn.Module):
    """Mixin over a convolution or linear class: the layer computes with a corner of a shared weight.

    `_parameters["weight"]` is the widest layer's own Parameter object; `.weight`, which every subclass's forward
    reads, is its leading corner. Shared tensors belong to the widest detector: a sliced layer neither saves, loads
    nor converts them.
    """

    _corner: tuple[slice, ...]
    _out: int
    _own_bias: bool

    @property
    def weight(self) -> Tensor:
        corner = cast(Tensor, self._parameters["weight"])[self._corner]
        # A matrix product depends, in its last bit, on the distance between rows: take the one of an extracted layer.
        return corner.contiguous() if corner.dim() == 2 else corner

    @property
    def bias(self) -> Tensor | None:
        bias = self._parameters["bias"]
        return bias if bias is None or self._own_bias else bias[: self._out]

    def _shared(self) -> tuple[str, ...]:
        return ("weight",) if self._own_bias else ("weight", "bias")

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

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if self._own_bias:
            bias = cast(Tensor, self._parameters["bias"])
            destination[prefix + "bias"] = bias if keep_vars else bias.detach()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._without_shared(lambda: super(Sliced, self)._load_from_state_dict(*args, **kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_sliced, (self._plain_class(),), self.__dict__  # the class is made at run time: name its parts

    def _plain_class(self) -> type[nn.Module]:
        return type(self).__bases__[1]

    def _unslice(self) -> None:
        """Turn this layer, in place, into the plain narrow layer that it computes."""
        with torch.no_grad():
            weight = self._parameters["weight"]
            bias = self._parameters["bias"]
            assert weight is not None
            own = {"weight": nn.Parameter(self.weight.detach().clone(), weight.requires_grad), "bias": None}
            if bias is not None:
                own["bias"] = nn.Parameter(cast(Tensor, self.bias).detach().clone(), bias.requires_grad)
        self.__class__ = self._plain_class()  # pyright: ignore[reportAttributeAccessIssue]
        self._parameters = own
        for name in ("_corner", "_out", "_own_bias"):
            del self.__dict__[name]


@cache
def _sliced_class(plain: type[nn.Module]) -> type[Sliced]:
    return cast(type[Sliced], type(f"Sliced{plain.__name__}", (Sliced, plain), {"__module__": __name__}))


def _new_sliced(plain: type[nn.Module]) -> Sliced:
    cls = _sliced_class(plain)
    return cls.__new__(cls)


def _slice_layer(layer: nn.Module, geometry: Geometry) -> None:
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
    layer.__class__ = _sliced_class(type(layer))  # pyright: ignore[reportAttributeAccessIssue]
    sliced = cast(Sliced, layer)
    sliced._corner, sliced._out, sliced._own_bias = corner, out, geometry.own_bias
    if geometry.own_bias:
        bias = cast(nn.Parameter, sliced._parameters["bias"])
        sliced._parameters["bias"] = nn.Parameter(bias[:out].detach().clone(), bias.requires_grad)


def _slice_norm(norm: nn.Module, channels: int) -> None:
    """Turn a norm, in place, into one of its own over the leading channels."""
    for name, parameter in norm._parameters.items():
        if parameter is not None:
            norm._parameters[name] = nn.Parameter(parameter[:channels].detach().clone(), parameter.requires_grad)
    for name, buffer in norm._buffers.items():
        if buffer is not None:  # num_batches_tracked has no channels
            norm._buffers[name] = (buffer[:channels] if buffer.dim() else buffer).clone()
    if isinstance(norm, nn.GroupNorm):
        norm.num_groups = channels * norm.num_groups // norm.num_channels
        norm.num_channels = channels
    elif isinstance(norm, _BatchNorm):
        norm.num_features = channels


# ------------------------------------------------------------------------------------------------- the model


def check_layers(detector: nn.Module) -> None:
    """Refuse what slimdet cannot narrow.

    Raises:
        UnknownLayerError: a layer or a bare parameter of an unknown kind, by its dotted name.
    """
    for name, module in detector.named_modules():
        own = {key for key, value in module._parameters.items() if value is not None}
        if isinstance(module, Sliced | Slimmable):
            raise UnknownLayerError(f"{name or 'the detector'} is slimmable already; hand over an ordinary detector")
        if not name and (own or module._buffers):
            entry = min(own | set(module._buffers))
            raise UnknownLayerError(f"the detector itself holds the tensor {entry!r}; put it into a submodule")
        if not own:
            continue
        kind = type(module).__name__
        known = isinstance(module, (*CONVOLUTIONS, nn.Linear, *NORMS)) and own <= {"weight", "bias"}
        if not known or "weight" not in module._parameters or any(is_lazy(p) for p in module.parameters(False)):
            raise UnknownLayerError(
                f"{name} ({kind} with {', '.join(sorted(own))}) is of a kind that slimdet cannot narrow; known are "
                "Conv, ConvTranspose, Linear, BatchNorm, FrozenBatchNorm2d, GroupNorm and their subclasses"
            )


def build_twin(detector: nn.Module, width: float, scope: Scope, example: tuple[Any, ...] | None = None) -> nn.Module:
    """Build the detector at `width`: shared weights, own norms, and whatever else a module holds copied.

    Raises:
        WidthError: the width leaves a layer without a channel or splits a group.
        UnknownLayerError: a layer that the dry run does not reach or that sees varying channels.
    """
    shared = {id(parameter): parameter for parameter in detector.parameters()}
    twin = copy.deepcopy(detector, cast(dict[int, Any], dict(shared)))
    geometries = trace(twin, width, scope, example)
    for name, geometry in geometries.items():
        layer = twin.get_submodule(name)
        if isinstance(layer, NORMS):
            _slice_norm(layer, geometry.outputs)
        else:
            _slice_layer(layer, geometry)
    return twin


class Slimmable(nn.Module):
    """One detector at several widths; built by `slim`.

    `state_dict()` holds the widest detector's ordinary keys, and under `twins.0_25.` and so on what belongs to each
    other width: its norms, and its biases where the scope says so. Every shared tensor is named once. Conversion
    (`.to`, `.half`, `.to_empty`), loading (also with `assign=True`), deep copies, `torch.save`, weight averaging and
    one optimizer over `parameters()` keep the sharing.
    """

    _widest: nn.Module
    twins: nn.ModuleDict
    # What a bundle says of its model, set by `slimdet.load`: names of the labels 1..K, their ids in annotations,
    # numbers measured by width, settings of the training.
    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    metrics: Mapping[str, Any] = {}
    training_settings: Mapping[str, Any] = {}

    def __init__(self, detector: nn.Module, scope: Scope) -> None:
        super().__init__()
        # The detector's parts are this module's parts, so that the widest's state dict keys are the ordinary ones;
        # the detector object itself stays out of the module tree.
        object.__setattr__(self, "_widest", detector)
        self.scope = scope
        for name, child in detector.named_children():
            self.add_module(name, child)
        self.twins = nn.ModuleDict()
        self.training = detector.training
        self.register_load_state_dict_post_hook(_retie)

    @property
    def widths(self) -> tuple[float, ...]:
        """All widths, ascending; the last is 1.0."""
        return (*sorted(float(key.replace("_", ".")) for key in self.twins), 1.0)

    def twin(self, width: float) -> nn.Module:
        """Return the live detector of one width: weights shared with the others, norms its own.

        Raises:
            WidthError: the model does not have this width.
        """
        value = parse_width(width)
        if value == 1.0:
            return self._widest
        key = width_key(value)
        if key not in self.twins:
            known, more = ", ".join(map(str, self.widths)), ",".join(map(str, sorted((*self.widths, value))))
            way = f"train it in with 'slimdet train --weights BUNDLE --widths {more}'"
            raise WidthError(f"width {value} is not one of {known}; {way}")
        return self.twins[key]

    def forward(self, images: Any, targets: Any = None, width: float | None = None) -> Any:
        """Run the detector at one width.

        Args:
            images: what the detector takes, for torchvision's a list of B float tensors [3, H, W] in 0..1.
            targets: what the detector takes; needed in training.
            width: one of `widths`; in eval mode 1.0 where none is given.

        Returns:
            What the detector returns: in training a dict of scalar losses, in eval a list of B dicts
            {boxes [N, 4] x1 y1 x2 y2 in pixels, labels [N], scores [N] in 0..1, ...}.

        Raises:
            WidthError: training without a width, or a width that the model does not have.
        """
        if width is None:
            if self.training:
                raise WidthError(f"training needs a width: model(images, targets, width=...), one of {self.widths}")
            width = 1.0
        detector = self.twin(width)
        return detector(images) if targets is None else detector(images, targets)

    def extract(self, width: float) -> nn.Module:
        """Return a plain detector of this width: its own tensors, ordinary layers, no slimdet class, no sharing.

        Raises:
            WidthError: the model does not have this width.
        """
        twin = self.twin(width)
        # Full-size weights are not copied only to be cut: sliced layers hold on to them until they are unsliced.
        sliced = [module for module in twin.modules() if isinstance(module, Sliced)]
        held = {id(parameter): parameter for layer in sliced for parameter in layer.parameters(recurse=False)}
        plain = copy.deepcopy(twin, cast(dict[int, Any], held))
        for module in list(plain.modules()):
            if isinstance(module, Sliced):
                module._unslice()
        return plain

    def tie(self) -> None:
        """Make every width hold the widest detector's Parameter objects again."""
        for twin in self.twins.values():
            for name, module in twin.named_modules():
                if isinstance(module, Sliced):
                    module._tie(self._widest.get_submodule(name))

    def train(self, mode: bool = True) -> "Slimmable":
        self._widest.training = mode  # not part of the module tree, see __init__
        super().train(mode)
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Slimmable":
        for child in self._widest.children():
            child._apply(fn)
        for twin in self.twins.values():
            for module in twin.modules():
                if isinstance(module, Sliced):
                    module._apply_own(fn)
                else:
                    module._apply(fn, recurse=False)
        self.tie()
        return self


def _retie(model: Slimmable, incompatible_keys: Any) -> None:
    model.tie()


def slim(
    detector: nn.Module,
    widths: Iterable[float] = (0.25, 0.5, 0.75, 1.0),
    scope: str | Scope = "detector",
    example: tuple[Any, ...] | None = None,
) -> Slimmable:
    """Make a detector slimmable. The detector handed over becomes width 1.0 and is not changed.

    Args:
        detector: any torchvision detector, or another module made of convolutions, linears and norms.
        widths: fractions of the channels, each in (0, 1], 1.0 among them. A layer of C channels gets `int(w * C)`.
        scope: "detector" narrows everything but the outputs; "backbone" what the original system narrows; or a Scope.
        example: positional arguments of a forward pass that reaches every layer, for the dry run that finds how many
            channels a layer receives; the default is a list of one image [3, 64, 64].

    Raises:
        WidthError: a malformed or repeated width, 1.0 missing, or a width that does not fit the detector.
        UnknownLayerError: a layer or bare parameter that cannot be narrowed.
        ConfigError: no such scope.
    """
    scope = get_scope(scope)
    values = parse_widths(widths)
    check_layers(detector)
    layers = [name for name, module in detector.named_modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    if not any(scope.narrows(name) for name in layers):
        raise UnknownLayerError(f"scope {scope.name!r} narrows no layer of {type(detector).__name__}; pass a Scope")
    if scope.keep and scope.name == "detector" and not any(scope.keeps(name) for name in layers):
        raise UnknownLayerError(
            f"scope 'detector' finds no output layer in {type(detector).__name__}: pass a Scope that names those "
            "whose channels mean classes, boxes or masks"
        )
    model = Slimmable(detector, scope)
    for value in values[:-1]:
        model.twins[width_key(value)] = build_twin(detector, value, scope, example)
    return model
