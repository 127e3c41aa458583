"""The log on JetStream: atomic batches by headers, direct gets."""

from __future__ import annotations

import asyncio
import copy
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from nats.aio.client import Client

from sensegate.bus import api
from sensegate.bus.names import FILLER
from sensegate.bus.reader import Reader, entry, micros
from sensegate.bus.server_conf import BATCH_MESSAGES_MAX
from sensegate.bus.streams import LIFE, LOG
from sensegate.bus.timelines import Timelines
from sensegate.errors import EngineError, StoreFull, StreamLost, Unavailable
from sensegate.model import Entry, Member

_WRITE_S = 15.0
_SURELY_KEPT_S = 3_000.0
"""No entry but a filler has a shorter life."""
_HEADERS_BYTES = 512
"""More than our headers ever take; the server counts them with the payload."""


class JetStreamLog:
    """`ports.Log` on a stream. Call `open` first; it reads the epoch.

    `room` (``engine.has_room``) is asked before each write.
    """

    def __init__(self, nc: Client, stream: str = "LOG", *, room: Callable[[], bool] = lambda: True) -> None:
        self._nc = nc
        self._stream = stream
        self._room = room
        self._reader = Reader(nc, stream, live="commit.>" if stream == "LOG" else "")
        self._epoch = ""
        self._hidden: frozenset[int] = frozenset()
        self.began = 0
        """With which sequence it ended when it was opened: what comes after is of this process, or of others now."""
        self._timelines = Timelines.in_memory("")
        self._newest: tuple[int, int, float] | None = None
        """Sequence and time of the newest entry read that no other replaces, and when it was read (s, of the loop)."""
        self._reconnects = nc.stats["reconnects"]

    async def open(self, directory: Path | None = None) -> None:
        """Read the epoch; `directory`: where the timelines of this log are kept, if cursors of it are given out."""
        status = await self._reader.status()
        life = status.config.metadata.get(LIFE, "")
        self._epoch = life or f"{micros(status.created):x}"
        self._timelines = Timelines.open(directory, self._epoch) if directory else Timelines.in_memory(self._epoch)
        self.began = status.state.last_seq
        self._reader.advance(status.state.last_seq)

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def timelines(self) -> Timelines:
        return self._timelines

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a member."""
        return self._nc.max_payload - _HEADERS_BYTES

    async def write(self, members: Sequence[Member]) -> int:
        self._check(members)
        batch = secrets.token_hex(8)
        final = len(members)
        what = f"commit of {final} members"
        if not self._room():
            raise StoreFull(f"{what}: the disk has no room; nothing was sent")
        if not self._nc.is_connected:
            raise Unavailable(f"{what}: not connected, nothing was sent")
        with api.lost(what):
            # Members before the last ask for no reply: they leave in one stroke, the last one's answer is for all.
            for number, member in enumerate(members[:-1], 1):
                await self._nc.publish(member.subject, member.payload, headers=_headers(member, batch, number))
            member = members[-1]
            headers = _headers(member, batch, final)
            headers["Nats-Batch-Commit"] = "1"
            answered = await self._nc.request(member.subject, member.payload, timeout=_WRITE_S, headers=headers)
        answer = msgspec.json.decode(answered.data, type=api.Answer)
        if answer.error:
            api.refuse(answer.error, what)
        if answer.count != final:
            raise EngineError(f"{what}: the server stored {answer.count}; is the stream's allow_atomic off?")
        self._reader.advance(answer.seq)
        return answer.seq

    async def last(self, subject: str) -> Entry | None:
        message = await self._reader.last(subject)
        return None if message is None else entry(message)

    def hide(self, sequences: frozenset[int]) -> None:
        """Keep these entries, and no others, from readers: an empty filler stands in the place of each."""
        self._hidden = sequences

    def whole(self) -> JetStreamLog:
        """Return the same log, in which nothing is hidden."""
        made = copy.copy(self)
        made.hide(frozenset())
        return made

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[Entry]:
        """As `ports.Log`.

        Raises:
            StreamLost: the server came back without what was read before; sequences may have been given again.
        """
        if self._nc.stats["reconnects"] != self._reconnects:
            reconnects = self._nc.stats["reconnects"]
            await self._check_end()
            self._reconnects = reconnects
        entries = [entry(message) for message in await self._reader.fetch(after, limit=limit, max_bytes=max_bytes)]
        stays = reversed(entries) if self._stream == LOG else ()  # in other streams any entry may be replaced
        kept = next((found for found in stays if _stays(found.subject)), None)
        if kept and (self._newest is None or kept.sequence > self._newest[0]):
            self._newest = kept.sequence, kept.time, asyncio.get_running_loop().time()
        return [self._shown(found) for found in entries] if self._hidden else entries

    async def _check_end(self) -> None:
        """See that the log still ends with what was read last: only a new process begins a new timeline."""
        if self._newest is None:
            return
        sequence, time, read_at = self._newest
        messages = await self._reader.fetch(sequence - 1, limit=1, max_bytes=1)
        found = entry(messages[0]) if messages else None
        if found is not None and found.sequence == sequence and found.time == time:
            return
        aged = asyncio.get_running_loop().time() - read_at > _SURELY_KEPT_S
        if aged and found is not None and found.sequence > sequence:
            return  # it may have expired
        raise StreamLost(
            f"stream {self._stream} has lost its end while the gateway ran: entry {sequence} is another one or gone; "
            "the next start goes on behind what is left"
        )

    def _shown(self, found: Entry) -> Entry:
        if found.sequence not in self._hidden:
            return found
        return msgspec.structs.replace(found, subject=FILLER, payload=b"")

    async def fetch_of(self, subject: str, after: int) -> list[Entry]:
        """Return the next entries of a subject, in which tokens may be ``*``, after a sequence, oldest first."""
        entries = [entry(message) for message in await self._reader.fetch_of(subject, after, limit=1000)]
        return [self._shown(found) for found in entries] if self._hidden else entries

    async def bounds(self) -> tuple[int, int]:
        return await self._reader.bounds()

    async def sequence_at(self, time: int) -> int:
        found = await self._reader.first_since(time)
        return (await self._reader.bounds())[1] + 1 if found is None else found

    async def changed(self, after: int, timeout_s: float) -> bool:
        return await self._reader.changed(after, timeout_s)

    async def close(self) -> None:
        """Stop following; the connection is its owner's."""
        await self._reader.close()

    def _check(self, members: Sequence[Member]) -> None:
        if not members or len(members) > BATCH_MESSAGES_MAX:
            raise EngineError(f"a commit has 1 to {BATCH_MESSAGES_MAX} members, not {len(members)}")
        most = self.payload_bytes_max
        for member in members:
            if len(member.payload) > most:
                raise EngineError(f"member {member.subject} has {len(member.payload)} bytes, more than {most}")


def _stays(subject: str) -> bool:
    """Return whether an entry stays until it expires, and is not replaced by another of its subject."""
    return subject.startswith(("raw.", "readings.", "observations.", "ledger."))


def _headers(member: Member, batch: str, number: int) -> dict[str, str]:
    headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
    if member.ttl_h:
        headers["Nats-TTL"] = f"{member.ttl_h}h"
    if member.rollup:
        headers["Nats-Rollup"] = "sub"
    if member.expect is not None:
        headers["Nats-Expected-Last-Subject-Sequence"] = str(member.expect)
    return headers
