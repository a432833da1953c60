"""Write what a detector computes for one image, step by step, in the format of the original's reference runs.

    python benchmarks/parity/inference.py CONFIG CHECKPOINT IMAGE --width_mult 0.5 --img_scale 512 320 --out X.npz

For input, c2..c5, p2..p6, rpn_cls/p2.., rpn_reg/p2..: shape, stats (mean, deviation, min, max) and a sample of 256
values at even distances in the flattened tensor [1, C, H, W]. Then proposals (inclusive boxes and scores at the
network's scale) and the result at the original scale (inclusive boxes, scores, labels from 0, masks as run lengths).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slimdet.original.configs.config import read_config
from slimdet.original.data.pipeline import read_bgr, views
from slimdet.original.detector.boxes import to_inclusive
from slimdet.original.detector.detector import OriginalDetector
from slimdet.original.detector.masks import encode
from slimdet.original.testing.prepare import ready
from slimdet.original.testing.run import load_model

Numbers = dict[str, Any]


@torch.no_grad()
def nudged(model: nn.Module, draw: int) -> nn.Module:
    """The model with weights that differ in their last bit, about 1e-7 of them."""
    random = torch.Generator().manual_seed(draw)
    for parameter in model.parameters():
        parameter.mul_(1 + 1e-7 * torch.randn(parameter.shape, generator=random))
    return model


def summary(name: str, tensor: Tensor) -> Numbers:
    values = tensor.detach().contiguous().numpy()
    flat = values.reshape(-1)
    index = np.linspace(0, flat.size - 1, min(256, flat.size)).astype(np.int64)
    stats = np.array([flat.mean(dtype=np.float64), flat.std(dtype=np.float64), flat.min(), flat.max()])
    return {f"{name}/shape": np.array(values.shape), f"{name}/stats": stats, f"{name}/sample": flat[index]}


@torch.no_grad()
def run(
    detector: OriginalDetector, image: np.ndarray, scale: tuple[int, int], norm: Any, divisor: int | None
) -> Numbers:
    """All numbers of one image, uint8 [H, W, 3] blue first."""
    view = views(image, [scale], flip=False, norm=norm, divisor=divisor)[0]
    numbers = summary("input", view.batch)
    stages = detector.backbone.body(view.batch)
    pyramid = detector.backbone.fpn(stages)
    for number, stage in enumerate(stages.values(), 2):
        numbers |= summary(f"c{number}", stage)
    for number, level in enumerate(pyramid.values(), 2):
        numbers |= summary(f"p{number}", level)
    proposals = None
    if detector.rpn is not None:
        logits, codes = detector.rpn.head(list(pyramid.values()))
        for number, (logit, code) in enumerate(zip(logits, codes, strict=True), 2):
            numbers |= summary(f"rpn_cls/p{number}", logit) | summary(f"rpn_reg/p{number}", code)
        proposals, scores = detector.proposals(pyramid, view.frame)
        table = torch.cat([to_inclusive(proposals), scores[:, None]], dim=1).numpy()
        numbers |= {"proposals/count": len(table), "proposals/top200": table[:200], "proposals/sum": table.sum(axis=0)}
    found = detector.detect(pyramid, view.frame, proposals if detector.roi_heads is not None else None)
    boxes = to_inclusive(found["boxes"]).numpy()
    scores = found["scores"].numpy()
    if detector.roi_heads is None:
        return numbers | {"result/proposals": np.column_stack([boxes, scores])}
    numbers |= {"result/boxes": boxes, "result/scores": scores, "result/labels": found["labels"].numpy() - 1}
    if "cells" in found:
        codes = encode(found["cells"], found["boxes"], image.shape[:2], detector.mask_threshold)
        text = json.dumps([{**code, "counts": code["counts"].decode("ascii")} for code in codes])
        numbers["result/rle_json"] = np.frombuffer(text.encode(), np.uint8)
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("--width_mult", type=float, default=1.0)
    parser.add_argument("--img_scale", type=int, nargs=2, default=(1333, 800), metavar=("LONG", "SHORT"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = read_config(given.config)
    detector = ready(load_model(config, given.checkpoint), given.width_mult)
    dataset = config.data.test
    scale = (max(given.img_scale), min(given.img_scale))
    np.savez(given.out, **run(detector, read_bgr(given.image), scale, dataset.img_norm_cfg, dataset.size_divisor))


if __name__ == "__main__":
    main()
