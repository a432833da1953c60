"""The numbers of a training on disk, as JSON lines and as a CSV table: a row every ten steps, their means."""

import csv
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from slimdet.files import atomic_write, sync
from slimdet.training.watching.callbacks import Callback, StepReport

if TYPE_CHECKING:
    from slimdet.training.trainer import Trainer

METRICS, TABLE = "metrics.jsonl", "metrics.csv"
EVERY = 10  # steps between two rows


class MetricsLog(Callback):
    """Writes `metrics.jsonl` and `metrics.csv`: the first step, then the means of ten steps each.

    A resumed run goes on behind the rows of its checkpoint's step; later ones are cut off.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.columns: list[str] = []
        self.means = Means()

    def on_start(self, state: "Trainer") -> None:
        """Take up what an earlier process wrote, as far as its checkpoint."""
        self.rows = [row for row in read_rows(state.folder / METRICS) if row["step"] <= state.step]
        self.means = Means()
        self._rewrite(state.folder)

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        """Count the step, and write a row if it is time."""
        self.means.add(report)
        if state.step == 1 or state.step % EVERY == 0 or state.step == state.total:
            row = {"step": state.step, "epoch": round(state.step / state.steps_per_epoch, 3), "lr": report.lr}
            self._append(state.folder, row | self.means.take())

    def on_checkpoint(self, state: "Trainer", file: Path) -> None:
        """Have the rows on the disk after a power cut, as the checkpoint is."""
        sync(state.folder / METRICS)

    def _append(self, folder: Path, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if row.keys() - set(self.columns):  # a width that was not drawn before
            self._rewrite(folder)
            return
        with (folder / METRICS).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        with (folder / TABLE).open("a", newline="", encoding="utf-8") as table:
            csv.DictWriter(table, self.columns, restval="").writerow(row)

    def _rewrite(self, folder: Path) -> None:
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with atomic_write(folder / METRICS) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        with atomic_write(folder / TABLE) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)


class Means:
    """The means of steps since they were last taken; sums stay on the device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.images, self.waited, self.since = 0, 0.0, time.monotonic()

    def add(self, report: StepReport) -> None:
        """Count a step."""
        self.images += report.images
        self.waited += report.waited
        values: dict[str, Any] = {"grad_norm": report.grad_norm}
        for width, parts in report.losses.items():
            if parts:
                values[f"loss/{width}"] = sum(value.float() for value in parts.values())
            values |= {f"{name}/{width}": value for name, value in parts.items()}
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value
            self.counts[name] += 1

    def take(self) -> dict[str, float]:
        """The means by name, with images a second and the share of time spent waiting for images; start anew."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        found = {"images_per_s": round(self.images / seconds, 2), "waiting": round(min(1.0, self.waited / seconds), 3)}
        found |= {name: float(value) / self.counts[name] for name, value in self.sums.items()}
        self.__init__()
        return found


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that a killed writer or a full disk left whole; empty where it is not there."""
    rows = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []:
        try:
            row = json.loads(text)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows
