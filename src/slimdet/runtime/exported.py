"""What an engine file is fed: images, and since files have inputs for them, a size and a number of proposals."""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import ConfigError
from slimdet.images.sides import scaled_sides
from slimdet.runtime.engine import EngineSettings

OPTIONS = "imgsz", "proposals"  # inputs, int64 scalars, that have the detector's own numbers where they are left out
STORED = "stored."  # begins the name of a tensor that an ONNX file takes from the bundle's weights file; its name there


class FileInputs:
    """The inputs of an engine file, and what they are where a call names nothing.

    Args:
        file: the engine file.
        said: what the file says of its input, JSON.
        names: of the inputs that it has; older files have `images` alone.
        options: of the engine.

    Attributes:
        sides, proposals: as `slimdet.runtime.engine.Session` has them.

    Raises:
        ConfigError: `options` want what the file cannot do.
    """

    def __init__(self, file: Path, said: str, names: Collection[str], options: EngineSettings) -> None:
        own = json.loads(said)
        self._file, self._names = file, names
        self._own = {"imgsz": int(own["min_size"]), "proposals": own.get("proposals")}
        self._check(options.imgsz, options.proposals)
        self.sides = scaled_sides((self._own["imgsz"], int(own["max_size"])), options.imgsz)
        self.proposals: int | None = options.proposals or self._own["proposals"]

    def __call__(self, images: NDArray[np.uint8], imgsz: int | None, proposals: int | None) -> dict[str, NDArray]:
        """All inputs of a run, by name.

        Raises:
            ConfigError: the file has another size or number of proposals within.
        """
        self._check(imgsz, proposals)
        chosen = imgsz or self.sides[0], proposals or self.proposals
        return {"images": images} | {
            name: np.array(value, np.int64) for name, value in zip(OPTIONS, chosen, strict=True) if name in self._names
        }

    def _check(self, imgsz: int | None, proposals: int | None) -> None:
        for name, value in zip(OPTIONS, (imgsz, proposals), strict=True):
            if name not in self._names and value not in (None, self._own[name]):
                raise ConfigError(
                    f"--{name} {value}: {self._file} is of an older slimdet and has its own within; run 'slimdet "
                    "export' again, or take engine torch"
                )
