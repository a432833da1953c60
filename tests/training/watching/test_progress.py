"""What is told of a training's pace, and when."""

import time
from pathlib import Path
from typing import Any

import pytest

from slimdet.training.watching import progress
from slimdet.training.watching.progress import Lines, Pace, duration, epoch, expectation, line
from watching import measured, report, state_of


class Clock:
    """Stands for `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_pace(clock: Clock) -> None:
    pace = Pace()
    assert pace.remaining(10) is None
    for _ in range(4):
        clock.now += 2
        pace.step(report(waited=0.5))  # 4 images
    assert pace.images_per_second == 2
    assert pace.waiting == 0.25
    assert pace.remaining(10) == 20
    clock.now += 60  # a validation
    pace.pause()
    clock.now += 2
    pace.step(report(waited=0.5))
    assert pace.seconds == 2
    assert pace.elapsed == 70


def test_one_step_that_takes_long_tells_enough(clock: Clock) -> None:
    pace = Pace()
    clock.now += 100
    pace.step(report(waited=0.0))
    assert pace.remaining(10) == 1000


def test_nothing_is_shown_before_it_is_known(clock: Clock, tmp_path: Path) -> None:
    pace = Pace()
    clock.now += 2
    pace.step(report())
    shown = line(state_of(tmp_path, step=1), report(), pace)
    assert shown == "epoch 1/2  step 1/20  lr 0.01  loss 0.5: 1.50 1.0: 1.50  2 s elapsed"
    for _ in range(3):
        clock.now += 2
        pace.step(report(waited=1))
    shown = line(state_of(tmp_path, step=11), report(), pace)
    assert shown.startswith("epoch 2/2  step 11/20")
    assert shown.endswith("2.0 images/s  38% of the time waiting for data  8 s elapsed  18 s left")
    assert "left" not in line(state_of(tmp_path, step=20), report(), pace)


def test_lines(clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "plan", lambda state: "the plan")
    lines = Lines()
    lines.on_start(state_of(tmp_path))
    for step in range(1, 21):
        clock.now += 10
        lines.on_step(state_of(tmp_path, step=step), report())
    lines.on_validation(state_of(tmp_path, step=20), measured(w0_5=0.25, w1_0=0.5))
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "the plan"
    assert "step 1/20" in told[1]
    assert told[2] == "expected duration: 3 min"
    assert [entry.split()[3] for entry in told[3:-1]] == [f"{step}/20" for step in (4, 7, 10, 13, 16, 19, 20)]
    assert told[-1] == "epoch 2/2  AP 0.5: 0.250 1.0: 0.500"


def test_a_long_training_is_called_long() -> None:
    assert expectation(600) == "expected duration: 10 min"
    assert "5 h 00 min, which is long; a smaller --imgsz" in expectation(5 * 3600)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99, "99 s"), (100, "2 min"), (3599, "60 min"), (6000, "1 h 40 min"), (10799, "3 h 00 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_days() -> None:
    assert duration(3 * 86400 + 7200) == "3 days 2 h"


def test_epochs_are_counted_from_one(tmp_path: Path) -> None:
    assert [epoch(state_of(tmp_path, step=step, total=15)) for step in (1, 10, 11, 15)] == ["1/2", "1/2", "2/2", "2/2"]
