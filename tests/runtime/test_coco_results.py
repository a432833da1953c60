"""Run-length codes without pycocotools are those of pycocotools."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from slimdet.evaluation.ground_truth import rle_functions
from slimdet.runtime.coco_results import coco_results, encode_mask


def pycocotools(mask: np.ndarray) -> dict:
    rle = rle_functions().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_masks_are_encoded_as_pycocotools_does(mask: np.ndarray) -> None:
    assert encode_mask(mask) == pycocotools(mask)


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


def test_a_mask_for_each_detection() -> None:
    masks = np.zeros((2, 6, 9), dtype=bool)
    masks[0, 2:5, 3:7] = True
    found = coco_results(np.ones((2, 4)), np.array([1, 2]), np.ones(2), masks, 7, (30, 40))
    np.testing.assert_array_equal(rle_functions().decode(found[0]["segmentation"]), masks[0])
    with pytest.raises(ValueError, match="shorter"):
        coco_results(np.ones((2, 4)), np.array([1, 2]), np.ones(2), masks[:1], 7, (30, 40))
