"""A live source does not wait: frames are dropped and counted, and it comes back after it was lost."""

import time
from collections.abc import Generator

import numpy as np
import pytest

from slimdet.errors import DataError
from slimdet.streaming import live
from slimdet.streaming.live import HELD, Live
from slimdet.streaming.sources import Frame, Video

PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


def source(*parts: int | Exception, pause_s: float = 0.0) -> Video:
    """Each time it is opened, the next part: so many frames, or an error."""
    left = list(parts)

    def frames() -> Generator[Frame]:
        part = left.pop(0) if left else DataError("cam: gone")
        if isinstance(part, Exception):
            raise part
        for number in range(part):
            time.sleep(pause_s)
            yield Frame(number, number * pause_s, PIXELS)

    return Video("cam", True, None, None, frames)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "WAITS_S", (0.01,))


def test_who_is_slow_misses_frames_and_holds_few() -> None:
    frames = Live(source(200, pause_s=0.0005), give_up_s=0.05)
    seen = []
    for frame in frames:
        time.sleep(0.01)
        seen.append(frame.number)
        assert len(frames._held) <= HELD
    assert seen == sorted(set(seen))
    assert seen[-1] == 199  # the newest is never the one that is dropped
    assert frames.dropped == 200 - len(seen) > 100


def test_a_lost_source_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    frames = Live(source(3, DataError("cam: away"), 2, pause_s=0.005), give_up_s=0.3)
    seen = list(frames)
    assert [frame.number for frame in seen] == [0, 1, 2, 3, 4]
    times = [frame.time_s for frame in seen]
    assert times == sorted(times)  # the clock goes on
    assert frames.reconnects == 1
    assert "it is tried again" in caplog.text
    assert "cam is back after" in caplog.text


def test_a_source_that_never_comes_is_an_error() -> None:
    with pytest.raises(DataError, match="cam: gone"):
        list(Live(source(), give_up_s=0.03))


def test_leaving_ends_the_thread() -> None:
    frames = Live(source(10_000, pause_s=0.001))
    for _ in frames:
        break
    frames._left.wait(5)
    frames._thread.join(5)
    assert not frames._thread.is_alive()
