"""The workers and the queue before them, in the server's event loop."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimdet.errors import ConfigError
from slimdet.serving.metrics import Metrics
from slimdet.serving.scheduler import Request, Scheduler
from slimdet.serving.worker import Failed, Found, Job, Ready, Start, Worker

PATIENCE_S = 60.0  # for one job; whatever takes longer is broken
STARTS = 3  # workers that may die on end before one has been ready

logger = logging.getLogger("slimdet")


class Busy(Exception):
    """Nobody can do it in time; the argument is the number of seconds after which somebody could."""


class Refused(Exception):
    """A worker cannot do it; the arguments are the reason and who is to blame, as `Failed` has them."""


@dataclass(frozen=True)
class Answer:
    """What a request gets: what was found, at which rung (None: none of them), milliseconds of waiting and of all."""

    found: Found
    rung: int | None
    queue_ms: float
    total_ms: float
    in_time: bool


@dataclass(eq=False)
class _Waiting:
    """A request with what it needs."""

    request: Request
    job: Job
    deadline_ms: float
    arrived_s: float
    future: "asyncio.Future[Answer]"
    started_s: float = 0.0
    rung: int = 0
    tries: int = 0
    alarm: asyncio.TimerHandle | None = None  # for a worker that takes too long over it

    def ended(self) -> None:
        """No worker is at it any more. The alarm would keep the image in memory until it goes off."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None


