"""The operating points that a deadline leaves time for. Pure: no clock, no Ray."""

from collections.abc import Sequence

from slimdet.control.controller import dearest
from slimdet.control.latency import LatencyModel

RESERVE = 0.05  # of the time that is left: for slow pictures, and for workers that do not end at the same moment


class Pace:
    """Chooses the rung at which a worker does its share of the images in time.

    It starts at the dearest rung at which the whole share would be done. Time that is saved against a rung adds up
    until the rest of the share fits at the next one, so that between two rungs both run, the cheaper one first.

    Args:
        costs_ms: milliseconds of an image at each rung, cheapest first, measured where nothing else runs.

    Raises:
        ConfigError: no rung, or a cost that is not above 0.
    """

    def __init__(self, costs_ms: Sequence[float]) -> None:
        self._latency = LatencyModel(costs_ms)

    def choose(self, images: int, left_s: float) -> int:
        """The rung for the next images of a worker that has so many to do, in so many seconds; 0 is the cheapest."""
        return dearest(self._latency.expected_ms(0.5), 1000 * left_s * (1 - RESERVE) / max(images, 1))

    def observe(self, rung: int, image_ms: float) -> None:
        """Images at this rung took so long each, reading and writing included."""
        self._latency.observe(rung, image_ms)
