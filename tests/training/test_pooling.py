"""RoIAlign with a backward pass of its own: torchvision's gradients, wherever a box lies."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, poolers, roi_align

from scenes_detector import scene_batch, tiny_model
from slimdet.training import pooling
from slimdet.training.pooling import matrix_pooling, small_map_roi_align


def some_boxes() -> Tensor:
    """Of two images, the second first: inside, longer than the map, outside it, of no size, at its last cell."""
    drawn = torch.rand(20, 2) * 60
    inside = torch.cat([torch.randint(2, (20, 1)), drawn, drawn + torch.rand(20, 2) * 40], 1)
    odd = [[1, -30, -30, 200, 200], [0, 300, 10, 320, 20], [0, 8, 8, 8, 8], [1, 70, 40, 80, 48], [0, -9, -2, 5, 3]]
    return torch.cat([torch.tensor(odd).float(), inside])


@pytest.mark.parametrize("bins", [(7, 7), (3, 5)])
def test_result_and_gradient_are_torchvisions(bins: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps, boxes = torch.rand(2, 4, 6, 10), some_boxes()
    one, other = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    expected, found = roi_align(one, boxes, bins, 1 / 8, 2), small_map_roi_align(other, boxes, bins, 1 / 8, 2)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    expected.backward(weights)
    found.backward(weights)
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-5)


def test_more_boxes_than_one_product_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradient() -> Tensor:
        torch.manual_seed(0)
        maps = torch.rand(2, 3, 6, 10, requires_grad=True)
        small_map_roi_align(maps, some_boxes(), (2, 2), 1 / 8, 1).square().sum().backward()
        assert maps.grad is not None
        return maps.grad

    whole = gradient()
    monkeypatch.setattr(pooling, "_AT_ONCE", 4)
    torch.testing.assert_close(gradient(), whole)


def test_no_box_has_no_gradient() -> None:
    maps = torch.rand(1, 2, 4, 4, requires_grad=True)
    small_map_roi_align(maps, torch.zeros(0, 5), (7, 7), 1.0, 2).sum().backward()
    assert maps.grad is not None
    assert not maps.grad.any()


def test_poolers_have_it_within_the_block_alone() -> None:
    pool = MultiScaleRoIAlign(["0", "1"], 7, 2)
    features = {"0": torch.rand(1, 4, 16, 16, requires_grad=True), "1": torch.rand(1, 4, 8, 8, requires_grad=True)}
    boxes = [torch.tensor([[1.0, 1, 20, 20], [0, 0, 128, 128]])]
    with matrix_pooling():
        inside = pool(features, boxes, [(128, 128)])
        assert poolers.roi_align is small_map_roi_align
    assert poolers.roi_align is roi_align
    assert torch.equal(pool(features, boxes, [(128, 128)]), inside)


def test_a_step_has_the_same_gradients() -> None:
    detector, (images, targets) = tiny_model((1.0,)).twin(1.0).train(), scene_batch()

    def gradient() -> Tensor:
        torch.manual_seed(1)
        detector.zero_grad()
        torch.stack(list(detector(images, targets).values())).sum().backward()
        return torch.cat(
            [parameter.grad.flatten() for parameter in detector.parameters() if parameter.grad is not None]
        )

    expected = gradient()
    with matrix_pooling():
        found = gradient()
    assert not torch.equal(found, expected)  # else the other way was not taken
    assert (found - expected).norm() < 1e-4 * expected.norm()
