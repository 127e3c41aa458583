"""Errors as RFC 9457 problem documents: the mapping of the error tree to status codes."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from aiohttp import web

from sensegate.errors import (
    ConfigError,
    Conflict,
    Fenced,
    Gone,
    NotFound,
    Overloaded,
    PermissionDenied,
    Rejected,
    SensegateError,
    StoreFull,
    Unavailable,
)

CONTENT_TYPE = "application/problem+json"
REQUEST_ID = web.RequestKey("request_id", str)
"""Id of a request in the log and in responses."""
PROBLEM_TYPE = web.RequestKey("problem_type", str)
"""URI of the type of the error of a request."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Problem document of an error response. `instance` is the id of the request, which the log has too."""

    title: str
    status: int
    detail: str = ""
    instance: str = ""
    type: str = "about:blank"
    first: str = ""
    """With 410: the cursor to read on from; it skips what has expired, and nothing that was not read."""


class BadRequest(SensegateError):
    """Invalid request (400, or another 4xx given in `status`)."""

    def __init__(self, problem: str, *, status: int = 400) -> None:
        self.status = status
        super().__init__(problem)


_STATUS: tuple[tuple[type[SensegateError], int], ...] = (
    (NotFound, 404),
    (Conflict, 409),
    (Gone, 410),
    (Rejected, 422),
    (ConfigError, 400),
    (Unavailable, 503),
    (Fenced, 503),
    (StoreFull, 503),
)


def status_of(why: SensegateError) -> int:
    """Return the HTTP status of an error."""
    match why:
        case BadRequest():
            return why.status
        case PermissionDenied():
            return 403 if why.authenticated else 401
        case Overloaded():
            return 503 if why.shared else 429
    return next((status for kind, status in _STATUS if isinstance(why, kind)), 400)


def title_of(status: int) -> str:
    """Return the standard phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _encode(status: int, detail: str, request_id: str, first: str = "", kind: str = "") -> bytes:
    problem = Problem(title=title_of(status), status=status, detail=detail, instance=request_id, first=first)
    return msgspec.json.encode(msgspec.structs.replace(problem, type=kind) if kind else problem)


def body_of_status(status: int, detail: str) -> bytes:
    """Return a problem document as JSON, for a response without a request."""
    return _encode(status, detail, "")


def response_of(status: int, detail: str, *, request_id: str = "", first: str = "", kind: str = "") -> web.Response:
    """Return a problem document as response; `kind`: the URI of its type."""
    body = _encode(status, detail, request_id, first, kind)
    response = web.Response(status=status, body=body, content_type=CONTENT_TYPE)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="sensegate", Basic realm="sensegate"'
    return response


def detail_of(why: SensegateError) -> str:
    """Return the detail for the caller; of an error of the gateway only its class.

    The text of a `BadRequest` is written for the caller, whatever its status (501, 503).
    """
    return (
        str(why)
        if status_of(why) < 500 or isinstance(why, (Overloaded, BadRequest))
        else f"{type(why).__name__}: the request failed; try again"
    )


def body_of(why: SensegateError, request_id: str) -> bytes:
    """Return the problem document as JSON, for a stream that has started."""
    return _encode(status_of(why), detail_of(why), request_id, why.first if isinstance(why, Gone) else "")


def problem_response(why: SensegateError, *, request_id: str = "", kind: str = "") -> web.Response:
    """Return the response for an error; `kind`: the URI of its type."""
    status = status_of(why)
    response = response_of(
        status, detail_of(why), request_id=request_id, first=why.first if isinstance(why, Gone) else "", kind=kind
    )
    if isinstance(why, Overloaded):
        response.headers["Retry-After"] = str(max(1, round(why.retry_after_s)))
    elif status == 503:
        response.headers["Retry-After"] = "1"
    return response
