"""A training as callbacks see it, without one running, and reports of its steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from slimdet.evaluation.matching import METRICS
from slimdet.training.processes.distributed import Place
from slimdet.training.watching.callbacks import StepReport


def state_of(folder: Path, **changes: Any) -> Any:
    """At step 0 of 20, 10 an epoch."""
    state: dict[str, Any] = {
        "folder": folder,
        "step": 0,
        "total": 20,
        "steps_per_epoch": 10,
        "callbacks": [],
        "stop": "",
        "val": None,
    }
    state["place"] = Place()
    return SimpleNamespace(**state | changes)


def report(loss: float = 1.0, widths: tuple[float, ...] = (0.5, 1.0), waited: float = 0.0) -> StepReport:
    """Losses of `loss` and half of it at each width."""
    parts = {"loss_a": torch.tensor(loss), "loss_b": torch.tensor(loss / 2)}
    return StepReport(0.01, torch.tensor(2.0), 4, dict.fromkeys(widths, parts), waited)


def measured(**accuracy: float) -> dict[float, Any]:
    """A validation that found an AP at each width: `measured(w0_5=0.3)`."""
    found = {}
    for name, value in accuracy.items():
        width = float(name[1:].replace("_", "."))
        found[width] = SimpleNamespace(width=width, numbers={"bbox": dict.fromkeys(METRICS, value)})
    return found
