"""Results: their fields and parts, pictures, other forms; masks are pasted when they are asked for."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageShow

import slimdet
from runtime.mask_engine import mask_bundle
from slimdet.data.annotations import rle_functions
from slimdet.errors import ConfigError, DataError
from slimdet.images.masks import encode_mask
from slimdet.runtime import result as results
from slimdet.runtime.result import coco_results

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(params=["onnxruntime", "openvino"])
def result(request: pytest.FixtureRequest, tmp_path: Path) -> slimdet.Result:
    """Two detections with masks, from a real session."""
    return slimdet.Runtime(mask_bundle(tmp_path / "masks"), engine=request.param)(IMAGE)


def test_fields(result: slimdet.Result) -> None:
    np.testing.assert_array_equal(result.boxes, [[0, 0, 60, 40], [0, 0, 30, 40]])
    assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (np.float32, np.float32, np.int64)
    assert result.labels.tolist() == [2, 1]
    assert result.names == ["all", "left"]
    assert len(result) == 2
    assert (result.width, result.image_size, result.path) == (1.0, (60, 40), None)
    assert result.speed.keys() == {"read_ms", "inference_ms"}
    assert all(value >= 0 for value in result.speed.values())


def test_masks_are_pasted_once_and_only_where_asked(result: slimdet.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    paste = results.paste_masks
    monkeypatch.setattr(results, "paste_masks", lambda *given: calls.append(1) or paste(*given))
    assert result.mask_cells is not None
    assert result.mask_cells.shape == (2, 28, 28)
    assert not calls
    masks = result.masks
    assert masks is not None
    assert (masks.shape, masks.dtype) == ((2, 40, 60), bool)
    # The first mask is the left half of the whole image; the second is all of the box that is the left half.
    for mask in masks:
        assert mask[1:-1, 1:28].all()
        assert not mask[:, 32:].any()
    assert result.masks is masks
    assert len(calls) == 1


def test_coco_results(result: slimdet.Result) -> None:
    whole, left = result.to_coco(3)
    assert result.masks is not None
    assert whole == {
        "image_id": 3,
        "category_id": 7,
        "bbox": [0, 0, 60, 40],
        "score": pytest.approx(0.9),
        "segmentation": encode_mask(result.masks[0]),
    }
    assert left["category_id"] == 5
    assert [found["category_id"] for found in result.to_coco(3, (50, 70))] == [70, 50]
    json.dumps(result.to_coco(3))


def test_a_mask_for_each_detection() -> None:
    masks = np.zeros((2, 6, 9), dtype=bool)
    masks[0, 2:5, 3:7] = True
    found = coco_results(np.ones((2, 4)), np.array([1, 2]), np.ones(2), masks, 7, (30, 40))
    np.testing.assert_array_equal(rle_functions().decode(found[0]["segmentation"]), masks[0])
    with pytest.raises(ValueError, match="shorter"):
        coco_results(np.ones((2, 4)), np.array([1, 2]), np.ones(2), masks[:1], 7, (30, 40))


def test_pictures(result: slimdet.Result, tmp_path: Path) -> None:
    drawn = result.plot()
    assert drawn.size == (60, 40)
    assert (np.asarray(drawn) != IMAGE).any()
    np.testing.assert_array_equal(result.image, IMAGE)  # a copy was drawn on
    assert result.save(tmp_path / "new" / "found.png") == tmp_path / "new" / "found.png"
    with Image.open(tmp_path / "new" / "found.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(drawn))


# ------------------------------------------------------------------------------------------------- parts of a result


def test_a_result_is_a_sequence_of_detections(result: slimdet.Result) -> None:
    whole, left = result
    assert (whole.name, whole.label, whole.score) == ("all", 2, pytest.approx(0.9))
    assert whole.box.tolist() == [0, 0, 60, 40]
    assert result.masks is not None
    np.testing.assert_array_equal(left.mask, result.masks[1])
    assert [found.name for found in result] == [result[0].name, result[-1].name] == ["all", "left"]
    assert isinstance(left, slimdet.Result)  # with all that a result can do
    assert (len(left), left.names, left.to_coco(3)) == (1, ["left"], result.to_coco(3)[1:])
    assert left.plot().size == (60, 40)
    for place in (2, -3):
        with pytest.raises(IndexError, match="out of bounds"):
            result[place]


@pytest.mark.parametrize(
    ("index", "names"),
    [
        (slice(None, 1), ["all"]),
        (slice(None, None, -1), ["left", "all"]),
        ([1], ["left"]),
        (np.array([1, 0, 1]), ["left", "all", "left"]),
        ([False, True], ["left"]),
        (np.zeros(2, dtype=bool), []),
        ([], []),
    ],
)
def test_some_of_the_detections(result: slimdet.Result, index: Any, names: list[str]) -> None:
    some = result[index]
    assert some.names == names
    labels = {"left": 1, "all": 2}
    assert some.labels.tolist() == [labels[name] for name in names]
    assert some.boxes.shape == (len(names), 4)
    assert (some.width, some.image_size, some.classes) == (result.width, result.image_size, result.classes)
    assert result.masks is not None
    np.testing.assert_array_equal(some.masks, result.masks[index])


def test_results_are_indexed_by_their_own_arrays(result: slimdet.Result) -> None:
    assert result[result.scores > 0.7].names == ["all"]
    assert result[np.argsort(result.scores)].names == ["left", "all"]
    for index in ([True], "left", 0.5, None, [[0]]):
        with pytest.raises(IndexError):
            result[index]  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, ["all", "left"]),
        ({"classes": "left"}, ["left"]),
        ({"classes": 2}, ["all"]),
        ({"classes": np.int64(2)}, ["all"]),
        ({"classes": ["left", 2]}, ["all", "left"]),
        ({"classes": []}, []),
        ({"conf": 0.7}, ["all"]),
        ({"classes": {"left"}, "conf": 0.7}, []),
        ({"conf": 1}, []),
    ],
)
def test_filters(result: slimdet.Result, wanted: dict[str, Any], names: list[str]) -> None:
    assert result.filter(**wanted).names == names


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"classes": "lft"}, "class 'lft' is none of labels 1..2: left, all; did you mean left?"),
        ({"classes": ["all", 0]}, "class 0 is none of labels 1..2: left, all"),
        ({"conf": 1.5}, "conf 1.5 is not a score in 0..1, such as 0.25"),
        ({"conf": float("nan")}, "conf nan is not a score in 0..1"),
        ({"conf": "high"}, "conf 'high' is not a score in 0..1"),
    ],
)
def test_what_cannot_be_filtered_by(result: slimdet.Result, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        result.filter(**wanted)
    assert str(caught.value).startswith(said)


# ------------------------------------------------------------------------------------------------- other forms


def test_json(result: slimdet.Result) -> None:
    whole, left = json.loads(result.to_json())
    corners = {"x1": 0, "y1": 0, "x2": 60, "y2": 40}
    segmentation = result.to_coco(1)[0]["segmentation"]
    assert whole == {"name": "all", "label": 2, "score": pytest.approx(0.9), **corners, "segmentation": segmentation}
    assert (left["name"], left["x2"]) == ("left", 30)
    broken = replace(result, boxes=np.full((2, 4), np.nan, np.float32))
    with pytest.raises(DataError, match="the image: the detector gave a box or score that is not finite"):
        broken.to_json()


def test_data_frames(result: slimdet.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = result.to_df()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["name", "label", "score", "x1", "y1", "x2", "y2", "segmentation"]
    assert frame[["name", "label", "x2"]].to_numpy().tolist() == [["all", 2, 60], ["left", 1, 30]]
    nothing = result[:0].to_df()
    assert (len(nothing), list(nothing.columns)) == (0, list(frame.columns))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pandas is not installed; get it with: pip install pandas"):
        result.to_df()


def test_show_opens_the_picture(result: slimdet.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image.Image, **options: Any) -> int:
            shown.append((np.asarray(image), options["title"]))
            return 1

    monkeypatch.setattr(ImageShow, "_viewers", [Viewer()])
    result.source.path = Path("folder/a.jpg")
    result.show()
    np.testing.assert_array_equal(shown[0][0], np.asarray(result.plot()))
    assert shown[0][1] == "a.jpg"


def test_supervision_counts_classes_from_zero(result: slimdet.Result) -> None:
    supervision = pytest.importorskip("supervision")
    detections = result.to_supervision()
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.xyxy, result.boxes)
    np.testing.assert_array_equal(detections.mask, result.masks)
    np.testing.assert_array_equal(detections.confidence, result.scores)
    assert detections.class_id.tolist() == [1, 0]
    assert detections.data["class_name"].tolist() == ["all", "left"]
    # As supervision reads a data set of the model's own classes.
    truth = supervision.Detections(xyxy=result.boxes, class_id=np.array([1, 0]))
    metric = import_module("supervision.metrics").MeanAveragePrecision()
    assert metric.update(detections, truth).compute().map50 == 1
    assert len(result[:0].to_supervision()) == 0


def test_without_supervision(result: slimdet.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="supervision is not installed; get it with: pip install supervision"):
        result.to_supervision()


def test_nothing_found(tmp_path: Path) -> None:
    nothing = slimdet.Runtime(mask_bundle(tmp_path / "masks"), conf=0.95)(IMAGE)
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, 40, 60)
    assert nothing.to_coco(1) == []
    np.testing.assert_array_equal(np.asarray(nothing.plot()), IMAGE)
