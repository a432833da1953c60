"""A training on a terminal: what will be done, then one table that changes in place."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from slimdet.messages import printable_lines
from slimdet.training.watching.callbacks import StepReport
from slimdet.training.watching.progress import Lines, Pace, place, speed, totals

if TYPE_CHECKING:
    from slimdet.evaluation.validation import Measured
    from slimdet.training.trainer import Trainer

EVERY = 0.5  # seconds between two changes


@contextmanager
def training_view() -> Iterator[Lines]:
    """Yield the callback that shows a training: a live table on a terminal, plain lines elsewhere."""
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield Lines()
        return
    with Live(console=console, auto_refresh=False) as live, _through(sys.stderr):
        yield LiveTable(live)


@contextmanager
def _through(stream: TextIO) -> Iterator[None]:
    """Let the log write to `stream`: above the table and not into it."""
    handlers = [one for one in logging.getLogger("slimdet").handlers if isinstance(one, logging.StreamHandler)]
    before = [one.setStream(stream) for one in handlers]
    try:
        yield
    finally:
        for one, old in zip(handlers, before, strict=True):
            one.setStream(old or sys.stderr)


class LiveTable(Lines):
    """A line for each width (loss, AP of the last validation), and the numbers of the whole below."""

    every = EVERY

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live
        self.accuracy: dict[float, float] = {}
        self.report: StepReport | None = None

    def tell(self, text: str) -> None:
        """Write a line above the table."""
        self.live.console.print(printable_lines(text))

    def show(self, state: "Trainer", report: StepReport) -> None:
        """Draw the table anew."""
        self.report = report
        self.live.update(table(state, report, self.pace, self.accuracy), refresh=True)

    def on_validation(self, state: "Trainer", found: "Mapping[float, Measured]") -> None:
        """Tell the accuracies, and show them."""
        super().on_validation(state, found)
        self.accuracy = {width: one.numbers["bbox"]["AP"] for width, one in found.items()}
        if self.report is not None:
            self.show(state, self.report)


def table(state: "Trainer", report: StepReport, pace: Pace, accuracy: Mapping[float, float]) -> Group:
    """The table of a step; a number that is not known yet has no place in it.

    Args:
        accuracy: box AP by width, of the last validation; empty before the first.
    """
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    shown.add_column("width", justify="right")
    shown.add_column("loss", justify="right")
    if accuracy:
        shown.add_column("AP", justify="right")
    for width, loss in totals(report).items():
        shown.add_row(str(width), f"{loss:.3f}", *([f"{accuracy[width]:.3f}"] if width in accuracy else []))
    return Group(shown, place(state, report), speed(state, pace))
