"""Arrivals of the load test: their rates, their burstiness, and the trace's form."""

import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pvariance

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "serving"))

from arrivals import azure, flash_crowd, gamma, poisson, ramp, step  # pyright: ignore


def cv2(arrivals: list[float]) -> float:
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    return pvariance(gaps) / fmean(gaps) ** 2


def test_the_seed_decides_and_the_rate_is_kept() -> None:
    arrivals = poisson(50, 100, 1)
    assert arrivals == poisson(50, 100, 1) != poisson(50, 100, 2)
    assert len(arrivals) == pytest.approx(5000, rel=0.05)
    assert cv2(arrivals) == pytest.approx(1, rel=0.1)
    assert max(arrivals) < 100


@pytest.mark.parametrize("burstiness", [1, 2, 4, 8])
def test_gamma_comes_in_bursts(burstiness: int) -> None:
    arrivals = gamma(50, burstiness, 400, 0)
    assert len(arrivals) == pytest.approx(20_000, rel=0.05)
    assert cv2(arrivals) == pytest.approx(burstiness, rel=0.15)


def test_shapes_rise_and_fall() -> None:
    def counts(rate: object) -> list[int]:
        arrivals = poisson(rate, 90, 0)  # pyright: ignore
        return [sum(low <= one < low + 30 for one in arrivals) for low in (0, 30, 60)]

    low, high, again = counts(step(10, 40, 90))
    assert high / low == pytest.approx(4, rel=0.25)
    assert again / low == pytest.approx(1, rel=0.25)
    low, high, again = counts(ramp(0, 40, 90))
    assert high > 1.5 * low
    low, high, again = counts(flash_crowd(5, 100, 90))
    assert high > 3 * low > again / 2


def test_a_trace_is_its_busiest_stretch_made_as_quick_as_wanted() -> None:
    ends = [0.0, 50.0, 51.0, 53.0, 54.0, 100.0]
    lines = ["app,func,end_timestamp,duration", *(f"a,f,{end + 2},2.0" for end in ends)]
    assert azure(lines, 0.4, 10) == pytest.approx([0, 2.5, 7.5, 10])
    assert azure(lines[:2], 1, 10) == []
