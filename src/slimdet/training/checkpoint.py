"""The checkpoint of a training: all that an interrupted one needs to go on as if it had not stopped."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from slimdet.errors import ConfigError
from slimdet.files import atomic_write
from slimdet.messages import first_line

CHECKPOINT = "last.pt"


def save_checkpoint(
    file: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write weights, their average, the optimizer, the number of steps done and torch's random state."""
    state = {
        "model": model.state_dict(),
        "average": None if average is None else average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "random": torch.get_rng_state(),
    }
    with atomic_write(file) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    file: Path, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer, device: torch.device
) -> int:
    """Restore what `save_checkpoint` wrote; return the number of steps done.

    Raises:
        ConfigError: the file is damaged or of another training.
    """
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        if average is not None:
            average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        return state["step"]
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise ConfigError(f"{file} cannot be gone on with ({reason}); start the training anew") from error
