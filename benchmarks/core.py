"""What narrowing costs and saves: extracted against built by hand, 0.25 against 1.0, joint against separate steps.

    python benchmarks/core.py [--out benchmarks/core.json]

Times are CPU seconds of this process on one thread, medians of interleaved runs: a busy machine moves both sides of a
ratio alike.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops import FeaturePyramidNetwork

from slimdet import slim
from slimdet.models import builders
from slimdet.training.step import accumulate_gradients

WIDTHS = (0.25, 0.5, 0.75, 1.0)
SIZE = {"min_size": 640, "max_size": 640}


def narrow_by_hand(width: float) -> FasterRCNN:
    """Faster R-CNN, ResNet-50-FPN, with `int(width * C)` channels, from torchvision's parts and without slimdet."""

    def n(channels: int) -> int:
        return int(width * channels)

    body = ResNet(Bottleneck, [3, 4, 6, 3])
    body.inplanes = n(64)
    body.conv1 = nn.Conv2d(3, n(64), 7, 2, 3, bias=False)
    body.bn1 = nn.BatchNorm2d(n(64))
    for stage, (planes, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        setattr(
            body, f"layer{stage + 1}", body._make_layer(Bottleneck, n(planes), blocks, stride=1 if stage == 0 else 2)
        )
    body.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    body.inplanes = n(2048)
    backbone: Any = _resnet_fpn_extractor(body, 5)
    extra = backbone.fpn.extra_blocks
    backbone.fpn = FeaturePyramidNetwork([n(c) for c in (256, 512, 1024, 2048)], n(256), extra)
    backbone.out_channels = n(256)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_head=RPNHead(n(256), 3),
        box_head=TwoMLPHead(n(256) * 49, n(1024)),
        box_predictor=FastRCNNPredictor(n(1024), 91),
        **SIZE,
    ).eval()


class Recorder(TorchDispatchMode):
    """Every operator that is called, with the shapes of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shapes = tuple(tuple(value.shape) for value in args if isinstance(value, Tensor))
        self.calls.append((str(func), shapes))
        return func(*args, **kwargs or {})


def operators(detector: nn.Module, images: list[Tensor]) -> list[tuple[Any, ...]]:
    with torch.no_grad(), Recorder() as recorder:
        detector(images)
    return recorder.calls


def interleaved(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each run, taken in turns after one warm-up of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def extracted_against_by_hand(images: list[Tensor]) -> dict[str, Any]:
    torch.manual_seed(0)
    model = slim(fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZE).eval(), WIDTHS)
    extracted, built = model.extract(0.25), narrow_by_hand(0.25)
    built.load_state_dict(extracted.state_dict())  # strict: the same keys and shapes
    with torch.no_grad():
        first, second = extracted(images)[0], built(images)[0]
        seconds = interleaved({"extracted": lambda: extracted(images), "by hand": lambda: built(images)}, 5)
    return {
        "operators": len(operators(extracted, images)),
        "operators and shapes identical": operators(extracted, images) == operators(built, images),
        "outputs identical": all(torch.equal(first[key], second[key]) for key in first),
        "parameters": [sum(p.numel() for p in d.parameters()) for d in (extracted, built)],
        "cpu seconds": seconds,
        "ratio": seconds["extracted"] / seconds["by hand"],
    }


def narrow_against_wide(images: list[Tensor]) -> dict[str, Any]:
    torch.manual_seed(0)
    model = slim(fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, **SIZE).eval(), WIDTHS)
    plain = {str(width): model.extract(width) for width in WIDTHS}
    with torch.no_grad():
        seconds = interleaved({width: lambda d=d: d(images) for width, d in plain.items()}, 5)
    return {"cpu seconds": seconds, "1.0 / 0.25": seconds["1.0"] / seconds["0.25"]}


def joint_against_separate_steps() -> dict[str, Any]:
    """Whole optimizer steps: four widths in one model, against four narrow models each with an optimizer of its own."""
    torch.manual_seed(0)
    model = slim(builders.faster_rcnn(6, backbone="resnet50", neck="light", weights=None, imgsz=(256, 256)), WIDTHS)
    plain = {width: model.extract(width).train() for width in WIDTHS}
    model.train()
    images = [torch.rand(3, 256, 256) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[20.0, 30, 150, 200]]), "labels": torch.tensor([1])} for _ in images]
    joint = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    each = {width: torch.optim.SGD(d.parameters(), lr=1e-4, momentum=0.9) for width, d in plain.items()}

    def step_joint() -> None:
        joint.zero_grad()
        accumulate_gradients(model, images, targets, WIDTHS)
        nn.utils.clip_grad_norm_(model.parameters(), 35)
        joint.step()

    def step_separate() -> None:
        for width, detector in plain.items():
            each[width].zero_grad()
            sum(detector(images, targets).values()).backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 35)
            each[width].step()

    seconds = interleaved({"joint": step_joint, "separate": step_separate}, 7)
    return {"cpu seconds": seconds, "ratio": seconds["joint"] / seconds["separate"]}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    images = [torch.rand(3, 640, 640)]
    result = {
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": 1,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "extracted against built by hand, ResNet-50-FPN, 0.25, 640x640": extracted_against_by_hand(images),
        "ResNet-50-FPN, scope detector, 640x640, eager": narrow_against_wide(images),
        "training step over four widths against four separate steps": joint_against_separate_steps(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
