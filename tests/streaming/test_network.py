"""A stream over a real connection, from a process that is killed and started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ports import free_port
from slimdet.streaming import live
from slimdet.streaming.live import HELD, Live
from slimdet.streaming.sources import open_video

av: Any = pytest.importorskip("av", reason="needs the extra 'video'")

# Sends 25 frames a second, as they are made, to whoever connects.
CAMERA = """
import sys, time
import av, numpy as np
with av.open(f"tcp://127.0.0.1:{sys.argv[1]}?listen=1", "w", format="mpegts") as container:
    stream = container.add_stream("mpeg2video", rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
    stream.gop_size = 5
    for number in range(100_000):
        frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), number % 200, np.uint8), format="rgb24")
        frame.pts = number
        for packet in stream.encode(frame):
            container.mux(packet)
        time.sleep(0.04)
"""


@contextmanager
def camera(port: int) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", CAMERA, str(port)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_camera_that_is_lost_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WAITS_S", (0.1,))
    port = free_port()
    frames = Live(open_video(f"tcp://127.0.0.1:{port}"), give_up_s=60)
    seen, after = [], 0
    with ExitStack() as stack:
        first = stack.enter_context(camera(port))
        for frame in frames:
            seen.append(frame)
            after += frames.reconnects > 0
            assert len(frames._held) <= HELD
            if len(seen) == 10:
                first.send_signal(signal.SIGKILL)
                first.wait()
                stack.enter_context(camera(port))
            if after == 5:
                break
    assert frames.reconnects == 1
    times = [frame.time_s for frame in seen]
    assert times == sorted(set(times))
    assert [frame.number for frame in seen] == sorted({frame.number for frame in seen})
    assert seen[0].image.shape == (64, 96, 3)


def test_who_is_slower_than_a_camera_sees_the_newest() -> None:
    port = free_port()
    with camera(port):
        frames = Live(open_video(f"tcp://127.0.0.1:{port}"), give_up_s=60)
        numbers = []
        for frame in frames:
            time.sleep(0.2)
            numbers.append(frame.number)
            if len(numbers) == 8:
                break
    assert frames.dropped > 8
    assert numbers[-1] > 20
