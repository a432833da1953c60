"""What `slim` refuses before it starts: layers that cannot be narrowed, and scopes that would narrow the outputs."""

from torch import nn
from torch.nn.parameter import is_lazy

from slimdet.core.scopes import DETECTOR, Scope
from slimdet.core.tracing import CONVOLUTIONS, NORMS
from slimdet.errors import UnknownLayerError


def check_layers(detector: nn.Module) -> None:
    """Refuse what slimdet cannot narrow.

    Raises:
        UnknownLayerError: a layer or a bare parameter of an unknown kind, by its dotted name.
    """
    for name, module in detector.named_modules():
        own = {key for key, value in module._parameters.items() if value is not None}
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


def check_scope(detector: nn.Module, scope: Scope) -> None:
    """Refuse a scope that was not made for this detector.

    Raises:
        UnknownLayerError: it narrows no layer, or "detector" does not find the outputs that must stay.
    """
    kind = type(detector).__name__
    layers = [name for name, module in detector.named_modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))]
    if not any(scope.narrows(name) for name in layers):
        raise UnknownLayerError(f"scope {scope.name!r} narrows no layer of {kind}; pass a Scope")
    if scope == DETECTOR and not any(scope.keeps(name) for name in layers):
        raise UnknownLayerError(
            f"scope 'detector' finds no output layer in {kind}: pass a Scope that names those whose channels mean "
            "classes, boxes or masks"
        )
