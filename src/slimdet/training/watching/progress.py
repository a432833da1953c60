"""How fast a training goes and how long it will take; plain lines of it on stderr."""

import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from slimdet.messages import printable_lines
from slimdet.training.watching.callbacks import Callback, StepReport
from slimdet.training.watching.plan import plan

if TYPE_CHECKING:
    from slimdet.evaluation.validation import Measured
    from slimdet.training.trainer import Trainer

WARM, SLOW = 3, 30.0  # steps, or seconds of them, after which a duration can be told; the first steps are slower
LONG = 4 * 3600.0  # seconds from which on a training is called long


class Pace:
    """Speed and duration of the steps of one process; what happens between them (validation) is told by `pause`."""

    def __init__(self, window: int = 50) -> None:
        self.recent: deque[tuple[float, float, int]] = deque(maxlen=window)  # seconds, of them waiting, images
        self.started = self.last = time.monotonic()

    def step(self, report: StepReport) -> None:
        """Count a step that has just ended."""
        now = time.monotonic()
        self.recent.append((now - self.last, report.waited, report.images))
        self.last = now

    def pause(self) -> None:
        """Leave the time since the last step out of the steps' own."""
        self.last = time.monotonic()

    @property
    def seconds(self) -> float:
        """A step takes so long; 0 before the first."""
        return self._sum(0) / max(len(self.recent), 1)

    @property
    def images_per_second(self) -> float:
        """Images of all steps by their time."""
        return self._sum(2) / max(self._sum(0), 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time in which a step waited for its images, 0..1."""
        return min(1.0, self._sum(1) / max(self._sum(0), 1e-9))

    @property
    def elapsed(self) -> float:
        """Seconds since the start of this process's training."""
        return time.monotonic() - self.started

    def remaining(self, steps: int) -> float | None:
        """Seconds that `steps` more will take; None while that is not known."""
        return steps * self.seconds if len(self.recent) >= WARM or self._sum(0) >= SLOW else None

    def _sum(self, place: int) -> float:
        return sum(entry[place] for entry in self.recent)


class Lines(Callback):
    """Tells on stderr what will be done, and how far it is: a line at first, then every half minute, and at the end.

    A subclass that shows it in another way takes its place.
    """

    every = 30.0  # seconds between two lines

    def __init__(self) -> None:
        self.pace = Pace()
        self.told = 0.0
        self.expected = False

    def on_start(self, state: "Trainer") -> None:
        """Say what will be done, and start the clock."""
        self.tell(str(plan(state)))
        self.pace = Pace()
        self.told = time.monotonic() - self.every  # the first step is told

    def on_step(self, state: "Trainer", report: StepReport) -> None:
        """Tell of the step if it is time."""
        self.pace.step(report)
        left = self.pace.remaining(state.total - state.step)
        if left is not None and not self.expected:
            self.expected = True
            self.tell(expectation(self.pace.elapsed + left))
        if time.monotonic() - self.told >= self.every or state.step == state.total:
            self.told = time.monotonic()
            self.show(state, report)

    def on_epoch(self, state: "Trainer") -> None:
        """Do not count what others did between the epochs."""
        self.pace.pause()

    def on_validation(self, state: "Trainer", found: "Mapping[float, Measured]") -> None:
        """Tell the accuracy."""
        self.tell(f"epoch {epoch(state)}  AP {accuracies(found)}")

    def show(self, state: "Trainer", report: StepReport) -> None:
        """Tell of a step."""
        self.tell(line(state, report, self.pace))

    def tell(self, text: str) -> None:
        """Write a line, if there is somebody to read it and a disk to hold it: neither ends a training."""
        with suppress(OSError):
            print(printable_lines(text), file=sys.stderr, flush=True)


def line(state: "Trainer", report: StepReport, pace: Pace) -> str:
    """A step in one line."""
    loss = " ".join(f"{width}: {value:.2f}" for width, value in totals(report).items())
    return f"{place(state, report)}  loss {loss}  {speed(state, pace)}"


def place(state: "Trainer", report: StepReport) -> str:
    """Where in its schedule a training is."""
    return f"epoch {epoch(state)}  step {state.step}/{state.total}  lr {report.lr:.3g}"


def speed(state: "Trainer", pace: Pace) -> str:
    """How fast it goes and how long it takes; what is not known yet is not in it."""
    left = pace.remaining(state.total - state.step)
    if left is None:
        return f"{duration(pace.elapsed)} elapsed"
    rate = f"{pace.images_per_second:.1f} images/s  {pace.waiting:.0%} of the time waiting for data"
    return f"{rate}  {duration(pace.elapsed)} elapsed" + (
        f"  {duration(left)} left" if state.step < state.total else ""
    )


def epoch(state: "Trainer") -> str:
    """Number of the epoch that the last step was of, and how many there are: "3/12"."""
    return f"{-(-state.step // state.steps_per_epoch)}/{-(-state.total // state.steps_per_epoch)}"


def totals(report: StepReport) -> dict[float, float]:
    """The summed losses of each width, widest last."""
    return {width: sum(float(value) for value in parts.values()) for width, parts in sorted(report.losses.items())}


def accuracies(found: "Mapping[float, Measured]") -> str:
    """Box AP of each width: "0.5: 0.312 1.0: 0.420"."""
    return " ".join(f"{width}: {one.numbers['bbox']['AP']:.3f}" for width, one in sorted(found.items()))


def expectation(seconds: float) -> str:
    """What is to be expected, with a warning where it is long."""
    text = f"expected duration: {duration(seconds)}"
    if seconds < LONG:
        return text
    return (
        f"{text}, which is long; a smaller --imgsz, fewer --epochs, fewer --widths, a smaller --backbone, "
        "--recipe fast or a GPU make it shorter"
    )


def duration(seconds: float) -> str:
    """As people say it: "48 s", "12 min", "3 h 05 min", "2 days 4 h"."""
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {rest:02d} min"
    return f"{hours // 24} days {hours % 24} h"
