"""The size in whole numbers is the one that torchvision computes in floats."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from slimdet.errors import ConfigError
from slimdet.exporting.sizes import longer_limit, resized
from slimdet.images.sides import scaled_sides


def expected(height: int, width: int, shortest: int, longest: int) -> list[int]:
    """As torch.nn.functional.interpolate does with recompute_scale_factor."""
    scale = min(shortest / min(height, width), longest / max(height, width))
    return [math.floor(float(side) * scale) for side in (height, width)]


@given(
    height=st.integers(1, 20000),
    width=st.integers(1, 20000),
    shortest=st.integers(32, 2000),
    ratio=st.sampled_from([1, 4 / 3, 1333 / 800, 2, 4]),
)
def test_any_size(height: int, width: int, shortest: int, ratio: float) -> None:
    longest = round(shortest * ratio)
    assert whole(height, width, shortest, longest) == expected(height, width, shortest, longest)


@given(
    sides=st.tuples(st.integers(1, 32767), st.integers(1, 32767)),
    imgsz=st.integers(32, 32767),
    own=st.tuples(st.integers(32, 2000), st.integers(1, 4)).map(lambda own: (own[0], own[0] * own[1] - own[1] // 2)),
)
def test_any_size_at_another_size_of_the_detector(sides: tuple[int, int], imgsz: int, own: tuple[int, int]) -> None:
    try:
        shortest, longest = scaled_sides(own, imgsz)
    except ConfigError:
        assert imgsz * own[1] / own[0] > 32767
        return
    assert int(longer_limit(torch.tensor(imgsz), *own)) == longest
    assert whole(*sides, shortest, longest) == expected(*sides, shortest, longest)


def whole(height: int, width: int, shortest: int, longest: int) -> list[int]:
    return resized(torch.tensor([height, width]), torch.tensor(shortest), torch.tensor(longest)).tolist()


@pytest.mark.parametrize(("shortest", "longest"), [(128, 180), (186, 256), (800, 1333), (640, 640), (320, 640)])
def test_where_the_floats_lose_a_pixel(shortest: int, longest: int) -> None:
    draw = random.Random(0)
    lost = 0
    for _ in range(1500):
        sides = draw.randint(32, 3000), draw.randint(32, 3000)
        wanted = expected(*sides, shortest, longest)
        assert whole(*sides, shortest, longest) == wanted, sides
        lost += wanted[0] != expected_exactly(*sides, shortest, longest)
    assert lost > 0, "no case at hand was one of those that the integers are for"


def expected_exactly(height: int, width: int, shortest: int, longest: int) -> int:
    low, high = sorted((height, width))
    return height * shortest // low if shortest * high <= longest * low else height * longest // high


def test_it_is_what_torch_does() -> None:
    for height, width in ((161, 300), (141, 141), (97, 400), (49, 50)):
        scale = min(128 / min(height, width), 180 / max(height, width))
        image = functional.interpolate(
            torch.zeros(1, 1, height, width), scale_factor=scale, recompute_scale_factor=True
        )
        assert list(image.shape[2:]) == whole(height, width, 128, 180)
