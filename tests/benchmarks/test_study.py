"""The accuracy study's list and its recorded rows: what they claim of one another."""

import json
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "benchmarks" / "accuracy"
sys.path.insert(0, str(STUDY))

from cells import CELLS, QUARTERS  # noqa: E402  # pyright: ignore
from matches import read  # noqa: E402  # pyright: ignore

# What rows that were recorded earlier call today's settings, and a value that was written otherwise.
RECORDED = {
    "head_norm": "norm",
    "width_sampling": "sampling",
    "loss_exponent": "balance",
    "gradient_reduction": "gradients",
    "widest_only": "narrow_start",
}
ROWS = {file.stem: json.loads(file.read_text()) for file in sorted((STUDY / "rows").glob("*.json"))}


def test_every_cell_is_listed_once() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)


def test_rows_are_of_listed_cells_with_their_settings() -> None:
    cells = {cell.name: cell for cell in CELLS}
    for name, row in ROWS.items():
        cell = cells[name]
        assert row["cell"] == asdict(cell), name
        settings = {RECORDED.get(key, key): value for key, value in json.loads(json.dumps(cell.settings)).items()}
        settings["norm"] = None if settings["norm"] == "none" else settings["norm"]
        assert {key: row["settings"][key] for key in settings} == settings, name
        assert set(row["widths"]) == {str(width) for width in (QUARTERS if cell.width is None else [cell.width])}


def test_what_is_compared_had_the_same_number_of_steps_and_images() -> None:
    steps: dict[str, set[int]] = defaultdict(set)
    for row in ROWS.values():
        steps[row["cell"]["data"]].add(row["steps"])
        assert row["settings"]["batch"] == 16
    assert steps
    assert all(len(counts) == 1 for counts in steps.values()), steps


def test_kept_matches_give_the_recorded_numbers() -> None:
    kept = read(STUDY / "matches.npz.xz")
    assert len(kept) > 100
    for name, matches in kept.items():
        row, width, kind = name.split("/")
        assert matches.ap() == pytest.approx(ROWS[row]["widths"][width]["val"][kind]["AP"], abs=1e-4), name  # ties


def test_rows_stay_small() -> None:
    assert max(file.stat().st_size for file in (STUDY / "rows").glob("*.json")) < 10_000
