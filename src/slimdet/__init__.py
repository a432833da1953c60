"""Slimmable object detection: one detector, one set of weights, run at any width."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimdet.bundle.store import load, save
    from slimdet.core.slimmable import Slimmable, slim
    from slimdet.runtime.detector import Runtime
    from slimdet.runtime.result import Result

__version__ = "0.1.0"
__all__ = ["Result", "Runtime", "Slimmable", "load", "save", "slim"]

# Resolved on first use: `import slimdet` must not import torch.
_HOME = {
    "slim": "core.slimmable",
    "Slimmable": "core.slimmable",
    "save": "bundle.store",
    "load": "bundle.store",
    "Runtime": "runtime.detector",
    "Result": "runtime.result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'slimdet' has no attribute {name!r}")
    return getattr(import_module(f"slimdet.{_HOME[name]}"), name)
