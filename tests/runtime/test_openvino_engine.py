"""What OpenVINO does to the process it runs in."""

import subprocess
import sys

import pytest

# What is left of the first detector goes in another thread, then a signal comes.
PROGRAM = """
import gc, os, signal, threading
import slimdet
from slimdet.assets import PHOTOGRAPHS

detectors = [slimdet.Runtime("bundled", 0.25, engine="openvino", threads=1)]
detectors[0](PHOTOGRAPHS / "tabby.jpg")
thread = threading.Thread(target=lambda: (detectors.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_is_heard_when_detectors_are_gone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["heard", "alive"]), done.stderr
