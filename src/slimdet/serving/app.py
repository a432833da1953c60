"""The server's addresses: detection, the Open Inference Protocol, metrics, the state, the page, and what all can do."""

import json
import math
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from slimdet import __version__
from slimdet.serving import inference
from slimdet.serving.description import openapi
from slimdet.serving.metrics import Metrics
from slimdet.serving.pool import Answer, Busy, Pool, Refused
from slimdet.serving.requests import Asked, Limits, RequestError, body_of, check_image, check_token, check_type
from slimdet.serving.worker import Job

PAGE = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
STATUS = {"image": 422, "asked": 400, "us": 500}  # of what a worker cannot do, by who is to blame
LEAST_IMGSZ = 32
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

Handler = Callable[[Request], Awaitable[Response]]


class App:
    """What answers. Made when the pool has started.

    Args:
        pool: the workers.
        metrics: what is counted.
        conf, deadline_ms: where a request names none.
        token: that requests must carry; None is none.
    """

    def __init__(self, pool: Pool, metrics: Metrics, conf: float, deadline_ms: float, token: str | None) -> None:
        self.pool, self.metrics, self.token = pool, metrics, token
        ready = self.ready = pool.ready
        self.points = list(ready.costs_ms)
        largest = max((point.imgsz or LEAST_IMGSZ for point in self.points), default=LEAST_IMGSZ)
        self.limits = Limits(conf, deadline_ms, tuple(ready.widths), len(self.points), (LEAST_IMGSZ, largest))
        self.name = ready.name.rstrip("/").rpartition("/")[2] or "model"

    def asgi(self) -> Starlette:
        """The application."""
        model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/v1/detect", self._guarded(self.detect), methods=post),
            Route("/v1/status", self._guarded(self.status), methods=get),
            Route("/openapi.json", self._open(self.description), methods=get),
            Route("/metrics", self._guarded(self.metrics_text), methods=get),
            Route("/v2", self._guarded(self.server), methods=get),
            Route("/v2/health/live", self._open(self.live), methods=get),
            Route("/v2/health/ready", self._open(self.is_ready), methods=get),
            *(Route(at, self._guarded(self.model), methods=get) for at in (model, version)),
            *(Route(f"{at}/ready", self._guarded(self.model_ready), methods=get) for at in (model, version)),
            *(Route(f"{at}/infer", self._guarded(self.infer), methods=post) for at in (model, version)),
            *(Route(f"/{path}", self._open(self.page), methods=get, name=file) for path, (file, _) in PAGE.items()),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_such})

    # --- detection

    async def detect(self, request: Request) -> Response:
        """POST /v1/detect, the image as the body."""
        check_type(request.headers.get("content-type", ""))
        asked = self.limits.asked(request.query_params)
        answer = await self._run(check_image(await body_of(request)), asked)
        width, height = answer.found.size
        head = json.dumps(self._about(answer, asked) | {"image": {"width": width, "height": height}})
        return Response(f'{{"detections": {answer.found.detections}, {head[1:]}', media_type="application/json")

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/NAME/infer."""
        self._check_model(request)
        body = await body_of(request)
        wanted = inference.read(body, request.headers.get(inference.HEADER))
        asked = self.limits.asked(wanted.parameters)
        answer = await self._run(check_image(wanted.image), asked)
        about = self._about(answer, asked)
        flat = {"point": json.dumps(about.pop("point")), "AP": about.pop("AP")} | about.pop("timings") | about
        parameters = {key: value for key, value in flat.items() if value is not None}
        content, length = inference.write(wanted, self.name, answer.found.detections, parameters)
        if length is None:
            return Response(content, media_type="application/json")
        headers = {inference.HEADER: str(length)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def _run(self, image: bytes, asked: Asked) -> Answer:
        rung = self._like(**asked.options) if asked.options else asked.rung
        try:
            answer = await self.pool.detect(Job(image, asked.conf, options=asked.options), asked.deadline_ms, rung)
        except Busy as busy:
            self.metrics.rejected()
            seconds = math.ceil(max(busy.args[0], 0.001))
            reason = f"not even the cheapest point could answer within {asked.deadline_ms:g} ms"
            raise RequestError(503, reason, {"retry-after": str(seconds)}) from None
        except Refused as refused:
            reason, blame = refused.args
            raise RequestError(STATUS[blame], reason) from None
        found, ap = answer.found, self._ap(answer)
        seconds = {"queue": answer.queue_ms, "inference": found.inference_ms, "total": answer.total_ms}
        point = ", ".join(map(str, found.point.values()))
        self.metrics.answered(point, ap, {key: ms / 1000 for key, ms in seconds.items()}, answer.in_time)
        return answer

    def _like(self, width: float = 1.0, imgsz: int | None = None) -> int:
        """The cheapest rung that takes about as long as a call with these options, which may be none of the rungs."""
        side = imgsz or self.limits.imgsz[1]
        fits = (rung for rung, one in enumerate(self.points) if one.width >= width and (one.imgsz or side) >= side)
        return next(fits, len(self.points) - 1)

    def _ap(self, answer: Answer) -> float | None:
        return None if answer.rung is None else self.ready.ap.get(self.points[answer.rung])

    def _about(self, answer: Answer, asked: Asked) -> dict[str, Any]:
        found = answer.found
        timings = {
            "queue_ms": answer.queue_ms,
            "read_ms": found.read_ms,
            "inference_ms": found.inference_ms,
            "total_ms": answer.total_ms,
        }
        return {
            "point": found.point,
            "rung": answer.rung,
            "AP": self._ap(answer),
            "timings": {name: round(ms, 3) for name, ms in timings.items()},
            "deadline_ms": asked.deadline_ms,
            "in_time": answer.in_time,
        }

    # --- what there is, and how it goes

    async def status(self, request: Request) -> Response:
        """GET /v1/status: the ladder with what is expected of it now, and the load."""
        scheduler = self.pool.scheduler
        expected = scheduler.latency.expected_ms(0.5)
        ready = self.ready
        ladder = [
            {"point": point.entry, "AP": ready.ap.get(point), "macs": ready.macs.get(point)}
            | {"idle_ms": idle, "expected_ms": ms}
            for (point, idle), ms in zip(ready.costs_ms.items(), expected, strict=True)
        ]
        state = {
            "model": self.name,
            "engine": ready.engine,
            "classes": list(ready.classes),
            "deadline_ms": self.limits.deadline_ms,
            "ladder": ladder,
            "load": scheduler.latency.load,
            "workers": scheduler.workers,
            "waiting": scheduler.waiting,
            "running": scheduler.running,
            "switches": scheduler.switches,
        }
        return JSONResponse(state | self.metrics.recent())

    async def description(self, request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(openapi(self.name, self.limits))

    async def metrics_text(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def server(self, request: Request) -> Response:
        """GET /v2."""
        return JSONResponse({"name": "slimdet", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """GET /v2/health/live."""
        return JSONResponse({"live": True})

    async def is_ready(self, request: Request) -> Response:
        """GET /v2/health/ready."""
        ready = self.pool.is_ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def model(self, request: Request) -> Response:
        """GET /v2/models/NAME."""
        self._check_model(request)
        return JSONResponse(inference.metadata(self.name, self.ready.engine, self.ready.masks))

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/NAME/ready."""
        self._check_model(request)
        ready = self.pool.is_ready
        return JSONResponse({"name": self.name, "ready": ready}, 200 if ready else 503)

    async def page(self, request: Request) -> Response:
        """GET /: the page, which asks for the token itself."""
        file, kind = PAGE[request.url.path.removeprefix("/")]
        content = files("slimdet.serving").joinpath("page", file).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    def _check_model(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version", "1")
        if name != self.name or version != "1":
            raise RequestError(
                404, f"there is no model {name[:50]!r} in version {version[:50]!r}; there is {self.name}"
            )

    # --- errors

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            check_token(request.headers.get("authorization", ""), self.token)
            return await handler(request)

        return self._open(answer)

    def _open(self, handler: Handler) -> Handler:
        """The handler, with what goes wrong told in one sentence of JSON; requests for detection are counted."""

        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except RequestError as error:
                response = JSONResponse({"error": error.reason}, error.status, error.headers)
            if request.method == "POST":
                self.metrics.ended(response.status_code)
            return response

        return answer


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": f"{request.method} {request.url.path[:100]}: {error.detail}"}, error.status_code)
