"""What runs a detector: one interface, and the choice among the engines that have it.

Legend: B images, N detections in all of them together, M cells along a side of a mask, H x W pixels.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import BundleError, ConfigError
from slimdet.manifest import Manifest

ENGINES = ("onnxruntime", "openvino", "torch")


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
        name: one of `ENGINES`.
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


def choose(name: str, bundle: Manifest) -> str:
    """The engine of that name; "auto" is onnxruntime where the bundle has exported widths, torch otherwise.

    Raises:
        ConfigError: no such engine.
        BundleError: nothing here can run this bundle.
    """
    if name == "auto":
        if bundle.engines("onnx"):
            return "onnxruntime"
        if find_spec("torch"):
            return "torch"
        raise BundleError(
            f"{bundle.name} was not exported and torch is not installed; run 'slimdet export --model {bundle.name}' "
            "where torch is, or get it with: pip install 'slimdet[train]'"
        )
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not one of auto, {', '.join(ENGINES)}")
    return name


def make(
    name: str, bundle: Manifest, device: str, threads: int | None, conf: float, imgsz: int | None = None
) -> Engine:
    """The engine `name`, one of `ENGINES`, for a bundle.

    Raises:
        ConfigError: it is not installed, or has no such device or image size.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads {threads} must be 1 or more")
    if name == "torch":
        from slimdet.runtime.torch_engine import TorchEngine

        return TorchEngine(bundle, device, threads, conf, imgsz)
    if imgsz is not None:
        raise ConfigError(
            f"--imgsz {imgsz}: exported engines have their size within; run 'slimdet export --model {bundle.name} "
            f"--imgsz {imgsz}' first, or use --engine torch"
        )
    if name == "openvino":
        from slimdet.runtime.openvino_engine import OpenvinoEngine

        return OpenvinoEngine(bundle, device, threads)
    from slimdet.runtime.onnxruntime_engine import OnnxruntimeEngine

    return OnnxruntimeEngine(bundle, device, threads)
