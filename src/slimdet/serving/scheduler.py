"""Which request runs next, and at which rung; who is refused. Pure: no clock, no thread, no socket.

Requests wait in the order of their deadlines. What is looked at is the slack of those that wait, never how many may
come: a rung fits if, with all of them at that rung, each is done before its deadline, with two fifths of the slack left
for what arrives meanwhile. The dearest that fits is taken. Nothing is held back and nothing remembered but how long
rungs take: a rung costs nothing to change, and full service is back with the first request that has room.

Where not even the cheapest rung fits, the newcomer is refused with the time after which it would. What has become
hopeless while it waited is given up. After either, as many as waited then run at the cheapest rung: nobody is refused
so that another one may be dearer. While nothing runs, whoever could be in time on an idle machine is tried: a server
that has come to expect the worst learns in no other way that it is over.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from operator import gt, neg

from slimdet.control.latency import LatencyModel

QUANTILE = 0.95  # of the calls that should end as expected
OVERHEADS = 50  # requests from which the time beside detection is told
USUAL_MS = 2.0  # of it, before any was seen
# Of the slack, kept for what arrives while a rung above the cheapest runs: 0.2 loses 4 requests in 1,000 where 0.4
# loses none (benchmarks/serving/simulate.json).
HEADROOM = 0.4
MARGIN = 0.05  # of the slack, without which nobody is admitted: few are taken and given up later
RESERVE = 0.1  # of the time to a deadline, for the way there and back

_numbers = count()


@dataclass(order=True)
class Request:
    """One that waits.

    Attributes:
        deadline_s: seconds of any clock that never goes back; the reserve is taken off.
        rung: that it asks for; None leaves it to the scheduler.
    """

    deadline_s: float
    number: int = field(default_factory=lambda: next(_numbers), init=False)  # first come, first served
    rung: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, arrived_s: float, deadline_ms: float, rung: int | None = None) -> "Request":
        """One that arrived then, and must be answered so much later."""
        return cls(arrived_s + (1 - RESERVE) * deadline_ms / 1000, rung)


class Scheduler:
    """A queue before some workers that are alike.

    Args:
        costs_ms: milliseconds of a detection at each rung, cheapest first, where nothing else runs.
        workers: how many requests run at once; may be changed.

    Attributes:
        latency: what is expected of the rungs.
        switches: how often two requests in a row ran at other rungs, of those that left it open.

    Raises:
        ConfigError: no rung, or a cost that is not above 0.
    """

    def __init__(self, costs_ms: Sequence[float], workers: int = 1) -> None:
        self.latency = LatencyModel(costs_ms)
        self.workers, self.switches = workers, 0
        self._queue: list[Request] = []
        self._running: dict[int, float] = {}  # by number: when it will be done
        self._overheads: deque[float] = deque([USUAL_MS] * (OVERHEADS // 2), OVERHEADS)
        self._idle_s = costs_ms[0] / 1000  # of the cheapest rung where nothing else runs
        self._hurried = 0  # how many of the next must be cheap
        self._rung: int | None = None  # of the last one that left it open

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """How many requests run."""
        return len(self._running)

    def admit(self, request: Request, now_s: float) -> float:
        """Take a request into the queue, and say 0; or refuse it, and say after how many seconds to come again."""
        late_s = max(self._lateness(self._costs(), 0, now_s, [*self._queue, request]))
        late_s += MARGIN * (request.deadline_s - now_s)
        if late_s > 0 and (self._queue or not self._is_worth_a_try(request, now_s)):
            self._hurried = len(self._queue)
            return late_s
        heapq.heappush(self._queue, request)
        return 0.0

    def put_back(self, request: Request) -> None:
        """Let a request wait again that was taken and not done."""
        heapq.heappush(self._queue, request)

    def give_up(self, now_s: float) -> list[Request]:
        """Take those out of the queue that cannot be in time any more, even if they ran next at the cheapest rung."""
        seconds = [cost for cost, _ in self._costs()]
        hopeless = [one for one in self._queue if now_s + seconds[one.rung or 0] > one.deadline_s]
        hopeless = [one for one in hopeless if one != self._queue[0] or not self._is_worth_a_try(one, now_s)]
        if hopeless:
            self._hurried = len(self._queue)
        for one in hopeless:
            self._queue.remove(one)
        heapq.heapify(self._queue)
        return hopeless

    def take(self, now_s: float) -> tuple[Request, int] | None:
        """What a worker that is free runs next, and at which rung; None where nothing waits."""
        if not self._queue:
            return None
        costs = self._costs()
        head = self._queue[0]
        rung = head.rung
        if rung is None:
            rung = self._choose(costs, now_s)
        self._hurried = max(0, self._hurried - 1)
        heapq.heappop(self._queue)
        self._running[head.number] = now_s + costs[rung][0]
        return head, rung

    def done(self, request: Request, rung: int | None = None, detected_ms: float = 0, other_ms: float = 0) -> None:
        """A request has left its worker.

        Args:
            rung: at which it was detected; None where it was not, as when its image could not be read.
            detected_ms: milliseconds of the detection.
            other_ms: of all else that the worker had to do for it.
        """
        self._running.pop(request.number, None)
        if rung is not None:
            self.latency.observe(rung, detected_ms)
            self._overheads.append(other_ms)

    def _is_worth_a_try(self, request: Request, now_s: float) -> bool:
        return not self._running and not request.rung and now_s + self._idle_s <= request.deadline_s

    def _choose(self, costs: "_Costs", now_s: float) -> int:
        least = [HEADROOM * (one.deadline_s - now_s) for one in sorted(self._queue)]
        rung = 0 if self._hurried else len(costs) - 1
        while rung and any(map(gt, self._lateness(costs, rung, now_s), map(neg, least))):
            rung -= 1
        self.switches += self._rung not in (None, rung)
        self._rung = rung
        return rung

    def _costs(self) -> "_Costs":
        """Of each rung the seconds that it usually takes, and those that it may take longer."""
        usual, longest = self.latency.expected_ms(0.5), self.latency.expected_ms(QUANTILE)
        other = sorted(self._overheads)
        middle, high = other[len(other) // 2], other[math.ceil(QUANTILE * len(other)) - 1]
        return [
            ((ms + middle) / 1000, (most - ms + high - middle) / 1000) for ms, most in zip(usual, longest, strict=True)
        ]

    def _lateness(
        self, costs: "_Costs", rung: int, now_s: float, queue: Iterable[Request] | None = None
    ) -> list[float]:
        """Seconds that each request of the queue would be late, with all that leave it open at `rung`."""
        free = [max(now_s, until) for until in self._running.values()]
        free = sorted(free + [now_s] * (self.workers - len(free)))[: max(1, self.workers)]
        late = []
        for one in sorted(self._queue if queue is None else queue):
            cost, more = costs[rung if one.rung is None else one.rung]
            end = heapq.heappop(free) + cost
            heapq.heappush(free, end)
            late.append(end + more - one.deadline_s)
        return late


_Costs = list[tuple[float, float]]
