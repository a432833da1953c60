"""The bootstrap: its AP is COCO's, and a resample is the data set with images as often as they were drawn."""

from typing import Any

import numpy as np
import pytest

from slimdet.evaluation.matching import evaluate
from slimdet.evaluation.resampling import Matches, resamples


def made_up(images: int = 12, crowds: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of three classes (the last has none), some of them crowds; detections near them, and elsewhere."""
    draw = np.random.default_rng(3)
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": str(k)} for k in (2, 5, 7)],
    }
    detections = []
    for number in range(1, images + 1):
        coco["images"].append({"id": number, "width": 200, "height": 200})
        for _ in range(int(draw.integers(0, 5))):
            box = [*draw.integers(0, 100, 2).tolist(), *draw.integers(20, 90, 2).tolist()]
            crowd = int(crowds and draw.random() < 0.2)
            kind = int(draw.choice([2, 5]))
            one = {"image_id": number, "category_id": kind, "bbox": box}
            coco["annotations"].append(
                one | {"id": len(coco["annotations"]) + 1, "iscrowd": crowd, "area": box[2] * box[3]}
            )
            for _ in range(int(draw.integers(0, 4))):
                moved = [value + int(draw.integers(-6, 7)) for value in box]
                detections.append(one | {"bbox": moved, "score": float(draw.random())})
        box = [5, 5, 30, 30]
        detections.append({"image_id": number, "category_id": 7, "bbox": box, "score": float(draw.random())})
    return coco, detections


@pytest.mark.parametrize("crowds", [False, True])
def test_every_image_once_is_cocos_ap(crowds: bool) -> None:
    coco, detections = made_up(crowds=crowds)
    found = Matches(coco, detections).ap(np.ones((1, 12)))
    expected = evaluate(coco, detections)["bbox"]["AP"]
    assert 0.1 < expected < 0.9
    assert found == pytest.approx([expected])


def test_images_that_count_nothing_are_as_if_they_were_not_there() -> None:
    coco, detections = made_up()
    kept = {2, 3, 7, 11}
    weights = np.array([[float(number in kept) for number in range(1, 13)]])
    part = {**coco, "images": [one for one in coco["images"] if one["id"] in kept]}
    part["annotations"] = [one for one in coco["annotations"] if one["image_id"] in kept]
    expected = evaluate(part, [one for one in detections if one["image_id"] in kept])["bbox"]["AP"]
    assert Matches(coco, detections).ap(weights) == pytest.approx([expected])


def test_without_objects_or_detections() -> None:
    coco, detections = made_up()
    assert Matches(coco, []).ap(np.ones((2, 12))).tolist() == [0, 0]
    assert Matches({**coco, "annotations": []}, detections).ap(np.ones((1, 12))).tolist() == [-1]


def test_resamples_are_draws_with_replacement_and_the_same_for_a_seed() -> None:
    drawn = resamples(50, 400, seed=1)
    assert (drawn == resamples(50, 400, seed=1)).all()
    assert (drawn.sum(1) == 50).all()
    assert (drawn == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.02)
