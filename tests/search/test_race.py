"""The race: nothing good drops out, what is surely worse does, and no round is without end."""

import numpy as np
import pytest

from slimdet.search.race import dominated, front, rounds, survivors


@pytest.mark.parametrize(
    ("images", "expected"), [(10, (10,)), (127, (127,)), (128, (64, 128)), (734, (92, 184, 367, 734))]
)
def test_rounds_double_and_end_with_all(images: int, expected: tuple[int, ...]) -> None:
    assert rounds(images) == expected


def test_the_front_is_what_nothing_beats_or_equals() -> None:
    ms = [5.0, 1.0, 3.0, 3.0, 4.0, 1.0]
    ap = [0.4, 0.1, 0.3, 0.2, 0.3, 0.2]
    assert front(ms, ap) == [5, 2, 0]


def samples(*means: float, spread: float = 0.01) -> np.ndarray:
    """Resamples of points with these APs: what is drawn moves all of them together, and each a little by itself."""
    draw = np.random.default_rng(0)
    together = draw.normal(0, 0.05, 200)
    return np.array([mean + together + draw.normal(0, spread, 200) for mean in means])


def test_only_what_is_surely_worse_and_not_quicker_is_dominated() -> None:
    ms = [10.0, 10.0, 10.0, 2.0]
    assert dominated(ms, samples(0.50, 0.40, 0.495, 0.20)).tolist() == [False, True, False, False]
    assert dominated(ms, samples(0.50, 0.40, 0.495, 0.20, spread=0.2)).tolist() == [False] * 4  # nobody is sure


def test_two_points_that_are_the_same_both_stay() -> None:
    same = np.repeat(samples(0.5), 2, axis=0)
    assert dominated([3.0, 3.0], same).tolist() == [False, False]


def test_half_goes_on_with_all_of_the_front_and_what_is_safe() -> None:
    ms = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    ap = np.array([0.10, 0.30, 0.29, 0.28, 0.27, 0.26, 0.25, 0.24])
    drawn = samples(*ap, spread=0.3)  # too noisy to be sure of anything
    assert survivors(ms, ap, drawn) == [0, 1, 2, 3]
    assert survivors(ms, ap, drawn, safe=[7]) == [0, 1, 2, 3, 7]


def test_a_race_of_front_points_ends_with_all_of_them() -> None:
    ms, ap = np.arange(1.0, 9), np.linspace(0.1, 0.8, 8)
    assert survivors(ms, ap, samples(*ap)) == list(range(8))
