"""The operating point of the next call: the dearest that ends in time.

A rung fits if what `LatencyModel` expects of it is below the time that is left. The time left is the caller's to say:
what remains of a budget after reading the image, or of the deadline of the request at the head of a queue. Nothing is
guessed about calls to come.

Narrow at once, widen after headroom that lasted: a call too late is a broken promise, a call too cheap some accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slimdet.control.latency import LatencyModel
from slimdet.errors import ConfigError

FALLEN = 0.85  # of the load at which a rung did not fit: now it may


@dataclass(frozen=True)
class ControlSettings:
    """How a budget is held.

    Attributes:
        quantile: of the calls that should be in time, in 0..1.
        headroom: part of the time left that must be free before a wider rung is taken.
        hold_s: seconds that headroom must last before that; four times as long after each time that the wider rung did
            not stay, up to `longest_hold_s`.

    Raises:
        ConfigError: a value out of its range.
    """

    quantile: float = 0.95
    headroom: float = 0.04
    hold_s: float = 1.0
    longest_hold_s: float = 60.0

    def __post_init__(self) -> None:
        if not (0 < self.quantile < 1 and 0 <= self.headroom < 1 and 0 <= self.hold_s <= self.longest_hold_s):
            raise ConfigError(f"{self}: quantile and headroom are in 0..1, hold_s is in 0..longest_hold_s")


@dataclass(frozen=True)
class Choice:
    """What the next call runs at.

    Attributes:
        rung: place in the ladder, 0 is the cheapest.
        expected_ms: by when it ends, with the settings' quantile.
        fits: whether that is in time; if not, the rung is the cheapest and nothing better can be had.
    """

    rung: int
    expected_ms: float
    fits: bool


class Controller:
    """Chooses rung by rung. Not safe to share among threads without a lock.

    Args:
        costs_ms: milliseconds of a call at each rung, cheapest first, measured where nothing else runs.
        settings: how the budget is held.

    Attributes:
        latency: what is expected of the rungs.
        switches: how often the rung has changed; the first one is no change.

    Raises:
        ConfigError: no rung, or a cost that is not above 0.
    """

    def __init__(self, costs_ms: Sequence[float], settings: ControlSettings | None = None) -> None:
        self.settings = settings or ControlSettings()
        self.latency = LatencyModel(costs_ms)
        self.switches = 0
        self._rung: int | None = None
        self._hold = self.settings.hold_s
        self._headroom: tuple[float, int] | None = None  # since when, and what has fitted all the time since
        self._widened = False  # the last move was to a wider rung
        self._failed: float | None = None  # the load at which a wider rung did not fit

    def choose(self, now_s: float, left_ms: float) -> Choice:
        """The rung of a call that starts now.

        Args:
            now_s: any clock's seconds that never go back.
            left_ms: time until it must be done; below 0 when it is late already.
        """
        expected = self.latency.expected_ms(self.settings.quantile)
        best = dearest(expected, left_ms)
        roomy = dearest(expected, left_ms * (1 - self.settings.headroom))
        if self._rung is None:
            self._rung = best
        elif best < self._rung:
            self._narrow(best)
        elif roomy > self._rung:
            self._widen(now_s, roomy)
        else:
            self._headroom = None
        return Choice(self._rung, expected[self._rung], expected[self._rung] <= left_ms)

    def observe(self, rung: int, took_ms: float) -> None:
        """A call of this rung took so long."""
        self.latency.observe(rung, took_ms)

    def _narrow(self, rung: int) -> None:
        if self._widened:
            self._hold = min(4 * self._hold, self.settings.longest_hold_s)
        self._failed, self._headroom, self._widened = self.latency.load, None, False
        self._move(rung)

    def _widen(self, now_s: float, rung: int) -> None:
        if self._failed is not None and self.latency.load < FALLEN * self._failed:
            self._hold, self._failed = self.settings.hold_s, None
        since, lasting = self._headroom or (now_s, rung)
        self._headroom = (since, min(lasting, rung))
        if now_s - since >= self._hold:
            self._headroom, self._widened = None, True
            self._move(min(lasting, rung))

    def _move(self, rung: int) -> None:
        self.switches += 1
        self._rung = rung


def dearest(expected_ms: Sequence[float], left_ms: float) -> int:
    """The last rung that fits, or the first."""
    return max((rung for rung, ms in enumerate(expected_ms) if ms <= left_ms), default=0)