class Pool:
    """Some workers with one queue. To be used in one event loop.

    Args:
        options: of the runtime, `slimdet.Runtime`'s arguments.
        workers: how many processes.
        metrics: told what happens.

    Attributes:
        ready: what is served; not there before `start`.
        scheduler: the queue; likewise.
    """

    def __init__(self, options: Mapping[str, Any], workers: int, metrics: Metrics) -> None:
        self._options, self._count, self._metrics = options, workers, metrics
        self._workers: set[Worker] = set()
        self._waiting: dict[int, _Waiting] = {}  # by the request's number
        self._closing, self._deaths = False, 0
        self._started: asyncio.Future[None] | None = None
        self.ready: Ready
        self.scheduler: Scheduler

    @property
    def is_ready(self) -> bool:
        """Whether a worker could take a request, and requests are taken."""
        return not self._closing and any(worker.is_ready for worker in self._workers)

    async def start(self) -> None:
        """Start a worker, which measures, and then the others, which know what it has found out.

        Raises:
            ConfigError: it cannot serve this model.
        """
        self._started = asyncio.get_running_loop().create_future()
        self._hire()
        await self._started
        while len(self._workers) < self._count:
            self._hire()

    async def detect(self, job: Job, deadline_ms: float, rung: int | None = None) -> Answer:
        """Run a job when its turn comes.

        Args:
            job: its rung is left to the scheduler, unless it has options.
            deadline_ms: by when it should be answered.
            rung: the one asked for, or for a job with options one that takes as long; None is any.

        Raises:
            Busy: it could not be in time.
            Refused: a worker cannot do it.
        """
        now = time.monotonic()
        request = Request.of(now, deadline_ms, rung)
        self._give_up(now)
        retry_s = self.scheduler.admit(request, now)
        if retry_s > 0 or not self.is_ready:
            raise Busy(retry_s)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = _Waiting(request, job, deadline_ms, now, future)
        self._pump()
        return await future

    async def close(self) -> None:
        """Finish what was taken, and end the workers."""
        self._closing = True
        await asyncio.gather(*(one.future for one in self._waiting.values()), return_exceptions=True)
        for worker in list(self._workers):
            self._dismiss(worker)
        # They end by themselves; who does not is not waited for.
        await asyncio.sleep(0)

    # --- workers

    def _hire(self) -> None:
        worker = Worker(Start(self._options, getattr(self, "ready", None)))
        self._workers.add(worker)
        asyncio.get_running_loop().add_reader(worker.fileno(), self._hear, worker)

    def _dismiss(self, worker: Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.fileno())
        worker.close()
        self._workers.discard(worker)

    def _hear(self, worker: Worker) -> None:
        try:
            said = worker.receive()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if worker.is_ready:
            self._answer(worker, said)
        elif isinstance(said, Ready):
            self._welcome(worker, said)
        elif self._started is not None and not self._started.done():
            self._dismiss(worker)
            self._started.set_exception(ConfigError(getattr(said, "reason", "the worker cannot start")))
        self._pump()

    def _welcome(self, worker: Worker, ready: Ready) -> None:
        worker.is_ready, self._deaths = True, 0
        if self._started is not None and not self._started.done():
            self.ready = ready
            self.scheduler = Scheduler(list(ready.costs_ms.values()), 0)
            self._started.set_result(None)
        self._count_workers()

    def _bury(self, worker: Worker) -> None:
        """A worker is gone: another one takes its place, and its job goes to whoever is free, once."""
        self._dismiss(worker)
        worker.kill()
        code, job = worker.process.wait(), worker.job
        self._deaths += 1
        if self._started is not None and not self._started.done():
            self._started.set_exception(ConfigError(f"the worker ended while it started (exit code {code})"))
            return
        logger.warning("a worker ended (exit code %s); it is started again", code)
        self._metrics.restarts.inc()
        self._count_workers()
        if job is not None:
            job.ended()
            self.scheduler.done(job.request)
            if job.tries < 2:
                self.scheduler.put_back(job.request)
            else:
                self._fail(job, Refused("two workers in a row ended over this image", "image"))
        if not self._closing:
            delay = 0.0 if self._deaths < STARTS else min(30.0, 2.0 ** (self._deaths - STARTS))
            asyncio.get_running_loop().call_later(delay, self._hire)
        self._pump()

    def _count_workers(self) -> None:
        self.scheduler.workers = sum(worker.is_ready for worker in self._workers)
        self._metrics.workers.set(self.scheduler.workers)

    # --- jobs

    def _pump(self) -> None:
        """Give work to whoever is free."""
        if not hasattr(self, "scheduler"):
            return
        now = time.monotonic()
        self._give_up(now)
        for worker in self._workers:
            if worker.is_ready and worker.job is None:
                taken = self.scheduler.take(now)
                if taken is None:
                    break
                self._run(worker, *taken)
        self._metrics.watch(self.scheduler)

    def _run(self, worker: Worker, request: Request, rung: int) -> None:
        one = self._waiting[request.number]
        one.rung, one.started_s, one.tries, worker.job = rung, time.monotonic(), one.tries + 1, one
        job = one.job if one.job.options else Job(one.job.image, one.job.conf, rung)
        try:
            worker.send(job)
        except OSError:
            return  # it is gone, which is heard of next
        one.alarm = asyncio.get_running_loop().call_later(PATIENCE_S, self._check, worker, one)

    def _check(self, worker: Worker, one: _Waiting) -> None:
        if worker.job is one:
            logger.warning("a worker has been at one image for %g s; it is ended", PATIENCE_S)
            one.tries = 2
            worker.kill()

    def _answer(self, worker: Worker, said: Any) -> None:
        one: _Waiting = worker.job
        worker.job = None
        one.ended()
        now = time.monotonic()
        if isinstance(said, Failed):
            self.scheduler.done(one.request)
            self._fail(one, Refused(said.reason, said.blame))
            return
        took_ms, rung = 1000 * (now - one.started_s), None if one.job.options else one.rung
        self.scheduler.done(one.request, rung, said.inference_ms, max(0.0, took_ms - said.inference_ms))
        total_ms = 1000 * (now - one.arrived_s)
        in_time = total_ms <= one.deadline_ms
        answer = Answer(said, rung, 1000 * (one.started_s - one.arrived_s), total_ms, in_time)
        self._waiting.pop(one.request.number)
        if not one.future.done():
            one.future.set_result(answer)

    def _give_up(self, now: float) -> None:
        for request in self.scheduler.give_up(now):
            self._fail(self._waiting[request.number], Busy(0.0))

    def _fail(self, one: _Waiting, error: Exception) -> None:
        self._waiting.pop(one.request.number)
        if not one.future.done():
            one.future.set_exception(error)
