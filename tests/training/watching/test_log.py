"""Rows on disk: means, from the first step on, whatever was there before."""

import csv
import json
from pathlib import Path

import pytest

from slimdet.training.watching.log import METRICS, TABLE, MetricsLog, read_rows
from watching import report, state_of


def run(log: MetricsLog, folder: Path, first: int, last: int) -> None:
    """Steps `first` to `last`, with losses as large as their numbers."""
    log.on_start(state_of(folder, step=first - 1))
    for step in range(first, last + 1):
        log.on_step(state_of(folder, step=step), report(float(step)))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_first_step_and_the_means_of_ten(tmp_path: Path) -> None:
    run(MetricsLog(), tmp_path, 1, 1)
    assert [row["step"] for row in table(tmp_path)] == ["1"]  # at once
    run(MetricsLog(), tmp_path / "all", 1, 20)
    rows = read_rows(tmp_path / "all" / METRICS)
    assert [row["step"] for row in rows] == [1, 10, 20]
    assert [row["loss/0.5"] for row in rows] == pytest.approx([1.5, 9.0, 23.25])  # of steps 1, 2..10, 11..20
    assert [row["loss_a/1.0"] for row in rows] == pytest.approx([1, 6, 15.5])
    assert [row["epoch"] for row in rows] == [0.1, 1.0, 2.0]
    assert [float(row["loss/0.5"]) for row in table(tmp_path / "all")] == pytest.approx([1.5, 9.0, 23.25])


def test_a_width_is_counted_where_it_was_trained(tmp_path: Path) -> None:
    log = MetricsLog()
    log.on_start(state_of(tmp_path))
    for step in range(1, 11):
        log.on_step(state_of(tmp_path, step=step), report(step, (0.3, 1.0) if step == 5 else (1.0,)))
    first, last = read_rows(tmp_path / METRICS)
    assert "loss/0.3" not in first
    assert last["loss/0.3"] == pytest.approx(7.5)
    assert [row["loss/0.3"] for row in table(tmp_path)] == ["", "7.5"]


def test_a_resumed_run_goes_on_behind_its_checkpoint(tmp_path: Path) -> None:
    run(MetricsLog(), tmp_path, 1, 20)
    with (tmp_path / METRICS).open("a") as handle:
        handle.write('{"step": 30, "lo')  # a kill while it was written
    run(MetricsLog(), tmp_path, 16, 20)
    assert [row["step"] for row in read_rows(tmp_path / METRICS)] == [1, 10, 20]
    assert read_rows(tmp_path / METRICS)[-1]["loss_a/1.0"] == pytest.approx(18)
    assert [row["step"] for row in table(tmp_path)] == ["1", "10", "20"]


def test_no_file_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []
    (tmp_path / "rows").write_text(json.dumps({"step": 1}) + "\nnonsense\n")
    assert read_rows(tmp_path / "rows") == [{"step": 1}]
