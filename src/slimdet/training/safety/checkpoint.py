"""The checkpoint of a training: all that an interrupted one needs to go on as if it had not stopped."""

import random
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

from slimdet.errors import ConfigError
from slimdet.files import atomic_write
from slimdet.messages import first_line

CHECKPOINT = "last.pt"

Optimizer = torch.optim.Optimizer


def save_checkpoint(
    file: Path, model: nn.Module, average: nn.Module | None, optimizer: Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write weights, their average, the optimizer, the state of every random generator, and `facts`.

    Args:
        facts: what else is to be known: "step", "epoch" and "batch" (how much of it is done), "settings", "data" (a
            fingerprint). Plain numbers, texts, lists and dicts.

    Raises:
        OSError: it cannot be written; it names the file, which stays as it was.
    """
    state = {
        **facts,
        "model": model.state_dict(),
        "average": None if average is None else average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": _generators(),
    }
    with atomic_write(file) as temporary, temporary.open("wb") as handle:
        torch.save(state, handle)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing in it executes.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not {"step", "settings", "data", "model"} <= state.keys():
            raise ValueError("it is no checkpoint of this version")
        return state
    except FileNotFoundError:
        raise ConfigError(f"there is no {file}: the run stopped before its first step; start it anew") from None
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise _unusable(file, error) from error


def restore(
    state: Mapping[str, Any], file: Path, model: nn.Module, average: nn.Module | None, optimizer: Optimizer
) -> None:
    """Put weights, average, optimizer and random generators into the state that `read_checkpoint` returned.

    Raises:
        ConfigError: it is of another training; `file` is named.
    """
    try:
        model.load_state_dict(state["model"])
        if average is not None:
            average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        _set_generators(state["random"])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(file, error) from error


def _unusable(file: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{file} cannot be gone on with ({first_line(error)}); start the training anew")


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [kind, keys.tolist(), *rest],  # pyright: ignore[reportAttributeAccessIssue]
    }


def _set_generators(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():  # on other devices the numbers would be others anyway
        torch.cuda.set_rng_state_all(states["cuda"])
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
