"""A training on a terminal and elsewhere."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from slimdet.cli.live import LiveTable, table, training_view
from slimdet.training.watching import progress
from slimdet.training.watching.progress import Lines, Pace
from watching import measured, report, state_of


def text(shown: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(shown)
    return console.export_text().splitlines()


def test_the_table_has_what_is_known(tmp_path: Path) -> None:
    state, pace = state_of(tmp_path, step=3), Pace()
    pace.step(report())
    lines = text(table(state, report(), pace, {}))
    assert [line.split() for line in lines[:3]] == [["width", "loss"], ["0.5", "1.500"], ["1.0", "1.500"]]
    assert not any("left" in line or "images/s" in line for line in lines)
    for _ in range(3):
        pace.step(report())
    lines = text(table(state, report(), pace, {1.0: 0.25}))
    assert [line.split() for line in lines[:3]] == [
        ["width", "loss", "AP"],
        ["0.5", "1.500"],
        ["1.0", "1.500", "0.250"],
    ]
    assert lines[3].rstrip() == "epoch 1/2  step 3/20  lr 0.01"
    assert "images/s" in lines[4]
    assert "left" in lines[4]


def test_on_a_terminal_the_table_changes_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "plan", lambda state: "the plan")
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, markup=False, highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        view = LiveTable(live)
        view.every = 0
        view.on_start(state_of(tmp_path))
        for step in (1, 2):
            view.on_step(state_of(tmp_path, step=step), report())
        view.on_validation(state_of(tmp_path, step=10), measured(w1_0=0.125))
    shown = written.getvalue()
    assert shown.index("the plan") < shown.index("step 1/20") < shown.index("step 2/20") < shown.index("AP 1.0: 0.125")
    assert shown.count("\x1b[1A") > 4  # lines gone back over
    assert shown.rstrip().splitlines()[-4].split()[-1] == "0.125"  # of width 1.0, in the last table


def test_elsewhere_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    before = handler.stream
    with training_view() as view:
        assert type(view) is Lines
        view.tell("[bold]5[/bold]\n\x1b[2J")
    assert capsys.readouterr().err == "[bold]5[/bold]\n\\x1b[2J\n"
    assert handler.stream is before
