"""The order of images and the learning rate."""

import numpy as np
import pytest

from slimdet.original.configs.config import Config
from slimdet.original.training.schedule import batches, chance, draw_scale, learning_rate

RULE = Config(warmup="linear", warmup_iters=500, warmup_ratio=1 / 3, step=(8, 11), gamma=0.1)


def test_batches_never_mix_shapes_and_leave_nothing_out() -> None:
    wide = [index % 3 == 0 for index in range(31)]
    for world in (1, 2, 4):
        plan = batches(wide, 2, world, seed=0, epoch=0)
        flat = [batch for shares in plan for batch in shares]
        assert all(len(shares) == world for shares in plan)
        assert all(len(batch) == 2 and wide[batch[0]] == wide[batch[1]] for batch in flat)
        assert {index for batch in flat for index in batch} == set(range(31))


def test_a_group_smaller_than_the_padding_is_repeated() -> None:
    plan = batches([True], 2, 4, seed=0, epoch=0)
    assert plan == [[[0, 0]] * 4]


def test_epochs_differ_and_repeat() -> None:
    wide = [False] * 20
    assert batches(wide, 2, 1, 0, 0) == batches(wide, 2, 1, 0, 0)
    assert batches(wide, 2, 1, 0, 0) != batches(wide, 2, 1, 0, 1)
    assert batches(wide, 2, 1, 0, 0) != batches(wide, 2, 1, 1, 0)


def test_learning_rate() -> None:
    assert learning_rate(0.02, RULE, 0, 0) == pytest.approx(0.02 / 3)
    assert learning_rate(0.02, RULE, 0, 250) == pytest.approx(0.02 * 2 / 3)
    assert learning_rate(0.02, RULE, 0, 500) == learning_rate(0.02, RULE, 7, 9999) == 0.02
    assert learning_rate(0.02, RULE, 8, 9999) == pytest.approx(0.002)
    assert learning_rate(0.02, RULE, 11, 9999) == pytest.approx(0.0002)
    assert learning_rate(0.02, None, 11, 0) == 0.02


def test_scales_are_drawn_side_by_side() -> None:
    draw = np.random.RandomState(0)
    drawn = {draw_scale([(100, 60), (102, 61)], draw) for _ in range(200)}
    assert drawn == {(long, short) for long in (100, 101, 102) for short in (60, 61)}
    assert draw_scale([(100, 60)], draw) == (100, 60)
    three = [(100, 60), (200, 80), (300, 90)]
    assert {draw_scale(three, draw) for _ in range(100)} == set(three)


def test_chance_is_each_shares_own() -> None:
    first = chance(0, 1, 2, 3).random_sample(4).tolist()
    assert chance(0, 1, 2, 3).random_sample(4).tolist() == first
    assert chance(0, 1, 2, 4).random_sample(4).tolist() != first
