"""Files of weights: read without executing anything, and copied into a network only if everything fits."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slimdet.errors import WeightsError
from slimdet.messages import first_line, listed


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors, .pth or .pt file without executing anything in it.

    It may lie bare, or under "model" or "state_dict"; a leading `module.` is removed from the keys.

    Raises:
        WeightsError: no such file, not readable without executing code, or not a state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"--weights {path} is no file; give a .pth or .safetensors, imagenet or none")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights file {path} is no file of tensors, or holds more than tensors, which slimdet never executes; "
            "save the bare state dict with torch.save"
        ) from error
    except Exception as error:  # torch.load raises nearly anything on foreign bytes
        raise WeightsError(
            f"weights file {path} cannot be read ({first_line(error)}); give a .pth or .safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(map(_is_entry, content.items()))):
        raise WeightsError(f"weights file {path} holds no state dict (names to tensors), bare or under 'state_dict'")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _is_entry(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def fit(network: nn.Module, state: dict[str, Tensor], unused: set[str], complaint: str) -> None:
    """Copy a state dict into a network, converting fp16 to the network's fp32.

    Args:
        network: what is filled, in place; untouched if the state dict is refused.
        state: names to tensors.
        unused: keys that may be missing or of any shape, and are not copied.
        complaint: how the error begins.

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
        raise WeightsError(f"{complaint}: {'; '.join(lines)}; give the file of this backbone, or --weights none")
    network.load_state_dict(given, strict=False)  # its own check would be of shapes only
