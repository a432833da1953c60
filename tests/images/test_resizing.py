"""Resizing as detectors do it, in bytes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from slimdet.images.resizing import Sides, fitted, reduction, resize

SIDES = Sides(186, 256)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (4032, 3024), (3000, 150), (187, 186), (301, 299), (999, 31)])
def test_a_detector_leaves_what_is_fitted_as_it_is(size: tuple[int, int]) -> None:
    width, height = fitted(size, SIDES)
    assert width <= size[0]
    assert height <= size[1]
    assert fitted((width, height), SIDES) == (width, height)
    transform = GeneralizedRCNNTransform(186, 256, [0.0] * 3, [1.0] * 3).eval()
    whole, small = (transform([torch.rand(3, h, w)])[0].image_sizes[0] for w, h in (size, (width, height)))
    assert small == (height, width)
    assert abs(np.subtract(whole, small)).max() <= 1  # its floating point numbers may lose a pixel


def test_small_images_and_detectors_that_want_them_whole() -> None:
    for size in ((186, 186), (100, 256), (50, 60), (1, 1)):
        assert fitted(size, SIDES) == size
        assert reduction(size, SIDES) == 1
    whole = Sides(186, 256, beforehand=False)
    assert fitted((4000, 3000), whole) == (4000, 3000)
    assert reduction((4000, 3000), whole) == 1


@pytest.mark.parametrize(("times", "averaged"), [(1, 1), (3.9, 1), (4, 2), (7.9, 2), (8, 4), (16, 8), (100, 8)])
def test_at_least_two_pixels_are_left_for_each(times: float, averaged: int) -> None:
    assert reduction((round(186 * times), round(186 * times)), SIDES) == averaged


@pytest.mark.parametrize(("size", "wanted"), [((320, 240), (248, 186)), ((61, 200), (40, 131)), ((97, 89), (96, 89))])
def test_resized_as_torch_does_it(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    floats = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = interpolate(floats, size=wanted[::-1], mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    difference = resize(pixels, wanted) - expected
    assert abs(difference).max() < 1.6  # rounding, and weights in 1/256
    assert abs(difference.mean()) < 0.02
    assert resize(pixels, size) is not pixels
    np.testing.assert_array_equal(resize(pixels, size), pixels)


def test_cells_that_are_averaged_over_less_at_the_edge_do_not_shift_the_image() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 1003)[None, :, None], (301, 1003, 3)).astype(np.uint8)
    averaged = np.array(Image.fromarray(ramp).reduce(8))  # 126 cells, the last of 3 pixels
    small = resize(averaged, (62, 19), (1003 / 8, 301 / 8))
    assert abs(small[9, :-1, 0] - resize(ramp, (62, 19))[9, :-1, 0].astype(int)).max() <= 1
