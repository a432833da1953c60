"""Objects that keep an id from frame to frame, and where they are in frames that nobody looked at.

Ids come from the `trackers` library (ByteTrack, https://arxiv.org/abs/2110.06864). Between two looks a box goes on at
the speed that it had between the last two.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimdet.errors import ConfigError
from slimdet.runtime.result import Result

FORGET_S = 1.0  # a track without a detection for so long is gone
STARTS = 0.4  # score of a detection that may begin a track
FAR_S = 0.3  # how long boxes are carried, on paper, to learn how fast they leave their objects
RATE = 0.1  # of the running mean of that


@dataclass(frozen=True)
class Objects:
    """The objects of a frame.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels.
        labels: int64 [N], 1..K.
        scores: float32 [N].
        ids: int64 [N]; -1 without a track.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    ids: NDArray[np.int64]


def of_result(result: Result) -> Objects:
    """The detections of a result, without ids."""
    return Objects(result.boxes, result.labels, result.scores, np.full(len(result), -1, dtype=np.int64))


class Tracker:
    """Gives detections ids, and carries boxes over frames that are not looked at.

    Attributes:
        drift: by how much the IoU of a box that is carried and its object falls in a second: a running mean. None
            before it is known.
    """

    def __init__(self, fps: float) -> None:
        """Take the frames a second of the source.

        Raises:
            ConfigError: `trackers` is not installed.
        """
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError:
            raise ConfigError("--track needs trackers; get it with: pip install 'slimdet[video]'") from None
        self._detections = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            lost_track_buffer=max(1, round(FORGET_S * fps)),
            frame_rate=fps,
            track_activation_threshold=STARTS,
            minimum_consecutive_frames=1,
        )
        self.drift: float | None = None
        self._looks: deque[_Look] = deque()  # of about the last FAR_S seconds

    def look(self, result: Result, time_s: float) -> Objects:
        """The detections of a frame that was looked at, with ids."""
        found = self._tracker.update(
            self._detections(xyxy=result.boxes, confidence=result.scores, class_id=result.labels), timestamp=time_s
        )
        ids = np.full(len(found), -1) if found.tracker_id is None else found.tracker_id
        seen = Objects(
            np.asarray(found.xyxy, dtype=np.float32).reshape(-1, 4),
            np.asarray(found.class_id, dtype=np.int64).reshape(-1),
            np.asarray(found.confidence, dtype=np.float32).reshape(-1),
            np.asarray(ids, dtype=np.int64).reshape(-1),
        )
        look = _Look(time_s, seen)
        self._learn(look)
        self._looks.append(look)
        while len(self._looks) > 3 and self._looks[1].time_s < time_s - FAR_S:
            self._looks.popleft()
        return seen

    def carry(self, time_s: float) -> Objects:
        """Where the objects of the last look are by now: those with an id go on at their speed, the others stay."""
        before = self._looks[-2] if len(self._looks) > 1 else None
        return _carried(before, self._looks[-1], time_s)

    def _learn(self, look: "_Look") -> None:
        """Carry boxes from the oldest looks and from the newest to this one: the difference is the drift."""
        if len(self._looks) < 3:
            return
        missed = []
        for pair in ((0, 1), (-2, -1)):
            before, last = (self._looks[place] for place in pair)
            missed.append((look.time_s - last.time_s, _missed(before, last, look)))
        (far_s, far), (near_s, near) = missed
        common = far.keys() & near.keys()
        if not common or far_s <= near_s:
            return
        fallen = float(np.mean([far[track] - near[track] for track in common])) / (far_s - near_s)
        self.drift = fallen if self.drift is None else self.drift + RATE * (fallen - self.drift)


@dataclass(frozen=True)
class _Look:
    """What was seen when a frame was looked at."""

    time_s: float
    seen: Objects


def _carried(before: "_Look | None", last: "_Look", time_s: float) -> Objects:
    boxes = last.seen.boxes.copy()
    if before is not None and last.time_s > before.time_s:
        share = (time_s - last.time_s) / (last.time_s - before.time_s)
        earlier = _places(before.seen)
        for place, track in enumerate(last.seen.ids.tolist()):
            if track in earlier:
                boxes[place] += share * (last.seen.boxes[place] - before.seen.boxes[earlier[track]])
    return Objects(boxes, last.seen.labels, last.seen.scores, last.seen.ids)


def _missed(before: _Look, last: _Look, look: _Look) -> dict[int, float]:
    """1 - IoU of what is carried from `last` and what is seen later, for every track that all three looks have."""
    carried, found = _carried(before, last, look.time_s), _places(look.seen)
    common = _places(before.seen).keys() & found.keys()
    return {
        track: 1 - iou(carried.boxes[place], look.seen.boxes[found[track]])
        for track, place in _places(last.seen).items()
        if track in common
    }


def _places(seen: Objects) -> dict[int, int]:
    return {track: place for place, track in enumerate(seen.ids.tolist()) if track >= 0}


def iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes [4]."""
    corner = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = np.prod(np.maximum(corner[1] - corner[0], 0))
    whole = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common
    return float(common / whole) if whole > 0 else 0.0
