"""The newest frames of a source that does not wait: late frames are dropped and counted, a lost source is opened again.

What is held is bounded: `HELD` frames, however slow the reader is and however long the video lasts.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from slimdet.errors import DataError
from slimdet.streaming.sources import Frame, Video

HELD = 2  # frames that wait to be looked at
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # before the source is tried again, time after time

logger = logging.getLogger("slimdet")


class Live:
    """Iterate over it for the frames; a thread reads the source meanwhile.

    Attributes:
        dropped: frames that nobody was there to look at.
        reconnects: how often the source was lost and opened again.
    """

    def __init__(self, video: Video, give_up_s: float = 30.0) -> None:
        """Take a live video. A source that stays away for `give_up_s` seconds is an error, or the end if it had begun.

        Its times go on by the clock after a reconnect.
        """
        self.video, self.give_up_s = video, give_up_s
        self.dropped = self.reconnects = 0
        self._held: deque[Frame] = deque()
        self._news = threading.Condition()
        self._ended: Exception | bool = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._read, name="slimdet-video", daemon=True)

    def __iter__(self) -> Iterator[Frame]:
        """The frames, oldest of the held ones first.

        Raises:
            DataError: the source could not be opened at all.
        """
        self._thread.start()
        try:
            while True:
                with self._news:
                    while not self._held and not self._ended:
                        self._news.wait()
                    if not self._held:
                        break
                    frame = self._held.popleft()
                yield frame
        finally:
            self._left.set()
        if isinstance(self._ended, Exception):
            raise self._ended

    def _read(self) -> None:
        number, start, last_s = 0, time.monotonic(), 0.0
        lost: float | None = None
        tries = 0
        end: Exception | bool = True
        while not self._left.is_set():
            base = max(time.monotonic() - start, last_s) if number else 0.0
            try:
                with closing(self.video.open()) as frames:
                    for frame in frames:
                        if self._left.is_set():
                            break
                        if lost is not None and number:
                            self.reconnects += 1
                            logger.warning("%s is back after %.1f s", self.video.name, time.monotonic() - lost)
                        lost, tries = None, 0
                        last_s = base + frame.time_s
                        self._hold(replace(frame, number=number, time_s=last_s))
                        number += 1
                error: Exception = DataError(f"{self.video.name}: the stream ended")
            except DataError as raised:
                error = raised
            if lost is None:
                lost = time.monotonic()
                logger.warning("%s; it is tried again for %g s", error, self.give_up_s)
            if time.monotonic() - lost >= self.give_up_s:
                end = True if number else error
                break
            self._left.wait(WAITS_S[min(tries, len(WAITS_S) - 1)])
            tries += 1
        with self._news:
            self._ended = end
            self._news.notify_all()

    def _hold(self, frame: Frame) -> None:
        with self._news:
            if len(self._held) >= HELD:
                self._held.popleft()
                self.dropped += 1
            self._held.append(frame)
            self._news.notify_all()
