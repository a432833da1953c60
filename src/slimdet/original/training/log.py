"""What a training says: lines for people, JSON lines for programs, and TensorBoard's files where the config asks."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimdet.original.configs.config import Config

Numbers = Mapping[float, Mapping[str, float]]  # {width: {name: value}}


class Log:
    """Writes work_dir/TIME.log and TIME.log.json and, with a `TensorboardLoggerHook`, work_dir/tf_logs.

    With a `log_level` above INFO there are no lines for people, as in the original.

    Args:
        tell: shows a line to whoever watches.
    """

    def __init__(self, work_dir: Path, config: Config, tell: Callable[[str], None]) -> None:
        settings = config.log_config or {}
        self.interval = settings.get("interval", 50)
        stamp = time.strftime("%Y%m%d_%H%M%S")
        self.text, self.json = work_dir / f"{stamp}.log", work_dir / f"{stamp}.log.json"
        self.tell = tell if config.log_level in ("DEBUG", "INFO") else None
        self.board: Any = None
        if any(hook.type == "TensorboardLoggerHook" for hook in settings.get("hooks", ())):
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(work_dir / "tf_logs"))
        self.since, self.done = time.perf_counter(), 0

    def iteration(self, epoch: int, number: int, of: int, iteration: int, rate: float, losses: Numbers) -> None:
        """Count an iteration; report every `interval`-th of an epoch and its last.

        Args:
            epoch, number: counted from 1; `of` iterations are an epoch.
            iteration: counted from 1 over all epochs.
            losses: of each width.
        """
        self.done += 1
        if number % self.interval and number != of:
            return
        now = time.perf_counter()
        took, self.since, self.done = (now - self.since) / self.done, now, 0
        shown = ", ".join(f"{width}: {values['loss']:.4f}" for width, values in losses.items())
        entry = {"mode": "train", "epoch": epoch, "iter": number, "lr": rate, "time": took}
        self._write(
            f"Epoch [{epoch}][{number}/{of}] lr: {rate:.5f}, time: {took:.3f}, loss at {shown}",
            {**entry, **losses[1.0], "widths": losses},  # the original knew width 1.0 alone
        )
        self._draw("train", iteration, losses)

    def validation(self, epoch: int, iteration: int, numbers: Numbers) -> None:
        """Report what was measured after an epoch, counted from 1, and `iteration` iterations."""
        for width, values in numbers.items():
            shown = ", ".join(f"{name}: {value:.4f}" for name, value in values.items())
            self._write(
                f"Epoch(val) [{epoch}] width {width}: {shown}",
                {"mode": "val", "epoch": epoch, "width": width, **values},
            )
        self._draw("val", iteration, numbers)
        self.since = time.perf_counter()  # measuring is no part of the next iterations

    def _draw(self, mode: str, iteration: int, numbers: Numbers) -> None:
        if self.board is not None:
            for width, values in numbers.items():
                for name, value in values.items():
                    self.board.add_scalar(f"{name}/{mode}/{width}", value, iteration)
            self.board.flush()

    def _write(self, line: str, entry: Mapping[str, Any]) -> None:
        with self.json.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if self.tell is not None:
            self.tell(line)
            with self.text.open("a") as file:
                file.write(line + "\n")
