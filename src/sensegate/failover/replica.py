"""Replication of the log to a standby: entry for entry under the same sequences, so that cursors and ids stay valid.

    active: ReplicationSource ◀─ ask ``log`` (entries after a sequence) ── standby: Replica ─▶ its own LOG, by whole
    commits

Asking for the entries after a sequence confirms all before it; the active centre delivers only confirmed entries
(`ReplicatedLog`). Where an entry has expired or was replaced meanwhile, a filler that soon expires takes its sequence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.names import ALARM_STATES, PADDING_SUBJECT
from sensegate.bus.server_conf import BATCH_MESSAGES_MAX
from sensegate.bus.timelines import TimelineHistory, Timelines
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, Unavailable
from sensegate.failover.terms import Term
from sensegate.model import LogEntry, LogMessage
from sensegate.tiers.questions import CHUNK_BYTES, fit_chunk

CHUNK_ENTRIES = 2_000
WAIT_S = 1.0
COMMIT = "commit."
STATE = f"{ALARM_STATES}."
"""Prefix of the states of alarms, which end the writes of alarms as records end commits."""


class ReplicatedEntry(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the log."""

    sequence: int
    subject: str
    payload: bytes


class LogChunk(msgspec.Struct, frozen=True):
    """Entries after a sequence, in order; a commit may continue in the next chunk."""

    log_epoch: str
    first: int
    """First sequence of the log now."""
    last: int
    """Last sequence of the log now."""
    entries: tuple[ReplicatedEntry, ...] = ()
    history: tuple[tuple[int, int], ...] = ()
    """(term, last sequence of the log when it began)."""
    timelines: TimelineHistory | None = None
    """Timelines of the log; None: the standby has the same."""


class LogRequest(msgspec.Struct, frozen=True):
    """Request of a standby for the next chunk."""

    stored: int = 0
    """Last sequence on its own log, which confirms all entries up to it."""
    received: int = 0
    """Last sequence that it has in memory."""
    term: int = 0
    timelines: bytes = b""
    """Fingerprint of the timelines that it has."""


_encode = msgspec.msgpack.Encoder().encode
_decode_piece = decoder(LogChunk, "the other centre's answer")
decode_log_request = decoder(LogRequest, "request for the log")


def _read_chunk(answer: bytes) -> LogChunk:
    """Decode the other centre's answer. Raises `Unavailable` where it cannot be read."""
    try:
        return _decode_piece(answer)
    except ValueError as why:
        raise Unavailable(str(why)) from why


