"""What is counted: for Prometheus, by its naming (seconds, totals that only grow), and lately, for the page."""

from collections import deque
from time import monotonic
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from slimdet.serving.scheduler import Scheduler

BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)
RECENT_S = 10.0


class Metrics:
    """The counters of one server.

    Attributes:
        workers: how many are ready.
        restarts: how many have ended and were replaced.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("slimdet_requests", "Requests for detection, by status.", ["code"], registry=registry)
        self._seconds, self._waited = (
            Histogram(name, text, registry=registry, buckets=BUCKETS)
            for name, text in (
                ("slimdet_request_seconds", "Of answered requests, from when all of it was there to its answer."),
                ("slimdet_queue_seconds", "How long answered requests waited."),
            )
        )
        self._detected = Histogram(
            "slimdet_inference_seconds", "Detection alone, by point.", ["point"], registry=registry, buckets=BUCKETS
        )
        text = "Requests by what became of their deadline: met, missed (answered too late), rejected."
        self._deadlines = Counter("slimdet_deadlines", text, ["outcome"], registry=registry)
        for outcome in ("met", "missed", "rejected"):
            self._deadlines.labels(outcome)  # there from the start
        self._ap = Summary("slimdet_served_ap", "AP of the points that answered, 0..1.", registry=registry)
        text = "Requests that ran at another point than the one before."
        self._switches, self._switched = Counter("slimdet_point_switches", text, registry=registry), 0
        self._queue = Gauge("slimdet_queue_requests", "Requests that wait.", registry=registry)
        self._running = Gauge("slimdet_running_requests", "Requests that run.", registry=registry)
        text = "How many times longer detection takes than it was measured."
        self._load = Gauge("slimdet_load_ratio", text, registry=registry)
        self.workers = Gauge("slimdet_workers", "Workers that are ready.", registry=registry)
        self.restarts = Counter("slimdet_worker_restarts", "Workers that were replaced.", registry=registry)
        self._recent: deque[tuple[float, float | None, float | None]] = deque(maxlen=10_000)

    def watch(self, scheduler: Scheduler) -> None:
        """The queue has changed."""
        self._queue.set(scheduler.waiting)
        self._running.set(scheduler.running)
        self._load.set(scheduler.latency.load)
        self._switches.inc(scheduler.switches - self._switched)
        self._switched = scheduler.switches

    def ended(self, code: int) -> None:
        """A request was answered with this status."""
        self._requests.labels(str(code)).inc()

    def answered(self, point: str, ap: float | None, seconds: dict[str, float], in_time: bool) -> None:
        """A detection was made.

        Args:
            point: that ran.
            ap: its AP, if it is known.
            seconds: {"queue", "inference", "total"}.
            in_time: whether the deadline was met.
        """
        self._seconds.observe(seconds["total"])
        self._waited.observe(seconds["queue"])
        self._detected.labels(point).observe(seconds["inference"])
        self._deadlines.labels("met" if in_time else "missed").inc()
        if ap is not None:
            self._ap.observe(ap)
        self._recent.append((monotonic(), seconds["total"] if in_time else None, ap))

    def rejected(self) -> None:
        """A request was refused for want of time."""
        self._deadlines.labels("rejected").inc()
        self._recent.append((monotonic(), None, None))

    def recent(self) -> dict[str, Any]:
        """Of the last 10 seconds: requests a second, the part in time, median milliseconds, mean AP."""
        since = monotonic() - RECENT_S
        last = [one for one in self._recent if one[0] >= since]
        seconds, aps = [s for _, s, _ in last if s is not None], [ap for *_, ap in last if ap is not None]
        return {
            "requests_per_s": len(last) / RECENT_S,
            "attainment": len(seconds) / len(last) if last else None,
            "p50_ms": 1000 * float(np.median(seconds)) if seconds else None,
            "AP": float(np.mean(aps)) if aps else None,
        }

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
