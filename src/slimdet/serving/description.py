"""What the server can be asked, as OpenAPI 3.1 has it: for clients that are generated, and for tools that try it."""

from typing import Any

from slimdet import __version__
from slimdet.serving.requests import MAX_DEADLINE_MS, TYPES, Limits

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "what is wrong, in a sentence"}},
    "required": ["error"],
}
REFUSALS = {
    "400": "an option that there is not, or a value that cannot be",
    "401": "the token is missing or another one",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the content type is none of an image",
    "422": "the body is no image, or a damaged one",
    "503": "not even the cheapest point could be in time: try again after `Retry-After` seconds",
}


def openapi(name: str, limits: Limits) -> dict[str, Any]:
    """The description of a server of this model.

    Args:
        name: of the model, as addresses have it.
        limits: what may be asked for.
    """
    paths: dict[str, Any] = {
        "/v1/detect": {"post": _detect(limits)},
        "/v1/status": {"get": _told("the ladder, what is expected of it now, and the load")},
        "/metrics": {"get": _told("metrics, as Prometheus reads them", "text/plain")},
        "/v2": {"get": _told("the server")},
        "/v2/health/live": {"get": _told("whether it lives")},
        "/v2/health/ready": {"get": _told("whether it takes requests", refusals=("503",))},
    }
    for at in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        paths[at] = {"get": _told("the model, by the Open Inference Protocol")}
        paths[f"{at}/ready"] = {"get": _told("whether it takes requests", refusals=("503",))}
        paths[f"{at}/infer"] = {"post": _infer(limits)}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"slimdet: {name}", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}, {}],
    }


def _detect(limits: Limits) -> dict[str, Any]:
    body = {kind: {"schema": {"type": "string", "contentMediaType": kind}} for kind in TYPES}
    return _told("detect objects in an image, the body", refusals=tuple(REFUSALS)) | {
        "parameters": [{"name": key, "in": "query", "schema": schema} for key, schema in _options(limits).items()],
        "requestBody": {"required": True, "content": body},
    }


def _infer(limits: Limits) -> dict[str, Any]:
    data = {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}, "minItems": 1, "maxItems": 1}
    tensor = {
        "type": "object",
        "properties": {
            "name": {"const": "image"},
            "datatype": {"const": "BYTES"},
            "shape": {"const": [1]},
            "data": data,
        },
        "required": ["name", "datatype", "shape", "data"],
    }
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
            "parameters": {"type": "object", "properties": _options(limits), "additionalProperties": False},
        },
        "required": ["inputs"],
    }
    refusals = tuple(number for number in REFUSALS if number != "415")
    return _told("detect objects in an image, by the Open Inference Protocol", refusals=refusals) | {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
    }


def _options(limits: Limits) -> dict[str, Any]:
    points = [{"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": limits.points - 1}]
    return {
        "width": {"enum": list(limits.widths)},
        "imgsz": {"type": "integer", "minimum": limits.imgsz[0], "maximum": limits.imgsz[1]},
        "point": {"oneOf": points, "default": "auto"},
        "conf": {"type": "number", "minimum": 0, "maximum": 1, "default": limits.conf},
        "deadline_ms": {
            "type": "number",
            "minimum": 1,
            "maximum": MAX_DEADLINE_MS,
            "default": limits.deadline_ms,
        },
    }


def _told(what: str, kind: str = "application/json", refusals: tuple[str, ...] = ("401",)) -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    answers: dict[str, Any] = {"200": {"description": what, "content": {kind: {"schema": schema}}}}
    for number in refusals:
        why = REFUSALS[number]
        answers[number] = {"description": why, "content": {"application/json": {"schema": ERROR}}}
    return {"summary": what, "responses": answers}
