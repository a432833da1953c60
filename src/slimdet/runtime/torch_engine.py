"""PyTorch: runs any bundle as it is, exported or not. The only file of the runtime that imports torch."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from slimdet.bundle import store
from slimdet.bundle.manifest import Manifest
from slimdet.devices import choose_device
from slimdet.models.image_size import set_image_size
from slimdet.models.kinds import without_background
from slimdet.runtime.engine import EngineSettings, Found


class TorchEngine:
    """Runs the extracted detectors of a bundle, down to any score.

    Devices are "auto", "cpu", "cuda", "cuda:N" and "mps". Threads are torch's, of the whole process; by default they
    are left as they are.

    Raises:
        ConfigError: the device is not there, or the image size does not suit the detector.
        BundleError: as `slimdet.load`.
    """

    name = "torch"
    least_conf = 0.0

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self._bundle = bundle
        self._model = store.load(bundle.name)
        if options.imgsz is not None:
            set_image_size(self._model, options.imgsz)
        self._place = choose_device(options.device)
        self.device = str(self._place)
        if options.threads:
            torch.set_num_threads(options.threads)

    def files(self, width: float) -> list[Path]:
        return [self._bundle.weights_file]

    def load(self, width: float) -> "TorchSession":
        return TorchSession(self._model.extract(width).to(self._place).eval(), self._place)


class TorchSession:
    """One width. torchvision's detectors keep state of a run (scales of the pyramid): one thread at a time."""

    def __init__(self, detector: nn.Module, place: torch.device) -> None:
        self._detector, self._place, self._turn = detector, place, threading.Lock()
        transform: Any = detector.transform
        self._pastes = not isinstance(transform, GeneralizedRCNNTransform)
        if not self._pastes:
            transform.postprocess = MethodType(_without_pasting, transform)
        self.takes_resized = not self._pastes and transform.fixed_size is None  # SSD makes squares of whole images
        shortest = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
        self.sides = int(shortest), int(transform.max_size)
        parts: list[Any] = [detector, getattr(detector, "roi_heads", None)]
        self._thresholds = [(part, part.score_thresh) for part in parts if hasattr(part, "score_thresh")]

    def __call__(self, images: NDArray[np.uint8], conf: float = 1.0) -> Found:
        batch = torch.from_numpy(images).to(self._place).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
        with self._turn, torch.no_grad():
            for part, own in self._thresholds:
                part.score_thresh = min(own, conf - 1e-6)  # it keeps what is above, not what is at it
            results = [without_background(result) for result in self._detector(list(batch))]
        counts = torch.tensor([len(result["scores"]) for result in results])
        index = torch.arange(len(results)).repeat_interleave(counts)  # [N]
        boxes, labels, scores = (_joined(results, key) for key in ("boxes", "labels", "scores"))
        masks = None
        if "masks" in results[0]:
            masks = _joined(results, "masks")[:, 0]  # [N, M, M], or [N, H, W] pasted
            masks = masks > 0.5 if self._pastes else masks
        return Found(boxes, labels, scores, index.numpy(), masks)


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
