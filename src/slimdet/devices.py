"""Which device the work runs on."""

from typing import TYPE_CHECKING

from slimdet.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device of that name; "auto" is the first of CUDA, MPS and the CPU that is there.

    Raises:
        ConfigError: not a device, or one that this machine does not have.
    """
    import torch  # here alone: the ground floor is importable without it

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} is not to be had here ({str(error).splitlines()[0]}); use cpu") from error
    return device
