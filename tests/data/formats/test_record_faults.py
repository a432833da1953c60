"""Faults of columns are those that the rules find record by record."""

import random
import re
from typing import Any

import pytest

from data.formats.test_records import sound
from slimdet.data.annotations import annotation_faults, by_id
from slimdet.data.formats.record_faults import box_faults, id_faults, record_faults
from slimdet.data.formats.records import Records

IMAGES = {number: {"id": number, "width": 40, "height": 30} for number in (3, 7, 12)} | {5: {"id": 5}}
CATEGORIES = {2: {}, 90: {}}

ODD: dict[str, list[Any]] = {
    "image_id": [3, 12, 5, 8, None, "7", [7], 10**30, 7.0],
    "category_id": [90, 4, None, "2", 2.0],
    "bbox": [
        [0, 0, 40, 30], [-0.4, 0, 40, 30], [-0.6, 0, 4, 4], [30, 6, 20, 10], [4, 6, 0, 10], [4, 6, 3, -1],
        [4, 6, float("nan"), 1], [4, 6, 1e13, 1], [1, 2, 3], None, "box", ["1", 2, 3, 4], {}, [True, 1, 2, 3],
        (1, 2, 3, 4), [None, 1, 2, 3],
    ],
    "area": [None, 4, "large", float("nan"), float("inf"), True],
    "iscrowd": [None, 1, True, float("nan"), "no"],
    "score": [None, 0.3, float("nan")],
    "segmentation": [
        None, [], [[4, 6, 24, 6]], [[1, 2, 3, 4, 5, 6]], [[1, 2, 3, 4, 5, 1e9]], "polygon",
        {"size": [30, 40], "counts": [1200]}, {"size": [40, 30], "counts": [1200]}, {"size": [30, 40], "counts": "0"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("masks", [False, True])
def test_faults_are_those_of_the_rules(masks: bool) -> None:
    draw = random.Random(0)
    given: list[Any] = []
    for number in range(1, 1500):
        record = sound(id=number)
        for name in draw.sample(sorted(ODD), draw.choice([0, 0, 1, 2])):
            record[name] = draw.choice(ODD[name])
        given.append(record)
    expected = [
        (place, reason)
        for place, record in enumerate(given)
        for reason in annotation_faults(record, IMAGES, CATEGORIES, masks or record.get("area") is None)
    ]
    found = list(record_faults(Records.of([given], masks), IMAGES, CATEGORIES, masks))
    kinds = {kind for _, (kind, _) in found}
    assert len(kinds) == 9
    assert [(place, kind) for place, (kind, _) in found] == [(place, kind) for place, (kind, _) in expected]
    told, wanted = ([re.sub(r"\.0\b", "", reason) for _, (_, reason) in faults] for faults in (found, expected))
    assert told == wanted  # but for 4.0 in place of 4


def test_ids_of_their_own() -> None:
    given = [sound(id=number) for number in (5, 6, 5, None, "7", True, 10**30, 6)] + ["text", {}]
    _, expected = by_id({"annotations": given}, "annotations")
    found = id_faults(Records.of([given]))
    assert [(number, reason) for number, _, reason in found] == expected


LARGE = {7: {"id": 7, "width": 100, "height": 60}}


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([[0.5, 0.5, 0.4, 0.4], [0.7, 0.5, 0.6, 0.9]], ["relative boxes"]),
        ([[0.5, 0.5, 0.4, 0.4], [20, 10, 30, 30], [1, 1, 5, 5]], ["boxes below a pixel"]),
        ([[40, 20, 90, 50], [10, 10, 30, 20]], ["corners in place of sides"]),
        ([[40, 20, 50, 30], [10, 10, 30, 20]], []),
        ([[90, 20, 40, 30], [10, 10, 30, 20]], []),  # outside, but no corners
    ],
)
def test_boxes_of_other_formats(boxes: list[list[float]], expected: list[str]) -> None:
    records = Records.of([[sound(id=number, bbox=box) for number, box in enumerate(boxes, 1)]])
    assert [kind for kind, _ in box_faults(records, LARGE)] == expected
