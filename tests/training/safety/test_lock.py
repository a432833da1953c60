"""The lock of a run's folder: one training at a time, and it ends with its process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimdet.errors import ConfigError
from slimdet.training.safety.lock import LOCK, run_lock

HOLD = "from pathlib import Path; from slimdet.training.safety.lock import run_lock\nwith run_lock(Path('.')): {}"


def test_another_process_is_refused_by_name(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", HOLD.format("pass")], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert f"is being trained in by process {os.getpid()}; wait for it" in done.stderr
    with run_lock(tmp_path):  # free again
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"


def test_the_lock_of_a_killed_process_is_free_though_its_children_live(tmp_path: Path) -> None:
    body = "import os, time; child = os.fork(); print(child or '', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(body)], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline().strip() or process.stdout.readline())
    try:
        with pytest.raises(ConfigError, match=f"by process {process.pid}"), run_lock(tmp_path):
            pass
        process.kill()
        process.wait()
        time.sleep(0.1)
        with run_lock(tmp_path):
            os.kill(child, 0)  # it lives
    finally:
        os.kill(child, signal.SIGKILL)
