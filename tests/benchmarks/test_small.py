"""The decoding of the peers' outputs: boxes that were put into them come out, in pixels of the photograph."""

import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"
sys.path.insert(0, str(PEERS))

from small import BINS, NanoDet, Yolox, cells, distances  # noqa: E402  # pyright: ignore

HEIGHT, WIDTH = 120, 200
CLASSES = 80
DOG, CAR = 16, 2


def test_cells_go_row_by_row_and_count_parts_of_a_cell() -> None:
    places, strides = cells(20, (8, 16))
    assert places.tolist() == [[x, y] for y in range(3) for x in range(3)] + [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert strides.tolist() == [8.0] * 9 + [16.0] * 4


def test_a_distance_is_the_mean_of_its_bins() -> None:
    bins = np.full((1, 4, BINS), -50, np.float32)
    bins[0, 0, 3] = 50  # certain
    bins[0, 1, [2, 3]] = 50  # between two
    bins[0, 2] = 0  # anything
    bins[0, 3, 7] = 1000  # no overflow
    assert distances(bins.reshape(1, -1))[0] == pytest.approx([3, 2.5, 3.5, 7])


def test_nanodet_boxes_are_in_pixels_of_the_photograph() -> None:
    detector = NanoDet(64)
    scores = [np.zeros((CLASSES, side, side), np.float32) for side in (8, 4, 2, 1)]
    bins = [np.full((side, side, 4 * BINS), -50, np.float32) for side in (8, 4, 2, 1)]
    scores[1][DOG, 2, 1] = 0.9  # the cell of stride 16 whose corner is x 16, y 32 of 64
    for side, distance in enumerate((1, 2, 2, 1)):
        bins[1][2, 1, side * BINS + distance] = 50
    boxes, classes, found = detector.decode([*scores, *bins], HEIGHT, WIDTH)
    x, y = WIDTH / 64, HEIGHT / 64
    assert boxes == pytest.approx(np.array([[0 * x, 0 * y, 48 * x, 48 * y]]))
    assert (classes.tolist(), found.tolist()) == ([DOG], [pytest.approx(0.9)])


def test_yolox_boxes_are_in_pixels_of_the_photograph() -> None:
    detector = Yolox(64)
    output = np.zeros((8 * 8 + 4 * 4 + 2 * 2, 5 + CLASSES), np.float32)
    cell = 8 * 8 + 2 * 4 + 1  # of stride 16, third row, second column
    output[cell, :5] = [0.5, -0.5, np.log(2), np.log(1), 0.8]
    output[cell, 5 + CAR] = 0.5
    boxes, classes, scores = detector.decode([output], HEIGHT, WIDTH)
    ratio = 64 / WIDTH  # the photograph fills the width
    assert boxes == pytest.approx(np.array([[8, 16, 40, 32]]) / ratio)
    assert (classes.tolist(), scores.tolist()) == ([CAR], [pytest.approx(0.4)])


@pytest.mark.parametrize("detector", [NanoDet(64), Yolox(64)])
def test_of_overlapping_boxes_of_a_class_the_best_is_kept(detector: NanoDet | Yolox) -> None:
    if isinstance(detector, NanoDet):
        scores = [np.zeros((CLASSES, side, side), np.float32) for side in (8, 4, 2, 1)]
        bins = [np.full((side, side, 4 * BINS), -50, np.float32) for side in (8, 4, 2, 1)]
        scores[0][[DOG, DOG, CAR], [4, 4, 4], [3, 4, 4]] = [0.6, 0.5, 0.3]
        bins[0].reshape(8, 8, 4, BINS)[..., 7] = 50
        outputs = [*scores, *bins]
    else:
        output = np.zeros((8 * 8 + 4 * 4 + 2 * 2, 5 + CLASSES), np.float32)
        output[[35, 36], 2:5] = [3.0, 3.0, 1.0]
        output[[35, 36], 5 + DOG] = [0.6, 0.5]
        output[36, 5 + CAR] = 0.3
        outputs = [output]
    _, classes, found = detector.decode(outputs, 64, 64)
    assert (classes.tolist(), found.tolist()) == ([DOG, CAR], pytest.approx([0.6, 0.3]))


def test_yolox_keeps_the_aspect_and_splits_pixels_into_channels() -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[::2, 1::2] = 255  # even rows, odd columns
    values = Yolox(64).prepare(pixels)
    assert values.shape == (12, 32, 32)
    white = (
        values[:, :16].reshape(4, 3, 16, 32).mean(axis=(1, 2, 3)) > 0
    )  # upper left, lower left, upper right, lower right
    assert white.tolist() == [False, False, True, False]
    assert np.ptp(values[:, 16:].reshape(4, 3, -1), axis=2).max() < 1e-6  # grey below
