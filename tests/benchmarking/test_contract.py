"""A contract says what it asks, and what is wrong with it."""

import math
from typing import Any

import pytest

from slimdet.benchmarking.contract import Contract
from slimdet.errors import ConfigError

NOTHING = {"overloaded": None, "p99_ms": None}


@pytest.mark.parametrize(
    ("row", "shortfall"),
    [
        ({"ap": 0.30, "p90_ms": 40.0}, 0),  # the bounds themselves are kept
        ({"ap": 0.45, "p90_ms": 10.0}, 0),
        ({"ap": 0.27, "p90_ms": 10.0}, 0.1),
        ({"ap": 0.27, "p90_ms": 60.0}, 0.5),  # the term that is missed most
        ({"ap": None, "p90_ms": 10.0}, math.inf),  # nobody knows
    ],
)
def test_a_row_keeps_all_terms_or_misses_one_by_a_part(row: dict[str, Any], shortfall: float) -> None:
    assert Contract.of("ap>=0.30, p90_ms <= 40").shortfall(NOTHING | row) == pytest.approx(shortfall)


def test_latencies_of_an_overloaded_server_keep_nothing() -> None:
    row = {"ap": 0.5, "p90_ms": 1.0, "overloaded": True}
    assert Contract.of("p90_ms<=40").shortfall(row) == math.inf
    assert Contract.of("ap>=0.3").shortfall(row) == 0


def test_a_bound_of_nothing() -> None:
    assert Contract.of("mb<=0").shortfall(NOTHING | {"mb": 3.0}) == 3


def test_values_in_words() -> None:
    row = NOTHING | {"ap": 0.28412, "p90_ms": 41.0}
    assert Contract.of("ap>=0.3,p90_ms<=40,p99_ms<=50").values(row) == "ap 0.284, p90_ms 41, p99_ms -"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no metric >= or <= a number, as 'ap>=0.30'"),
        ("ap>=0.3,", "'' is no metric"),
        ("ap>0.3", "'ap>0.3' is no metric"),
        ("ap=0.3", "'ap=0.3' is no metric"),
        ("ap>=nan", "'ap>=nan' is no metric"),
        ("p90_ms<=-4", "'p90_ms<=-4' is no metric"),
        ("ap>=a lot", "'ap>=a lot' is no metric"),
        ("p90<=40", "p90 is not one of ap, ap50, .*; did you mean p90_ms?"),
        ("ap>=30", "ap is in 0..1; write ap>=0.3"),
    ],
)
def test_what_is_malformed_is_told_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Contract.of(text)
    assert str(caught.value).startswith(f"--contract {text!r}: ")
    assert "\n" not in str(caught.value)
