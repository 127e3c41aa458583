"""A small front for tests: writes batches to stream INTAKE, without MQTT."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nats.aio.client import Client

from sensegate.bus.streams import INTAKE_SUBJECT
from sensegate.collect.intake.batch import QOS_SHIFT, IntakeBatchBuilder

QOS_1 = 1 << QOS_SHIFT
ARRIVAL = 1_767_225_600_000_000
"""Arrival of the first message, µs UTC; each later one is a second later."""


class BatchWriter:
    """A front: an instance whose batches are numbered."""

    def __init__(self, connection: Client, instance: bytes = bytes(16)) -> None:
        self.connection = connection
        self.instance = instance
        self.number = 0
        self.messages = 0

    def seal(
        self, payloads: Sequence[bytes], topic: str = "sg/d1/up", *, flags: int = QOS_1, per_read: int = 3
    ) -> bytes:
        """Return the next batch."""
        self.number += 1
        builder = IntakeBatchBuilder()
        for start in range(0, len(payloads), per_read):
            for payload in payloads[start : start + per_read]:
                builder.topics.append(topic)
                builder.payloads.append(payload)
                builder.flags.append(flags)
            builder.end_read("client", "d1", ARRIVAL + self.messages * 1_000_000)
            self.messages += per_read
        return builder.seal(self.instance, self.number)

    async def store(self, batch: bytes) -> int:
        """Store a batch; return its sequence in the stream."""
        answer = json.loads((await self.connection.request(INTAKE_SUBJECT, batch, timeout=60)).data)
        assert "error" not in answer, answer
        return int(answer["seq"])

    async def write(self, payloads: Sequence[bytes], topic: str = "sg/d1/up", *, flags: int = QOS_1) -> bytes:
        """Seal and store the next batch; return it, so that it can be stored again."""
        batch = self.seal(payloads, topic, flags=flags)
        await self.store(batch)
        return batch
