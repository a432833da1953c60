"""What is assigned, sampled and lost in training, against the original's own cases."""

import numpy as np
import pytest
import torch

from slimdet.original.configs.config import Config
from slimdet.original.detector.boxes import from_inclusive
from slimdet.original.training.losses import mask_targets, smooth_l1
from slimdet.original.training.targets import assign, sample

Units = dict[str, np.ndarray]
RPN = Config(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
RCNN = Config(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)


def sampler(**changes: object) -> Config:
    rule = {"num": 8, "pos_fraction": 0.5, "neg_pos_ub": -1, "pos_balance_sampling": False, "neg_balance_thr": 0}
    return Config({**rule, **changes})


@pytest.mark.parametrize(("name", "rule"), [("rpn", RPN), ("rcnn", RCNN)])
def test_assignment_is_the_originals(units: Units, name: str, rule: Config) -> None:
    boxes, objects = (from_inclusive(torch.tensor(units[f"assign/{what}"])) for what in ("boxes", "gts"))
    assert assign(boxes, objects, rule).tolist() == units[f"assign/{name}_gt_inds"].tolist()


def test_assignment_without_objects_or_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    assert assign(boxes, boxes[:0], RPN).tolist() == [0]
    assert assign(boxes[:0], boxes, RPN).tolist() == []


def test_an_object_gets_its_best_box_though_it_overlaps_little() -> None:
    objects = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 6, 10, 10], [0, 0, 10, 3], [50, 50, 60, 60]])
    assert assign(boxes, objects, RPN).tolist() == [1, 1, -1, 0]  # 0.4 twice, exactly; 0.3 is between


def test_sampling() -> None:
    assigned = torch.tensor([1, 1, 2, 2, 2, 2, 0, 0, 0, -1])
    everything = sample(assigned, sampler(num=10**7))
    assert everything.positive.tolist() == [0, 1, 2, 3, 4, 5]
    assert everything.negative.tolist() == [6, 7, 8]
    few = sample(assigned, sampler(num=4), np.random.RandomState(0))
    assert len(few.positive) == len(few.negative) == 2
    assert few.positive.tolist() == sorted(few.positive.tolist())
    again = sample(assigned, sampler(num=4), np.random.RandomState(0))
    assert few.positive.tolist() == again.positive.tolist()
    bounded = sample(torch.tensor([1] + [0] * 20), sampler(num=16, neg_pos_ub=3))
    assert (len(bounded.positive), len(bounded.negative)) == (1, 3)
    balanced = sample(
        torch.tensor([1] * 50 + [2, 2]), sampler(num=8, pos_balance_sampling=True), np.random.RandomState(0)
    )
    assert len(balanced.positive) == 4
    assert (balanced.positive >= 50).sum() >= 1  # chance alone would rarely take the two of the second object


def test_smooth_l1_is_the_originals(units: Units) -> None:
    given, wanted, weight = (torch.tensor(units[f"loss/{name}"]) for name in ("pred", "target", "weight"))
    for beta, divisor, name in ((1.0, 6, "smoothl1_beta1_avg6"), (1 / 9, 512, "smoothl1_beta1_9_avg512")):
        found = (smooth_l1(given - wanted, beta) * weight).sum() / divisor
        assert found.item() == pytest.approx(float(units[f"loss/{name}"][0]), rel=1e-5)


def test_mask_targets_are_the_originals(units: Units) -> None:
    y, x = np.mgrid[:200, :300]
    circle, ellipse = (x - 100) ** 2 + (y - 80) ** 2 < 2500, (x - 200) ** 2 / 4 + (y - 120) ** 2 < 1600
    boxes = from_inclusive(torch.tensor(units["mask_target/rois"]))
    masks = np.stack([circle, ellipse]).astype(np.uint8)
    found = mask_targets(boxes, torch.tensor(units["mask_target/assigned"]), masks, 28)
    assert np.array_equal(found.numpy(), units["mask_target/out"])
