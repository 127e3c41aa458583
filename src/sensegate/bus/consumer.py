"""Durable consumers over the JetStream API: operations that nats-py does not offer."""

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
    """State of a consumer as the server reports it."""

    name: str = ""
    delivered: _Sequences = _Sequences()
    ack_floor: _Sequences = _Sequences()
    num_ack_pending: int = 0
    num_pending: int = 0
    config: dict[str, Any] = {}


async def ensure(nc: Client, stream: str, config: Mapping[str, Any]) -> ConsumerStatus:
    """Create a durable consumer, or update it to `config` where the server allows it; its position stays.

    `config` is the server's consumer configuration with `durable_name`.

    Raises:
        EngineError: the consumer exists with settings that cannot be changed.
        Unavailable: the server did not answer.
    """
    name = config["durable_name"]
    try:
        present = await status(nc, stream, name)
    except NotFound:
        return await _create(nc, stream, config, "create")
    if all(present.config.get(key, type(value)()) == value for key, value in config.items()):
        return present
    return await _create(nc, stream, {**present.config, **config}, "update")


async def _create(nc: Client, stream: str, config: Mapping[str, Any], action: str) -> ConsumerStatus:
    body = {"stream_name": stream, "config": config, "action": action}
    answer = await api.request(nc, f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{config['durable_name']}", body)
    return msgspec.json.decode(answer, type=ConsumerStatus)


async def status(nc: Client, stream: str, name: str) -> ConsumerStatus:
    """Return the state of a consumer. Raises `NotFound`, `Unavailable`."""
    return msgspec.json.decode(await api.request(nc, f"$JS.API.CONSUMER.INFO.{stream}.{name}"), type=ConsumerStatus)


async def reset(nc: Client, stream: str, name: str) -> None:
    """Make the server redeliver all unacknowledged messages in order, from consumer sequence 1.

    Messages under way to a subscriber still arrive first: reset before you subscribe. The consumer must exist: for
    a missing one the server does not respond, which raises `Unavailable`.
    """
    answer = json.loads(await api.request(nc, f"$JS.API.CONSUMER.RESET.{stream}.{name}"))
    if "reset_seq" not in answer:
        raise EngineError(f"reset of consumer {name}: unexpected response {answer!r}")


async def delete(nc: Client, stream: str, name: str) -> None:
    """Delete a consumer if it exists; an interest stream drops messages that it had not acknowledged."""
    try:
        await api.request(nc, f"$JS.API.CONSUMER.DELETE.{stream}.{name}")
    except NotFound:
        return
