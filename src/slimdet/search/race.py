"""Which points stay in the race: successive halving for two goals at once, little time and a high AP.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", 2016.

P points, B resamples of the images, the same ones for all points.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

SURE = 0.975  # of what is thrown out: the share of the resamples that have to agree
FIRST = 64  # images of the first round, at least


def rounds(images: int) -> tuple[int, ...]:
    """Images seen up to the end of each round: twice as many as in the one before, at last all."""
    number = 1
    while images / 2**number >= FIRST:
        number += 1
    return tuple(-(-images // 2**left) for left in reversed(range(number)))


def front(ms: Sequence[float] | NDArray, ap: Sequence[float] | NDArray) -> list[int]:
    """The places of the points that no other one beats or equals in time and AP, cheapest first."""
    order = np.lexsort((-np.asarray(ap), np.asarray(ms)))
    kept: list[int] = []
    for place in order.tolist():
        if not kept or ap[place] > ap[kept[-1]]:
            kept.append(place)
    return kept


def dominated(ms: Sequence[float] | NDArray, samples: NDArray) -> NDArray[np.bool_]:
    """Whether a point that takes no longer is surely better, [P], of the AP in every resample [P, B]."""
    ms = np.asarray(ms)
    beaten = np.zeros(len(ms), bool)
    for place in range(len(ms)):
        quicker = (ms <= ms[place]) & (np.arange(len(ms)) != place)
        beaten[place] = bool(((samples[quicker] > samples[place]).mean(axis=1) >= SURE).any())
    return beaten


def survivors(
    ms: Sequence[float] | NDArray, ap: Sequence[float] | NDArray, samples: NDArray, safe: Collection[int] = ()
) -> list[int]:
    """The places of the points that go on to the next round, ascending.

    Those that are surely dominated drop out; of the others, the half nearest to the front stays, and all of the front.

    Args:
        ms: [P], latency.
        ap: [P], AP of all images so far.
        samples: [P, B], AP in every resample of them.
        safe: places that stay whatever they reach.
    """
    ms, ap = np.asarray(ms), np.asarray(ap)
    here = np.flatnonzero(~dominated(ms, samples))
    best_within = np.array([ap[ms <= limit].max() for limit in ms])  # [P]
    behind = (best_within - ap)[here]
    order = here[np.argsort(behind, kind="stable")]
    kept = {*order[: -(-len(ms) // 2)].tolist(), *front(ms, ap), *safe}
    return sorted(kept)
