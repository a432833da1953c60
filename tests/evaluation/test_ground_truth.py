"""What may not reach the evaluation libraries: each is an error that names the culprit."""

import re

import numpy as np
import pytest

from slimdet.errors import DataError
from slimdet.evaluation.ground_truth import GroundTruth
from slimdet.evaluation.matching import evaluate

SQUARE = [[2, 2, 12, 2, 12, 10, 2, 10]]


def sound() -> tuple[dict, dict]:
    annotation = {"id": 4, "image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 8], "segmentation": SQUARE}
    coco = {
        "images": [{"id": 7, "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [annotation],
    }
    detection = {"image_id": 7, "category_id": 3, "bbox": [2, 2, 10, 8], "score": 0.9, "segmentation": SQUARE}
    return coco, detection


def test_sound_input_passes() -> None:
    coco, detection = sound()
    found = evaluate(coco, [detection], ("bbox", "segm"))
    assert found["bbox"]["AP"] == found["segm"]["AP"] == 1


def test_numpys_numbers_are_numbers() -> None:
    coco, detection = sound()
    coco["images"][0]["id"] = coco["annotations"][0]["image_id"] = np.int64(7)
    detection |= {"image_id": np.int32(7), "bbox": np.array([2, 2, 10, 8], np.float32), "score": np.float32(0.9)}
    assert evaluate(coco, [detection])["bbox"]["AP"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "detection in image 7: 'score' is nan, not a finite number"),
        ({"score": float("inf")}, "detection in image 7: 'score' is inf, not a finite number"),
        ({"score": None}, "detection in image 7: 'score' is None, not a finite number"),
        ({"bbox": [2, 2, float("nan"), 8]}, "detection in image 7: bbox [2, 2, nan, 8]: nan is not a finite number"),
        ({"bbox": [2, 2, 1e300, 1e300]}, "1e+300 is not a finite number"),
        ({"bbox": [2, 2, -1, 8]}, "detection in image 7: bbox [2, 2, -1, 8] has a negative width or height"),
        ({"bbox": [2, 2, 10]}, "detection in image 7: bbox [2, 2, 10] is not [x, y, width, height]"),
        ({"bbox": None}, "detection in image 7: bbox None is not [x, y, width, height]"),
        ({"image_id": 8}, "detection in image 8: no image of the 1 has the id 8"),
        ({"image_id": [7]}, "detection in image [7]: no image of the 1 has the id [7]"),
        ({"category_id": 1}, "detection in image 7: no category of the 1 has the id 1"),
        ({"segmentation": None}, "detection in image 7: no mask to evaluate"),
        (
            {"segmentation": {"size": [30, 20], "counts": "0"}},
            "an RLE of size [30, 20] in an image of",
        ),
        ({"segmentation": {"size": [20, 30], "counts": "0"}}, "the run lengths of an RLE add up to 0, not to 20 x 30"),
        ({"segmentation": {"size": [20, 30], "counts": None}}, "the 'counts' of an RLE are not run lengths"),
    ],
)
def test_broken_detections_are_refused(change: dict, message: str) -> None:
    coco, detection = sound()
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        evaluate(coco, [detection, detection | change], ("bbox", "segm"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "annotation 4: no image of the 1 has the id 8"),
        ({"category_id": 0}, "annotation 4: no category of the 1 has the id 0"),
        ({"bbox": [0, 0, float("inf"), 1]}, "annotation 4: bbox [0, 0, inf, 1]: inf is not a finite number"),
        ({"area": float("nan")}, "annotation 4: 'area' is nan, not a finite number"),
        ({"segmentation": [[1, 1, 2, 2]]}, "annotation 4: a polygon has 4 numbers"),
        ({"segmentation": [[1, 1, 2, 2, float("nan"), 3]]}, "annotation 4: a polygon is not a list of finite numbers"),
        ({"segmentation": [[1, 1, 2, 2, 1e9, 3]]}, "annotation 4: a polygon reaches far outside the image of 30x20"),
        (
            {"segmentation": {"size": [20, 30], "counts": [5, 5]}},
            "annotation 4: the run lengths of an RLE add up to 10",
        ),
        ({"segmentation": []}, "annotation 4: no mask to evaluate"),
        ({"id": "4"}, "entry 0 of 'annotations' has the id '4', which is not a whole number"),
    ],
)
def test_broken_annotations_are_refused(change: dict, message: str) -> None:
    coco, _ = sound()
    coco["annotations"][0] |= change
    with pytest.raises(DataError, match=re.escape(message)):
        evaluate(coco, [], ("bbox", "segm"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("annotations", "entry 1 of 'annotations' repeats the id 4; ids must be unique"),
        ("images", "entry 1 of 'images' repeats the id 7; ids must be unique"),
        ("categories", "entry 1 of 'categories' repeats the id 3; ids must be unique"),
    ],
)
def test_repeated_ids_and_missing_lists_are_refused(key: str, message: str) -> None:
    coco, _ = sound()
    with pytest.raises(DataError, match=message):
        evaluate(coco | {key: coco[key] * 2}, [])
    with pytest.raises(DataError, match=f"no list '{key}'"):
        evaluate({name: value for name, value in coco.items() if name != key}, [])


def test_masks_need_the_images_size_but_boxes_do_not() -> None:
    coco, detection = sound()
    coco["images"] = [{"id": 7}]
    coco["annotations"][0]["area"] = 80
    assert evaluate(coco, [detection])["bbox"]["AP"] == 1
    with pytest.raises(DataError, match="annotation 4: its image has no width and height"):
        evaluate(coco, [detection], ("segm",))


def test_uncompressed_masks_count_as_their_polygon() -> None:
    coco, detection = sound()
    runs = [42, 8, *[12, 8] * 9, 600 - 50 - 180]  # ten columns of eight pixels, from column 2 and row 2
    coco["annotations"][0]["segmentation"] = {"size": [20, 30], "counts": runs}
    assert evaluate(coco, [detection], ("segm",))["segm"]["AP"] == 1


def test_a_missing_area_is_the_masks_or_else_the_boxs() -> None:
    coco, _ = sound()
    coco["annotations"][0]["segmentation"] = [[2, 2, 12, 2, 2, 10]]
    assert GroundTruth(coco, masks=False).annotations[0]["area"] < 60
    del coco["annotations"][0]["segmentation"]
    assert GroundTruth(coco, masks=False).annotations[0]["area"] == 80


def test_classes_come_in_order_of_their_id_and_stay_distinct() -> None:
    coco, _ = sound()
    coco["categories"] = [{"id": 9, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 6}]
    assert GroundTruth(coco, masks=False).classes == ("cat", "dog (5)", "6", "dog (9)")
