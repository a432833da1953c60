"""Results: their fields, pictures, COCO form; masks are pasted when they are asked for."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import slimdet
from runtime.mask_engine import mask_bundle
from slimdet.errors import ConfigError
from slimdet.runtime import result as results
from slimdet.runtime.coco_results import encode_mask

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


def test_pictures(result: slimdet.Result, tmp_path: Path) -> None:
    drawn = result.plot()
    assert drawn.size == (60, 40)
    assert (np.asarray(drawn) != IMAGE).any()
    np.testing.assert_array_equal(result.image, IMAGE)  # a copy was drawn on
    assert result.save(tmp_path / "new" / "found.png") == tmp_path / "new" / "found.png"
    with Image.open(tmp_path / "new" / "found.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(drawn))


def test_supervision(result: slimdet.Result, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not a dependency, and large; what is handed over is what its constructor takes (tried with supervision 0.31).
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    detections = result.to_supervision()
    assert detections.xyxy is result.boxes
    assert detections.mask is result.masks
    assert detections.confidence is result.scores
    assert detections.class_id is result.labels
    assert detections.data["class_name"].tolist() == ["all", "left"]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match="pip install supervision"):
        result.to_supervision()


def test_nothing_found(tmp_path: Path) -> None:
    nothing = slimdet.Runtime(mask_bundle(tmp_path / "masks"), conf=0.95)(IMAGE)
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    assert nothing.masks is not None
    assert nothing.masks.shape == (0, 40, 60)
    assert nothing.to_coco(1) == []
    np.testing.assert_array_equal(np.asarray(nothing.plot()), IMAGE)
