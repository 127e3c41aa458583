"""A standby centre's copy of the log: entry for entry under the same sequences, so that cursors and ids stay.

    active: Original ◀─ ask ``log`` (what follows a sequence) ── standby: Replica ─▶ its own LOG, whole commits at once

To ask for what follows is to confirm all before it; the active centre delivers only what is confirmed
(`ReplicatedLog`). Where an entry has expired or was replaced meanwhile, a filler that soon expires takes its
sequence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from sensegate.bus.decoding import decoder
from sensegate.bus.names import FILLER
from sensegate.bus.server_conf import BATCH_MESSAGES_MAX
from sensegate.bus.timelines import History, Timelines
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, Unavailable
from sensegate.failover.terms import Term
from sensegate.model import Entry, Member
from sensegate.ports import Log
from sensegate.tiers.questions import CHUNK_BYTES, fit_chunk

PIECE_ENTRIES = 2_000
WAIT_S = 1.0
COMMIT = "commit."
_log = structlog.get_logger("failover")


class ReplicatedEntry(msgspec.Struct, frozen=True, array_like=True):
    """One entry."""

    sequence: int
    subject: str
    payload: bytes


class LogChunk(msgspec.Struct, frozen=True):
    """Entries that follow a sequence, in order; a commit may go on in the next piece."""

    log_epoch: str
    first: int
    """First sequence of the log now."""
    last: int
    entries: tuple[ReplicatedEntry, ...] = ()
    history: tuple[tuple[int, int], ...] = ()
    """(term, last sequence when it began)."""
    timelines: History | None = None
    """Those of the log; None: as the standby has them."""


class LogRequest(msgspec.Struct, frozen=True):
    """What a standby asks for."""

    stored: int = 0
    """All up to this one stands on its own log."""
    received: int = 0
    """It has these in memory."""
    term: int = 0
    timelines: bytes = b""
    """Fingerprint of those that it knows."""


_encode = msgspec.msgpack.Encoder().encode
_decode_piece = decoder(LogChunk, "the other centre's answer")
decode_log_request = decoder(LogRequest, "question for the log")


def _read_chunk(answer: bytes) -> LogChunk:
    """Return what the other centre answered. Raises `Unavailable` where it cannot be read."""
    try:
        return _decode_piece(answer)
    except ValueError as why:
        raise Unavailable(str(why)) from why


class ReplicationSource:
    """The active centre's side: gives pieces, and knows what the standby has."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        hold_s: float,
        history: tuple[tuple[int, int], ...] = (),
        *,
        alone: bool = False,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Give nothing yet.

        Args:
            log: the log that is copied.
            clock: the clock.
            hold_s: after so long without a standby, more is delivered than it has.
            history: (term, last sequence when it began), of the log.
            alone: more was delivered than a standby has, or there is none.
            permitted: returns whether what the standby lacks may be delivered now; asked only while `unreplicated`.
        """
        self._log = log
        self._history = history
        self._clock = clock
        self._hold_s = hold_s
        self._confirmed = 0
        self._given = 2**63 if alone else 0
        """Up to here it was delivered without a standby."""
        self._alone = alone
        self._heard = clock.monotonic()
        self._permitted = permitted

    async def answer_log(self, wanted: LogRequest) -> bytes:
        """Answer a standby. Raises `Unavailable`."""
        self._heard = self._clock.monotonic()
        self._confirmed = max(self._confirmed, wanted.stored)
        first, last = await self._log.bounds()
        if self._confirmed >= min(self._given, last):
            self._alone = False
        if wanted.received >= last and wanted.stored >= last:
            await self._log.changed(wanted.received, WAIT_S)
            first, last = await self._log.bounds()
        entries = await self._log.fetch(max(wanted.received, first - 1), limit=PIECE_ENTRIES, max_bytes=CHUNK_BYTES)
        entries = fit_chunk(entries, lambda entry: len(entry.payload) + len(entry.subject))
        found = tuple(ReplicatedEntry(entry.sequence, entry.subject, entry.payload) for entry in entries)
        timelines = self._log.timelines
        fresh = timelines.history if wanted.timelines != timelines.fingerprint else None
        return _encode(LogChunk(self._log.epoch, first, last, found, self._history, fresh))

    @property
    def unreplicated(self) -> bool:
        """Whether more is delivered than the standby has: it was not heard for too long, and has not caught up."""
        if not self._alone and self._clock.monotonic() - self._heard > self._hold_s:
            self._alone, self._given = True, self._confirmed
        return self._alone

    @property
    def confirmed(self) -> int:
        """Place up to which the standby has all."""
        return self._confirmed

    def high_watermark(self, sequence: int) -> int:
        """Return up to which sequence may be delivered."""
        if not self.unreplicated:
            return min(sequence, self._confirmed)
        if not self._permitted():
            # What was given is given; of a seat before this one it is not known how much that was.
            return min(sequence, max(self._confirmed, self._given % 2**63))
        if self._given < 2**63:
            self._given = max(self._given, sequence)
        return sequence


class ReplicatedLog:
    """A log of which only that is seen which the standby has, too."""

    def __init__(self, log: Log, original: ReplicationSource, clock: Clock) -> None:
        self._log = log
        self._original = original
        self._clock = clock

    @property
    def epoch(self) -> str:
        return self._log.epoch

    @property
    def timelines(self) -> Timelines:
        return self._log.timelines

    async def write(self, members: Sequence[Member]) -> int:
        return await self._log.write(members)

    async def last(self, subject: str) -> Entry | None:
        return await self._log.last(subject)

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[Entry]:
        entries = await self._log.fetch(after, limit=limit, max_bytes=max_bytes)
        end = self._original.high_watermark(entries[-1].sequence) if entries else 0
        return [entry for entry in entries if entry.sequence <= end]

    async def bounds(self) -> tuple[int, int]:
        first, last = await self._log.bounds()
        return first, max(first - 1, self._original.high_watermark(last))

    async def sequence_at(self, time: int) -> int:
        return min(await self._log.sequence_at(time), (await self.bounds())[1] + 1)

    async def changed(self, after: int, timeout_s: float) -> bool:
        deadline = self._clock.monotonic() + timeout_s
        if not await self._log.changed(after, timeout_s):
            return False
        while (left_s := deadline - self._clock.monotonic()) > 0:
            if self._original.high_watermark(after + 1) > after:
                return True
            await self._clock.sleep(min(left_s, 0.02))
        return False


class Replica:
    """The standby's side."""

    def __init__(self, log: Log, store: StoreConfig, clock: Clock, term: Term | None = None) -> None:
        """`term`: what is remembered of the log's past."""
        self._own = log
        self.term = term or Term()
        self._store = store
        self._clock = clock
        self._held = -1
        self._fresh = False
        self._open: list[ReplicatedEntry] = []
        """Entries of a commit whose end has not come yet."""
        self.behind = -1
        """Entries that the active centre had more when it was asked last; -1: not asked yet."""

    @property
    def epoch(self) -> str:
        """Life of the log."""
        return self._own.epoch

    async def copy_next(self, ask: Callable[[str, bytes], Awaitable[bytes]], term: int = 0) -> None:
        """Take the next piece.

        Raises:
            Unavailable: the active centre does not answer, or the outcome of a write is unknown; turn again.
            Fenced: the own log is none that began as the copy of that one, or holds what that one has lost.
            StoreFull: the timelines cannot be written.
        """
        if self._held < 0:
            self._open.clear()
            first, self._held = await self._own.bounds()
            # A log that was made just now begins where that of the active centre does, and holds nothing of any term.
            self._fresh = first > self._held and not self.term.history
        after = self._open[-1].sequence if self._open else self._held
        known = self._own.timelines.fingerprint
        piece = _read_chunk(await ask("log", _encode(LogRequest(self._held, after, term, known))))
        if piece.log_epoch != self._own.epoch or piece.last < self._held:
            raise Fenced(
                f"the own log (life {self._own.epoch}, up to {self._held}) is no copy of that one "
                f"(life {piece.log_epoch}, up to {piece.last})"
            )
        if not self._fresh and self.term.diverged(piece.history, self._held):
            raise Fenced(
                f"the own log ends with {self._held}; a later term began before that, without what is last here"
            )
        if piece.timelines is not None:
            # Before the entries that were written on them.
            await self._follow(piece.timelines)
        if piece.history != self.term.history:
            self.term = msgspec.structs.replace(self.term, history=piece.history)
        self._open += piece.entries
        whole = next((at for at in range(len(self._open), 0, -1) if self._open[at - 1].subject.startswith(COMMIT)), 0)
        ready, self._open = self._open[:whole], self._open[whole:]
        if ready:
            await self._write(ready)
        self.behind = max(0, piece.last - self._held)

    async def _follow(self, history: History) -> None:
        """Take over the timelines of the active centre. Raises `Fenced` where its log has lost what this one holds."""
        own = self._own.timelines
        if own.history.line and self._held:
            agreed = Timelines(history).agreed(own.of(self._held))
            if agreed is None or agreed < self._held:
                raise Fenced(
                    f"the own log ends with {self._held}; the active centre has lost what is last here and has gone on "
                    f"after {agreed or 0}"
                )
        await asyncio.to_thread(own.adopt, history)

    async def _write(self, entries: Sequence[ReplicatedEntry]) -> None:
        """Write whole commits, holes filled; the log ends with the end of a commit at every moment."""
        members: list[Member] = []
        expected = held = self._held
        self._held = -1  # until it is known to be written
        for entry in entries:
            while expected + 1 < entry.sequence:
                # A hole lies between commits, or where a record of one was replaced: fillers may go ahead of the rest.
                members.append(Member(FILLER, b"", 1))
                expected += 1
                if len(members) == BATCH_MESSAGES_MAX and all(member.subject == FILLER for member in members):
                    held = await self._sent(members, held)
                    members = []
            commit = entry.subject.startswith(COMMIT)
            if commit and any(member.subject == entry.subject for member in members):
                # Two records of one subject in a batch would be one that replaces the other within it.
                held = await self._sent(members, held)
                members = []
            members.append(Member(entry.subject, entry.payload, self._life_h(entry.subject), rollup=commit))
            expected += 1
            if commit and len(members) >= BATCH_MESSAGES_MAX // 4:
                held = await self._sent(members, held)
                members = []
        if members:
            held = await self._sent(members, held)
        self._held = held

    async def _sent(self, members: Sequence[Member], held: int) -> int:
        last = await self._own.write(members)
        if last != held + len(members):
            raise Fenced(f"the copy of the log is out of step: {last}, not {held + len(members)}")
        return last

    def _life_h(self, subject: str) -> int:
        store = self._store
        lives = {
            "raw": store.raw_ttl_h,
            "quarantine": store.quarantine_ttl_h,
            "refused": store.quarantine_ttl_h,
            "observations": store.observations_ttl_h,
            "commit": 0,
        }
        return lives.get(subject.partition(".")[0], store.readings_ttl_h)

    async def end(self) -> int:
        """Return the sequence with which the copy ends: the end of its last whole commit. Raises `Unavailable`."""
        return (await self._own.bounds())[1]


async def describe_log(ask: Callable[[str, bytes], Awaitable[bytes]]) -> LogChunk:
    """Return how the active centre's log is, without entries. Raises `Unavailable`."""
    return _read_chunk(await ask("log", _encode(LogRequest(0, 2**62, 0))))
