"""The detector of the tests of jobs."""

import pytest

import slimdet
from scenes_detector import tiny_model
from slimdet.bundle.card import Card


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained: it gives every class about a third, so that many boxes have a score above 0.25."""
    folder = tmp_path_factory.mktemp("models")
    return str(slimdet.save(tiny_model(), folder / "boxes", Card(("red", "green"), (10, 20))))
