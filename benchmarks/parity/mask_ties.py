"""Which masks of the original's Mask R-CNN hang on the last bit of the weights, and why.

    python benchmarks/parity/mask_ties.py CONFIG CHECKPOINT IMAGE [IMAGE ...] [--img_scale 512 320] [--out FILE]

Each image is detected at every width, with the weights as they are and with weights that differ in their last bit. Told
is each mask that then covers less than 0.995 (IoU) of itself, with its box's inclusive corners in both runs: the
original cuts these to whole pixels before it pastes a mask, so that a corner beside a whole number moves it by a pixel.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import torch
from inference import nudged
from pycocotools import mask as rle

from slimdet.original.configs.config import read_config
from slimdet.original.data.pipeline import read_bgr, views
from slimdet.original.detector.boxes import to_inclusive
from slimdet.original.detector.masks import encode
from slimdet.original.testing.prepare import ready
from slimdet.original.testing.run import load_model

WIDTHS, DRAWS = (0.25, 0.5, 0.75, 1.0), 5
LEAST_IOU, MOST_PIXELS = 0.995, 0.05  # of a mask to be told; of two boxes that are the same


def ties(before: dict[str, Any], after: dict[str, Any], codes: list[Any], others: list[Any]) -> list[dict[str, Any]]:
    """The masks of the same boxes that differ."""
    found = []
    for place, (box, label) in enumerate(zip(before["boxes"], before["labels"], strict=True)):
        away = (after["boxes"] - box).abs().amax(1) + 1e6 * (after["labels"] != label)
        other = int(away.argmin())
        iou = float(rle.iou([codes[place]], [others[other]], [0])[0, 0])
        if away[other] <= MOST_PIXELS and iou < LEAST_IOU:
            corners = [to_inclusive(one[None])[0].tolist() for one in (box, after["boxes"][other])]
            beside = min(abs(side - round(side)) for side in corners[0])
            found.append({"mask": place, "iou": round(iou, 3), "from a whole number": beside, "corners": corners})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("checkpoint")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--img_scale", type=int, nargs=2, default=(512, 320), metavar=("LONG", "SHORT"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    config = read_config(given.config)
    norm, threads = config.data.test.img_norm_cfg, torch.get_num_threads()

    @torch.no_grad()
    def run(image: Any, width: float, draw: int | None) -> tuple[dict[str, Any], list[Any]]:
        model = load_model(config, given.checkpoint)
        detector = ready(model if draw is None else nudged(model, draw), width)
        view = views(image, [tuple(given.img_scale)], flip=False, norm=norm, divisor=32)[0]
        pyramid = detector.backbone.fpn(detector.backbone.body(view.batch))
        found = detector.detect(pyramid, view.frame, detector.proposals(pyramid, view.frame)[0])
        return found, encode(found["cells"], found["boxes"], image.shape[:2], detector.mask_threshold)

    rows = []
    for file, width in product(given.images, WIDTHS):
        image = read_bgr(str(file))
        found, codes = run(image, width, None)
        told: dict[int, dict[str, Any]] = {}
        for draw in range(DRAWS):
            other, others = run(image, width, draw)
            for tie in ties(found, other, codes, others):
                told.setdefault(tie["mask"], tie)
        rows.append({"image": file.name, "width": width, "masks": len(codes), "ties": list(told.values())})
        print(json.dumps(rows[-1]))
    given.out.write_text(json.dumps({"draws": DRAWS, "threads": threads, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
