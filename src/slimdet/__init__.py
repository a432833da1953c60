"""Slimmable object detection: one detector, one set of weights, run at any width."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slimdet.errors import (
    BundleError,
    ConfigError,
    DataError,
    ImageError,
    SharingError,
    SlimdetError,
    UnknownLayerError,
    WeightsError,
    WidthError,
)

if TYPE_CHECKING:
    from slimdet.benchmarking.benchmark import benchmark
    from slimdet.bundle.store import load, save
    from slimdet.core.slimmable import Slimmable, slim
    from slimdet.exporting.engine_files import export
    from slimdet.report.validation import val
    from slimdet.runtime.detector import Runtime
    from slimdet.runtime.result import Result
    from slimdet.search.tuning import tune
    from slimdet.streaming.watching import video
    from slimdet.training.calibration import calibrate
    from slimdet.training.runs import train

__version__ = "0.1.0"
__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "ImageError",
    "Result",
    "Runtime",
    "SharingError",
    "SlimdetError",
    "Slimmable",
    "UnknownLayerError",
    "WeightsError",
    "WidthError",
    "benchmark",
    "calibrate",
    "export",
    "load",
    "save",
    "slim",
    "train",
    "tune",
    "val",
    "video",
]

# Resolved on first use: `import slimdet` must not import torch.
_HOME = {
    "slim": "core.slimmable",
    "Slimmable": "core.slimmable",
    "save": "bundle.store",
    "load": "bundle.store",
    "train": "training.runs",
    "val": "report.validation",
    "calibrate": "training.calibration",
    "tune": "search.tuning",
    "benchmark": "benchmarking.benchmark",
    "export": "exporting.engine_files",
    "Runtime": "runtime.detector",
    "Result": "runtime.result",
    "video": "streaming.watching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'slimdet' has no attribute {name!r}")
    return getattr(import_module(f"slimdet.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
