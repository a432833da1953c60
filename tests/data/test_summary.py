"""What a data set holds: counts and shares, whatever else is in the file."""

from dataclasses import replace
from typing import Any

import pytest

from slimdet.data.summary import summarize


def coco(*annotations: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "width": 400, "height": 200}, {"id": 2, "width": 400, "height": 200}, {"id": 3}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": list(annotations),
    }


def box(image: Any, category: Any, width: float, height: float, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [0, 0, width, height], **more}


SOUND = [box(1, 9, 31, 31), box(1, 9, 32, 32), box(1, 4, 200, 100), box(1, 9, 96, 95)]


def test_counts_and_shares() -> None:
    found = summarize(coco(*SOUND))
    assert (found.images, found.empty, found.boxes, found.per_image) == (3, 1, 4, 4)
    assert found.classes == {"cat": 1, "dog": 3}
    assert list(found.classes) == ["cat", "dog"]
    assert (found.small, found.medium, found.large) == (0.25, 0.5, 0.25)
    assert (found.width, found.height) == (400, 200)


def test_shares_at_the_size_of_training() -> None:
    found = summarize(coco(*SOUND), size=(100, 1000))  # half as large
    assert (found.small, found.medium, found.large) == (0.5, 0.5, 0.0)
    capped = summarize(coco(*SOUND), size=(100, 40))  # a tenth: the longer side decides
    assert (capped.small, capped.medium) == (1.0, 0.0)


@pytest.mark.parametrize(
    "faulty",
    [
        None,
        {},
        box(7, 9, 10, 10),
        box(1, 8, 10, 10),
        box([1], 9, 10, 10),
        box(1, 9, 0, 10),
        box(1, 9, float("nan"), 10),
        box(1, 9, 10, 10, bbox="text"),
        box(1, 9, 10, 10, iscrowd=1),
    ],
)
def test_faulty_records_and_crowds_are_left_out(faulty: Any) -> None:
    assert replace(summarize(coco(*SOUND, faulty)), crowds=0) == summarize(coco(*SOUND))


def test_nothing_is_no_fault() -> None:
    found = summarize({"images": [], "categories": [], "annotations": []}, size=(100, 100))
    assert (found.boxes, found.small, found.medium, found.large, found.width) == (0, 0, 0, 0, 0)
