"""Pictures of a training: batches as the detector is given them, detections beside what is there.

Images are [3, H, W], in 0..1 or bytes, targets as torchvision's detectors take them; labels are 1..K, classes K names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from slimdet.core.slimmable import Slimmable
from slimdet.images.drawing import draw, side_by_side
from slimdet.models.kinds import without_background

HEIGHT = 320  # pixels of each picture in a mosaic
MOST = 16  # pictures of a batch that are shown
CONF = 0.3  # detections below that score are not drawn


def batch_mosaic(images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Image.Image:
    """The images of a batch with their boxes and masks, as they come out of the augmentation."""
    shown = list(zip(images, targets, strict=True))[:MOST]
    pictures = [(_title(target), _drawn(image, target, classes)) for image, target in shown]
    return side_by_side(pictures, HEIGHT, min(4, len(pictures)))


@torch.no_grad()
def comparison(
    model: Slimmable, items: Sequence[tuple[Tensor, Mapping[str, Any]]], widths: Sequence[float], classes: Sequence[str]
) -> Image.Image:
    """A row for each image: what is there, and what each width detects from a score of `CONF` on.

    Args:
        model: in any mode, which it keeps.
        items: images and their targets, labels as the model's.
        widths: those to show.
        classes: K names.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    pictures = []
    for image, target in items:
        pictures.append((f"{_title(target)}: ground truth", _drawn(image, target, classes)))
        for width in widths:
            found = without_background(model([image.to(device)], width=width)[0])
            good = found["scores"] >= CONF
            kept = {name: value[good].cpu() for name, value in found.items()}
            pictures.append((f"width {width}", _drawn(image, kept, classes)))
    model.train(training)
    return side_by_side(pictures, HEIGHT, 1 + len(widths))


def spread(dataset: Any, count: int) -> list[tuple[Tensor, dict[str, Any]]]:
    """Up to `count` items of a data set, evenly spread over it."""
    size = len(dataset)
    return [dataset[place * size // min(count, size)] for place in range(min(count, size))]


def _title(target: Mapping[str, Any]) -> str:
    return f"image {target['image_id']}" if "image_id" in target else "image"


def _drawn(image: Tensor, target: Mapping[str, Any], classes: Sequence[str]) -> Image.Image:
    pixels = F.to_dtype(image.detach().cpu(), torch.uint8, scale=True).permute(1, 2, 0).numpy()
    names = [classes[int(label) - 1] for label in target["labels"]]
    scores = target["scores"].tolist() if "scores" in target else None
    masks = np.asarray(target["masks"].cpu()) if "masks" in target else None
    return draw(pixels, target["boxes"].cpu().numpy(), names, scores, masks, classes)
