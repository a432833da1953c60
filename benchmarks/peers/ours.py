"""slimdet's side: detectors of random weights as bundles, the bundled one, and the original's way of computing."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphs import has_bf16, run_openvino
from others import RANDOM, SIZES, detect, faster_rcnn, quiet, settled
from timing import PIXELS, Contender, Run
from torch import Tensor, nn
from torch.nn import functional

import slimdet
from slimdet.core.slimmable import slim
from slimdet.models import builders
from slimdet.runtime.engine import EngineName

WIDTHS = (0.25, 0.5, 0.75, 1.0)
R50, LIGHT, BUNDLED = "slimdet R50-FPN", "slimdet mobilenet_v2 light", "slimdet bundled"
ORIGINAL = "the original's way (R50-FPN)"
BF16 = "openvino bf16"
ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Model:
    """A bundle with its engine files, and the side of the photograph that it is given."""

    name: str
    bundle: str | Path
    image: int
    weights: str = RANDOM
    bf16: bool = False

    def graph(self, width: float) -> Path:
        return slimdet.Runtime(self.bundle, engine="onnxruntime").engine.files(width)[0]


def models(folder: Path) -> list[Model]:
    """All that is measured; bundles that `folder` does not have yet are made and exported."""
    if not (bundle := folder / "r50").exists():
        _write(faster_rcnn(640), bundle)  # the very weights of torchvision's row
    found = [Model(R50, bundle, 640, bf16=True)]
    for side in SIZES:
        if not (bundle := folder / f"light-{side}").exists():
            torch.manual_seed(0)
            options: dict[str, Any] = {"backbone": "mobilenet_v2", "neck": "light", "weights": None}
            _write(quiet(builders.faster_rcnn(81, imgsz=(side, side), **options)), bundle)
        found.append(Model(LIGHT, bundle, side))
    return [*found, Model(BUNDLED, "bundled", 320, "trained")]


def _write(detector: nn.Module, bundle: Path) -> None:
    whole = bundle.with_name(f"{bundle.name}.part")  # renamed when it is complete: a restart takes no half of one
    model = slim(detector.eval(), WIDTHS)
    for width in WIDTHS:
        settled(model.twin(width))
    slimdet.save(model, whole)
    slimdet.export(whole)
    whole.rename(bundle)


def contenders(photographs: dict[int, np.ndarray], folder: Path) -> Iterator[Contender]:
    """Every model at every width on every engine, and the original's way at 0.25."""
    for model in models(folder):
        pixels = photographs[model.image]
        common: dict[str, Any] = {"image": model.image, "timed": PIXELS, "weights": model.weights}
        for width in WIDTHS:
            for engine in ENGINES:
                make = partial(_runtime, model.bundle, engine, width, pixels)
                yield Contender(model.name, engine, make=make, width=width, **common)
            if model.bf16 and has_bf16():
                inputs = {"images": pixels[None]}
                make = partial(run_openvino, model.graph(width), inputs, precision="bf16")
                yield Contender(model.name, BF16, make=make, width=width, **common)
    make = partial(_original_way, 0.25, photographs[640])
    yield Contender(ORIGINAL, "torch eager", 640, PIXELS, RANDOM, make, 0.25)


def _runtime(bundle: str | Path, engine: EngineName, width: float, pixels: np.ndarray, threads: int) -> Run:
    runtime = slimdet.Runtime(bundle, engine=engine, threads=threads).prepare([width])
    return partial(runtime, pixels, width)


class _Padded(nn.Module):
    """A twin's backbone whose outputs are padded with zero channels before the widest detector's pyramid."""

    def __init__(self, body: nn.Module, fpn: Any) -> None:
        super().__init__()
        self.body, self.fpn = body, fpn
        self.full = [layer[0].in_channels for layer in fpn.inner_blocks]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        stages = self.body(x)
        padded = [
            functional.pad(s, (0, 0, 0, 0, 0, c - s.shape[1])) for s, c in zip(stages.values(), self.full, strict=True)
        ]
        return self.fpn(OrderedDict(zip(stages, padded, strict=True)))


def _original_way(width: float, photograph: np.ndarray, threads: int) -> Run:
    """Weights are cut in every forward, narrow features padded to full width; all behind the backbone is full."""
    detector: Any = faster_rcnn(640)
    twin: Any = settled(slim(faster_rcnn(640), WIDTHS, "backbone").twin(width))
    detector.backbone = _Padded(twin.backbone.body, detector.backbone.fpn)
    return partial(detect, detector, photograph)
