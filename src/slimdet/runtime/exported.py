"""What an engine file is fed, and what it has to give.

It is fed images, and since files have inputs for them, a size and a number of proposals.

Legend: B images, N detections in all of them together, K classes.
"""

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import BundleError, ConfigError
from slimdet.images.sides import LEAST, MOST, scaled_sides
from slimdet.runtime.engine import EngineSettings, Found, failing

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
        if not LEAST <= self._own["imgsz"] <= int(own["max_size"]) <= MOST:
            raise BundleError(f"{file} wants images of {own['min_size']} to {own['max_size']} pixels a side")
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


class EngineOutputs:
    """The outputs of an engine file, which may come from anybody: what is none of a detector is refused.

    Args:
        file: the engine file.
        names: of its outputs, in their order.
        classes: K.

    Raises:
        BundleError: they are not those of a detector.
    """

    def __init__(self, file: Path, names: Sequence[str], classes: int) -> None:
        self.names, self._file, self._classes = list(names), file, classes
        if set(names) not in ({*Found._fields}, {*Found._fields} - {"masks"}):
            raise BundleError(
                f"{file} gives {', '.join(names)[:200]}, where a detector gives {', '.join(Found._fields)}"
            )

    def failing(self) -> AbstractContextManager[None]:
        """As `slimdet.runtime.engine.failing`, for the file."""
        return failing(self._file)

    def __call__(self, values: Sequence[NDArray], images: NDArray[np.uint8]) -> Found:
        """The outputs of a run on images [B, H, W, 3].

        Raises:
            BundleError: they are not the detections of such images.
        """
        found = Found(**dict(zip(self.names, values, strict=True)))
        count = len(found.boxes) if found.boxes.ndim == 2 else -1
        masks = found.masks is None or (found.masks.ndim == 3 and len(found.masks) == count)
        labels, index = found.labels, found.image_index
        shapes = found.boxes.shape == (count, 4) and labels.shape == found.scores.shape == index.shape == (count,)
        if not (shapes and masks) or (count and not self._in_range(found, len(images))):
            raise BundleError(f"{self._file} gives what are no detections; get the bundle again, or export it anew")
        return found

    def _in_range(self, found: Found, images: int) -> bool:
        labels, index = found.labels, found.image_index
        whole = labels.dtype.kind == index.dtype.kind == "i"
        finite = np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()
        within = np.isin(labels, range(1, self._classes + 1)).all() and np.isin(index, range(images)).all()
        return bool(whole and finite and within)
