"""PyTorch: runs any bundle as it is, exported or not. The only file of the runtime that imports torch."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from slimdet.bundle import store
from slimdet.bundle.ladder import Precision
from slimdet.bundle.manifest import Manifest
from slimdet.devices import choose_device
from slimdet.errors import ConfigError
from slimdet.images.sides import scaled_sides
from slimdet.models.image_size import resize_shorter_side, settle_scales, sides_of
from slimdet.models.kinds import without_background
from slimdet.runtime.engine import EngineSettings, Found, check_precision, failing

_SIZES = ("min_size", "max_size", "fixed_size")  # of a detector's transform


class TorchEngine:
    """Runs the extracted detectors of a bundle, down to any score.

    Devices are "auto", "cpu", "cuda", "cuda:N" and "mps". Threads are torch's, of the whole process; by default they
    are left as they are.

    Raises:
        ConfigError: the device is not there.
        BundleError: as `slimdet.load`.
    """

    name = "torch"
    least_conf = 0.0

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self._bundle, self._options = bundle, options
        self._model = store.load(bundle.name)
        self.own_conf = max((own for _, own in _thresholds(self._model.twin(1.0))), default=0.0)
        self._place = choose_device(options.device)
        self.device = str(self._place)
        if options.threads:
            torch.set_num_threads(options.threads)

    def precision(self, width: float) -> Precision:
        return self._options.precision or "fp32"

    def files(self, width: float, precision: Precision | None = None) -> list[Path]:
        return [self._bundle.weights_file]

    def load(self, width: float, precision: Precision | None = None) -> "TorchSession":
        check_precision(precision or self.precision(width), ("fp32",), self.name, "engine openvino")
        with failing(self._bundle.name):
            detector = self._model.extract(width).to(self._place).eval()
            return TorchSession(detector, self._place, self._options, self._bundle.name)


class TorchSession:
    """One width. torchvision's detectors keep state of a run (scales of the pyramid): one thread at a time."""

    precision: Precision = "fp32"

    def __init__(self, detector: nn.Module, place: torch.device, options: EngineSettings, bundle: str) -> None:
        self._detector, self._place, self._turn, self._bundle = detector, place, threading.Lock(), bundle
        self._process = os.getpid()
        transform: Any = detector.transform
        self._pastes = not isinstance(transform, GeneralizedRCNNTransform)
        if not self._pastes:
            transform.postprocess = MethodType(_without_pasting, transform)
        settle_scales(detector)
        self.takes_resized = not self._pastes and transform.fixed_size is None  # SSD makes squares of whole images
        self.sides = scaled_sides(sides_of(detector), options.imgsz)
        self._limits: dict[str, int] = getattr(getattr(detector, "rpn", None), "_post_nms_top_n", {})  # torchvision's
        self._check(options.proposals)
        self.proposals = options.proposals or self._limits.get("testing")
        self._thresholds = _thresholds(detector)

    def __call__(
        self, images: NDArray[np.uint8], conf: float = 1.0, imgsz: int | None = None, proposals: int | None = None
    ) -> Found:
        self._check(proposals)
        if os.getpid() != self._process:  # its threads stayed with the other process, and it would wait for them
            raise ConfigError("this detector was loaded before a fork; load one in each process, or 'spawn' them")
        batch = torch.from_numpy(images).to(self._place).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
        with self._turn, self._at(imgsz or self.sides[0], proposals or self.proposals), torch.no_grad():
            for part, own in self._thresholds:
                part.score_thresh = min(own, conf - 1e-6)  # it keeps what is above, not what is at it
            with failing(self._bundle):
                results = [without_background(result) for result in self._detector(list(batch))]
        counts = torch.tensor([len(result["scores"]) for result in results])
        index = torch.arange(len(results)).repeat_interleave(counts)  # [N]
        boxes, labels, scores = (_joined(results, key) for key in ("boxes", "labels", "scores"))
        masks = None
        if "masks" in results[0]:
            masks = _joined(results, "masks")[:, 0]  # [N, M, M], or [N, H, W] pasted
            masks = masks > 0.5 if self._pastes else masks
        return Found(boxes, labels, scores, index.numpy(), masks)

    def _check(self, proposals: int | None) -> None:
        if proposals is not None and not self._limits:
            raise ConfigError(f"{type(self._detector).__name__} has no number of proposals; leave --proposals out")

    @contextmanager
    def _at(self, imgsz: int, proposals: int | None) -> Iterator[None]:
        """The detector at a size and number of proposals; afterwards it is what it was."""
        transform: Any = self._detector.transform
        sizes = {name: getattr(transform, name) for name in _SIZES if hasattr(transform, name)}
        limits = dict(self._limits)
        try:
            if imgsz != sides_of(self._detector)[0]:
                resize_shorter_side(self._detector, imgsz)
            if proposals is not None:
                self._limits["testing"] = proposals
            yield
        finally:
            vars(transform).update(sizes)
            self._limits.update(limits)


def _thresholds(detector: nn.Module) -> list[tuple[Any, float]]:
    """The parts of a detector that leave out low scores, and the score above which each keeps a detection."""
    parts: list[Any] = [detector, getattr(detector, "roi_heads", None)]
    return [(part, part.score_thresh) for part in parts if hasattr(part, "score_thresh")]


def _joined(results: Sequence[dict[str, Tensor]], key: str) -> NDArray:
    return torch.cat([result[key] for result in results]).cpu().numpy()


def _without_pasting(
    transform: GeneralizedRCNNTransform,
    results: list[dict[str, Any]],
    resized: list[Any],
    original: list[Any],
) -> list[dict[str, Any]]:
    """Stands in for `GeneralizedRCNNTransform.postprocess`: boxes in the image's pixels, masks [N, 1, M, M] as is."""
    for result, before, after in zip(results, resized, original, strict=True):  # sizes (height, width)
        result["boxes"] = resize_boxes(result["boxes"], before, after)
    return results
