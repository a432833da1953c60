"""A twin: the detector built narrower, with the widest's Parameter objects."""

import copy
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from slimdet.core.scopes import Scope
from slimdet.core.sliced import Sliced, slice_layer, slice_norm
from slimdet.core.tracing import NORMS, trace


def build_twin(
    detector: nn.Module,
    width: float,
    scope: Scope,
    example: tuple[Any, ...] | None = None,
    norm_sharing: str = "own",
    plan: Mapping[str, float] | None = None,
) -> nn.Module:
    """Build the detector at `width`: shared weights, own norms, and whatever else a module holds copied.

    Args:
        detector, width, scope, example, norm_sharing: as `slim` takes them.
        plan: widths of the stages that differ from `width`.

    Raises:
        WidthError: the width leaves a layer without a channel or splits a group, or the plan names no layer.
        UnknownLayerError: a layer that the dry run does not reach or that sees varying channels.
    """
    shared = {id(parameter): parameter for parameter in detector.parameters()}
    twin = copy.deepcopy(detector, cast(dict[int, Any], dict(shared)))
    for name, geometry in trace(twin, width, scope, example, plan).items():
        layer = twin.get_submodule(name)
        if isinstance(layer, NORMS):
            slice_norm(layer, geometry.outputs, norm_sharing == "shared")
        else:
            geometry.own_bias &= norm_sharing == "own"
            slice_layer(layer, geometry)
    return twin


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and statistics of a twin's module that it does not share, by name."""
    shared = module._shared() if isinstance(module, Sliced) else ()
    tensors = {name: tensor for name, tensor in module._parameters.items() if name not in shared}
    return {name: tensor for name, tensor in (tensors | module._buffers).items() if tensor is not None}
