"""A source of recorded messages in a JSON Lines file: ``topic``, ``payload`` or ``payload_b64``, optional ``at``."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from sensegate.clock import Clock
from sensegate.errors import ConfigError
from sensegate.model import Delivery, Message, SourcePosition

LINE_BYTES_MAX = 4 * 1024**2


class _Line(msgspec.Struct):
    topic: str
    payload: msgspec.Raw = msgspec.Raw()
    payload_b64: str | None = None
    at: float | datetime | None = None
    device: str = ""


def _payload(line: _Line) -> bytes:
    if line.payload_b64 is not None:
        return base64.b64decode(line.payload_b64, validate=True)
    raw = bytes(line.payload)
    # A text payload is recorded as a string, a JSON payload may be embedded.
    return msgspec.json.decode(raw, type=str).encode() if raw.startswith(b'"') else raw


def _received(at: float | datetime | None, now: int) -> int:
    if at is None:
        return now
    seconds = at.timestamp() if isinstance(at, datetime) else at if at < 1e11 else at / 1e3
    return round(seconds * 1e6)


def read_recording(path: Path, now: int = 0) -> Iterator[Message]:
    """Yield the messages of a recording, with the line as sequence; empty lines are skipped.

    Raises:
        ConfigError: a line is not a recorded message.
    """
    decoder = msgspec.json.Decoder(_Line)
    with path.open("rb") as lines:
        number = 0
        while raw := lines.readline(LINE_BYTES_MAX):
            number += 1
            if not raw.strip():
                continue
            try:
                line = decoder.decode(raw)
                message = Message(line.topic, _payload(line), _received(line.at, now), number, principal=line.device)
            except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, OverflowError) as why:
                raise ConfigError(
                    f"the line is not a recorded message: {why}",
                    file=str(path),
                    line=number,
                    remedy='write {"topic": …, "payload": …} or "payload_b64"',
                ) from why
            yield message


class ReplaySource:
    """A source that plays a recording once, as fast as possible; positions are line numbers."""

    def __init__(self, path: Path, clock: Clock, *, name: str = "replay", batch: int = 1_000) -> None:
        self.name = name
        self._path = path
        self._clock = clock
        self._batch = batch
        self._recording_id = ""
        self._after = 0
        self._stopped = asyncio.Event()
        self.exhausted = asyncio.Event()
        """Set when the last message was acknowledged."""
        self._last = -1

    async def start(self, committed: SourcePosition | None) -> None:
        with self._path.open("rb") as file:
            # The first line identifies a recording, which may grow.
            self._recording_id = hashlib.sha256(file.readline(LINE_BYTES_MAX)).hexdigest()[:16]
        self._after = committed.sequence if committed and committed.epoch == self._recording_id else 0
        self._stopped.clear()

    async def stop(self) -> None:
        self._stopped.set()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        batch: list[Message] = []
        last = self._after
        for message in read_recording(self._path, self._clock.now()):
            if message.sequence <= self._after:
                continue
            batch.append(message)
            last = message.sequence
            if len(batch) >= self._batch:
                yield self._delivery(batch)
                batch = []
            if self._stopped.is_set():
                return
        self._last = last
        if batch:
            yield self._delivery(batch)
        elif last == self._after:
            self.exhausted.set()
        await self._stopped.wait()

    def _delivery(self, messages: list[Message]) -> Delivery:
        last = messages[-1].sequence

        async def acknowledge() -> None:
            if last == self._last:
                self.exhausted.set()

        return Delivery(self.name, messages, acknowledge, SourcePosition(self._recording_id, last))
