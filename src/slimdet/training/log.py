"""What a training run tells: lines on stderr; on disk metrics as JSON lines and CSV, TensorBoard scalars."""

import csv
import json
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimdet.files import atomic_write, sync
from slimdet.training.callbacks import Callback, StepReport

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

EVERY = 10  # steps between two lines on disk


class RunLog(Callback):
    """Log in the run's folder: metrics.jsonl, metrics.csv and TensorBoard event files.

    A resumed run appends to what was logged up to its checkpoint; what came later is logged again. Progress goes to
    stderr: on a terminal one line that changes, otherwise a line now and then.
    """

    def on_start(self, state: "Trainer") -> None:
        self.folder, self.first_step = state.folder, state.step
        self.lines = state.folder / "metrics.jsonl"
        if self.lines.exists():
            cut_back(self.lines, state.step)
        self.started = self.last = time.monotonic()
        self.images_since = 0
        self.line_open = False

    @cached_property
    def board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first_step + 1)

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        step, total = state.step, state.total
        self.images_since += report.images
        if step % EVERY and step != total:
            return
        now = time.monotonic()
        rate = self.images_since / max(now - self.last, 1e-9)
        self.last, self.images_since = now, 0
        # One transfer from the device for all numbers, and only now and then.
        sums = {str(width): sum(float(value) for value in parts.values()) for width, parts in report.losses.items()}
        row: dict[str, Any] = {"step": step, "epoch": round(step / state.steps_per_epoch, 3), "lr": report.lr}
        row |= {"grad_norm": float(report.grad_norm)}
        row |= {"images_per_s": round(rate, 2), "seconds": round(now - self.started, 1)}
        for width, parts in report.losses.items():
            row[f"loss/{width}"] = sums[str(width)]
            row |= {f"{name}/{width}": float(value) for name, value in parts.items()}
        status = " ".join(f"{width}: {value:.2f}" for width, value in sums.items())
        left = (now - self.started) / (step - self.first_step) * (total - step)
        self._tell(
            f"step {step}/{total}  loss {status}  lr {report.lr:.3g}  {rate:.1f} images/s  {left / 60:.0f} min left",
            step % (5 * EVERY) == 0 or step == total,
        )
        with self.lines.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name if "/" in name else f"run/{name}", value, step)

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        if self.line_open:
            print(file=sys.stderr)  # behind the line that changed
            self.line_open = False
        if self.lines.exists():
            sync(self.lines)  # what was logged before the checkpoint is there after a power cut, as the checkpoint is
            write_csv(self.lines, self.folder / "metrics.csv")
            self.board.flush()

    def _tell(self, text: str, now_and_then: bool) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)  # in place of the line before
            self.line_open = True
        elif now_and_then:
            print(text, file=sys.stderr, flush=True)


def read_rows(lines: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON lines; one that a killed writer or a full disk left cut is passed over."""
    with lines.open(encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def cut_back(lines: Path, step: int) -> None:
    """Remove the rows of later steps from a file of JSON lines."""
    rows = [row for row in read_rows(lines) if row.get("step", 0) <= step]
    with atomic_write(lines) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_csv(lines: Path, file: Path) -> None:
    """Write JSON lines as one CSV table; columns are every key that occurs, in order of appearance."""
    rows = list(read_rows(lines))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
