"""The verb `video`, and its progress on a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from slimdet.cli import views
from slimdet.cli.command import Outcome
from slimdet.cli.flags import (
    AnyMemory,
    AnyPrecision,
    Count,
    Engine,
    EngineDevice,
    Fraction,
    Model,
    Positive,
    Proposals,
    Side,
    Threads,
    VideoSource,
    Width,
)
from slimdet.streaming.settings import VideoSettings as S

if TYPE_CHECKING:
    from slimdet.streaming.watching import Seen, Watch

EVERY_S = 5.0  # between two lines where there is no terminal


def video(
    source: Annotated[VideoSource, "a video, a folder of pictures, a camera (0, 1, ...) or an address (rtsp://...)"],
    *,
    model: Model,
    budget_ms: Annotated[Positive | None, "milliseconds from a frame to its boxes, for 95 of 100"] = S.budget_ms,
    fps: Annotated[Positive | None, "frames a second to keep up with, reading and writing included"] = S.fps,
    track: Annotated[bool, "ids that last from frame to frame"] = S.track,
    every: Annotated[Count | None, "frames that a look lasts, with --track (default: as the budget says)"] = S.every,
    stride: Annotated[Count, "take every so many-th frame of the source"] = S.stride,
    width: Annotated[Width, "how wide to run without a budget"] = S.width,
    conf: Annotated[Fraction, "least score of a detection"] = S.conf,
    engine: Engine = S.engine,
    imgsz: Side = S.imgsz,
    proposals: Proposals = S.proposals,
    precision: AnyPrecision = S.precision,
    device: EngineDevice = S.device,
    threads: Threads = S.threads,
    memory: AnyMemory = S.memory,
    clip: Annotated[bool, "write the frames with their boxes as video.mp4"] = True,
    overlay: Annotated[bool, "draw the point and its time, too"] = False,
    out: Annotated[Path | None, "folder (default runs/video-N)"] = None,
) -> Outcome:
    """Detect objects in a video; the operating point follows the budget, frame by frame.

    Example:
        slimdet video street.mp4 --model bundled --budget-ms 20 --track --overlay
        slimdet video rtsp://camera/1 --model bundled --fps 15 --no-clip
    """
    from slimdet.streaming.recording import record

    settings = S(
        *(engine, device, threads, imgsz, proposals, precision),
        width=width,
        budget_ms=budget_ms,
        fps=fps,
        conf=conf,
        track=track,
        every=every,
        stride=stride,
    )
    with _progress() as on_frame:
        found = record(source, model, settings, out, clip, overlay, on_frame)
    return Outcome(found, views.recording(found))


@contextmanager
def _progress() -> Iterator[Callable[["Watch", "Seen"], Any]]:
    """What shows the frames that are done: a bar on a terminal, a line now and then elsewhere."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        yield _lines()
        return
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(watch: "Watch", seen: "Seen") -> None:
            bar.update(task, total=watch.video.frames, completed=seen.frame.number + 1, description=_told(watch, seen))

        yield show


def _lines() -> Callable[["Watch", "Seen"], Any]:
    told = time.monotonic()

    def show(watch: "Watch", seen: "Seen") -> None:
        nonlocal told
        if time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            total = f"/{watch.video.frames}" if watch.video.frames else ""
            print(f"frame {seen.frame.number + 1}{total}  {_told(watch, seen)}", file=sys.stderr)

    return show


def _told(watch: "Watch", seen: "Seen") -> str:
    dropped = f"  {watch.dropped} dropped" if watch.video.live else ""
    return f"{seen.point}  {seen.took_ms:.1f} ms{dropped}"
