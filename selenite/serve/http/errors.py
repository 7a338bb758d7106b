"""Errors as HTTP answers: the right status, and OpenAI's error object."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from selenite.errors import ContextLengthError, OverloadedError, SeleniteError, UnavailableError
from selenite.serve.http.protocol import ErrorBody, ErrorResponse

logger = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error"}
_TYPES |= {429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 413: "body_too_large", 429: "queue_full"}
_CODES |= {403: "forbidden", 405: "method_not_allowed", 408: "request_timeout", 503: "unavailable"}
_PARAMETER = re.compile(r"^([a-z_][a-z_0-9.]*)[=:]")
_LONGEST = 1000  # characters of a message
_NO_OBJECT = "the body must be a JSON object, sent with Content-Type: application/json"


class ModelNotFoundError(HTTPException):
    """The request names a model that is not served."""

    def __init__(self, asked: str, served: Sequence[str]) -> None:
        known = ", ".join(map(repr, served))
        super().__init__(404, f"the model {asked[:200]!r} is not served here; served: {known}")


def status_of(error: Exception) -> int:
    """The HTTP status that says what kind of error it is."""
    if isinstance(error, HTTPException):
        return error.status_code
    if isinstance(error, RequestValidationError):
        return 400
    if isinstance(error, OverloadedError):
        return 429
    if isinstance(error, UnavailableError):
        return 503
    if isinstance(error, TimeoutError):
        return 408
    return 400 if isinstance(error, SeleniteError) and isinstance(error, ValueError) else 500


def error_response(error: Exception) -> ErrorResponse:
    """OpenAI's object. What only a bug can cause is not told to clients."""
    status = status_of(error)
    param = None
    if isinstance(error, RequestValidationError):
        param, message = _first_fault(error)
    elif isinstance(error, HTTPException):
        message = str(error.detail)
    elif isinstance(error, SeleniteError | TimeoutError):
        message = str(error)
        match = _PARAMETER.match(message)
        param = match[1] if match and status == 400 else None
    else:
        message = "the server failed on this request; its log says more"
    code = _CODES.get(status)
    if isinstance(error, ModelNotFoundError):
        param, code = "model", "model_not_found"
    if isinstance(error, ContextLengthError):
        code = "context_length_exceeded"
    default = "server_error" if status >= 500 else "invalid_request_error"
    return ErrorResponse(
        error=ErrorBody(
            message=message[:_LONGEST], type=_TYPES.get(status, default), param=param, code=code
        )
    )


def answer(error: Exception) -> Response:
    """The whole HTTP answer."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        headers |= error.headers or {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, TimeoutError):
        headers["x-should-retry"] = "false"  # the openai client would ask for it all again
    return error_answer(status_of(error), error_response(error), headers)


def error_answer(
    status: int, body: ErrorResponse, headers: Mapping[str, str] | None = None
) -> Response:
    """An error as JSON."""
    return Response(
        body.model_dump_json(), status, dict(headers or {}), media_type="application/json"
    )


def install(app: FastAPI) -> None:
    """Answers every error of the app's handlers."""

    async def handle(_: Request, error: Exception) -> Response:
        return answer(error)

    async def ignore(_: Request, error: Exception) -> Response:
        return Response(status_code=499)  # as nginx logs it; nobody is there to read it

    app.add_exception_handler(ClientDisconnect, ignore)
    for kind in (HTTPException, RequestValidationError, SeleniteError, TimeoutError, Exception):
        app.add_exception_handler(kind, handle)


def _first_fault(error: RequestValidationError) -> tuple[str | None, str]:
    """The field of the first fault, and what is wrong with it; never what was sent."""
    faults = [(_place(fault["loc"], error.body), fault) for fault in error.errors()]
    place, fault = faults[0]
    if not place and fault["type"] != "value_error":
        return None, _NO_OBJECT
    if len(place) + 1 < len(fault["loc"]):  # of several shapes, the one that was meant fits deepest
        shapes = [other for other in faults if other[0][: len(place)] == place]
        place, fault = max(shapes, key=lambda it: (len(it[0]), not it[1]["type"].endswith("_type")))
    param = ".".join(place)
    message = str(fault["msg"]).removeprefix("Value error, ")
    return (param, f"{param}: {message}") if param else (None, message)


def _place(loc: Sequence[str | int], body: Any) -> list[str]:
    """Where in the body a fault is. pydantic's names of a union's shapes are no part of it."""
    place: list[str] = []
    for index, part in enumerate(loc[1:], 2):
        if isinstance(body, list) and isinstance(part, int):
            body = body[part]
        elif isinstance(body, Mapping) and (part in body or index == len(loc)):
            body = body.get(part)
        else:
            continue
        place.append(str(part))
    return place
