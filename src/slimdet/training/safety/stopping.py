"""Ctrl-C and SIGTERM end a training between two steps: within one, some widths would be ahead of others."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A training was ended by a signal and is saved; `signal` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class StopFlag:
    """While it is entered, SIGINT, SIGTERM and SIGHUP only set `signal`, which the training looks at between steps.

    The first is acknowledged in a line on stderr. More of them change nothing, so that a checkpoint is written to its
    end. Outside the main thread, where Python handles no signals, it does nothing.
    """

    signal: int | None = None

    def __enter__(self) -> "StopFlag":
        self._main = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}
        if self._main:
            self._before = {number: signal.signal(number, self._set) for number in _NUMBERS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            with suppress(OSError):  # not print, which may be at work
                os.write(2, b"ends after this step, and is saved\n")
        self.signal = number

    def hush(self) -> None:
        """Keep the death of a process that reads images from raising an error wherever we are, as torch has it.

        The next batch, which does not come, tells of it. Call it when batches have begun to come: torch sets its
        handler then.
        """
        if self._main and hasattr(signal, "SIGCHLD") and signal.getsignal(signal.SIGCHLD) != signal.SIG_DFL:
            self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