class ReplicationSource:
    """The active centre's side: answers the standby, and tracks its confirmed position."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        hold_s: float,
        history: tuple[tuple[int, int], ...] = (),
        *,
        unreplicated: bool = False,
        permitted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Serve a log.

        Args:
            log: of this centre.
            clock: source of time.
            hold_s: time without the standby after which delivery continues unreplicated.
            history: (term, last sequence when it began) of the log.
            unreplicated: whether more was delivered than the standby has, or there is no standby.
            permitted: returns whether unreplicated entries may be delivered now; called only while `unreplicated`.
        """
        self._log = log
        self._history = history
        self._clock = clock
        self._hold_s = hold_s
        self._confirmed = 0
        self._delivered = 2**63 if unreplicated else 0
        """Last sequence that was delivered unreplicated."""
        self._unreplicated = unreplicated
        self._heard = clock.monotonic()
        self._was_asked = False
        self._permitted = permitted

    async def answer_log(self, request: LogRequest) -> bytes:
        """Answer a request of the standby. Raises `Unavailable`."""
        self._heard = self._clock.monotonic()
        self._was_asked = True
        first, last = await self._log.bounds()
        if request.timelines == self._log.timelines.fingerprint:
            self._take_confirmation(request.stored, last)
        if request.received == last:
            await self._log.changed(request.received, WAIT_S)
            first, last = await self._log.bounds()
        entries = await self._log.fetch(max(request.received, first - 1), limit=CHUNK_ENTRIES, max_bytes=CHUNK_BYTES)
        entries = fit_chunk(entries, lambda entry: len(entry.payload) + len(entry.subject))
        replicated = tuple(ReplicatedEntry(entry.sequence, entry.subject, entry.payload) for entry in entries)
        timelines = self._log.timelines
        fresh = timelines.history if request.timelines != timelines.fingerprint else None
        return _encode(LogChunk(self._log.epoch, first, last, replicated, self._history, fresh))

    def _take_confirmation(self, stored: int, last: int) -> None:
        """Note up to which sequence the standby has this log.

        Only a standby that follows the timelines of this log confirms: one that was active itself, and is about to be
        set aside, has entries of its own in the same positions.
        """
        if stored < self._confirmed and not self._unreplicated:
            # Its copy begins anew: until it is whole, delivery goes on without it.
            self._unreplicated, self._delivered = True, self._confirmed
        self._confirmed = stored
        if stored >= min(self._delivered, last):
            self._unreplicated = False

    @property
    def is_settled(self) -> bool:
        """Return whether the other centre follows this log, or was silent for too long.

        Until then the other one may be active in a later term, with records and cursors that are unknown here.
        """
        return self._was_asked or self.unreplicated

    @property
    def unreplicated(self) -> bool:
        """Return whether more is delivered than the standby has: it was silent for too long and has not caught up."""
        if not self._unreplicated and self._clock.monotonic() - self._heard > self._hold_s:
            self._unreplicated, self._delivered = True, self._confirmed
        return self._unreplicated

    @property
    def confirmed(self) -> int:
        """Last sequence that the standby has confirmed."""
        return self._confirmed

    def high_watermark(self, sequence: int) -> int:
        """Return the last sequence, up to a given one, that may be delivered."""
        if not self.unreplicated:
            return min(sequence, self._confirmed)
        if not self._permitted():
            # Entries that were delivered stay visible; how many an earlier lease delivered is not known.
            return min(sequence, max(self._confirmed, self._delivered % 2**63))
        if self._delivered < 2**63:
            self._delivered = max(self._delivered, sequence)
        return sequence


