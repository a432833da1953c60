"""Time the original's detectors against the original's way of computing them, end to end and at each width.

    python benchmarks/original_speed.py [--config configs/faster_rcnn_r50_fpn_1x.py] [--repeats 5] [--out FILE]

The original's way: weights are cut in every forward, backbone outputs are padded with zeros to full width for full
lateral convolutions, norms run as layers of their own. Ours: an extracted detector with folded norms. Both share what
lies behind the pyramid, and start from the same image in memory: resizing, network, NMS, detections. Weights are
random: proposals, and with them the time of the heads, are those of an untrained detector, up to 2000.

Counted is process time on one thread. Both ways run right after one another, in turns who is first, in every round; a
round's ratio (original / ours) sees the same load of a shared machine on both sides. Recorded is the median of the
rounds' ratios and their range.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimdet.core.slimmable import Slimmable, slim
from slimdet.files import atomic_write
from slimdet.original.configs.config import read_config
from slimdet.original.data.pipeline import View, views
from slimdet.original.detector.detector import WIDTHS, OriginalDetector, architecture_of, build
from slimdet.original.testing.augmented_test import detect
from slimdet.original.testing.prepare import ready

SIZES = {"1333x800": (1333, 800), "640x640": (640, 640)}


class Padded(nn.Module):
    """A twin's backbone whose outputs are padded with zero channels before the widest detector's pyramid."""

    def __init__(self, body: nn.Module, fpn: nn.Module) -> None:
        super().__init__()
        self.body, self.fpn = body, fpn
        self.full = [layer[0].in_channels for layer in fpn.inner_blocks]

    def forward(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        stages = self.body(x)
        padded = [
            functional.pad(s, (0, 0, 0, 0, 0, c - s.shape[1])) for s, c in zip(stages.values(), self.full, strict=True)
        ]
        return self.fpn(OrderedDict(zip(stages, padded, strict=True)))


def original_way(model: Slimmable, width: float) -> OriginalDetector:
    """The detector at a width, computed as the original does."""
    detector = build(model.twin(1.0).architecture).eval()
    widest, twin = model.twin(1.0), model.twin(width)
    detector.rpn, detector.roi_heads = widest.rpn, widest.roi_heads
    detector.backbone = Padded(twin.backbone.body, widest.backbone.fpn)
    return detector


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def summary(times: dict[str, list[float]]) -> dict[str, float | list[float]]:
    """Median seconds of each way, and the median and range of the rounds' ratios."""
    ratios = [original / ours for original, ours in zip(times["original"], times["ours"], strict=True)]
    row: dict[str, float | list[float]] = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return row | {"ratio": round(statistics.median(ratios), 3), "range": [round(r(ratios), 3) for r in (min, max)]}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/faster_rcnn_r50_fpn_1x.py")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/original_speed.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = read_config(given.config)
    model = slim(build(architecture_of(config)), WIDTHS, "backbone").eval()
    norm = config.data.test.img_norm_cfg
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)  # 480 x 640
    document: dict[str, Any] = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "threads": 1, "torch": torch.__version__},
        "config": given.config,
        "unit": "process seconds",
        "rounds": given.repeats,
    }
    for size in given.sizes:
        image = photo if size == "1333x800" else photo[:, :480]

        def prepared(image: np.ndarray = image, scale: tuple[int, int] = SIZES[size]) -> list[View]:
            return views(image, [scale], False, norm, 32)

        document[size] = {}
        for width in WIDTHS:
            ways = {"original": original_way(model, width), "ours": ready(model, width)}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for number in range(given.repeats + 1):
                for name in sorted(ways, reverse=number % 2 == 0):
                    taken = seconds(lambda detector=ways[name]: detect(detector, prepared()))
                    if number:  # the first round warms up
                        times[name].append(taken)
            document[size][str(width)] = summary(times)
            print(size, width, document[size][str(width)], flush=True)
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
