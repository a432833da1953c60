"""What a training run tells: lines on stderr; on disk settings, metrics as JSON lines and CSV, TensorBoard scalars."""

import csv
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

import slimdet
from slimdet.files import atomic_write

SETTINGS = "settings.json"
EVERY = 10  # steps between two lines on disk


class RunLog:
    """Log of one run in `folder`: settings.json, metrics.jsonl, metrics.csv and TensorBoard event files.

    A resumed run appends. Progress goes to stderr: on a terminal one line that changes, otherwise a line now and then.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        with atomic_write(folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps({"slimdet": slimdet.__version__, **settings}, indent=2) + "\n")
        self.started = self.last = time.monotonic()
        self.first_step: int | None = None
        self.images_since = 0

    def __enter__(self) -> "RunLog":
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(self.folder / "tensorboard"))
        self.lines = (self.folder / "metrics.jsonl").open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if sys.stderr.isatty():
            print(file=sys.stderr)  # behind the line that changed
        self.board.close()
        self.lines.close()
        write_csv(self.folder / "metrics.jsonl", self.folder / "metrics.csv")

    def step(
        self,
        step: int,
        total: int,
        epoch: float,
        lr: float,
        grad_norm: float,
        images: int,
        losses: Mapping[float, Mapping[str, Tensor]],
    ) -> None:
        """Tell of one optimizer step; `losses` are those of each width trained in it."""
        if self.first_step is None:
            self.first_step = step - 1
        self.images_since += images
        if step % EVERY and step != total:
            return
        now = time.monotonic()
        rate = self.images_since / max(now - self.last, 1e-9)
        self.last, self.images_since = now, 0
        # One transfer from the device for all numbers, and only now and then.
        sums = {str(width): sum(float(value) for value in parts.values()) for width, parts in losses.items()}
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 3), "lr": lr, "grad_norm": grad_norm}
        row |= {"images_per_s": round(rate, 2), "seconds": round(now - self.started, 1)}
        for width, parts in losses.items():
            row[f"loss/{width}"] = sums[str(width)]
            row |= {f"{name}/{width}": float(value) for name, value in parts.items()}
        self.lines.write(json.dumps(row) + "\n")
        self.lines.flush()
        for name, value in row.items():
            if name != "step":
                self.board.add_scalar(name if "/" in name else f"run/{name}", value, step)
        status = " ".join(f"{width}: {value:.2f}" for width, value in sums.items())
        left = (now - self.started) / (step - self.first_step) * (total - step)
        text = f"step {step}/{total}  loss {status}  lr {lr:.3g}  {rate:.1f} images/s  {left / 60:.0f} min left"
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)  # in place of the line before
        elif step % (5 * EVERY) == 0 or step == total:
            print(text, file=sys.stderr, flush=True)


def write_csv(lines: Path, file: Path) -> None:
    """Write JSON lines as one CSV table; columns are every key that occurs, in order of appearance."""
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
