"""model.json of strangers: each damage is named, and at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from slimdet.bundle.document import MODEL, read_document
from slimdet.errors import BundleError

DOCUMENT = {
    "format": 1,
    "architecture": {"builder": "faster_rcnn", "num_classes": 3},
    "classes": ["cat", "dog"],
    "category_ids": [3, 17],
    "widths": [1.0, 0.5],
    "scope": "detector",
    "weights": {"file": "weights.safetensors", "sha256": "0"},
}


def read(folder: Path, text: str) -> dict[str, Any]:
    (folder / MODEL).write_text(text)
    return read_document(folder / MODEL)


def test_a_sound_one(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(DOCUMENT)) == DOCUMENT
    nothing = DOCUMENT | {"metrics": None, "training": None}
    assert read(tmp_path, json.dumps(nothing)) == nothing


@pytest.mark.parametrize(
    "text",
    [
        '{"format": ' + "9" * 5000 + "}",
        '{"format": ' + "9" * 20 + "}",
        '{"format": 1e400}',
        '{"format": NaN}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
        "{",
    ],
)
def test_what_is_not_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(BundleError, match=r"model\.json cannot be read: ") as raised:
        read(tmp_path, text)
    assert len(str(raised.value)) < 500


def test_one_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / MODEL).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BundleError, match="more than 16 MB"):
        read_document(tmp_path / MODEL)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": []}, "not names"),
        ({"classes": ["cat", None]}, "not names"),
        ({"category_ids": [3]}, "2 classes but 1 ids"),
        ({"category_ids": [3, "17"]}, "a whole number"),
        ({"category_ids": [3, True]}, "a whole number"),
        ({"architecture": {"num_classes": 2_000_000_000}}, "num_classes of the architecture is 2000000000"),
        ({"architecture": {"num_classes": "3"}}, "num_classes of the architecture is '3'"),
        ({"widths": [1.0, 1e-9]}, "widths are"),
        ({"widths": [1.0, 0.5, 0.50001]}, "given twice"),
        ({"widths": [1.0, True]}, "widths are"),
        ({"widths": [0.5]}, "must contain 1.0"),
        ({"widths": [*(n / 10000 for n in range(1, 10001))]}, "widths are"),
        ({"weights": {"file": None, "sha256": "0"}}, "weights needs a file"),
        ({"weights": {"file": "", "sha256": "0"}}, "weights needs a file"),
        ({"weights": {"file": "a" * 5000, "sha256": "0"}}, "weights needs a file"),
        ({"engines": {"onnx": {"0.5": {"file": ".", "sha256": "0", "weights": "0"}}}}, "engines are"),
        ({"engines": {"onnx": {"0.5": {"file": "a" * 300, "sha256": "0", "weights": "0"}}}}, "engines are"),
        ({"metrics": {"0.5": 3}}, "metrics are not numbers"),
        ({"metrics": {"0.5": {"bbox": 3}}}, "metrics are not numbers"),
        ({"metrics": []}, "metrics is"),
        ({"plans": []}, "plans is"),
        ({"plans": {"wide": {"a": 0.5}}}, "width 'wide' is not a number"),
        ({"plans": {"0.5": {"a": 2}}}, "width 2 is not a number"),
        ({"norms": 3}, "norms is"),
        ({"engines": {"onnx": {"0.5": {"file": "f", "sha256": "0", "weights": "0", "speedup": None}}}}, "engines are"),
        ({"engines": {"onnx": {"0.5": {"file": "f", "sha256": "0", "weights": "0", "bin_sha256": 3}}}}, "engines are"),
        ({"engines": {"onnx": {"0.5": None}}}, "engines are"),
    ],
)
def test_values_that_no_bundle_has(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as raised:
        read(tmp_path, json.dumps(DOCUMENT | change))
    assert len(str(raised.value)) < 500
