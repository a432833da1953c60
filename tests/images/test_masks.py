"""Masks are pasted as torchvision pastes them."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimdet.images.masks import paste_masks

SIZE = (90, 120)


def torchvision(cells: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Probabilities [N, H, W]."""
    return paste_masks_in_image(torch.from_numpy(cells)[:, None], torch.from_numpy(boxes), size)[:, 0].numpy()


def random_boxes(count: int, size: tuple[int, int], least: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(0)
    corners = draw.random((count, 2, 2)) * (size[1], size[0])
    low, high = corners.min(axis=1), corners.max(axis=1) + least
    return np.concatenate([low, high], axis=1).astype(np.float32)


@pytest.mark.parametrize("side", [14, 28])
@pytest.mark.parametrize("size", [SIZE, (31, 17), (1, 40)])
def test_masks_equal_torchvisions(side: int, size: tuple[int, int]) -> None:
    cells = np.random.default_rng(1).random((60, side, side), dtype=np.float32)
    boxes = random_boxes(60, size)
    expected = torchvision(cells, boxes, size)
    pasted = paste_masks(cells, boxes, size)
    assert pasted.shape == expected.shape
    assert pasted.dtype == bool
    # Sums in another order differ in the last digit: only a pixel at one half may fall on the other side.
    clear = np.abs(expected - 0.5) > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(pasted[clear], expected[clear] > 0.5)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 120, 90),
        (-30, -20, 60, 40),  # across each side and corner, and wholly outside
        (100, 70, 150, 130),
        (-0.4, -0.4, 0.3, 0.3),
        (119.9, 89.9, 120, 90),
        (50, 50, 50, 50),
        (200, 10, 260, 60),
        (-60, -60, -20, -20),
    ],
)
def test_boxes_at_and_beyond_the_edge(box: tuple[float, ...]) -> None:
    cells = np.full((1, 28, 28), 0.9, dtype=np.float32)
    boxes = np.array([box], dtype=np.float32)
    try:
        expected = torchvision(cells, boxes, SIZE) > 0.5
    except RuntimeError:  # torchvision cannot paste what is wholly outside
        expected = np.zeros((1, *SIZE), dtype=bool)
    np.testing.assert_array_equal(paste_masks(cells, boxes, SIZE), expected)


def test_no_masks() -> None:
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), SIZE).shape == (0, *SIZE)
