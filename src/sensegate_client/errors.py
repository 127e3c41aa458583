"""Errors of the client, one class for each cause that a caller can act on."""

from __future__ import annotations

import msgspec


class ProblemDocument(msgspec.Struct, frozen=True):
    """Body of an error response (RFC 9457)."""

    title: str = ""
    status: int = 0
    detail: str = ""
    instance: str = ""
    """Id of the request in the gateway's log."""
    first: str = ""


class ClientError(Exception):
    """Base of all errors of the client."""


class Unreachable(ClientError):
    """No address answered within the client's patience."""


class ResponseError(ClientError):
    """Error response of the gateway."""

    def __init__(self, problem: ProblemDocument, *, retry_after_s: float = 0.0) -> None:
        self.status = problem.status
        self.detail = problem.detail
        self.request_id = problem.instance
        self.retry_after_s = retry_after_s
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}".rstrip(": "))


class InvalidRequest(ResponseError):
    """The gateway does not take the request (400 and other 4xx); the text names the parameter."""


class NotAuthenticated(ResponseError):
    """The token is missing, unknown, revoked or expired (401)."""


class AccessDenied(ResponseError):
    """The token or its grants do not cover the request (403)."""


class NotFoundError(ResponseError):
    """There is no such feed, or nothing of it may be read (404)."""


class CursorExpired(ResponseError):
    """What followed the cursor is no longer on the log (410); `first` is the cursor to read on from."""

    def __init__(self, problem: ProblemDocument, *, retry_after_s: float = 0.0) -> None:
        super().__init__(problem, retry_after_s=retry_after_s)
        self.first = problem.first


class TooManyRows(ResponseError):
    """The request would read or return too much (413); narrow the period, or ask for aggregates."""


class QuotaExceeded(ResponseError):
    """The gateway still refuses by a quota or limit (429) when the client's patience ends."""


_KINDS: dict[int, type[ResponseError]] = {
    401: NotAuthenticated,
    403: AccessDenied,
    404: NotFoundError,
    410: CursorExpired,
    413: TooManyRows,
    429: QuotaExceeded,
}


def response_error(status: int, body: bytes, retry_after: str) -> ResponseError:
    """Return the error for a response; a body that is no problem document becomes its detail."""
    try:
        problem = msgspec.json.decode(body, type=ProblemDocument)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = ProblemDocument(title="Error", detail=body[:200].decode(errors="replace"))
    problem = msgspec.structs.replace(problem, status=status)
    seconds = float(retry_after) if retry_after.isdecimal() else 1.0
    return _KINDS.get(status, InvalidRequest)(problem, retry_after_s=seconds)
