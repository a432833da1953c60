"""What runs a detector: the one interface that all engines have.

Legend: B images, N detections in all of them together, M cells along a side of a mask, H x W pixels.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Found(NamedTuple):
    """The detections of a batch, by image and then by falling score.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the images.
        labels: int64 [N], 1..K.
        scores: float32 [N], 0..1.
        image_index: int64 [N], 0..B-1.
        masks: None, or float32 [N, M, M], probabilities over the boxes, or bool [N, H, W] from a detector that pastes
            them by a rule of its own (those of the original system).
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    image_index: NDArray[np.int64]
    masks: NDArray | None = None


class Session(Protocol):
    """One width, ready to run. Several threads may call it at once.

    Attributes:
        sides: the shorter side that images are resized to and the longer side's limit, in pixels.
    """

    sides: tuple[int, int]

    def __call__(self, images: NDArray[np.uint8]) -> Found:
        """Detect objects in images uint8 [B, H, W, 3], RGB."""
        ...


class Engine(Protocol):
    """A library that runs detectors.

    Attributes:
        name: one of `slimdet.runtime.engines.ENGINES`.
        device: what it runs on, in its own words.
    """

    name: str
    device: str

    def load(self, width: float) -> Session:
        """Make a width ready.

        Raises:
            BundleError: the bundle has no engine file of this width, or not one that works.
        """
        ...

    def files(self, width: float) -> list[Path]:
        """What it reads from disk for this width."""
        ...
