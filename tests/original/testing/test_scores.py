"""The original's numbers, and recalls, against its own on a tiny set."""

import json
from typing import Any

import numpy as np
import pytest

from slimdet.errors import DataError
from slimdet.evaluation import matching
from slimdet.original.testing.recall import average_recall, objects
from slimdet.original.testing.scores import score

from ..reference import Reference


@pytest.fixture(scope="module")
def references(original: Reference) -> tuple[dict[str, Any], dict[str, Any]]:
    return json.loads(original.annotations.read_text()), original.json("eval_refs.json")


@pytest.fixture(params=["faster-coco-eval", "pycocotools"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pycocotools":
        monkeypatch.setattr(matching, "find_spec", lambda name: name == "pycocotools")
    return request.param


@pytest.mark.parametrize(
    ("kind", "given", "wanted"),
    [
        ("bbox", "det_json", "bbox"),
        ("segm", "segm_json", "segm"),
        ("bbox", "segm_json", "bbox_of_segm"),
        ("proposal", "proposal_json", "proposal"),
    ],
)
def test_numbers_are_the_originals(references: Any, library: str, kind: str, given: str, wanted: str) -> None:
    coco, original = references
    assert score(coco, original[given], kind).values == pytest.approx(original["stats"][wanted], abs=1e-12)


def test_recall_is_the_originals(references: Any) -> None:
    coco, original = references
    truth = objects(coco, original["image_ids"])
    proposals = [np.array(boxes) for boxes in original["proposals"]]
    for counts in ((100, 300, 1000), (1, 3, 5)):
        name = "proposal_fast_AR@" + "_".join(map(str, counts))
        assert average_recall(truth, proposals, counts) == pytest.approx(original["stats"][name], abs=1e-6)


def person(score: float, shift: float) -> dict[str, Any]:
    points = [value for x in range(17) for value in (10.0 + 3 * x + shift, 20.0 + 2 * x, 2)]
    return {"image_id": 5, "category_id": 1, "keypoints": points, "score": score}


def people() -> dict[str, Any]:
    truth = {**person(0, 0), "id": 1, "bbox": [10, 20, 48, 32], "area": 1536.0, "iscrowd": 0, "num_keypoints": 17}
    image = {"id": 5, "height": 80, "width": 100}
    return {"images": [image], "annotations": [truth], "categories": [{"id": 1, "name": "person"}]}


def test_keypoints(library: str) -> None:
    assert score(people(), [person(0.9, 0)], "keypoints").values[0] == pytest.approx(1)
    assert score(people(), [person(0.9, 60)], "keypoints").values[0] == 0
    with pytest.raises(DataError, match="17"):
        score(people(), [{**person(0.9, 0), "keypoints": [1, 2, 2]}], "keypoints")


@pytest.mark.parametrize("kind", ["bbox", "proposal", "keypoints"])
def test_no_detections_are_a_result(library: str, kind: str) -> None:
    found = score(people(), [], kind)
    assert found.values[0] == 0
    assert len(found.values) == len(found.lines) == (10 if kind == "keypoints" else 12)


def test_recall_by_hand() -> None:
    truth = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32), np.zeros((0, 4), np.float32)]
    exact = np.array([[20, 20, 29, 29, 0.4], [0, 0, 9, 9, 0.9]])  # inclusive
    assert average_recall(truth, [exact, np.zeros((0, 5))], (1, 2)) == (0.5, 1.0)
    assert average_recall(truth, [np.zeros((0, 5))] * 2) == (0, 0, 0)
    assert average_recall(truth[1:], [exact]) == (0, 0, 0)
