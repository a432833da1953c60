"""The example of docs/scale.md runs."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def test_how_many_machines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimdet.runtime.budget.REPEATS", 1)
    (code,) = re.findall(r"^```python\n(from math import ceil.*?)^```$", PAGE.read_text(), re.S | re.M)
    exec(code, {})
    told = re.findall(r"AP ([\d.]+), ([\d.]+) ms, (\d+) machines", capsys.readouterr().out)
    assert len(told) > 3
    assert told == sorted(told, key=lambda row: float(row[0]))
    assert [int(row[2]) for row in told] == sorted(int(row[2]) for row in told)
