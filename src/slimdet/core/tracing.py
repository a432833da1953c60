"""The dry run: how many channels each layer of a narrower detector receives and gives.

Every layer is replaced for one forward pass by a stand-in that looks at its input, decides its own channels and returns
a constant of the right shape. Nothing is computed, so that the run costs milliseconds at any image size, and whatever
the detector does between its layers (adding, pooling, flattening) needs no rule here.

Letters: C channels of a layer in the widest detector, w width.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torchvision.ops import FrozenBatchNorm2d

from slimdet.core.scopes import Scope
from slimdet.errors import SlimdetError, UnknownLayerError, WidthError
from slimdet.messages import first_line
from slimdet.widths import WIDTH_STEPS, channels_at, least_width

CONVOLUTIONS = (_ConvNd,)
NORMS = (_BatchNorm, FrozenBatchNorm2d, nn.GroupNorm)

# What stand-ins return. As a logit it is a score near zero, so that no time goes into detections of a dry run.
_FILL = -10.0


@dataclass
class Geometry:
    """What a layer is at one width: channels in and out, groups, and whether its bias is its own."""

    inputs: int
    outputs: int
    groups: int = 1
    own_bias: bool = False


def trace(
    module: nn.Module,
    width: float,
    scope: Scope,
    example: tuple[Any, ...] | None,
    plan: Mapping[str, float] | None = None,
) -> dict[str, Geometry]:
    """Return the geometry of every convolution, linear and norm of `module` at `width`, by dotted name.

    Args:
        plan: widths of stages that differ from `width`, by the beginning of their layers' dotted names.

    Raises:
        WidthError: the width leaves a layer without a channel or splits a group, or the plan names no layer.
        UnknownLayerError: a layer is not reached, or is called with varying numbers of channels.
    """
    run = _DryRun(module, width, scope, plan or {})
    layers = {n: m for n, m in module.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear, *NORMS))}
    _check_stages(run.plan, [name for name in layers if scope.narrows(name)])
    training = {m: m.training for m in module.modules()}
    if example is None:
        reference = next(module.parameters())
        # Stand-ins compute nothing: weights on the meta device do not hinder a run on the CPU.
        device = "cpu" if reference.is_meta else reference.device
        example = ([torch.zeros(3, 64, 64, device=device, dtype=reference.dtype)],)
    try:
        with run.stand_ins(layers), torch.no_grad():
            module.eval()
            module(*example)
    except SlimdetError:
        raise
    except Exception as error:
        reason = first_line(error)
        where = f"{type(module).__name__} does not run at width {width} (after {run.last or 'no layer'}: {reason})"
        if plan:
            raise WidthError(f"{where}; a width plan gives what is added together the same width") from error
        raise UnknownLayerError(f"{where}; something in it depends on the number of channels") from error
    finally:
        for m, mode in training.items():
            m.training = mode
    for name in layers:
        if name not in run.found:
            raise UnknownLayerError(f"{name} is not reached by a forward pass; give an example input that does")
    return run.geometries()


class _DryRun:
    def __init__(self, module: nn.Module, width: float, scope: Scope, plan: Mapping[str, float]) -> None:
        self.module, self.width, self.scope, self.plan = module, width, scope, plan
        self.found: dict[str, Geometry] = {}
        self.normed: set[str] = set()  # layers with a norm right behind them
        self.last = ""

    @contextmanager
    def stand_ins(self, layers: Mapping[str, nn.Module]) -> Iterator[None]:
        try:
            for name, layer in layers.items():
                layer.__dict__["forward"] = self._stand_in(name, layer)
            yield
        finally:
            for layer in layers.values():
                layer.__dict__.pop("forward", None)

    def geometries(self) -> dict[str, Geometry]:
        for name, geometry in self.found.items():
            layer = self.module.get_submodule(name)
            biased = not isinstance(layer, NORMS) and layer._parameters.get("bias") is not None
            geometry.own_bias = biased and self.scope.own_bias and self.scope.narrows(name) and name not in self.normed
        return self.found

    def _stand_in(self, name: str, layer: nn.Module) -> Callable[..., Tensor]:
        if isinstance(layer, NORMS):
            return lambda x: self._norm(name, layer, x)
        if isinstance(layer, nn.Linear):
            return lambda x: self._linear(name, layer, x)
        surrogate = _single_channel(cast(nn.Conv2d, layer))
        return lambda x, *args: self._convolution(name, cast(nn.Conv2d, layer), surrogate, x, *args)

    def _norm(self, name: str, norm: nn.Module, x: Tensor) -> Tensor:
        received = x.shape[1]
        if isinstance(norm, nn.GroupNorm) and received % (norm.num_channels // norm.num_groups):
            raise self._misfit(name, f"{received} channels, not a whole number of groups")
        self._remember(name, Geometry(received, received))
        source = vars(x).pop("source", None)
        if source is not None:
            self.normed.add(source)
        return x

    def _linear(self, name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        out = self._narrowed(name, layer.out_features)
        self._remember(name, Geometry(self._received(name, x.shape[-1], layer.in_features), out))
        return self._result(name, x, (*x.shape[:-1], out))

    def _convolution(self, name: str, layer: nn.Conv2d, surrogate: nn.Module, x: Tensor, *args: Any) -> Tensor:
        received = self._received(name, x.shape[1], layer.in_channels)
        groups = layer.groups
        if groups == 1:
            out = self._narrowed(name, layer.out_channels)
        else:  # the channels per group stay, and the groups follow the input
            groups, rest = divmod(received, layer.in_channels // layer.groups)
            out = groups * (layer.out_channels // layer.groups)
            narrows = received < layer.in_channels and self.scope.narrows(name)
            if rest or (narrows and out != channels_at(self._width_of(name), layer.out_channels)):
                raise self._misfit(name, f"{received} channels, not a whole number of groups")
        self._remember(name, Geometry(received, out, groups))
        spatial = type(layer).forward(surrogate, x[:, :1].to("meta", torch.float32), *args).shape[2:]  # pyright: ignore
        return self._result(name, x, (x.shape[0], out, *spatial))

    def _width_of(self, name: str) -> float:
        stages = [stage for stage in self.plan if name == stage or name.startswith(stage + ".")]
        return self.plan[max(stages, key=len)] if stages else self.width

    def _narrowed(self, name: str, channels: int) -> int:
        width = self._width_of(name)
        out = channels_at(width, channels) if self.scope.narrows(name) else channels
        if out == 0:
            least = least_width(channels)
            raise WidthError(f"width {width} leaves {name} ({channels} channels) without one; use {least} or more")
        return out

    def _received(self, name: str, received: int, full: int) -> int:
        if received > full:
            raise UnknownLayerError(f"{name} receives {received} channels where the widest detector gives {full}")
        return received

    def _remember(self, name: str, geometry: Geometry) -> None:
        if self.found.setdefault(name, geometry) != geometry:
            raise UnknownLayerError(f"{name} is called with varying numbers of channels; each layer may have one")
        self.last = name

    def _result(self, name: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        result = x.new_full(shape, _FILL)
        vars(result)["source"] = name  # read by the norm behind it, if there is one
        return result

    def _misfit(self, name: str, what: str) -> WidthError:
        width = self._width_of(name)
        below, above = _nearest_fits(self.module, name, width, self.scope)
        fits = " and ".join(str(w) for w in (below, above) if w is not None)
        kind = type(self.module.get_submodule(name)).__name__
        return WidthError(f"width {width} gives {name} ({kind}) {what}; the nearest widths that fit are {fits}")


def _check_stages(plan: Mapping[str, float], layers: Sequence[str]) -> None:
    for stage in plan:
        if not any(layer == stage or layer.startswith(stage + ".") for layer in layers):
            known = sorted({layer[:end] for layer in layers for end, sign in enumerate(layer) if sign == "."}, key=len)
            within = [name for name in known if f".{name}.".endswith(f".{stage}.")]  # its end alone was given
            near = ", ".join(within[:2] or get_close_matches(stage, known, n=2, cutoff=0.4) or known[:2])
            raise WidthError(f"the width plan names {stage!r}, where nothing narrows; did you mean {near}?")


def _single_channel(layer: nn.Conv2d) -> nn.Module:
    """The same convolution with one channel and no values: what it does to height and width."""
    surrogate = copy.copy(layer)
    bias = layer._parameters["bias"]
    kernel = layer._parameters["weight"].shape[2:]  # pyright: ignore[reportOptionalMemberAccess]
    surrogate._parameters = {
        "weight": nn.Parameter(torch.empty(1, 1, *kernel, device="meta")),
        "bias": None if bias is None else nn.Parameter(torch.empty(1, device="meta")),
    }
    surrogate.in_channels = surrogate.out_channels = surrogate.groups = 1
    return surrogate.float() if not isinstance(layer, _ConvTransposeNd) else surrogate


def _nearest_fits(module: nn.Module, name: str, width: float, scope: Scope) -> tuple[float | None, float | None]:
    """The nearest widths, below and above, at which every grouped layer that narrows has whole groups."""
    rules: list[tuple[int, int, int, int]] = []  # channels in and out, per group in and out
    for layer_name, layer in module.named_modules():
        if not (scope.narrows(layer_name) or layer_name == name):
            continue
        if isinstance(layer, nn.GroupNorm):
            per_group = layer.num_channels // layer.num_groups
            rules.append((layer.num_channels, layer.num_channels, per_group, per_group))
        elif isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
            inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
            rules.append((layer.in_channels, layer.out_channels, inputs, outputs))

    def fits(w: float) -> bool:
        for c_in, c_out, per_in, per_out in rules:
            received = channels_at(w, c_in)
            if received < per_in or received % per_in or channels_at(w, c_out) != received // per_in * per_out:
                return False
        return True

    step = round(width * WIDTH_STEPS)
    below = next((i / WIDTH_STEPS for i in range(step - 1, 0, -1) if fits(i / WIDTH_STEPS)), None)
    above = next((i / WIDTH_STEPS for i in range(step + 1, WIDTH_STEPS + 1) if fits(i / WIDTH_STEPS)), None)
    return below, above
