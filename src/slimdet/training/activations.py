"""Activation checkpointing of the backbone (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed_backbone(detector: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Keep only what goes into each block of the backbone; the backward pass computes the block's inside again.

    The result is the same: what batch norms learn of a batch they learn once.

    Args:
        detector: one of torchvision's; the backward pass has to lie within the block, too.
        enabled: whether anything is to happen.
    """
    backbone: Any = detector.backbone
    blocks = _blocks(getattr(backbone, "body", backbone)) if enabled else []
    for block in blocks:
        block.__dict__["forward"] = _recomputed(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]  # the class's method is seen again


def _blocks(body: nn.Module) -> list[nn.Module]:
    """The smallest parts of a backbone that have several layers each: residual blocks, a convolution with its norm."""
    children = list(body.children())
    if not children:
        return []
    if isinstance(body, nn.Sequential | nn.ModuleDict) and any(list(child.children()) for child in children):
        return [block for child in children for block in _blocks(child)]
    return [body]


def _recomputed(block: nn.Module) -> Callable[[Tensor], Tensor]:
    forward = block.forward

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_aside(block)

    def run(input: Tensor) -> Tensor:
        return checkpoint(forward, input, use_reentrant=False, context_fn=contexts)  # pyright: ignore[reportReturnType]

    return run


@contextmanager
def _statistics_aside(block: nn.Module) -> Iterator[None]:
    """Let batch norms write their running statistics into copies: they have seen this batch."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [norm._buffers for norm in norms]
    for norm in norms:
        norm._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in norm._buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers = buffers
