"""Requests to the server's JSON API; translation of errors of nats-py and JetStream into `sensegate.errors`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec
import nats.errors
from nats.aio.client import Client

from sensegate.errors import EngineError, Fenced, NotFound, StoreFull, Unavailable

TIMEOUT_S = 5.0

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
"""Error codes: the expected last sequence of a message is wrong."""
FULL = frozenset({10047, 10054, 10077, 10023, 10122})
"""Error codes: insufficient storage or resources, message too large for the stream, stream full, reservation."""
TEMPORARILY_UNAVAILABLE = frozenset({10008, 10009, 10039, 10076, 10104, 10118, 10119, 10176, 10210, 10211})
"""Error codes: JetStream is starting, has no leader, lacks servers, or is disabled after a disk error; an incomplete
batch (the server restarted, or waited 10 s for the next message); too many open batches. Nothing was stored."""
MISSING = frozenset({10014, 10037, 10059})
"""Error codes: no such consumer, message, stream."""


class ApiError(msgspec.Struct, frozen=True):
    """Error in a response of the server."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiResponse(msgspec.Struct, frozen=True):
    """Fields common to all API responses and publish acknowledgements."""

    error: ApiError | None = None
    seq: int = 0
    count: int = 0
    stream: str = ""
    duplicate: bool = False


def raise_api_error(error: ApiError, operation: str) -> NoReturn:
    """Raise the `SensegateError` that corresponds to an error of the server."""
    text = f"{operation}: {error.description} ({error.err_code or error.code})"
    if error.err_code in WRONG_LAST_SEQUENCE:
        raise Fenced(text)
    if error.err_code in FULL:
        raise StoreFull(text)
    if error.err_code in MISSING:
        raise NotFound(text)
    if error.err_code in TEMPORARILY_UNAVAILABLE or error.code == 503:
        raise Unavailable(text)
    raise EngineError(text)


@contextmanager
def translate_client_errors(operation: str) -> Iterator[None]:
    """Raise `Unavailable` in place of an error of the client library."""
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as why:
        raise Unavailable(f"{operation}: {str(why).removeprefix('nats: ') or type(why).__name__}") from why


async def request(
    nc: Client,
    subject: str,
    body: Mapping[str, Any] | bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Send a request to the server and return its successful response.

    Raises:
        Fenced, StoreFull, NotFound, EngineError: the server responded with an error.
        Unavailable: there was no response; the outcome is unknown.
    """
    payload = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    with translate_client_errors(subject):
        answer = (await nc.request(subject, payload, timeout=timeout_s, headers=headers)).data
    if error := msgspec.json.decode(answer, type=ApiResponse).error:
        raise_api_error(error, subject)
    return answer
