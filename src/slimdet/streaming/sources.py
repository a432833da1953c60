"""Where frames come from: a file, a folder of pictures, a camera, a stream on the network.

A file or a folder gives every frame. What is live gives the newest: see `slimdet.streaming.live`.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import ConfigError, DataError
from slimdet.images.decoding import read_image
from slimdet.images.folders import images_in
from slimdet.messages import first_line

FOLDER_FPS = 25.0  # of a folder of pictures, which says nothing about it
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "udp://", "tcp://", "http://", "https://")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video.

    Attributes:
        number: from 0, counted in the source: frames that were dropped have numbers, too.
        time_s: when it is to be shown, seconds from the first.
        image: uint8 [H, W, 3], RGB, upright.
    """

    number: int
    time_s: float
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Video:
    """A source that can be opened, perhaps many times.

    Attributes:
        name: for people.
        live: frames come when they come; who is late misses some.
        fps: frames a second on average, as the source says; None where it does not.
        frames: how many there are, as the source says; None where it does not.
        open: gives the frames in order.
    """

    name: str
    live: bool
    fps: float | None
    frames: int | None
    open: Callable[[], Generator[Frame]]


def open_video(source: str | Path) -> Video:
    """A video file, a folder of pictures in the order of their names, a camera ("0" or "/dev/video0") or an address.

    Raises:
        ConfigError: PyAV is not installed.
        DataError: there is no such thing, or it cannot be read as a video.
    """
    text, path = str(source), Path(source)
    if path.is_dir():
        return _folder(path)
    if text.startswith(STREAMS):
        return Video(text, True, None, None, lambda: _decoded(text, {"timeout": "10000000"}))
    if text.isdigit() or text.startswith("/dev/video"):
        device = f"/dev/video{text}" if text.isdigit() else text
        return Video(device, True, None, None, lambda: _decoded(device, {}, format="v4l2"))
    if not path.is_file():
        raise DataError(f"{source}: no such video, folder of pictures, camera (0, 1, ...) or address (rtsp://...)")
    with closing(_opened(text, {})) as container:
        stream = _video_stream(container, text)
        rate = stream.average_rate
        return Video(text, False, float(rate) if rate else None, stream.frames or None, lambda: _decoded(text, {}))


def av() -> Any:
    """PyAV.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ConfigError("video needs PyAV; get it with: pip install 'slimdet[video]'") from None
    return av


def _opened(name: str, options: dict[str, str], format: str | None = None) -> Any:
    library = av()
    try:
        return library.open(name, format=format, options=options)
    except (library.FFmpegError, ValueError) as error:
        raise DataError(f"{name}: not a video that can be read: {first_line(error)}") from error


def _video_stream(container: Any, name: str) -> Any:
    if not container.streams.video:
        raise DataError(f"{name}: there is no picture in it, only sound or text")
    return container.streams.video[0]


def _decoded(name: str, options: dict[str, str], format: str | None = None) -> Generator[Frame]:
    library = av()
    with closing(_opened(name, options, format)) as container:
        stream = _video_stream(container, name)
        stream.thread_type = "AUTO"
        times = _Times(Fraction(1) / (stream.average_rate or Fraction(25)))
        try:
            for number, frame in enumerate(container.decode(stream)):
                yield Frame(number, times.of(frame), _upright(frame))
        except library.FFmpegError as error:
            raise DataError(f"{name}: cut off or damaged after {times.given} frames: {first_line(error)}") from error
        if not times.given:
            raise DataError(f"{name}: there is no frame in it")


class _Times:
    """Seconds from the first frame: the source's own, which may be at any distances, made to rise."""

    def __init__(self, step: Fraction) -> None:
        self.step, self.given = step, 0
        self.first: float | None = None
        self.last = 0.0

    def of(self, frame: Any) -> float:
        time = None if frame.pts is None else float(frame.pts * frame.time_base)
        if self.given == 0:
            self.first = time
        elif time is None or self.first is None or time - self.first <= self.last:
            self.last += float(self.step)  # missing, or the clock was put back
        else:
            self.last = time - self.first
        self.given += 1
        return self.last


def _upright(frame: Any) -> NDArray[np.uint8]:
    """A decoded frame as pixels [H, W, 3], turned as the file says (phones store video on its side)."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _folder(path: Path) -> Video:
    files = images_in(path)
    if not files:
        raise DataError(f"{path}: no picture in this folder")

    def frames() -> Generator[Frame]:
        yield from (Frame(number, number / FOLDER_FPS, pixels) for number, pixels in enumerate(_pictures(files)))

    return Video(str(path), False, FOLDER_FPS, len(files), frames)


def _pictures(files: list[Path]) -> Iterator[NDArray[np.uint8]]:
    return (read_image(file) for file in files)
