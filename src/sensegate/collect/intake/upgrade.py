"""Moves what an earlier release has acknowledged to devices, and not yet committed, from `$MQTT_msgs` to INTAKE.

Earlier releases consumed the store of the server's own MQTT broker by a durable consumer ``ingest-<number>``. At the
first start of this release the messages that it has not acknowledged, without those at or below the committed position,
become batches, before the pipeline runs. A batch is cut by its content alone and acknowledged once it is stored, so
that after a crash the same batch is made again, under the same instance and number, by which it is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import api, consumer, streams
from sensegate.bus.streams import MQTT_MESSAGES
from sensegate.collect.intake.batch import QOS_SHIFT, IntakeBatchBuilder
from sensegate.collect.topic import topic_of
from sensegate.errors import NotFound, Unavailable
from sensegate.model import SourcePosition

BATCH_MESSAGES, BATCH_BYTES = 500, 256 * 1024
IDLE_S = 1.0
"""After so long without a message the server is asked whether any is left."""
STALLED_MAX = 30
"""Most queries in a row that may find messages left which do not come."""

_SUBJECT = "$MQTT.msgs."
_OLD = re.compile(r"ingest-[0-9]+")
_log = structlog.get_logger("collect")


class _Names(msgspec.Struct, frozen=True):
    consumers: list[str] | None = None


async def move_stored_messages(devices: Client, gateway: Client, committed: SourcePosition | None) -> int:
    """Move the messages that an earlier release left in `$MQTT_msgs`; return how many.

    Args:
        devices: a connection of `User.INTAKE`.
        gateway: a connection of `User.GATEWAY`.
        committed: the position of source ``mqtt`` in the last commit.

    Raises:
        Unavailable: the server does not answer, or does not deliver what it holds; the next start goes on.
        StoreFull: INTAKE has no room.
    """
    try:
        epoch = await streams.created_at(devices, MQTT_MESSAGES)
    except NotFound:
        return 0
    answer = await api.request(devices, f"$JS.API.CONSUMER.NAMES.{MQTT_MESSAGES}")
    old = sorted(filter(_OLD.fullmatch, msgspec.json.decode(answer, type=_Names).consumers or ()))
    if not old:
        return 0
    done = committed.sequence if committed and committed.epoch == epoch else 0
    # Each of several consumers was given every message: the first one's are all.
    moved = await _Mover(devices, gateway, old[0], epoch, done).run()
    for name in old:
        await consumer.delete(devices, MQTT_MESSAGES, name)
    _log.info("messages of an earlier release moved to INTAKE", messages=moved)
    return moved


class _Mover:
    """Reads one consumer from its first unacknowledged message to its end."""

    def __init__(self, devices: Client, gateway: Client, name: str, epoch: str, done: int) -> None:
        self._devices = devices
        self._gateway = gateway
        self._name = name
        self._epoch = epoch
        self._done = done
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._batch = IntakeBatchBuilder()
        self._first = self._last = 0
        self._bytes = 0

    async def run(self) -> int:
        """Move all messages; return how many were not committed."""
        status = await consumer.status(self._devices, MQTT_MESSAGES, self._name)
        # Before there is interest the server delivers nothing: all that arrives is of after the reset.
        await consumer.reset(self._devices, MQTT_MESSAGES, self._name)
        with api.translate_client_errors("messages of an earlier release"):
            subscription = await self._devices.subscribe(
                str(status.config["deliver_subject"]), cb=self._arrived.put, pending_bytes_limit=-1
            )
        try:
            return await self._move()
        finally:
            with contextlib.suppress(Unavailable), api.translate_client_errors("unsubscribe"):
                await subscription.unsubscribe()

    async def _move(self) -> int:
        expected, moved, stalled, last = 1, 0, 0, ""
        while True:
            message: Msg | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    message = await self._arrived.get()
            headers = (message.headers if message else None) or {}
            if message and (
                request := headers.get("Nats-Consumer-Stalled") or (message.reply if "Status" in headers else "")
            ):
                await self._publish(request)  # flow control
            if not message or "Status" in headers:
                # Heartbeats come as often as the wait is long: they must not keep it from ending.
                status = await consumer.status(self._devices, MQTT_MESSAGES, self._name)
                if not status.num_pending and status.delivered.consumer_seq == expected - 1:
                    # The end cuts the last batch: nothing is published there any more.
                    await self._store(last)
                    return moved
                stalled += 1
                if stalled > STALLED_MAX:
                    raise Unavailable(f"{status.num_pending} messages of {MQTT_MESSAGES} do not come")
                continue
            sequence, number, nanos = (int(part) for part in message.reply.split(".")[-4:-1])
            if number != expected:
                raise Unavailable(f"message {number} of {MQTT_MESSAGES} arrived instead of {expected}")
            expected, stalled, last = expected + 1, 0, message.reply
            if sequence > self._done:
                moved += 1
                self._add(message, sequence, nanos // 1_000)
                if len(self._batch) >= BATCH_MESSAGES or self._bytes >= BATCH_BYTES:
                    await self._store(last)

    def _add(self, message: Msg, sequence: int, arrival: int) -> None:
        if not len(self._batch):
            self._first = sequence
        self._last = sequence
        topic = topic_of(message.subject.removeprefix(_SUBJECT).encode("utf-8", "surrogateescape"))
        self._batch.topics.append(topic)
        self._batch.payloads.append(message.data)
        self._batch.flags.append(int((message.headers or {}).get("Nmqtt-Pub", "1")) << QOS_SHIFT)
        self._batch.end_read("", "", arrival)
        self._bytes += len(message.data)

    async def _store(self, reply: str) -> None:
        """Store the open batch, then acknowledge everything up to its last message."""
        if len(self._batch):
            extent = f"{self._epoch} {self._first} {self._last}"
            instance = hashlib.blake2b(extent.encode(), digest_size=16).digest()
            batch, self._batch, self._bytes = self._batch.seal(instance, 1), IntakeBatchBuilder(), 0
            await api.request(
                self._gateway, streams.INTAKE_SUBJECT, batch, headers={"Nats-Msg-Id": f"{instance.hex()}-1"}
            )
        if reply:
            await self._publish(reply)

    async def _publish(self, subject: str) -> None:
        with api.translate_client_errors("acknowledgement"):
            await self._devices.publish(subject)