class ReplicatedLog:
    """A log of which only entries up to the high watermark are visible: those that the standby has confirmed."""

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

    async def write(self, members: Sequence[LogMessage]) -> int:
        return await self._log.write(members)

    async def last(self, subject: str) -> LogEntry | None:
        return await self._log.last(subject)

    async def fetch(self, after: int, *, limit: int = 500, max_bytes: int = 4_194_304) -> list[LogEntry]:
        return self._visible(await self._log.fetch(after, limit=limit, max_bytes=max_bytes))

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        return self._visible(await self._log.fetch_of(subject, after))

    def _visible(self, entries: list[LogEntry]) -> list[LogEntry]:
        end = self._original.high_watermark(entries[-1].sequence) if entries else 0
        return [entry for entry in entries if entry.sequence <= end]

    async def bounds(self) -> tuple[int, int]:
        first, last = await self._log.bounds()
        return first, max(first - 1, self._original.high_watermark(last))

    @property
    def is_settled(self) -> bool:
        return self._original.is_settled

    async def stored_end(self) -> int:
        return await self._log.stored_end()

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
    """The standby's side: copies the log."""

    def __init__(self, log: Log, store: StoreConfig, clock: Clock, term: Term | None = None) -> None:
        """`term`: stored term, with the history of the log."""
        self._own = log
        self.term = term or Term()
        self._store = store
        self._clock = clock
        self._end = -1
        self._fresh = False
        self._open: list[ReplicatedEntry] = []
        """Entries of a commit that is not complete yet."""
        self.behind = -1
        """Number of entries that the active centre had more at its last answer; -1: none came yet."""

    @property
    def epoch(self) -> str:
        """Epoch of the log."""
        return self._own.epoch

    async def copy_next(self, ask: Callable[[str, bytes], Awaitable[bytes]], term: int = 0) -> None:
        """Copy the next chunk.

        Raises:
            Unavailable: the active centre does not answer, or the outcome of a write is unknown; try again.
            Fenced: our log is not a copy of the active centre's, or has entries that it has lost.
            StoreFull: the timelines cannot be written.
        """
        if self._end < 0:
            self._open.clear()
            first, self._end = await self._own.bounds()
            # A new log begins where that of the active centre does, and has no entries of any term.
            self._fresh = first > self._end and not self.term.history
        after = self._open[-1].sequence if self._open else self._end
        known = self._own.timelines.fingerprint
        chunk = _read_chunk(await ask("log", _encode(LogRequest(self._end, after, term, known))))
        if chunk.log_epoch != self._own.epoch or chunk.last < self._end:
            raise Fenced(
                f"our log (epoch {self._own.epoch}, up to {self._end}) is not a copy of the active centre's "
                f"(epoch {chunk.log_epoch}, up to {chunk.last})"
            )
        if not self._fresh and self.term.diverged(chunk.history, self._end):
            raise Fenced(f"our log ends with {self._end}; a later term began before that, without our last entries")
        if chunk.timelines is not None:
            # Before the entries that were written on these timelines.
            await self._follow(chunk.timelines)
        if chunk.history != self.term.history:
            self.term = msgspec.structs.replace(self.term, history=chunk.history)
        self._open += chunk.entries
        complete = next(
            (end for end in range(len(self._open), 0, -1) if self._open[end - 1].subject.startswith(COMMIT)), 0
        )
        if self._open and self._open[-1].sequence == chunk.last and self._open[-1].subject.startswith(STATE):
            complete = len(self._open)  # no commit may follow for a long time
        ready, self._open = self._open[:complete], self._open[complete:]
        if ready:
            await self._write(ready)
        self.behind = max(0, chunk.last - self._end)

    async def _follow(self, history: TimelineHistory) -> None:
        """Adopt the timelines of the active centre. Raises `Fenced` where its log has lost entries that ours has."""
        own = self._own.timelines
        if own.history.current and self._end:
            agreed = Timelines(history).diverged_at(own.timeline_at(self._end))
            if agreed is None or agreed < self._end:
                raise Fenced(
                    f"our log ends with {self._end}; the active centre has lost our last entries and has continued "
                    f"after {agreed or 0}"
                )
        await asyncio.to_thread(own.adopt, history)

    async def _write(self, entries: Sequence[ReplicatedEntry]) -> None:
        """Write whole commits, with holes filled; the log ends with a whole commit at every moment."""
        members: list[LogMessage] = []
        expected = end = self._end
        self._end = -1  # unknown until the write is confirmed
        for entry in entries:
            while expected + 1 < entry.sequence:
                # Holes lie between commits, or where a commit record was replaced: fillers may be written ahead.
                members.append(LogMessage(PADDING_SUBJECT, b"", 1))
                expected += 1
                if len(members) == BATCH_MESSAGES_MAX and all(member.subject == PADDING_SUBJECT for member in members):
                    end = await self._append(members, end)
                    members = []
            # It replaces the one before, here as there: else the copy would keep each state that an alarm ever had.
            replaces = entry.subject.startswith((COMMIT, STATE))
            if replaces and any(member.subject == entry.subject for member in members):
                # Within one batch the second record of a subject would replace the first.
                end = await self._append(members, end)
                members = []
            members.append(LogMessage(entry.subject, entry.payload, self._ttl_h(entry.subject), rollup=replaces))
            expected += 1
            if replaces and len(members) >= BATCH_MESSAGES_MAX // 4:
                end = await self._append(members, end)
                members = []
        if members:
            end = await self._append(members, end)
        self._end = end

    async def _append(self, members: Sequence[LogMessage], end: int) -> int:
        last = await self._own.write(members)
        if last != end + len(members):
            raise Fenced(f"the copy of the log has diverged: it ends with {last}, not {end + len(members)}")
        return last

    def _ttl_h(self, subject: str) -> int:
        store = self._store
        ttls_h = {
            "raw": store.raw_ttl_h,
            "quarantine": store.quarantine_ttl_h,
            "refused": store.quarantine_ttl_h,
            "recovered": store.quarantine_ttl_h,
            "observations": store.observations_ttl_h,
            "commit": 0,
            "alarm": 0,
        }
        return ttls_h.get(subject.partition(".")[0], store.readings_ttl_h)

    async def end(self) -> int:
        """Return the last sequence of the copy, which is the end of a whole commit. Raises `Unavailable`."""
        return (await self._own.bounds())[1]


async def describe_log(ask: Callable[[str, bytes], Awaitable[bytes]]) -> LogChunk:
    """Return the bounds, epoch and history of the active centre's log, without entries. Raises `Unavailable`."""
    return _read_chunk(await ask("log", _encode(LogRequest(0, 2**62, 0))))
