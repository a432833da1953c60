"""Slimmable object detection: one detector, one set of weights, run at any width."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slimdet.bundle import load, save
    from slimdet.runtime.detector import Runtime
    from slimdet.runtime.result import Result
    from slimdet.slimmable import Slimmable, slim

__version__ = "0.1.0"
__all__ = ["Result", "Runtime", "Slimmable", "load", "save", "slim"]

# Resolved on first use: `import slimdet` must not import torch.
_HOME = {
    "slim": "slimmable",
    "Slimmable": "slimmable",
    "save": "bundle",
    "load": "bundle",
    "Runtime": "runtime.detector",
    "Result": "runtime.result",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'slimdet' has no attribute {name!r}")
    return getattr(import_module(f"slimdet.{_HOME[name]}"), name)
