"""The log as a JetStream stream: atomic batch publishes, direct gets."""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.bus.connect import BusClient
from sensegate.bus.names import PADDING_SUBJECT
from sensegate.bus.reader import StreamFollower, parse_timestamp, to_entry
from sensegate.bus.server_conf import BATCH_MESSAGES_MAX
from sensegate.bus.streams import EPOCH_KEY, LOG
from sensegate.bus.timelines import Timelines
from sensegate.errors import EngineError, StoreFull, StreamLost, Unavailable
from sensegate.model import LogEntry, LogMessage

_WRITE_S = 15.0
_WRITE_REPLICATED_S = 3.0
"""The same in a cluster, where the server that was to answer may have died and another one has the answer."""
_RETAINED_MIN_S = 3_000.0
"""Time after which an entry may have expired; only padding has a shorter lifetime."""
_HEADERS_BYTES = 512
"""Upper bound of the size of our headers; the server counts them with the payload."""


class JetStreamLog:
    """`bus.contract.Log` on a stream. Call `open` first; it reads the epoch.

    `room` (``engine.has_room``) is called before each write.
    """

    def __init__(self, nc: Client, stream: str = "LOG", *, room: Callable[[], bool] = lambda: True) -> None:
        self._nc = nc
        self._stream = stream
        self._room = room
        self._reader = StreamFollower(nc, stream, live="commit.>" if stream == "LOG" else "")
        self._epoch = ""
        self._hidden: frozenset[int] = frozenset()
        self.end_at_open = 0
        """Last sequence when the log was opened."""
        self._timelines = Timelines.in_memory("")
        replicated = isinstance(nc, BusClient) and nc.replicas > 1
        self._write_s = _WRITE_REPLICATED_S if replicated else _WRITE_S
        self._newest: tuple[int, int, float] | None = None
        """Sequence and time of the newest retained entry that was read, and the loop time (s) when it was read."""
        self._reconnects = nc.stats["reconnects"]

    async def open(self, directory: Path | None = None) -> None:
        """Read the epoch; `directory`: where the timelines are stored, if cursors of this log are issued."""
        status = await self._reader.status()
        epoch = status.config.metadata.get(EPOCH_KEY, "")
        self._epoch = epoch or f"{parse_timestamp(status.created):x}"
        self._timelines = Timelines.open(directory, self._epoch) if directory else Timelines.in_memory(self._epoch)
        self.end_at_open = status.state.last_seq
        self._reader.advance(status.state.last_seq)

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def timelines(self) -> Timelines:
        return self._timelines

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a message."""
        return self._nc.max_payload - _HEADERS_BYTES

    async def write(self, messages: Sequence[LogMessage]) -> int:
        self._check(messages)
        batch = secrets.token_hex(8)
        final = len(messages)
        operation = f"commit of {final} messages"
        if not self._room():
            raise StoreFull(f"{operation}: the disk is full; nothing was sent")
        if not self._nc.is_connected:
            raise Unavailable(f"{operation}: not connected; nothing was sent")
        with api.translate_client_errors(operation):
            # Only the last message asks for a response, so all of them leave at once; the response is for the batch.
            for number, member in enumerate(messages[:-1], 1):
                await self._nc.publish(member.subject, member.payload, headers=_headers(member, batch, number))
            member = messages[-1]
            headers = _headers(member, batch, final)
            headers["Nats-Batch-Commit"] = "1"
            reply = await self._nc.request(member.subject, member.payload, timeout=self._write_s, headers=headers)
        response = msgspec.json.decode(reply.data, type=api.ApiResponse)
        if response.error:
            api.raise_api_error(response.error, operation)
        if response.count != final:
            raise EngineError(f"{operation}: the server stored {response.count}; is allow_atomic of the stream off?")
        self._reader.advance(response.seq)
        return response.seq

    async def last(self, subject: str) -> LogEntry | None:
        message = await self._reader.last(subject)
        return None if message is None else to_entry(message)

    def hide(self, sequences: frozenset[int]) -> None:
        """Hide exactly these entries from readers: each reads as an empty padding entry."""
        self._hidden = sequences

    def unfiltered(self) -> JetStreamLog:
        """Return this log with nothing hidden."""
        unfiltered = copy.copy(self)
        unfiltered.hide(frozenset())
        return unfiltered

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        """Return the entries after a sequence, as `bus.contract.Log.fetch` promises.

        Raises:
            StreamLost: after a reconnect the server lacks entries read before; sequences may have been reused.
        """
        if self._nc.stats["reconnects"] != self._reconnects:
            reconnects = self._nc.stats["reconnects"]
            await self._check_end()
            self._reconnects = reconnects
        entries = [to_entry(message) for message in await self._reader.fetch(after, limit=limit, max_bytes=max_bytes)]
        candidates = reversed(entries) if self._stream == LOG else ()  # in other streams any entry may be replaced
        newest = next((entry for entry in candidates if _is_retained(entry.subject)), None)
        if newest and (self._newest is None or newest.sequence > self._newest[0]):
            self._newest = newest.sequence, newest.time, asyncio.get_running_loop().time()
        return [self._filtered(entry) for entry in entries] if self._hidden else entries

    async def _check_end(self) -> None:
        """Check that the log still holds the newest entry read: only a new process may begin a new timeline."""
        if self._newest is None:
            return
        sequence, time, read_at = self._newest
        messages = await self._reader.fetch(sequence - 1, limit=1, max_bytes=1)
        entry = to_entry(messages[0]) if messages else None
        if entry is not None and entry.sequence == sequence and entry.time == time:
            return
        aged = asyncio.get_running_loop().time() - read_at > _RETAINED_MIN_S
        if aged and entry is not None and entry.sequence > sequence:
            return  # it may have expired
        raise StreamLost(
            f"stream {self._stream} lost its end while the gateway ran: entry {sequence} is missing or another one; "
            "restart the gateway: it continues after what is left"
        )

    def _filtered(self, entry: LogEntry) -> LogEntry:
        if entry.sequence not in self._hidden:
            return entry
        return msgspec.structs.replace(entry, subject=PADDING_SUBJECT, payload=b"", rollup=False)

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the next entries of a subject after a sequence, oldest first; tokens of the subject may be ``*``."""
        entries = [to_entry(message) for message in await self._reader.fetch_of(subject, after, limit=1000)]
        return [self._filtered(entry) for entry in entries] if self._hidden else entries

    async def bounds(self) -> tuple[int, int]:
        return await self._reader.bounds()

    @property
    def is_settled(self) -> bool:
        return True

    async def stored_end(self) -> int:
        return (await self._reader.bounds())[1]

    async def sequence_at(self, time: int) -> int:
        if (sequence := await self._reader.first_since(time)) is not None:
            return sequence
        _, last = await self._reader.bounds()
        # Once more: what was stored between the two answers may be of that time.
        sequence = await self._reader.first_since(time)
        return last + 1 if sequence is None else sequence

    async def changed(self, after: int, timeout_s: float) -> bool:
        return await self._reader.changed(after, timeout_s)

    async def close(self) -> None:
        """Stop following the stream; the caller closes the connection."""
        await self._reader.close()

    def _check(self, members: Sequence[LogMessage]) -> None:
        if not members or len(members) > BATCH_MESSAGES_MAX:
            raise EngineError(f"a commit has 1 to {BATCH_MESSAGES_MAX} messages, not {len(members)}")
        limit = self.payload_bytes_max
        for member in members:
            if len(member.payload) > limit:
                raise EngineError(f"message {member.subject} has {len(member.payload)} bytes, more than {limit}")


def _is_retained(subject: str) -> bool:
    """Return whether an entry is retained until it expires, not replaced by the next one of its subject."""
    return subject.startswith(("raw.", "readings.", "observations.", "ledger."))


def _headers(member: LogMessage, batch: str, number: int) -> dict[str, str]:
    headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
    if member.ttl_h:
        headers["Nats-TTL"] = f"{member.ttl_h}h"
    if member.rollup:
        headers["Nats-Rollup"] = "sub"
    if member.expect is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(member.expect)
    return headers
