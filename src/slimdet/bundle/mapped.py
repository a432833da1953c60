"""The tensors of a bundle's weights file where they lie: mapped into memory, not read. No torch."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TYPES = {"F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class Mapped:
    """A tensor of a weights file: the byte at which it begins, and its values, of 16 or 32 bits."""

    offset: int
    values: NDArray


def mapped(weights: Path) -> dict[str, Mapped]:
    """The tensors of floating-point numbers in a safetensors file, by name."""
    content = np.memmap(weights, np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    tensors = {}
    for name, entry in json.loads(content[8:start].tobytes()).items():
        if name != "__metadata__" and entry["dtype"] in _TYPES:
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = Mapped(first, content[first:last].view(_TYPES[entry["dtype"]]).reshape(entry["shape"]))
    return tensors
