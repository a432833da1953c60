"""The scheduler alone, with arrivals, costs and noise from a seed: what the slack that it keeps costs and brings.

    python benchmarks/serving/simulate.py [--seconds 60] [--out FILE]

Costs and AP are those of the bundled ladder in load.json; one worker. A detection takes its cost times a
log-normal factor (6 %), one in a hundred twice as long; reading and answering take 2.5 ms beside it. The deadline is
twice the dearest point with that. Each row has the attainment and the mean AP of the server's own choice for each
`HEADROOM`, and of the cheapest, the middle and the dearest point with refusals.
"""

import argparse
import heapq
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from arrivals import flash_crowd, gamma, poisson, ramp, step

from slimdet.serving import scheduler
from slimdet.serving.scheduler import Request, Scheduler

LADDER = json.loads(Path(__file__).with_name("load.json").read_text())["ladder"]
COSTS = [rung["idle_ms"] for rung in LADDER]
AP = [rung["AP"] for rung in LADDER]
SPREAD, SLOW, OTHER_MS = 0.06, 0.01, 2.5  # log units of a detection; the share of twice as long ones; beside it
FRONT_MS = 1.5  # of a request before and after the queue
HEADROOMS = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8)


class Simulation:
    """One worker, one queue; time is that of the arrivals."""

    def __init__(self, arrivals: Sequence[float], deadline_ms: float, rung: int | None) -> None:
        self.arrivals, self.deadline_ms, self.rung = arrivals, deadline_ms, rung
        self.draw, self.scheduler = random.Random(1), Scheduler(COSTS, 1)
        self.events: list[tuple[float, bool, int]] = [(due, False, place) for place, due in enumerate(arrivals)]
        self.waiting: dict[int, int] = {}  # places by the request's number
        self.busy: tuple[Request, int, float, float] | None = None
        self.in_time, self.served = 0, []

    def run(self) -> dict[str, float]:
        """Attainment, and the mean AP of what was answered."""
        while self.events:
            now, ends, place = heapq.heappop(self.events)
            if ends:
                self._answer(now)
            else:
                request = Request.of(now, self.deadline_ms, self.rung)
                self._give_up(now)
                if self.scheduler.admit(request, now) == 0:
                    self.waiting[request.number] = place
            self._give_up(now)
            self._start(now)
        ap = fmean(self.served) if self.served else 0.0
        return {"attainment": round(self.in_time / len(self.arrivals), 4), "AP": round(ap, 3)}

    def _answer(self, now: float) -> None:
        assert self.busy is not None
        request, rung, ms, other = self.busy
        self.busy = None
        self.scheduler.done(request, rung, ms, other)
        took = 1000 * (now - self.arrivals[self.waiting.pop(request.number)]) + FRONT_MS
        self.in_time += took <= self.deadline_ms
        self.served.append(AP[rung])

    def _give_up(self, now: float) -> None:
        for request in self.scheduler.give_up(now):
            del self.waiting[request.number]

    def _start(self, now: float) -> None:
        taken = None if self.busy else self.scheduler.take(now)
        if taken:
            request, rung = taken
            slow = 2 if self.draw.random() < SLOW else 1
            ms = COSTS[rung] * math.exp(self.draw.gauss(0, SPREAD)) * slow
            other = OTHER_MS * math.exp(self.draw.gauss(0, 5 * SPREAD))
            self.busy = request, rung, ms, other
            heapq.heappush(self.events, (now + (ms + other) / 1000, True, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    usual, seconds = COSTS[-1] + OTHER_MS + FRONT_MS, options.seconds
    full, deadline = 1000 / usual, 2 * usual
    shapes = {f"poisson x{times:g}": poisson(times * full, seconds, 0) for times in (0.5, 1, 2, 3)}
    shapes |= {f"gamma CV2={cv2} x1": gamma(full, cv2, seconds, 0) for cv2 in (2, 4, 8)}
    shapes |= {
        "step x1-x4-x1": poisson(step(full, 4 * full, seconds), seconds, 0),
        "ramp x0.5-x3-x0.5": poisson(ramp(0.5 * full, 3 * full, seconds), seconds, 0),
        "flash crowd x0.5-x6": poisson(flash_crowd(0.5 * full, 6 * full, seconds), seconds, 0),
        "overload x10": poisson(10 * full, seconds, 0),
    }
    last = len(COSTS) - 1
    rows: dict[str, dict[str, Any]] = {}
    for shape, arrivals in shapes.items():
        rows[shape] = {"requests": len(arrivals)}
        for headroom in HEADROOMS:
            scheduler.HEADROOM = headroom
            rows[shape][f"headroom {headroom}"] = Simulation(arrivals, deadline, None).run()
        for rung in (0, last // 2, last):
            rows[shape][f"point {rung}"] = Simulation(arrivals, deadline, rung).run()
        print(shape, rows[shape])
    document = {"seconds": seconds, "deadline_ms": round(deadline), "costs_ms": COSTS, "AP": AP, "shapes": rows}
    options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
