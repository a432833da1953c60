"""What a request may hold: its body, its options and its token, checked before anything is done for it."""

import asyncio
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from slimdet.messages import did_you_mean, listed

MAX_BODY = 20 * 2**20  # bytes
BODY_S = 10.0  # for all of the body
MAX_DEADLINE_MS = 60_000.0
TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
OPTIONS = ("width", "imgsz", "point", "conf", "deadline_ms")


class RequestError(Exception):
    """A request that cannot be answered: the status and a sentence for whoever sent it."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


@dataclass(frozen=True)
class Asked:
    """What a request asks for.

    Attributes:
        conf: least score.
        deadline_ms: by when.
        rung: a point of the ladder; None leaves it to the server.
        options: width and imgsz, where it asks for these instead.
    """

    conf: float
    deadline_ms: float
    rung: int | None
    options: dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What may be asked for: the settings' defaults, and what the model has."""

    conf: float
    deadline_ms: float
    widths: tuple[float, ...]
    points: int
    imgsz: tuple[int, int]

    def asked(self, given: Mapping[str, Any]) -> Asked:
        """Read options: a query, or the parameters of an inference request.

        Raises:
            RequestError: 400, one that there is not, or a value that cannot be.
        """
        for name in given:
            if name not in OPTIONS:
                hint = did_you_mean(name, OPTIONS)
                raise RequestError(400, f"there is no option {name[:50]!r}; there are {listed(OPTIONS)}{hint}")
        conf = _number(given, "conf", (0, 1), self.conf)
        deadline_ms = _number(given, "deadline_ms", (1, MAX_DEADLINE_MS), self.deadline_ms)
        options: dict[str, Any] = {}
        if "width" in given:
            options["width"] = round(_number(given, "width", (0, 1), 1.0), 4)
            if options["width"] not in self.widths:
                raise RequestError(400, f"width {options['width']} is not one of {', '.join(map(str, self.widths))}")
        if "imgsz" in given:
            options["imgsz"] = int(_number(given, "imgsz", self.imgsz, 0))
        rung = self._rung(given.get("point", "auto"))
        if rung is not None and options:
            raise RequestError(400, "point says width and imgsz: give it or them, not both")
        return Asked(conf, deadline_ms, rung, options)

    def _rung(self, given: Any) -> int | None:
        if given == "auto":
            return None
        try:
            rung = int(given)
        except (TypeError, ValueError):
            rung = -1
        if not 0 <= rung < self.points:
            raise RequestError(400, f"point {str(given)[:50]!r} is not auto or one of 0..{self.points - 1}")
        return rung


def _number(given: Mapping[str, Any], name: str, bounds: tuple[float, float], default: float) -> float:
    if name not in given:
        return default
    try:
        value = float(given[name])
    except (TypeError, ValueError):
        value = math.nan
    if not bounds[0] <= value <= bounds[1]:
        raise RequestError(400, f"{name} {str(given[name])[:50]!r} is not a number in {bounds[0]:g}..{bounds[1]:g}")
    return value


async def body_of(request: Request) -> bytes:
    """The whole body.

    Raises:
        RequestError: 413, it is too large; 408, it took too long; 400, it was broken off.
    """
    length = request.headers.get("content-length", "")
    too_large = length.isdigit() and int(length) > MAX_BODY
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():  # what is too large is read and forgotten: or its sender hears nothing
                size += len(part)
                too_large |= size > MAX_BODY
                if too_large:
                    parts.clear()
                else:
                    parts.append(part)
                if size > 3 * MAX_BODY:
                    break
    except TimeoutError:
        if not too_large:
            raise RequestError(408, f"the body did not come within {BODY_S:g} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise RequestError(400, "the body was broken off") from None
    if too_large:
        raise RequestError(413, f"the body is larger than {MAX_BODY // 2**20} MiB", {"connection": "close"})
    return b"".join(parts)


def check_type(declared: str) -> None:
    """Refuse a body that is not declared as an image of a known type.

    Raises:
        RequestError: 415.
    """
    kind = declared.partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise RequestError(415, f"content-type {kind[:50]!r} is not one of {', '.join(TYPES)}")


def check_image(image: bytes) -> bytes:
    """The image, if it begins as a file of a known type does: no other decoder is reached from outside.

    Raises:
        RequestError: 422.
    """
    known = image.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"))
    if not known and not (image[:4] == b"RIFF" and image[8:12] == b"WEBP"):
        raise RequestError(422, f"these {len(image)} bytes are no JPEG, PNG, WebP or BMP file")
    return image


def check_token(header: str, token: str | None) -> None:
    """Refuse a request without the token, where there is one; equal in time whatever is wrong with it.

    Raises:
        RequestError: 401.
    """
    if token is None:
        return
    scheme, _, given = header.partition(" ")
    if not hmac.compare_digest(given.strip().encode(), token.encode()) or scheme.lower() != "bearer":
        raise RequestError(401, "this server needs a token: Authorization: Bearer ...", {"www-authenticate": "Bearer"})
