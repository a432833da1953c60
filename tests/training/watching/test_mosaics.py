"""Pictures of batches and detections: how many, of what, and that nothing is changed by them."""

import numpy as np
import torch

from scenes_detector import scene_batch, tiny_model
from slimdet.images.drawing import class_colour
from slimdet.training.watching.mosaics import HEIGHT, MOST, batch_mosaic, comparison, spread

CLASSES = ("red", "green")


def test_a_batch_is_drawn_with_its_labels() -> None:
    images, targets = [torch.zeros(3, 60, 80)] * 2, scene_batch()[1]
    pixels = np.asarray(batch_mosaic(images, targets, CLASSES))
    for name in CLASSES:  # a box of each class
        assert (abs(pixels.astype(int) - class_colour(name, CLASSES)).sum(2) < 12).sum() > 100


def test_a_large_batch_is_cut() -> None:
    images, targets = [torch.zeros(3, 40, 40)], [scene_batch()[1][0]]
    most, more = (batch_mosaic(images * count, targets * count, CLASSES).size for count in (MOST, MOST + 5))
    assert most == more
    assert most[1] > 4 * HEIGHT


def test_detections_beside_what_is_there() -> None:
    model = tiny_model().train()
    items = list(zip(*scene_batch(), strict=True))
    one = comparison(model, items[:1], [1.0], CLASSES)
    both = comparison(model, items, [0.5, 1.0], CLASSES)
    assert both.height == 2 * one.height
    assert both.width > one.width
    assert model.training


def test_items_are_spread() -> None:
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 8) == [0, 1, 2]
    assert spread([], 8) == []
