"""Questions of a node to its centre over its link: each is answered by one process of the centre.

``up.<node>.ask.<what>`` at the node lands on ``ask.<node>.<what>`` at the centre; no node can ask in another's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api
from sensegate.errors import Lost, Refused, SensegateError

ASK_S = 10.0
PIECE_BYTES = 500_000
"""So much an answer in pieces holds, or one thing that is larger."""

_log = structlog.get_logger("bus")

Answer = Callable[[str, bytes], Awaitable[bytes]]
"""(division of the node, what it sent) -> what it is told. Raises `SensegateError` to refuse."""


class _Said(msgspec.Struct, frozen=True, omit_defaults=True):
    value: bytes = b""
    refused: str = ""


_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Said).decode


def fitting(things: Iterable[_T], size_of: Callable[[_T], int]) -> list[_T]:
    """Return as many of the first as go into one answer; at least one, if there is one."""
    found: list[_T] = []
    left = PIECE_BYTES
    for thing in things:
        left -= size_of(thing)
        if found and left < 0:
            break
        found.append(thing)
    return found


async def ask(nc: Client, division: str, what: str, payload: bytes = b"", *, timeout_s: float = ASK_S) -> bytes:
    """Return the centre's answer.

    Raises:
        Lost: there is none; whether the question was heard is not known.
        Refused: the centre says why.
    """
    with api.lost(f"the centre did not answer '{what}'"):
        answered = await nc.request(f"up.{division}.ask.{what}", payload, timeout=timeout_s)
    try:
        said = _decode(answered.data)
    except msgspec.DecodeError as why:
        raise Lost(f"the centre's answer to '{what}' cannot be read: {why}") from why
    if said.refused:
        raise Refused(said.refused)
    return said.value


async def answer(nc: Client, answers: Mapping[str, Answer]) -> None:
    """Answer the nodes from now on, as long as the connection lives; several processes share the questions."""
    working: set[asyncio.Task[None]] = set()

    async def asked(message: Msg) -> None:
        # A long answer to one node keeps no other waiting; each asks one thing after another.
        task = asyncio.create_task(one(message), name=message.subject)
        working.add(task)
        task.add_done_callback(working.discard)

    async def one(message: Msg) -> None:
        _, division, what = message.subject.split(".", 2)
        work = answers.get(what)
        try:
            if work is None:
                raise Refused(f"this centre knows no '{what}'; update it")
            said = _Said(await work(division, message.data))
        except (SensegateError, msgspec.DecodeError) as why:
            said = _Said(refused=str(why) or type(why).__name__)
        try:
            with api.lost("answer a node"):
                await message.respond(_encode(said))
        except Lost as why:
            _log.debug("a node asks again", node=division, what=what, error=str(why))

    with api.lost("hear the nodes"):
        await nc.subscribe("ask.*.*", queue="centre", cb=asked)
        await nc.flush()
