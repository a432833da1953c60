"""Which device the work runs on."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from slimdet.errors import ConfigError

if TYPE_CHECKING:
    import torch

# GPUs of NVIDIA's with bfloat16, by compute capability: from Ampere on; older ones emulate it.
BFLOAT16_CAPABILITY = (8, 0)
# oneDNN makes code for each layer, pass and size of image, and keeps 1,024 pieces unless told otherwise: those of one
# step of four widths. With images of several sizes it would make all of them again, step by step (a sixth of the time:
# benchmarks/training/sizes.py).
KEPT_KERNELS = 4096


def choose_device(name: str = "auto") -> "torch.device":
    """Return the device of that name; "auto" is the first of CUDA, MPS and the CPU that is there.

    For the CPU, oneDNN is told to keep its code for images of many sizes; it listens if no layer has run yet.

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
    if device.type == "cpu":
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))
    return device


def bfloat16_units(device: "torch.device") -> bool:
    """Whether the device has instructions for bfloat16: with them it is about twice as fast, without them slower."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
    return device.type == "cpu" and bool(cpu_units()["bf16"])


# Instructions that multiply numbers of fewer bits, as Linux names them; x86 (bfloat16: Intel from Cooper Lake, with AMX
# from Sapphire Rapids, AMD from Zen 4) and ARM.
_UNITS = {
    "int8": ("avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
}


def cpu_saturates() -> bool:
    """Whether 8-bit products are added in 16 bits, and large sums lost: x86 without the instructions above."""
    return platform.machine().lower() in ("x86_64", "amd64") and not cpu_units()["int8"]


def cpu_units() -> dict[str, list[str]]:
    """The processor's instructions for numbers of fewer than 32 bits, by precision: {"int8": ["avx512_vnni"], ...}.

    Empty lists where the system does not tell (it is not Linux).
    """
    try:
        words = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    except OSError:
        words = set()
    return {precision: [name for name in names if name in words] for precision, names in _UNITS.items()}


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def cpu_name() -> str:
    """The processor, in its maker's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return names[0] if names else platform.processor() or platform.machine()
