"""Operating points and their ladder: how they read, how JSON holds them, and what is none."""

import json
import re
from typing import Any

import pytest

from slimdet.bundle.ladder import Latencies, Point, Rung, Timing, best_within
from slimdet.errors import BundleError, ConfigError


@pytest.mark.parametrize(
    ("point", "text"),
    [
        (Point(), "1.0"),
        (Point(0.5, 160), "0.5 at 160 px"),
        (Point(0.25, proposals=50), "0.25, 50 proposals"),
        (Point(0.5, 160, 50, "int8"), "0.5 at 160 px, 50 proposals, int8"),
    ],
)
def test_a_point_reads_well_and_comes_back_from_json(point: Point, text: str) -> None:
    assert str(point) == text
    assert Point.of(point.entry) == point
    assert None not in point.entry.values()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 0.0}, "width 0.0 is not above 0"),
        ({"width": 1.5}, "width 1.5 is not above 0 and at most 1"),
        ({"imgsz": 31}, "--imgsz 31 is too small; use 32 or more"),
        ({"proposals": 0}, "--proposals 0 must be 1 or more"),
        ({"precision": "int4"}, "precision 'int4' is not one of fp32, int8, bf16, fp16"),
    ],
)
def test_what_is_no_point(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Point(**fields)
    with pytest.raises(BundleError, match=f"is no operating point: {said}"):
        Point.of(fields)


def test_an_entry_with_another_field_is_no_point() -> None:
    with pytest.raises(BundleError, match="'threads'"):
        Point.of({"width": 0.5, "threads": 2})


def rung(point: Point, ap: float = 0.4, weights: str = "abc") -> Rung:
    return Rung(point, {"AP": ap, "AP_small": -1}, 700, "val", weights)


HERE = Latencies("onnxruntime", "cpu", None, {"onnxruntime": "1.23.2"}, "2026-01-01", (Timing(Point(0.5), 3.5, 4, 30),))


def test_rungs_and_latencies_come_back_from_json() -> None:
    for one in (rung(Point(0.5, 160, 50, "fp32")), Timing(Point(1.0), 3.5, 4.25, 30), HERE):
        assert type(one).of(json.loads(json.dumps(one.entry))) == one
    assert HERE.medians == {Point(0.5): 3.5}


BROKEN = {
    "{'point': {'width': 0.5}} is no rung": (Rung, {"point": {"width": 0.5}}),
    "5 is no rung of a ladder": (Rung, 5),
    "'imgsz': 1}": (Rung, rung(Point()).entry | {"point": {"width": 1.0, "imgsz": 1}}),
    "it needs numbers, AP among them": (Rung, rung(Point()).entry | {"metrics": {"AP50": 0.4}}),
    "it needs numbers, AP among": (Rung, rung(Point()).entry | {"metrics": {"AP": "0.4"}}),
    "AP among them, and images": (Rung, rung(Point()).entry | {"images": 0.5}),
    "it needs numbers, AP": (Rung, rung(Point()).entry | {"macs": 1.5}),
    "it needs p50_ms, p90_ms and n above 0": (Timing, {"point": {"width": 1.0}, "p50_ms": 0, "p90_ms": 1, "n": 5}),
    "is no latencies of a ladder": (Latencies, HERE.entry | {"points": None}),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_is_no_rung_timing_or_latencies(said: str) -> None:
    kind, entry = BROKEN[said]
    with pytest.raises(BundleError, match=re.escape(said)):
        kind.of(entry)


def test_the_most_accurate_point_within_a_budget() -> None:
    ladder = [rung(Point(width), ap) for width, ap in ((0.25, 0.2), (0.5, 0.3), (1.0, 0.4))]
    ms = {Point(0.25): 5.0, Point(0.5): 8.0, Point(1.0): 20.0}
    assert best_within(ladder, ms, 20) == (ladder[2], True)
    assert best_within(ladder, ms, 19.9) == (ladder[1], True)
    assert best_within(ladder, ms, 4) == (ladder[0], False)
    # On another machine another point may be the quickest.
    assert best_within(ladder, ms | {Point(0.25): 9.0}, 7) == (ladder[1], False)
