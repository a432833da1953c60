"""A few of the thousands of damaged files of benchmarks/hostile: each ends in a result or in a named error."""

import json
import random
import sys
from pathlib import Path

import pytest

from slimdet.bundle import manifest
from slimdet.bundle.document import MODEL
from slimdet.bundle.inspection import check_engine
from slimdet.errors import BundleError, SlimdetError

HOSTILE = Path(__file__).parents[2] / "benchmarks" / "hostile"
sys.path.insert(0, str(HOSTILE))

from hostile import coco, images  # noqa: E402  # pyright: ignore
from mutations import mutate_json, mutate_onnx  # noqa: E402  # pyright: ignore


@pytest.mark.parametrize(("make", "count"), [(images, 60), (coco, 40)])
def test_images_and_annotations(make, count: int, tmp_path: Path) -> None:
    case = make(tmp_path)
    outcomes = set()
    for number in range(count):
        try:
            outcomes.add(case(number))
        except (SlimdetError, OSError) as error:
            outcomes.add(type(error).__name__)
    assert "read" in outcomes
    assert len(outcomes) > 1


def test_documents_of_bundles(tmp_path: Path) -> None:
    document = json.loads((manifest.bundled() / MODEL).read_text())
    refused = 0
    for number in range(150):
        (tmp_path / MODEL).write_text(mutate_json(document, random.Random(number)))
        try:
            described = manifest.read(tmp_path)
            for name in ("classes", "widths", "files", "metrics", "plans", "ladder", "latencies"):
                getattr(described, name)
        except BundleError as error:
            refused += str(error).count("\n") == 0
    assert 20 < refused < 150


def test_engine_files_of_bundles(exported: Path) -> None:
    """Nothing that lies outside the weights file passes, however the fields come to say so."""
    file, weights = exported / "width-0.25.onnx", exported / "weights.safetensors"
    content, refused = file.read_bytes(), 0
    for number in range(25):
        mutated = mutate_onnx(content, random.Random(number))
        file.write_bytes(mutated)
        try:
            check_engine([file, weights])
        except BundleError:
            refused += 1
        else:
            assert mutated.count(b"location") == mutated.count(weights.name.encode())
    assert 0 < refused < 25
