"""Legacy box arithmetic in half-open coordinates, against the original's own cases."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from slimdet.original.detector.anchors import RoundedAnchors, cell
from slimdet.original.detector.boxes import Coder, clip, flip, from_inclusive, nms_per_class, rescale, to_inclusive

Units = dict[str, np.ndarray]


def half_open(units: Units, name: str) -> torch.Tensor:
    return from_inclusive(torch.tensor(units[name])[:, :4])


def test_cell_anchors_are_rounded() -> None:
    expected = [[-21, -9, 24, 12], [-14, -14, 17, 17], [-9, -21, 12, 24]]
    assert to_inclusive(cell(4, [8], [0.5, 1.0, 2.0])).tolist() == expected


def test_grid_follows_the_given_strides() -> None:
    # An input of 480 pixels has 8 cells of 64: the stride is not 480 / 8.
    anchors = RoundedAnchors([64], [8], [1.0]).per_level([torch.zeros(1, 1, 1, 8)])[0]
    assert (anchors[1:, 0] - anchors[:-1, 0]).tolist() == [64.0] * 7


@pytest.mark.parametrize("base", [4, 8, 16, 32, 64])
def test_anchors_are_the_originals(units: Units, base: int) -> None:
    grid = RoundedAnchors([base], [8], [0.5, 1.0, 2.0]).per_level([torch.zeros(1, 1, 2, 3)])[0]
    assert np.array_equal(to_inclusive(grid).numpy(), units[f"anchors/grid_{base}_2x3"])


def test_coding_is_the_originals(units: Units) -> None:
    rois, codes = half_open(units, "delta2bbox/rois"), torch.tensor(units["delta2bbox/deltas"])
    coder, plain = Coder((0,) * 4, (0.1, 0.1, 0.2, 0.2)), Coder((0,) * 4, (1,) * 4)
    for columns in (slice(0, 4), slice(4, 8)):
        found = to_inclusive(clip(coder.decode_single(codes[:, columns], rois), (200, 300)))
        assert np.allclose(found, units["delta2bbox/out_std_0.1_0.2_shape_200x300"][:, columns], atol=1e-3)
        found = to_inclusive(plain.decode_single(codes[:, columns], rois))
        assert np.allclose(found, units["delta2bbox/out_unit_noclip"][:, columns], rtol=1e-5, atol=1e-3)
    found = coder.encode_single(half_open(units, "bbox2delta/gt"), rois)
    assert np.allclose(found, units["bbox2delta/out_std_0.1_0.2"], atol=1e-4)


def test_coding_with_means_goes_back_and_forth() -> None:
    coder = Coder((0.1, -0.2, 0.3, 0.0), (0.1, 0.2, 0.3, 0.4))
    rois = torch.tensor([[0.0, 0, 10, 20], [5, 5, 50, 30]])
    boxes = torch.tensor([[2.0, 1, 15, 16], [0, 8, 40, 40]])
    assert torch.allclose(coder.decode_single(coder.encode_single(boxes, rois), rois), boxes, atol=1e-4)


def test_decoding_limits_shrinking() -> None:
    boxes = Coder((0,) * 4, (1,) * 4).decode_single(torch.tensor([[0.0, 0, -9, 9]]), torch.tensor([[0.0, 0, 1000, 16]]))
    assert torch.allclose(boxes[0, 2:] - boxes[0, :2], torch.tensor([16.0, 1000.0]), rtol=1e-4)


def test_overlaps_and_nms_are_the_originals(units: Units) -> None:
    found = box_iou(half_open(units, "delta2bbox/rois")[:10], half_open(units, "delta2bbox/rois")[:10])
    assert np.allclose(found.diagonal(), 1)
    boxes, scores = half_open(units, "nms/dets"), torch.tensor(units["nms/dets"][:, 4])
    for threshold in (0.3, 0.5, 0.7):
        assert sorted(nms(boxes, scores, threshold).tolist()) == sorted(units[f"nms/keep_{threshold}"].tolist())
    exact = torch.tensor(units["nms/exact_dets"])
    assert len(nms(from_inclusive(exact[:, :4]), exact[:, 4], 0.5)) == 3  # an overlap of exactly 0.5 stays


@pytest.mark.parametrize("most", [10, 1000])
def test_nms_per_class_is_the_originals(units: Units, most: int) -> None:
    boxes = from_inclusive(torch.tensor(units["mcnms/boxes"]).reshape(-1, 4)).reshape(120, 4, 4)
    scores = torch.tensor(units["mcnms/scores"])
    rows, classes = torch.where(scores[:, 1:] > 0.05)
    candidates, certain = boxes[rows, classes + 1], scores[rows, classes + 1]
    keep = nms_per_class(candidates, certain, classes, 0.5, most)
    found = torch.column_stack([to_inclusive(candidates[keep]), certain[keep]])
    assert np.allclose(found, units[f"mcnms/out_boxes_max{most}"], atol=1e-3)
    assert classes[keep].tolist() == units[f"mcnms/out_labels_max{most}"].tolist()


def test_nms_per_class_keeps_classes_apart_and_orders_them() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    scores, labels = torch.tensor([0.3, 0.9, 0.5, 0.8]), torch.tensor([2, 2, 1, 1])
    assert nms_per_class(boxes, scores, labels, 0.5, 9).tolist() == [3, 1]
    assert nms_per_class(boxes, scores, labels, 0.5, 1).tolist() == [1]
    assert nms_per_class(boxes[:0], scores[:0], labels[:0], 0.5, 9).tolist() == []


def test_flip_and_rescale_are_the_originals(units: Units) -> None:
    boxes = torch.tensor([[10.0, 20, 30, 40], [0, 0, 300, 9]])
    assert torch.equal(flip(flip(boxes, 300), 300), boxes)
    assert to_inclusive(flip(from_inclusive(torch.tensor([[0.0, 0, 9, 9]])), 300)).tolist() == [[290, 0, 299, 9]]
    inclusive = torch.tensor([[10.0, 20, 30, 40]])
    assert torch.allclose(to_inclusive(rescale(from_inclusive(inclusive), 1.5)), inclusive * 1.5)


def test_clip_keeps_the_last_pixel() -> None:
    found = clip(torch.tensor([[-5.0, -5, 400, 400], [390, 390, 400, 400], [-9, -9, -5, -5]]), (200, 300))
    assert found.tolist() == [[0, 0, 300, 200], [299, 199, 300, 200], [0, 0, 1, 1]]
