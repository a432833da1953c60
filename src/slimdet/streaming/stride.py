"""How many frames one look has to last: boxes carried between looks leave time for better looks.

A group of k frames has k times the budget of one. The first is looked at, at the best point that fits; in the others
boxes are carried, and lose by it what the tracker has seen them lose. The k is taken at which most is left.
"""

from collections.abc import Sequence

MOST = 8  # frames of a group
LOSS = 2.0  # AP, as a share, that goes with each unit of IoU that carried boxes lose
UNKNOWN = 2.0  # drift a second before any is known
BETTER = 1.03  # a change of k has to gain so much


def kept(k: int, drift: float | None, fps: float) -> float:
    """The share of AP that is left on average over a group of k frames, 0..1."""
    carried_s = (k - 1) / 2 / fps
    return max(0.0, 1 - LOSS * (UNKNOWN if drift is None else max(0.0, drift)) * carried_s)


def choose(
    expected_ms: Sequence[float], aps: Sequence[float], budget_ms: float, drift: float | None, fps: float, now: int
) -> int:
    """The number of frames that one look lasts.

    Args:
        expected_ms: of each rung, cheapest first.
        aps: of each rung, 0..1.
        budget_ms: for the look of one frame.
        drift: of the tracker.
        fps: frames a second.
        now: the number until now, which stays unless another one is clearly better.
    """

    def worth(k: int) -> float:
        fitting = [ap for ms, ap in zip(expected_ms, aps, strict=True) if ms <= k * budget_ms]
        return max(fitting) * kept(k, drift, fps) if fitting else 0.0

    values = {k: worth(k) for k in range(1, MOST + 1)}
    if not any(values.values()):
        return MOST  # not even the cheapest fits: as few looks as there may be
    best = max(values, key=lambda k: values[k])
    return best if values[best] > BETTER * values.get(now, 0.0) else now
