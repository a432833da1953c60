"""The confusion matrix, counted by hand."""

import copy

import numpy as np

from slimdet.evaluation.confusion import confusion_matrix

from .test_matching import one_object, random_set


class TestConfusionMatrix:
    """Rows the true class, columns the detected one; the last of each is the background."""

    def test_hit_confusion_miss_and_false_alarm(self) -> None:
        coco, detections = one_object()
        coco["annotations"].append({"id": 2, "image_id": 9, "category_id": 5, "bbox": [0, 0, 10, 10]})
        coco["annotations"].append({"id": 3, "image_id": 9, "category_id": 5, "bbox": [20, 10, 10, 10]})
        detections += [
            {"image_id": 9, "category_id": 3, "bbox": [0, 0, 10, 9], "score": 0.8},  # a dog taken for a cat
            {"image_id": 7, "category_id": 5, "bbox": [20, 10, 5, 5], "score": 0.7},  # a dog where nothing is
            {"image_id": 9, "category_id": 5, "bbox": [20, 10, 10, 10], "score": 0.2},  # right but under conf
        ]
        matrix = confusion_matrix(coco, detections)
        assert matrix.dtype == np.int64
        np.testing.assert_array_equal(matrix, [[1, 0, 0], [1, 0, 1], [0, 1, 0]])
        assert confusion_matrix(coco, detections, conf=0.1)[1, 1] == 1

    def test_the_better_score_takes_the_object(self) -> None:
        coco, detections = one_object()
        twice = [detections[0] | {"score": 0.5, "category_id": 5}, *detections]
        np.testing.assert_array_equal(confusion_matrix(coco, twice), [[1, 0, 0], [0, 0, 0], [0, 1, 0]])

    def test_of_equal_boxes_the_one_of_the_detected_class_is_taken(self) -> None:
        coco, detections = one_object(category_id=5)
        coco["annotations"].append(coco["annotations"][0] | {"id": 2, "category_id": 5})
        np.testing.assert_array_equal(confusion_matrix(coco, detections), [[0, 0, 1], [0, 1, 0], [0, 0, 0]])

    def test_iou_threshold(self) -> None:
        coco, detections = one_object(bbox=[2.0, 2.0, 10.0, 6.0])  # IoU 0.75
        assert confusion_matrix(coco, detections, iou=0.75)[0, 0] == 1
        np.testing.assert_array_equal(confusion_matrix(coco, detections, iou=0.76)[0], [0, 0, 1])

    def test_crowds_are_never_missed_and_swallow_their_own_class_only(self) -> None:
        coco, detections = one_object(bbox=[3.0, 3.0, 2.0, 2.0])
        coco["annotations"][0]["iscrowd"] = 1
        assert confusion_matrix(coco, detections).sum() == 0
        matrix = confusion_matrix(coco, [detections[0] | {"category_id": 5}])
        np.testing.assert_array_equal(matrix, [[0, 0, 0], [0, 0, 0], [0, 1, 0]])

    def test_nothing_found_and_no_truth(self) -> None:
        coco, detections = one_object()
        np.testing.assert_array_equal(confusion_matrix(coco, []), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])
        nothing = coco | {"annotations": []}
        np.testing.assert_array_equal(confusion_matrix(nothing, detections), [[0, 0, 0], [0, 0, 0], [1, 0, 0]])

    def test_every_object_and_detection_is_counted_once(self) -> None:
        for seed in range(30):
            coco, detections = random_set(seed)
            coco["annotations"] = [item for item in coco["annotations"] if not item["iscrowd"]]
            matrix = confusion_matrix(coco, detections, conf=0)
            ids = sorted(category["id"] for category in coco["categories"])
            for place, number in enumerate(ids):
                assert matrix[place].sum() == sum(item["category_id"] == number for item in coco["annotations"])
                assert matrix[:, place].sum() == sum(item["category_id"] == number for item in detections)

    def test_neither_argument_is_changed(self) -> None:
        given = random_set(5)
        before = copy.deepcopy(given)
        confusion_matrix(*given)
        assert given == before
