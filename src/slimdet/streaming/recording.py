"""Watch a video to its end and keep what was seen in a folder."""

import time
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from slimdet.errors import DataError
from slimdet.files import atomic_write, new_run_dir
from slimdet.runtime.budget import accuracies
from slimdet.runtime.pipeline import in_order
from slimdet.streaming.outputs import CLIP, Clip, Lines, write_coco, write_mot
from slimdet.streaming.settings import VideoSettings
from slimdet.streaming.timeline import draw_timeline
from slimdet.streaming.watching import Seen, Watch

DRAWN_AHEAD = 2  # pictures that are drawn while the next frame is looked at


@dataclass
class Recording:
    """What became of a video.

    Attributes:
        run: the folder.
        frames, looked, dropped, reconnects: how many; looked at are those that the detector ran on.
        fps: frames a second, reading, drawing and writing included.
        target_ms: for a frame; None without a budget.
        p50_ms, p95_ms: from a frame to its boxes, over all frames.
        attained: share of the looks that were in time; None without a budget.
        switches: changes of the point.
        mean_ap: of the points, over the looks, 0..1; None where the bundle does not know it.
        points: share of the looks at each point.
        files: what was written.
    """

    run: Path
    frames: int = 0
    looked: int = 0
    dropped: int = 0
    reconnects: int = 0
    fps: float = 0.0
    target_ms: float | None = None
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    attained: float | None = None
    switches: int = 0
    mean_ap: float | None = None
    points: dict[str, float] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


def record(
    source: str | Path,
    model: str | Path,
    settings: VideoSettings,
    out: str | Path | None = None,
    clip: bool = True,
    overlay: bool = False,
    on_frame: Callable[[Watch, Seen], Any] = lambda watch, seen: None,
) -> Recording:
    """Watch a video; write `frames.jsonl`, `detections.json`, `timeline.png`, with tracks `tracks.txt`, and the clip.

    Where Ctrl-C or damage in the file ends it, what was seen until then is written first.

    Args:
        source, model, settings: as for `slimdet.streaming.watching.video`.
        out: a folder, new or empty; the default is `runs/video-N`.
        clip: write the frames with their boxes drawn.
        overlay: with the point and its time.
        on_frame: called after each frame.

    Raises:
        ConfigError, DataError, BundleError, WidthError: what was given cannot be used.
        OSError: the disk is full.
    """
    with Watch(source, model, settings) as watch:
        folder = new_run_dir("video", out)
        tally, ended = _Tally(), None
        with ExitStack() as stack:
            lines = stack.enter_context(closing(Lines(folder)))
            writer = None
            if clip:
                temporary = stack.enter_context(atomic_write(folder / CLIP))
                writer = stack.enter_context(closing(Clip(temporary, watch.fps)))
            drawn = stack.enter_context(
                closing(in_order(partial(_drawn, clip=clip, overlay=overlay), watch, DRAWN_AHEAD))
            )
            try:
                for one in drawn:
                    seen, picture = one.result()
                    tally.add(seen)
                    lines.write(seen, watch.dropped)
                    if writer is not None and picture is not None:
                        writer.write(picture, seen.frame.time_s)
                    on_frame(watch, seen)
            except (KeyboardInterrupt, DataError) as error:  # what was seen is kept
                ended = error
        recording = _summary(lines.file, watch, tally)
        if ended is not None:
            raise ended
        return recording


def _drawn(seen: Seen, clip: bool, overlay: bool) -> tuple[Seen, Image.Image | None]:
    return seen, seen.plot(overlay) if clip else None


class _Tally:
    """Counts what was seen, four bytes a frame."""

    def __init__(self) -> None:
        self.took_ms = array("f")
        self.points: Counter[Any] = Counter()
        self.late = 0
        self.began = time.monotonic()

    def add(self, seen: Seen) -> None:
        self.took_ms.append(seen.took_ms)
        if seen.looked:
            self.points[seen.point] += 1
            self.late += seen.late


def _summary(lines: Path, watch: Watch, tally: _Tally) -> Recording:
    """The numbers of what was seen, and the files that are made of its lines."""
    runtime, looked = watch.runtime, tally.points.total()
    fps = len(tally.took_ms) / (time.monotonic() - tally.began)
    categories = [{"id": id_, "name": name} for id_, name in zip(runtime.category_ids, runtime.classes, strict=True)]
    files = [lines, write_coco(lines, categories)]
    if watch.settings.track:
        files.append(write_mot(lines))
    if (clip := lines.with_name(CLIP)).exists():
        files.append(clip)
    if picture := draw_timeline(lines, watch.target_ms):
        files.append(picture)
    budget, known = runtime.budget, accuracies(runtime, tally.points)
    took_ms = np.frombuffer(tally.took_ms, dtype=np.float32) if tally.took_ms else np.zeros(1)
    return Recording(
        run=lines.parent,
        frames=len(tally.took_ms),
        looked=looked,
        dropped=watch.dropped,
        reconnects=watch.reconnects,
        fps=fps,
        target_ms=watch.target_ms,
        p50_ms=float(np.percentile(took_ms, 50)),
        p95_ms=float(np.percentile(took_ms, 95)),
        attained=None if budget is None or not looked else 1 - tally.late / looked,
        switches=0 if budget is None else budget.controller.switches,
        mean_ap=fmean(known[point] for point in tally.points.elements()) if known.keys() >= set(tally.points) else None,
        points={str(point): count / looked for point, count in tally.points.most_common()},
        files=files,
    )
