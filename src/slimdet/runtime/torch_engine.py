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
from slimdet.runtime.engine import Found


class TorchEngine:
    """Runs the extracted detectors of a bundle.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        threads: torch's, of the whole process; by default they are left as they are.
        conf: scores down to this one are let through; torchvision's detectors drop those up to 0.05 by themselves.
        imgsz: shorter side that images are resized to, pixels; by default the model's.

    Raises:
        ConfigError: the device is not there, or the image size does not suit the detector.
        BundleError: as `slimdet.load`.
    """

    name = "torch"

    def __init__(
        self,
        manifest: Manifest,
        device: str = "auto",
        threads: int | None = None,
        conf: float = 0.25,
        imgsz: int | None = None,
    ) -> None:
        self._manifest, self._conf = manifest, conf
        self._model = store.load(manifest.name)
        if imgsz is not None:
            set_image_size(self._model, imgsz)
        self._place = choose_device(device)
        self.device = str(self._place)
        if threads:
            torch.set_num_threads(threads)

    def files(self, width: float) -> list[Path]:
        return [self._manifest.weights_file]

    def load(self, width: float) -> "TorchSession":
        detector = self._model.extract(width)
        _keep_down_to(self._conf, detector)
        return TorchSession(detector.to(self._place).eval(), self._place)


class TorchSession:
    """One width. torchvision's detectors keep state of a run (scales of the pyramid): one thread at a time."""

    def __init__(self, detector: nn.Module, place: torch.device) -> None:
        self._detector, self._place, self._turn = detector, place, threading.Lock()
        transform: Any = detector.transform
        self._pastes = not isinstance(transform, GeneralizedRCNNTransform)
        if not self._pastes:
            transform.postprocess = MethodType(_without_pasting, transform)
        shortest = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
        self.sides = int(shortest), int(transform.max_size)

    def __call__(self, images: NDArray[np.uint8]) -> Found:
        batch = torch.from_numpy(images).to(self._place).permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
        with self._turn, torch.no_grad():
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


def _keep_down_to(conf: float, detector: nn.Module) -> None:
    for part in (detector, getattr(detector, "roi_heads", None)):
        threshold: Any = getattr(part, "score_thresh", None)
        if part is not None and threshold is not None:
            part.score_thresh = min(threshold, conf - 1e-6)  # it keeps what is above, not what is at it
