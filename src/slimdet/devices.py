"""Which device the work runs on."""

from pathlib import Path
from typing import TYPE_CHECKING

from slimdet.errors import ConfigError

if TYPE_CHECKING:
    import torch

# GPUs of NVIDIA's with bfloat16, by compute capability: from Ampere on; older ones emulate it.
BFLOAT16_CAPABILITY = (8, 0)
# In /proc/cpuinfo, of x86 (Intel from Cooper Lake, with AMX from Sapphire Rapids, AMD from Zen 4) and of ARM.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


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


def bfloat16_units(device: "torch.device") -> bool:
    """Whether the device has instructions for bfloat16: with them it is about twice as fast, without them slower."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return device.type == "cpu" and cpu_has_bfloat16()


def cpu_has_bfloat16() -> bool:
    """Whether this machine's processor has instructions for bfloat16; False where that is not known (not Linux)."""
    try:
        return bool(BFLOAT16_FLAGS & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False
