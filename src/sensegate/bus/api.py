"""The server's JSON API, and the one place where nats-py's and JetStream's errors become ours."""

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
"""An expectation of a member does not hold."""
FULL = frozenset({10047, 10054, 10077, 10023, 10122})
"""Insufficient storage, message larger than the stream takes, stream full, insufficient resources, reservation."""
NOT_NOW = frozenset({10008, 10009, 10039, 10076, 10104, 10176, 10210, 10211})
"""JetStream starts, has no leader, or is switched off after an error of the disk; a batch came in part (the server was
started again meanwhile, or waited 10 s for the next member); too many batches are open. Nothing was stored."""
ABSENT = frozenset({10014, 10037, 10059})
"""No such consumer, message, stream."""


class ApiError(msgspec.Struct, frozen=True):
    """An error as the server puts it."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What every answer of the API has, and the acknowledgement of a publish."""

    error: ApiError | None = None
    seq: int = 0
    count: int = 0
    stream: str = ""
    duplicate: bool = False


def refuse(error: ApiError, what: str) -> NoReturn:
    """Raise our error for one of the server's."""
    text = f"{what}: {error.description} ({error.err_code or error.code})"
    if error.err_code in WRONG_LAST_SEQUENCE:
        raise Fenced(text)
    if error.err_code in FULL:
        raise StoreFull(text)
    if error.err_code in ABSENT:
        raise NotFound(text)
    if error.err_code in NOT_NOW or error.code == 503:
        raise Unavailable(text)
    raise EngineError(text)


@contextmanager
def lost(what: str) -> Iterator[None]:
    """Turn the client's errors into `Unavailable`."""
    try:
        yield
    except (nats.errors.Error, TimeoutError, OSError) as why:
        raise Unavailable(f"{what}: {str(why).removeprefix('nats: ') or type(why).__name__}") from why


async def call(
    nc: Client,
    subject: str,
    body: Mapping[str, Any] | bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Ask the server; return its answer, which is not an error.

    Raises:
        Fenced, StoreFull, NotFound, EngineError: what the server said.
        Unavailable: no answer; the outcome is unknown.
    """
    payload = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    with lost(subject):
        answer = (await nc.request(subject, payload, timeout=timeout_s, headers=headers)).data
    if error := msgspec.json.decode(answer, type=Answer).error:
        refuse(error, subject)
    return answer
