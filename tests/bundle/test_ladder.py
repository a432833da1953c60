"""Operating points: how they read, how JSON holds them, and what is none."""

from typing import Any

import pytest

from slimdet.bundle.ladder import Point
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
