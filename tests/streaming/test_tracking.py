"""Ids last, and carried boxes stay on objects that go on as they went."""

from typing import Any

import numpy as np
import pytest

from slimdet.bundle.ladder import Point
from slimdet.runtime.result import Result
from slimdet.streaming.tracking import Tracker, iou

pytest.importorskip("trackers", reason="needs the extra 'video'")


def result(*boxes: tuple[float, float, float, float], scores: float = 0.9) -> Any:
    """Detections of one class."""
    count = len(boxes)
    return Result(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.ones(count, dtype=np.int64),
        scores=np.full(count, scores, dtype=np.float32),
        names=["car"] * count,
        point=Point(),
        speed={},
        source=None,  # type: ignore[arg-type]
        classes=("car",),
        category_ids=(1,),
    )


def moving(frame: int) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
    """One object that goes right, ten pixels a frame, and one that stands."""
    return (10.0 * frame, 50, 10.0 * frame + 60, 90), (300, 200, 360, 260)


def test_ids_last() -> None:
    tracker = Tracker(25)
    seen = [tracker.look(result(*moving(frame)), frame / 25) for frame in range(10)]
    ids = [dict(zip(one.boxes[:, 1].tolist(), one.ids.tolist(), strict=True)) for one in seen]
    assert all(one == ids[-1] for one in ids[2:])
    assert len(set(ids[-1].values())) == 2
    assert min(ids[-1].values()) >= 0
    assert seen[-1].labels.tolist() == [1, 1]


def test_boxes_are_carried_at_their_speed() -> None:
    tracker = Tracker(25)
    for frame in (0, 4, 8):
        tracker.look(result(*moving(frame)), frame / 25)
    carried = tracker.carry(11 / 25)
    for box in moving(11):
        assert max(iou(np.array(box, dtype=np.float32), found) for found in carried.boxes) > 0.95


def test_drift_is_what_carried_boxes_lose() -> None:
    def drift(at: Any) -> float | None:
        tracker = Tracker(25)
        for frame in range(40):
            tracker.look(result((x := at(frame), 50, x + 60, 110)), frame / 25)
        return tracker.drift

    steady, uneven = drift(lambda frame: 3.0 * frame), drift(lambda frame: 200 + 60 * np.sin(frame / 4))
    assert steady is not None
    assert uneven is not None
    assert abs(steady) < 0.05
    assert uneven > 0.5
    assert Tracker(25).drift is None


def test_nothing_in_sight() -> None:
    tracker = Tracker(25)
    assert len(tracker.look(result(), 0.0).boxes) == 0
    assert len(tracker.carry(0.04).boxes) == 0
    assert len(tracker.look(result(*moving(2)), 0.08).ids) == 2


def test_iou() -> None:
    one = np.array([0, 0, 10, 10], dtype=np.float32)
    assert iou(one, one) == 1
    assert iou(one, np.array([5, 0, 15, 10], dtype=np.float32)) == pytest.approx(1 / 3)
    assert iou(one, np.array([20, 0, 30, 10], dtype=np.float32)) == 0
