"""Files of JSON lines that a killed writer left."""

import json
from pathlib import Path

from slimdet.training.log import cut_back, read_rows, write_csv


def test_cut_lines_are_passed_over_and_later_steps_cut_off(tmp_path: Path) -> None:
    lines = tmp_path / "metrics.jsonl"
    rows = [{"step": 10, "lr": 0.1}, {"step": 20, "lr": 0.2, "loss/0.5": 3.5}]
    lines.write_bytes(
        (json.dumps(rows[0]) + '\n{"step": 15, "l\n7\n' + json.dumps(rows[1])).encode() + b'\n{"step": 30, "\xff'
    )
    assert list(read_rows(lines)) == rows
    write_csv(lines, tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,lr,loss/0.5", "10,0.1,", "20,0.2,3.5"]
    cut_back(lines, 10)
    assert lines.read_text() == json.dumps(rows[0]) + "\n"
    cut_back(lines, 0)
    assert lines.read_text() == ""
