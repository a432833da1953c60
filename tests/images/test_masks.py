"""Masks are pasted as torchvision pastes them; run lengths are those of pycocotools."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision.models.detection.roi_heads import paste_masks_in_image

from slimdet.data.annotations import rle_functions
from slimdet.images.masks import decode_runs, encode_mask, paste_masks

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


# ------------------------------------------------------------------------------------------------- run lengths


def pycocotools(mask: np.ndarray) -> dict:
    rle = rle_functions().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_masks_are_encoded_as_pycocotools_does_and_decoded(mask: np.ndarray) -> None:
    code = encode_mask(mask)
    assert code == pycocotools(mask)
    runs = decode_runs(code["counts"])
    assert runs is not None
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    np.testing.assert_array_equal(pixels.reshape(mask.shape, order="F"), mask)


@pytest.mark.parametrize("size", [(1, 1), (700, 1100), (1100, 700)])
@pytest.mark.parametrize("kind", ["empty", "full", "noise", "disc", "late", "stripes"])
def test_long_and_short_runs(kind: str, size: tuple[int, int]) -> None:
    y, x = np.ogrid[: size[0], : size[1]]
    mask = {
        "empty": np.zeros(size, dtype=bool),
        "full": np.ones(size, dtype=bool),
        "noise": np.random.default_rng(0).random(size) > 0.5,
        "disc": (y - size[0] / 2) ** 2 + (x - size[1] / 3) ** 2 < 300**2,
        "late": (y == size[0] - 1) & (x == size[1] - 1),
        "stripes": np.broadcast_to(x // 50 % 2 == 0, size),
    }[kind]
    assert encode_mask(mask) == pycocotools(mask)


@pytest.mark.parametrize("counts", ["0P", "0\x7f", "0 5", "0é", "P" * 8 + "0"])
def test_counts_that_are_cut_off_or_hold_other_characters(counts: str) -> None:
    assert decode_runs(counts) is None
