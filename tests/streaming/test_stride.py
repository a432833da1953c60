"""How long a look lasts: longer where time is short and little moves, once where boxes leave their objects."""

from hypothesis import given
from hypothesis import strategies as st

from slimdet.streaming.stride import MOST, choose, kept

EXPECTED, APS = (5.0, 10.0, 20.0, 40.0), (0.3, 0.38, 0.43, 0.46)


def test_a_budget_for_the_dearest_needs_no_carrying() -> None:
    assert choose(EXPECTED, APS, 50.0, drift=0.3, fps=25, now=1) == 1


def test_where_little_moves_a_look_lasts() -> None:
    still = choose(EXPECTED, APS, 6.0, drift=0.0, fps=25, now=1)
    assert still >= 7  # the dearest fits then
    assert choose(EXPECTED, APS, 6.0, drift=5.0, fps=25, now=1) == 1  # boxes would be lost


def test_where_nothing_fits_looks_are_few() -> None:
    assert choose(EXPECTED, APS, 0.1, drift=0.1, fps=25, now=1) == MOST


def test_a_little_better_is_no_reason_to_change() -> None:
    assert choose((5.0, 9.9), (0.40, 0.405), 5.0, drift=0.0, fps=25, now=1) == 1


@given(st.floats(0.5, 100), st.floats(0, 20), st.floats(1, 120), st.integers(1, MOST))
def test_what_is_chosen_fits_and_is_worth_most(budget: float, drift: float, fps: float, now: int) -> None:
    k = choose(EXPECTED, APS, budget, drift, fps, now)
    assert 1 <= k <= MOST

    def worth(k: int) -> float:
        return max((ap for ms, ap in zip(EXPECTED, APS, strict=True) if ms <= k * budget), default=0) * kept(
            k, drift, fps
        )

    assert worth(k) >= max(map(worth, range(1, MOST + 1))) / 1.03 - 1e-9


@given(st.floats(0, 50), st.floats(1, 120))
def test_longer_keeps_less(drift: float, fps: float) -> None:
    shares = [kept(k, drift, fps) for k in range(1, MOST + 1)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0
