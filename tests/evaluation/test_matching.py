"""COCO's numbers against pycocotools itself, and the corner cases both libraries get wrong."""

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import sys
from typing import Any

import numpy as np
import pytest

from slimdet.errors import ConfigError
from slimdet.evaluation.matching import METRICS, accumulate, evaluate

# Not `from pycocotools import ...`: its type stubs are narrower than what it takes.
masks: Any = importlib.import_module("pycocotools.mask")
COCO: Any = importlib.import_module("pycocotools.coco").COCO
COCOeval: Any = importlib.import_module("pycocotools.cocoeval").COCOeval

BOTH = ("bbox", "segm")
BACKENDS = ("faster-coco-eval", "pycocotools")


def random_set(seed: int) -> tuple[dict, list[dict]]:
    """A small data set and results for it: crowds, tied scores, empty images, objects of every size, crowded images."""
    rng = np.random.default_rng(seed)
    # Sides up to 220 pixels reach the large area range in some sets.
    height, width = (int(side) for side in rng.integers(8, rng.choice([24, 100, 220]), 2))
    categories = [{"id": int(number), "name": f"class{number}"} for number in rng.choice(90, rng.integers(1, 4), False)]
    images = [
        {"id": int(number), "height": height, "width": width} for number in rng.choice(999, rng.integers(1, 4), False)
    ]

    def shape() -> dict:
        x, y = int(rng.integers(0, width - 2)), int(rng.integers(0, height - 2))
        w, h = int(rng.integers(1, width - x + 1)), int(rng.integers(1, height - y + 1))
        pixels = np.zeros((height, width), np.uint8, order="F")
        pixels[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
        rle = masks.encode(pixels)
        box = [x + rng.choice([0, rng.random()]), float(y), float(w), float(h)]
        return {"bbox": box, "segmentation": {"size": [height, width], "counts": rle["counts"].decode()}}

    def category() -> int:
        return categories[rng.integers(len(categories))]["id"]

    annotations, detections = [], []
    for image in images:
        for _ in range(rng.integers(1, 6) * (rng.random() < 0.8)):
            annotation: dict[str, Any] = shape() | {"id": len(annotations) + 1, "image_id": image["id"]}
            annotation |= {"category_id": category(), "iscrowd": int(rng.random() < 0.2)}
            annotations.append(annotation | {"area": float(masks.area(annotation["segmentation"]))})
        for _ in range(rng.choice([0, 2, 9, 9, 9, 120], p=[0.2, 0.2, 0.2, 0.2, 0.15, 0.05])):
            found = shape()
            if annotations and rng.random() < 0.5:  # exactly an object, now and then of another image
                found = {key: annotations[rng.integers(len(annotations))][key] for key in found}
            score = float(rng.choice([0.1, 0.5, 0.9, rng.random()]))
            detections.append(
                copy.deepcopy(found) | {"image_id": image["id"], "category_id": category(), "score": score}
            )
    coco = {"images": images, "annotations": annotations, "categories": categories}
    if rng.random() < 0.05:
        coco["annotations"] = []
    if rng.random() < 0.05:
        detections = []
    return coco, detections


def oracle(coco: dict, detections: list[dict], kind: str) -> list[float]:
    """pycocotools the way its own demo uses it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(coco)
        truth.createIndex()
        if detections:
            results = copy.deepcopy(detections)
            if kind == "segm":
                for result in results:
                    del result["bbox"]  # else the box, not the mask, chooses the area range
            found = truth.loadRes(results)
        else:
            found = COCO()
            found.dataset = copy.deepcopy(coco) | {"annotations": []}
            found.createIndex()
        evaluator = COCOeval(truth, found, kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return list(evaluator.stats)


def test_equals_pycocotools_on_200_random_sets() -> None:
    sizes = set()
    for seed in range(200):
        coco, detections = random_set(seed)
        found = evaluate(coco, detections, BOTH, backend="faster-coco-eval")
        for kind in BOTH:
            assert tuple(found[kind]) == METRICS
            np.testing.assert_allclose(list(found[kind].values()), oracle(coco, detections, kind), rtol=0, atol=1e-12)
        sizes.add((bool(coco["annotations"]), bool(detections)))
        sizes |= {name for name in METRICS[3:6] if found["bbox"][name] > 0}
    # The sets did hold what they are meant to hold.
    assert sizes >= {(True, True), (False, True), (True, False), "AP_small", "AP_medium", "AP_large"}


def test_the_fallback_gives_every_array_alike() -> None:
    for seed in range(10):
        one, other = (accumulate(*random_set(seed), BOTH, backend) for backend in BACKENDS)
        for kind in BOTH:
            np.testing.assert_allclose(one[kind].precision, other[kind].precision, rtol=0, atol=1e-12)
            np.testing.assert_allclose(one[kind].recall, other[kind].recall, rtol=0, atol=1e-12)


def test_pycocotools_stands_in_when_faster_coco_eval_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    coco, detections = random_set(3)
    expected = evaluate(coco, detections)
    find_spec = importlib.util.find_spec
    hidden = {"faster_coco_eval"}
    monkeypatch.setattr(
        "slimdet.evaluation.matching.find_spec", lambda name: None if name in hidden else find_spec(name)
    )
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert evaluate(coco, detections)["bbox"] == pytest.approx(expected["bbox"], abs=1e-12)
    with pytest.raises(ConfigError, match=r"pip install 'slimdet\[train\]'"):
        evaluate(coco, detections, backend="faster-coco-eval")


def test_unknown_backend_and_iou_type() -> None:
    with pytest.raises(ConfigError, match="'torch' is not one of auto, faster-coco-eval, pycocotools"):
        evaluate(*random_set(0), backend="torch")
    with pytest.raises(ConfigError, match="'keypoints' is not one of bbox, segm"):
        evaluate(*random_set(0), iou_types=("keypoints",))


def test_neither_argument_is_changed_and_stdout_stays_silent(capfd: pytest.CaptureFixture[str]) -> None:
    coco, detections = random_set(5)
    before = copy.deepcopy((coco, detections))
    for backend in BACKENDS:
        evaluate(coco, detections, BOTH, backend)
    assert (coco, detections) == before
    assert capfd.readouterr().out == ""


def one_object(**changes: object) -> tuple[dict, list[dict]]:
    """One cat that is found exactly, in the first of two images; a dog class without objects."""
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [2.0, 2.0, 10.0, 8.0], "area": 80.0, "iscrowd": 0}
    coco = {
        "images": [{"id": number, "height": 20, "width": 30} for number in (7, 9)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [annotation],
    }
    return coco, [{"image_id": 7, "category_id": 3, "bbox": [2.0, 2.0, 10.0, 8.0], "score": 0.9} | changes]


@pytest.mark.parametrize("backend", BACKENDS)
class TestCornerCases:
    def test_nothing_found_is_zero_where_there_is_truth_and_minus_one_elsewhere(self, backend: str) -> None:
        coco, _ = one_object()
        found = evaluate(coco, [], backend=backend)["bbox"]
        for name in METRICS:
            assert found[name] == (-1 if name.endswith(("medium", "large")) else 0), name

    def test_no_truth_is_minus_one_throughout(self, backend: str) -> None:
        coco, detections = one_object()
        for results in (detections, []):
            found = evaluate(coco | {"annotations": []}, results, backend=backend)["bbox"]
            assert set(found.values()) == {-1.0}
        empty = {"images": [], "annotations": [], "categories": []}
        assert set(evaluate(empty, [], BOTH, backend)["segm"].values()) == {-1.0}

    def test_missing_area_and_iscrowd_are_filled_in(self, backend: str) -> None:
        coco, detections = one_object()
        for key in ("area", "iscrowd"):
            del coco["annotations"][0][key]
        assert evaluate(coco, detections, backend=backend)["bbox"]["AP_small"] == pytest.approx(1)

    def test_annotation_id_0_and_huge_ids_count(self, backend: str) -> None:
        coco, detections = one_object(image_id=10**17 + 1)
        coco["annotations"][0] |= {"id": 0, "image_id": 10**17 + 1}
        coco["images"].append(coco["images"][0] | {"id": 10**17 + 1})
        assert evaluate(coco, detections, backend=backend)["bbox"]["AP"] == pytest.approx(1)

    def test_areas_of_masks_place_masks(self, backend: str) -> None:
        """A thin diagonal has a large box and a small mask: it is a small object for "segm"."""
        coco, detections = one_object(bbox=[0.0, 0.0, 100.0, 100.0])
        coco["images"] = [{"id": 7, "height": 100, "width": 100}]
        rle = masks.encode(np.asfortranarray(np.eye(100, dtype=np.uint8)))
        mask = {"size": [100, 100], "counts": rle["counts"].decode()}
        coco["annotations"][0] |= {"bbox": [0.0, 0.0, 100.0, 100.0], "segmentation": mask, "area": 100.0}
        found = evaluate(coco, [detections[0] | {"segmentation": mask}], ("segm",), backend)["segm"]
        assert (found["AP_small"], found["AP_large"]) == pytest.approx((1, -1))

    def test_result_is_json(self, backend: str) -> None:
        found = evaluate(*random_set(2), BOTH, backend)
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_per_class_and_curves() -> None:
    coco, detections = one_object()
    coco["annotations"].append(coco["annotations"][0] | {"id": 2, "image_id": 9})
    found = accumulate(coco, detections)["bbox"]
    assert found.classes == ("cat", "dog")
    per_class = found.per_class()
    # One of two cats: precision 1 up to recall 0.5, which is 51 of the 101 recalls.
    assert per_class["cat"] == pytest.approx({"AP": 51 / 101, "AP50": 51 / 101, "AP75": 51 / 101, "AR100": 0.5})
    assert set(per_class["dog"].values()) == {-1.0}
    curves = found.curves(0.5)
    assert curves.shape == (2, 101)
    np.testing.assert_array_equal(curves[0], np.arange(101) <= 50)
    assert np.isnan(curves[1]).all()
    with pytest.raises(ConfigError, match=r"IoU 0.42 is not one of 0.5, 0.55"):
        found.curves(0.42)


def test_per_class_means_to_the_summary() -> None:
    for seed in range(20):
        found = accumulate(*random_set(seed))["bbox"]
        known = [values["AP"] for values in found.per_class().values() if values["AP"] > -1]
        assert found.summary()["AP"] == pytest.approx(np.mean(known) if known else -1)
