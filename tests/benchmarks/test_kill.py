"""A few kills of real processes; the recorded result of many."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "training"
sys.path.insert(0, str(FOLDER))

import kill  # noqa: E402  # pyright: ignore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and kills groups of processes")


@pytest.fixture(scope="module")
def whole(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the weights of the run that nobody disturbs."""
    run = tmp_path_factory.mktemp("kill") / "whole"
    child = kill.Child(scenes, run)
    assert child.wait() == 0, child.said.read_text()
    return kill.digest(run)


@pytest.mark.parametrize("moment", [kill.in_a_save, kill.in_the_bundle])
def test_a_killed_run_loses_nothing(scenes: Path, tmp_path: Path, whole: str, moment: Any) -> None:
    row = kill.disturbed(scenes, tmp_path / "run", moment, random.Random(0))
    assert (row["faults"], row["weights"], row["leftovers"]) == ("", whole, [])


def test_a_full_disk_loses_nothing(scenes: Path, tmp_path: Path, whole: str) -> None:
    row = kill.filled(scenes, tmp_path / "run", 6)  # the first checkpoint could be written
    assert (row["exit"], row["faults"], row["weights"]) == (3, "", whole), row
    assert row["said"].startswith("No space left on device: RUN/")


def test_the_recorded_results_lost_nothing() -> None:
    results = json.loads((FOLDER / "kill.json").read_text())
    for result in results:
        assert result["bad"] == []
        assert result["same_weights"] == result["runs"]
    assert {kind for result in results for kind, count in result["runs"].items() if count} == {
        "anywhere",
        "in a save",
        "in the bundle",
        "disk full",
    }
