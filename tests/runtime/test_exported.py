"""What goes into an engine file and what may come out of it, whoever made it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimdet.errors import BundleError, ConfigError, SlimdetError
from slimdet.runtime.engine import EngineSettings, Found, failing
from slimdet.runtime.exported import EngineOutputs, FileInputs

IMAGES = np.zeros((2, 8, 9, 3), np.uint8)
FOUND = {
    "boxes": np.zeros((3, 4), np.float32),
    "labels": np.array([1, 2, 2]),
    "scores": np.ones(3, np.float32),
    "image_index": np.array([0, 0, 1]),
    "masks": np.zeros((3, 28, 28), np.float32),
}


def detections(**changes: Any) -> Found:
    values = FOUND | changes
    return EngineOutputs(Path("width-0.5.onnx"), list(values), classes=2)(list(values.values()), IMAGES)


def test_detections_pass() -> None:
    assert detections().masks is not None
    assert len(detections(**{name: value[:0] for name, value in FOUND.items()}).boxes) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": np.zeros((3, 5))},
        {"boxes": np.zeros(3)},
        {"boxes": np.full((3, 4), np.nan)},
        {"scores": np.full(3, np.inf)},
        {"scores": np.ones((3, 1))},
        {"labels": np.array([1, 2, 3])},  # of 2 classes
        {"labels": np.array([0, 1, 2])},
        {"labels": np.ones(3)},
        {"image_index": np.array([0, 1, 2])},  # of 2 images
        {"image_index": np.array([-1, 0, 1])},
        {"masks": np.zeros((2, 28, 28))},
        {"masks": np.zeros((3, 28))},
    ],
)
def test_what_are_no_detections_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"width-0\.5\.onnx gives what are no detections"):
        detections(**changes)


def test_outputs_and_failures_are_named() -> None:
    with pytest.raises(BundleError, match="gives a, b, where a detector gives boxes"):
        EngineOutputs(Path("width-0.5.onnx"), ["a", "b"], classes=2)
    failing = EngineOutputs(Path("width-0.5.onnx"), list(FOUND), classes=2).failing()
    with pytest.raises(BundleError, match=r"width-0\.5\.onnx was opened, but fails when it runs: no memory"), failing:
        raise RuntimeError("no memory\nat line 3")


@pytest.mark.parametrize("error", [MemoryError(), ConfigError("--proposals 3"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_file_stays_what_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, failing("model"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("sides", [(0, 100), (64, 32), (64, 10**9), (-1, 5)])
def test_sizes_that_no_detector_has_are_refused(sides: tuple[int, int]) -> None:
    said = json.dumps({"min_size": sides[0], "max_size": sides[1]})
    with pytest.raises(SlimdetError, match="wants images of"):
        FileInputs(Path("width-0.5.onnx"), said, ["images"], EngineSettings())
