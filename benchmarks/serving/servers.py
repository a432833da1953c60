"""A server in a process of its own, which ends when the benchmark does, however that ends. Linux only."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

START = "import sys; from slimdet.cli.verbs import main; sys.exit(main(['serve', *sys.argv[1:]]))"
_DEATH_SIGNAL = 1  # of prctl: what a process gets when its parent ends


@contextmanager
def served(model: str, *words: str, core: int | None = None) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server of this model and its port.

    Args:
        words: more of its command line.
        core: the one that it may use; None is all.
    """

    def begin() -> None:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
        if core is not None:
            os.sched_setaffinity(0, {core})

    command = [sys.executable, "-c", START, "--model", model, "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=begin) as process:
        assert process.stderr is not None
        port = next(int(found[1]) for line in process.stderr if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)
