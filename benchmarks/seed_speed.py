"""Time the original's detectors against the original's way of computing them, end to end and at each width.

    python benchmarks/seed_speed.py [--config configs/faster_rcnn_r50_fpn_1x.py] [--repeats 3] [--out seed_speed.json]

The original's way: weights are cut in every forward, backbone outputs are padded with zeros to full width for full
lateral convolutions, norms run as layers of their own. Ours: an extracted detector with folded norms. Both share what
lies behind the pyramid, and start from the same image in memory: resizing, network, NMS, detections. Runs alternate,
so that a machine shared with others slows both; the ratio of the medians of process time on one thread is what counts.
Weights are random: proposals, and with them the time of the heads, are those of an untrained detector, up to 2000.
"""

import argparse
import json
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimdet.files import atomic_write
from slimdet.seed.augmented_test import detect
from slimdet.seed.config import read_config
from slimdet.seed.detector import WIDTHS, SeedDetector, architecture_of, build
from slimdet.seed.pipeline import View, views
from slimdet.seed.prepare import ready
from slimdet.slimmable import Slimmable, slim

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


def original_way(model: Slimmable, width: float) -> SeedDetector:
    """The detector at a width, computed as the original does."""
    detector = build(model.twin(1.0).architecture).eval()
    widest, twin = model.twin(1.0), model.twin(width)
    detector.rpn, detector.roi_heads = widest.rpn, widest.roi_heads
    detector.backbone = Padded(twin.backbone.body, widest.backbone.fpn)
    return detector


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/faster_rcnn_r50_fpn_1x.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/seed_speed.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = read_config(given.config)
    model = slim(build(architecture_of(config)), WIDTHS, "backbone").eval()
    norm = config.data.test.img_norm_cfg
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)  # 480 x 640
    found: dict[str, dict[str, dict[str, float]]] = {}
    for size in given.sizes:
        found[size] = {}
        image = photo if size == "1333x800" else photo[:, :480]

        def prepared(image: np.ndarray = image, scale: tuple[int, int] = SIZES[size]) -> list[View]:
            return views(image, [scale], False, norm, 32)

        for width in WIDTHS:
            ways = {"original": original_way(model, width), "ours": ready(model, width)}
            times: dict[str, list[float]] = {name: [] for name in ways}
            for repeat in range(given.repeats + 1):
                for name, detector in ways.items():
                    taken = seconds(lambda detector=detector: detect(detector, prepared()))
                    if repeat:  # the first warms up
                        times[name].append(taken)
            row = {name: round(statistics.median(values), 3) for name, values in times.items()}
            row["ratio"] = round(row["original"] / row["ours"], 3)
            found[size][str(width)] = row
            print(size, width, row, flush=True)
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps({"config": given.config, "unit": "process seconds", **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
