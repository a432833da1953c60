"""RoIAlign as the original does it."""

import numpy as np
import pytest
import torch

from slimdet.original.detector.boxes import from_inclusive
from slimdet.original.detector.pooler import PyramidRoIAlign


def pooled(units: dict[str, np.ndarray], size: int, sampling: int, count: int, feature: torch.Tensor) -> torch.Tensor:
    rois = torch.tensor(units["roi_align/rois"])[:count]
    order, found = [], []
    for image in (0, 1):
        mine = torch.where(rois[:, 0] == image)[0]
        pool = PyramidRoIAlign(size, sampling, [4], finest=56)
        found.append(pool({"0": feature[image : image + 1]}, [from_inclusive(rois[mine, 1:])]))
        order.append(mine)
    result = torch.empty(count, *found[0].shape[1:])
    result[torch.cat(order)] = torch.cat(found)
    return result


@pytest.mark.parametrize(
    ("name", "size", "sampling", "count"),
    [
        ("out_7_scale0.25_sample2", 7, 2, 8),
        ("out_14_scale0.25_sample2", 14, 2, 8),
        ("out_3_scale0.25_sample0", 3, 0, 5),
    ],
)
def test_values_are_the_originals(
    units: dict[str, np.ndarray], name: str, size: int, sampling: int, count: int
) -> None:
    feature = torch.tensor(units["roi_align/feat"])
    found = pooled(units, size, sampling, count, feature)
    wanted = units[f"roi_align/{name}"]
    known = np.isfinite(wanted)  # without sampling the original divides by 0 for a box without area
    assert np.allclose(found.numpy()[known], wanted[known], atol=1e-5)
    assert found.isfinite().all()


def test_gradients_are_the_originals(units: dict[str, np.ndarray]) -> None:
    feature = torch.tensor(units["roi_align/feat"], requires_grad=True)
    pooled(units, 7, 2, 8, feature).backward(torch.tensor(units["roi_align/grad_out"]))
    assert np.allclose(feature.grad, units["roi_align/grad_feat"], atol=1e-4)


def test_levels_are_the_originals(units: dict[str, np.ndarray]) -> None:
    boxes = from_inclusive(torch.tensor(units["levels/rois"])[:, 1:])
    assert PyramidRoIAlign(7, 2, [4, 8, 16, 32], 56).levels(boxes).tolist() == units["levels/out"].tolist()


def test_level_borders() -> None:
    sides = torch.tensor([1.0, 111, 112, 223, 224, 447, 448, 5000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    assert PyramidRoIAlign(7, 2, [4, 8, 16, 32], 56).levels(boxes).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_box_thinner_than_a_pixel_and_none_at_all() -> None:
    pool = PyramidRoIAlign(2, 2, [4, 8], 56)
    features = {"0": torch.arange(64.0).reshape(1, 1, 8, 8), "1": torch.zeros(1, 1, 4, 4)}
    point = pool(features, [torch.tensor([[8.0, 8, 8, 8], [8, 8, 5, 5]])])
    assert torch.equal(point[0], point[1])  # a negative width counts as none
    assert torch.allclose(point[0], torch.tensor(18.0))
    assert pool(features, [torch.zeros(0, 4)]).shape == (0, 1, 2, 2)
