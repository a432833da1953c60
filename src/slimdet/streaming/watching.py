"""A video frame by frame: the operating point of each look is chosen by the budget.

with slimdet.video("street.mp4", budget_ms=20, track=True) as watch:
    for seen in watch:
        print(seen.frame.time_s, seen.names, seen.ids, seen.point)
"""

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image

from slimdet.images.drawing import caption, draw
from slimdet.runtime.budget import Budget, accuracies
from slimdet.runtime.prediction import opened
from slimdet.streaming import stride
from slimdet.streaming.live import Live
from slimdet.streaming.settings import VideoSettings
from slimdet.streaming.sources import Frame, open_video
from slimdet.streaming.tracking import Objects, Tracker, of_result

ASSUMED_FPS = 25.0  # of a source that does not say
RECENT = 50  # frames over which the time beside looking is averaged
RETHINK_S = 1.0  # between two changes of how long a look lasts


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known about one frame.

    Attributes:
        frame: its picture, number and time.
        objects: boxes, labels, scores and ids.
        names: the objects' classes.
        looked: whether the detector ran; else the boxes were carried.
        point: at which it ran, or ran last.
        took_ms: from the frame to its boxes.
        every: frames that this look, or the last, is to last.
        late: the look took longer than its budget.
        classes: all classes of the detector.
        category_ids: their ids in the data set's annotations.
    """

    frame: Frame
    objects: Objects
    names: list[str]
    looked: bool
    point: Any
    took_ms: float
    every: int
    late: bool
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """Ids of the objects' tracks; -1 without one."""
        return self.objects.ids.tolist()

    def plot(self, overlay: bool = False) -> Image.Image:
        """The frame with its boxes and ids drawn; `overlay`: with the point and its time in a corner, too."""
        names = [f"{name} {id_}" if id_ >= 0 else name for name, id_ in zip(self.names, self.ids, strict=True)]
        picture = draw(self.frame.image, self.objects.boxes, names, self.objects.scores.tolist(), None, self.colours)
        if not overlay:
            return picture
        text = f"{self.point} · {self.took_ms:.1f} ms" if self.looked else f"{self.point} · carried"
        return caption(picture, text)

    @cached_property
    def colours(self) -> list[str]:
        """What the drawing takes colours by: a class keeps its colour whatever the id behind its name."""
        named = [f"{name} {id_}" if id_ >= 0 else name for name, id_ in zip(self.names, self.ids, strict=True)]
        places = {text: label - 1 for text, label in zip(named, self.objects.labels.tolist(), strict=True)}
        known = list(self.classes)
        for text, place in places.items():
            known[place] = text
        return known


class Watch:
    """Iterate over it, once, for the frames of a video. Use it in a `with`, so that source and threads end with it.

    Attributes:
        video: the source.
        fps: frames a second that are taken from it: the source's, or what was assumed.
        runtime: the detector; `runtime.budget.controller` is what chooses.
        target_ms: of a look; None without a budget.
    """

    def __init__(self, source: str | Path, model: str | Path, settings: VideoSettings) -> None:
        self.settings, self.video = settings, open_video(source)
        self.fps = (self.video.fps or ASSUMED_FPS) / settings.stride
        self._tracker = Tracker(self.fps) if settings.track else None
        rate = settings.fps or (self.fps if self.video.live and settings.budget_ms is None else None)
        self.target_ms = settings.budget_ms if rate is None else 1000 / rate
        self._whole = rate is not None  # the budget is for reading and drawing, too
        self.runtime = opened(model, settings, self.target_ms)
        self._live = Live(self.video) if self.video.live else None
        self._frames = self._seen()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Seen]:
        """What is known about the frames, in order.

        Raises:
            DataError: the source is cut off or damaged.
        """
        return self._frames

    def close(self) -> None:
        """Leave the source."""
        self._frames.close()

    @property
    def dropped(self) -> int:
        """Frames of a live source that nobody was there to look at."""
        return 0 if self._live is None else self._live.dropped

    @property
    def reconnects(self) -> int:
        """How often a live source was lost and came back."""
        return 0 if self._live is None else self._live.reconnects

    def _seen(self) -> Generator[Seen]:
        budget = self.runtime.budget
        beside = deque([0.0], maxlen=RECENT)  # milliseconds of a frame that went into other things than looking
        every, thought_s, left = self.settings.every or 1, -RETHINK_S, 0
        last: Seen | None = None
        handed = resumed = 0.0  # when the last frame was given away, and when the next was asked for
        source: Any = iter(self._live) if self._live else self.video.open()
        with closing(source) as frames:
            for frame in frames:
                if frame.number % self.settings.stride:
                    continue
                now = time.perf_counter()
                if last is not None:  # of a live source the waiting is none of the work
                    beside.append(1000 * ((resumed if self._live else now) - handed))
                if left == 0:
                    if budget is not None and self.target_ms is not None:
                        free_ms = max(self.target_ms - (fmean(beside) if self._whole else 0.0), 0.001)
                        if self._chooses and frame.time_s - thought_s >= RETHINK_S:
                            every, thought_s = self._lasting(budget, free_ms, every), frame.time_s
                        budget.budget_ms = free_ms * (every if self._whole else 1)
                    last, left = self._look(frame, every, now), every
                else:
                    assert last is not None
                    assert self._tracker is not None
                    carried = self._tracker.carry(frame.time_s)
                    took_ms = 1000 * (time.perf_counter() - now)
                    last = replace(last, frame=frame, objects=carried, looked=False, late=False, took_ms=took_ms)
                left -= 1
                handed = time.perf_counter()
                yield last
                resumed = time.perf_counter()

    @property
    def _chooses(self) -> bool:
        """Whether the budget says how long a look lasts: for one on average, not for one of each frame."""
        return self._whole and self._tracker is not None and self.settings.every is None

    def _look(self, frame: Frame, every: int, begin: float) -> Seen:
        result = self.runtime(frame.image)
        objects = of_result(result) if self._tracker is None else self._tracker.look(result, frame.time_s)
        took_ms = 1000 * (time.perf_counter() - begin)
        budget = self.runtime.budget
        return Seen(
            frame=frame,
            objects=objects,
            names=[result.classes[label - 1] for label in objects.labels.tolist()],
            looked=True,
            point=result.point,
            took_ms=took_ms,
            every=every,
            late=budget is not None and took_ms > budget.budget_ms,
            classes=result.classes,
            category_ids=result.category_ids,
        )

    def _lasting(self, budget: Budget, free_ms: float, now: int) -> int:
        assert self._tracker is not None
        expected = budget.controller.latency.expected_ms(budget.controller.settings.quantile)
        known = accuracies(self.runtime, budget.points)
        aps = [known.get(point, place / len(budget.points)) for place, point in enumerate(budget.points, 1)]
        return stride.choose(expected, aps, free_ms, self._tracker.drift, self.fps, now)


def video(
    source: str | Path, model: str | Path = "bundled", settings: VideoSettings | None = None, **fields: Any
) -> Watch:
    """Watch a video: detections frame by frame, at the points that a budget allows.

    Args:
        source: a file, a folder of pictures, a camera ("0") or an address ("rtsp://...").
        model: a bundle's folder, or "bundled".
        settings: how; or its `fields` as keywords, such as `budget_ms=20`.

    Raises:
        ConfigError, DataError, BundleError, WidthError: what was given cannot be used.
    """
    return Watch(source, model, replace(settings or VideoSettings(), **fields))
