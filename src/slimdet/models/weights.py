"""Files of weights: read without executing anything, and copied into a network only if everything fits."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdet.errors import WeightsError
from slimdet.messages import first_line, listed


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a .safetensors, .pth or .pt file, as `read_checkpoint` finds it.

    Raises:
        WeightsError: as `read_checkpoint`.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a .safetensors, .pth or .pt file without executing anything in it.

    The state dict may lie bare, or under "state_dict" or "model"; a leading `module.`, as parallel training leaves it,
    is removed from its keys.

    Returns:
        The state dict, and what lies beside it ("meta", "optimizer"): plain data and tensors.

    Raises:
        WeightsError: no such file, not readable without executing code, or without a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {str(path)!r}; give a .pth or .safetensors")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on foreign bytes
        raise WeightsError(f"weights file {path} {_reason(error)}") from error
    wrapper = next((key for key in ("state_dict", "model") if _maps(content) and _maps(content.get(key))), None)
    state = content[wrapper] if wrapper else content
    if not (_maps(state) and state and all(map(_is_entry, state.items()))):
        found = f"entries {listed(list(map(str, state)))}" if _maps(state) else f"a {type(state).__name__}"
        raise WeightsError(
            f"weights file {path} holds no state dict (names to tensors), bare or under 'state_dict', but {found}"
        )
    rest = {key: value for key, value in content.items() if key != wrapper} if wrapper else {}
    return {key.removeprefix("module."): value for key, value in state.items()}, rest


def _reason(error: Exception) -> str:
    if refused := re.search(r"GLOBAL (\S+)", str(error)):  # torch names what it refused to call
        return f"names {refused[1]}, which slimdet never executes; save the bare state dict with torch.save"
    if isinstance(error, pickle.UnpicklingError):
        return "is no file of tensors; give a .pth or .safetensors"
    return f"cannot be read ({first_line(error)[:200]}); give a .pth or .safetensors"


def _maps(content: Any) -> bool:
    return isinstance(content, Mapping)


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def fit(
    network: nn.Module,
    state: dict[str, Tensor],
    unused: set[str],
    complaint: str,
    way_out: str = "give the file of this backbone, or --weights none",
) -> None:
    """Copy a state dict into a network, converting fp16 to the network's fp32.

    Args:
        network: what is filled, in place; untouched if the state dict is refused.
        state: names to tensors.
        unused: keys that may be missing or of any shape, and are not copied.
        complaint, way_out: how the error begins, and how it ends.

    Raises:
        WeightsError: a key is missing, unexpected, of another shape, or holds other than finite floats.
    """
    expected = network.state_dict()
    counter = "num_batches_tracked"  # only used by averaging norms without momentum; older files lack it
    given = {key: value for key, value in state.items() if key not in unused and not key.endswith(counter)}
    needed = {key: value for key, value in expected.items() if key not in unused and not key.endswith(counter)}
    faults = {
        "missing": sorted(needed.keys() - given.keys()),
        "unexpected": sorted(given.keys() - needed.keys()),
        "wrong shape": [
            f"{key} {list(value.shape)} instead of {list(needed[key].shape)}"
            for key, value in given.items()
            if key in needed and value.shape != needed[key].shape
        ],
        "not finite floats": [
            key for key, value in given.items() if not value.is_floating_point() or not value.isfinite().all()
        ],
    }
    if any(faults.values()):
        lines = [f"{kind}: {listed(keys, 5)}" for kind, keys in faults.items() if keys]
        raise WeightsError(f"{complaint}: {'; '.join(lines)}; {way_out}")
    network.load_state_dict(given, strict=False)  # its own check would be of shapes only
