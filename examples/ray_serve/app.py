"""`slimdet serve` as a deployment of Ray Serve: replicas narrow before they scale out.

    pip install 'slimdet[serve,onnxruntime]' 'ray[serve]'
    serve run app:detector model=bundled deadline_ms=200 max_replicas=4

A replica is the server of `slimdet serve` with one worker: its queue, its choice of operating points, its addresses
(`POST /v1/detect`, the Open Inference Protocol, `/v1/status`, `/metrics`, the page). It answers more requests by
narrowing, at once. Only when that has cost accuracy for a while, or requests are late or refused, Ray starts another
replica; when all serve the top of the ladder with time to spare, one ends.
"""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingContext
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from slimdet.serving.app import App
from slimdet.serving.metrics import Metrics
from slimdet.serving.pool import Pool

KEPT = 0.9  # of the top AP: below it a replica more is worth its price
ATTAINED = 0.99  # of the requests answered in time: likewise
SPARE = 0.4  # of a replica's time in use: above it none is given up


def replicas(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """How many replicas there should be, of what each tells by `record_autoscaling_stats`."""
    now = context.target_num_replicas
    told = {name: list(values.values()) for name, values in context.aggregated_metrics.items() if values}
    if not told.get("kept"):
        return now, {}
    kept, attained, used = (sum(told[name]) / len(told[name]) for name in ("kept", "attained", "used"))
    if kept < KEPT or attained < ATTAINED:
        return now + 1, {}
    return (now - 1 if now > 1 and used * now / (now - 1) < SPARE else now), {}


@serve.deployment(max_ongoing_requests=200)  # who is too many is refused by the replica, at once, with Retry-After
class Detector:
    """One replica.

    Args:
        model: a bundle's folder, or "bundled".
        deadline_ms: in which requests are to be answered that name no deadline of their own.
    """

    def __init__(self, model: str, deadline_ms: float) -> None:
        self._metrics = Metrics()
        self._pool = Pool({"model": model, "threads": 1}, 1, self._metrics)
        self._deadline_ms = deadline_ms
        self._app: Any = None
        self._best = 0.0

    async def __call__(self, request: Request) -> Response:
        """Answer as `slimdet serve` does."""
        if self._app is None:
            await self.check_health()
        answer: list[Message] = []

        async def send(message: Message) -> None:
            answer.append(message)

        await self._app(request.scope, request.receive, send)
        start, *parts = answer
        headers = {key.decode(): value.decode() for key, value in start["headers"]}
        return Response(b"".join(part.get("body", b"") for part in parts), start["status"], headers)

    async def check_health(self) -> None:
        """Start the worker the first time; Ray asks before it sends requests, and again and again."""
        if self._app is None:
            await self._pool.start()
            ap = self._pool.ready.ap.values()
            self._best = max(ap, default=0.0)
            self._app = App(self._pool, self._metrics, 0.25, self._deadline_ms, None).asgi()
        if not self._pool.is_ready:
            raise RuntimeError("no worker is ready")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `replicas` goes by, of the last 10 seconds."""
        recent = self._metrics.recent()
        asked = recent["requests_per_s"]
        if not asked or self._app is None:
            return {"kept": 1.0, "attained": 1.0, "used": 0.0}
        kept = recent["AP"] / self._best if self._best and recent["AP"] is not None else 1.0
        top_ms = list(self._pool.ready.costs_ms.values())[-1]
        return {"kept": kept, "attained": recent["attainment"], "used": asked * top_ms / 1000}


def detector(args: dict[str, str]) -> serve.Application:
    """What `serve run app:detector KEY=VALUE...` runs."""
    scaling = {
        "min_replicas": 1,
        "max_replicas": int(args.get("max_replicas", 4)),
        "upscale_delay_s": float(args.get("upscale_delay_s", 10)),
        "downscale_delay_s": float(args.get("downscale_delay_s", 120)),
        "policy": {"policy_function": replicas},
    }
    made = Detector.options(autoscaling_config=scaling)
    return made.bind(args.get("model", "bundled"), float(args.get("deadline_ms", 200)))
