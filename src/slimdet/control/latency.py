"""How long a call of each rung takes now: measured costs, corrected by what is observed.

    log(milliseconds) = log(cost[rung]) + load + bias[rung] + noise

The load is common to all rungs (another process, a hot processor) and moves; a bias is a rung's own (the cost was
measured on other pictures) and stays. A Kalman filter (Kalman, 1960) tells them apart: what changes while the rung is
the same is load, what changes with the rung is mostly bias.

Letters: R rungs.
"""

import math
from collections import deque
from collections.abc import Sequence
from statistics import NormalDist, median

import numpy as np

from slimdet.errors import ConfigError

DRIFT = 0.01  # of the load in a call, log units
BIAS = 0.1  # how wrong measured costs usually are, log units
NOISE = 0.1  # of a call, log units
JUMP, JUMPED = math.log(1.2), 3  # surprises above it in so many calls on end: the load has jumped
RESIDUALS = 100  # calls that the spread is told from
EXPECTED = [NormalDist(0, 0.6 * NOISE).inv_cdf((place + 0.5) / 20) for place in range(20)]  # before any was seen


class LatencyModel:
    """Milliseconds of the rungs of a ladder.

    Args:
        costs_ms: [R], of a call at each rung where nothing else runs.

    Raises:
        ConfigError: a cost that is not above 0, or none.
    """

    def __init__(self, costs_ms: Sequence[float]) -> None:
        if not costs_ms or not all(0 < cost < math.inf for cost in costs_ms):
            raise ConfigError(f"costs {list(costs_ms)} ms: give one above 0 for each rung")
        self._costs = np.log(np.asarray(costs_ms, float))
        rungs = len(costs_ms)
        self._state = np.zeros(1 + rungs)  # load, biases
        self._covariance = np.diag([NOISE**2, *[BIAS**2] * rungs])
        self._surprises: deque[float] = deque(maxlen=JUMPED)
        self._residuals: deque[float] = deque(EXPECTED, RESIDUALS)

    @property
    def load(self) -> float:
        """How many times longer than where nothing else runs; 1 at first."""
        return math.exp(self._state[0])

    def expected_ms(self, quantile: float) -> list[float]:
        """[R], what that part of a rung's calls stays below."""
        spread = sorted(self._residuals)[math.ceil(quantile * len(self._residuals)) - 1]
        return np.exp(self._costs + self._state[0] + self._state[1:] + spread).tolist()

    def observe(self, rung: int, took_ms: float) -> None:
        """A call of this rung took so long."""
        self._covariance[0, 0] += DRIFT**2
        seen = math.log(took_ms) - self._costs[rung]
        surprise = seen - self._state[0] - self._state[1 + rung]
        self._surprises.append(surprise)
        jumped = len(self._surprises) == JUMPED and (min(self._surprises) > JUMP or max(self._surprises) < -JUMP)
        if jumped:
            self._covariance[0, :] = self._covariance[:, 0] = 0  # whatever was known of the load
            self._covariance[0, 0] = 1
            surprise = median(self._surprises)
            for _ in range(JUMPED - 1):
                self._residuals.pop()  # of the jump, not of the calls' spread
            self._surprises.clear()
        else:
            self._residuals.append(surprise)
            surprise = min(max(surprise, -JUMP), JUMP)  # one slow call says little
        gain = self._covariance[:, 0] + self._covariance[:, 1 + rung]
        gain = gain / (gain[0] + gain[1 + rung] + NOISE**2)
        self._state += gain * surprise
        self._covariance -= np.outer(gain, self._covariance[0] + self._covariance[1 + rung])
