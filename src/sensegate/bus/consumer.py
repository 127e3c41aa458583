"""Durable consumers by their raw API: what `collect` needs and nats-py does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.errors import EngineError, NotFound


class _Sequences(msgspec.Struct, frozen=True):
    consumer_seq: int = 0
    stream_seq: int = 0


class ConsumerStatus(msgspec.Struct, frozen=True):
    """What the server says of a consumer."""

    name: str = ""
    delivered: _Sequences = _Sequences()
    ack_floor: _Sequences = _Sequences()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_pending: int = 0
    push_bound: bool = False
    config: dict[str, Any] = {}


async def ensure(nc: Client, stream: str, wanted: Mapping[str, Any]) -> ConsumerStatus:
    """Make a durable consumer, or change it to `wanted` where the server allows it (never its place in the stream).

    `wanted` is the server's consumer configuration with `durable_name`.

    Raises:
        EngineError: it exists with settings that cannot be changed.
        Unavailable: the server did not answer.
    """
    name = wanted["durable_name"]
    try:
        present = await status(nc, stream, name)
    except NotFound:
        return await _create(nc, stream, wanted, "create")
    if all(present.config.get(key, type(value)()) == value for key, value in wanted.items()):
        return present
    return await _create(nc, stream, {**present.config, **wanted}, "update")


async def _create(nc: Client, stream: str, config: Mapping[str, Any], action: str) -> ConsumerStatus:
    body = {"stream_name": stream, "config": config, "action": action}
    answer = await api.call(nc, f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{config['durable_name']}", body)
    return msgspec.json.decode(answer, type=ConsumerStatus)


async def status(nc: Client, stream: str, name: str) -> ConsumerStatus:
    """Return the state of a consumer. Raises `NotFound`, `Unavailable`."""
    return msgspec.json.decode(await api.call(nc, f"$JS.API.CONSUMER.INFO.{stream}.{name}"), type=ConsumerStatus)


async def reset(nc: Client, stream: str, name: str) -> None:
    """Let everything unacknowledged come again, in order, from consumer sequence 1.

    What is on the way already still arrives first: discard until consumer sequence 1. The consumer must exist: for
    one that does not, the server keeps silent and this is `Unavailable`.
    """
    answer = json.loads(await api.call(nc, f"$JS.API.CONSUMER.RESET.{stream}.{name}"))
    if "reset_seq" not in answer:
        raise EngineError(f"reset of consumer {name}: odd answer {answer!r}")


async def delete(nc: Client, stream: str, name: str) -> None:
    """Delete a consumer; what it had not acknowledged is gone from an interest stream. Absent is fine."""
    try:
        await api.call(nc, f"$JS.API.CONSUMER.DELETE.{stream}.{name}")
    except NotFound:
        return
