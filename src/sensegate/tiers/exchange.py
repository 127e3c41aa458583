"""What an uplink says to its centre and what is answered: claims, positions, spans.

The lanes' records stand at the centre. What is held of them here is forgotten after any doubt and asked for again: the
same span is then made once more out of the log, and the centre takes it once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Protocol

import msgspec

from sensegate.bus.commit_records import LaneRecord, WithheldRange
from sensegate.clock import Clock
from sensegate.errors import Overloaded, PermissionDenied, Unavailable
from sensegate.ports import Log
from sensegate.tiers import protocol
from sensegate.tiers.protocol import Lane, LaneMove, Outcome, Part, RefusedPart, Selection, SpanAnswer, SpanRequest
from sensegate.tiers.writers import Claimant

ASK_S = 10.0
SPAN_S = 3.0
"""An answer that has not come after this, and the time that the span takes on a slow link, is lost."""
SLOW_BYTES_PER_S = 65_536
ENVELOPE_BYTES = 16_384
"""More than a span without its parts ever takes, with the envelope of the request."""


class UplinkLink(Protocol):
    """The part of `link.CentreLink` that an uplink needs."""

    @property
    def payload_bytes_max(self) -> int:
        """Largest body of a request."""
        ...

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = ASK_S) -> bytes:
        """Return the centre's answer. Raises `Unavailable`, `PermissionDenied`, `Overloaded`."""
        ...

    async def send_span(self, lane: str, payload: bytes, timeout_s: float = ASK_S) -> bytes:
        """Return the centre's answer to a span. Raises `Unavailable`, `PermissionDenied`, `Overloaded`."""
        ...


class LaneState(msgspec.Struct, frozen=True):
    """A lane as it is held here."""

    record: LaneRecord
    """As the centre confirmed it; its position may have moved here past what is not told."""
    confirmed: int
    """Position that the centre has."""

    def moved(self, position: int, kept: tuple[WithheldRange, ...]) -> LaneState:
        """Return the lane past entries of which the centre need not know."""
        return LaneState(msgspec.structs.replace(self.record, position=position, withheld=kept), self.confirmed)


class Exchange:
    """The conversation of one uplink over one connection."""

    def __init__(self, link: UplinkLink, claimant: Claimant, log: Log, clock: Clock) -> None:
        self._link = link
        self._claimant = claimant
        self._log = log
        self._clock = clock
        self._asking = asyncio.Lock()
        self.held: dict[Lane, LaneState] = {}
        self.connected = False
        """True while the last exchange was answered."""
        self.clock_offset_s: float | None = None
        """By how much the centre's clock was ahead of ours at its newest answer, transit included."""

    @property
    def parts_bytes_max(self) -> int:
        """Most bytes of the parts of a span."""
        return self._link.payload_bytes_max - ENVELOPE_BYTES

    async def lane(self, lane: Lane) -> LaneState:
        """Return a lane; ask the centre, or claim the lanes, if there was any doubt.

        Raises:
            Unavailable, Overloaded: not known now.
            PermissionDenied: this process is not taken as the writer, or the centre does not speak with it.
        """
        if state := self.held.get(lane):
            return state
        async with self._asking:
            if lane not in self.held:
                records = await self._asked()
                self.connected = True
                for name, record in records.items():
                    self.held.setdefault(name, LaneState(record, record.position))
        return self.held[lane]

    async def look(self) -> None:
        """See that this process is still the writer, while nothing is sent. Raises as `lane`."""
        async with self._asking:
            try:
                answer = protocol.decode_position_answer(await self._link.ask("position", timeout_s=ASK_S))
            except Unavailable:
                self.connected = False
                raise
            self.connected = True
            live = answer.lanes.get(Lane.LIVE)
            if live is None or not self._is_mine(live):
                self._claimant.displaced()
                self.forget()

    async def _asked(self) -> dict[Lane, LaneRecord]:
        if self._claimant.writer.id:
            answer = protocol.decode_position_answer(await self._link.ask("position", timeout_s=ASK_S))
            live = answer.lanes.get(Lane.LIVE)
            if live and self._is_mine(live):
                self.clock_offset_s = (answer.stored_at - live.committed_at) / 1e6 if live.committed_at else None
                return answer.lanes
            self._claimant.displaced()
        records = await self._claimant.claim(self._link)
        if records is None:
            raise PermissionDenied(self._claimant.denied)
        return records

    def _is_mine(self, record: LaneRecord) -> bool:
        mine, present = self._claimant.writer, record.writer
        # At a centre that took over before it had copied our claim we are newer than what stands there.
        older = present.id == mine.id and present.epoch < mine.epoch
        return record.log_epoch == self._log.epoch and (present == mine or older)

    async def send(
        self,
        parts: Sequence[Part],
        moves: Sequence[LaneMove],
        selection: Selection,
        *,
        readmits: str = "",
    ) -> SpanAnswer:
        """Send a span; after any doubt forget the lanes.

        Raises:
            Unavailable: the outcome is unknown, or the lanes are to be claimed.
            PermissionDenied: the centre does not take it.
            Overloaded: the centre asks for a pause; nothing was taken.
        """
        lane = next((move.lane for move in moves if move.lane is Lane.LIVE), Lane.BACKLOG)
        now = self._clock.now()
        request = SpanRequest(
            self._claimant.writer,
            self._log.epoch,
            secrets.token_hex(8),
            now,
            tuple(moves),
            tuple(parts),
            selection,
            readmits,
        )
        payload = protocol.encode(request)
        if len(payload) > self._link.payload_bytes_max:
            raise PermissionDenied(
                f"span: it has {len(payload):,} bytes, a message to the centre holds {self._link.payload_bytes_max:,}; "
                "raise engine.max_payload_bytes at the centre, or skip it"
            )
        answer: SpanAnswer | None = None
        try:
            timeout_s = SPAN_S + len(payload) / SLOW_BYTES_PER_S
            answer = protocol.decode_span_answer(await self._link.send_span(lane, payload, timeout_s))
        except (PermissionDenied, Overloaded):
            self.connected = True
            raise
        finally:
            if answer is None or answer.outcome is Outcome.UNCLAIMED:
                self.forget()
        self._take(answer, [move.lane for move in moves], now)
        return answer

    def _take(self, answer: SpanAnswer, moved: Sequence[Lane], sent_at: int) -> None:
        """Hold what an answer says of the lanes. Raises `Unavailable` where they are to be claimed."""
        if answer.outcome is Outcome.UNCLAIMED:
            self._claimant.displaced()
            raise Unavailable("the centre knows another writer of this node's lanes; claiming them")
        self.connected = True
        for lane, record in answer.lanes.items():
            if lane in moved or answer.outcome is Outcome.STALE:
                self.held[lane] = LaneState(record, record.position)
        if answer.clock and Lane.LIVE in moved:
            self.clock_offset_s = (answer.clock - sent_at) / 1e6

    def forget(self) -> None:
        """Ask the centre again before anything is sent."""
        self.held.clear()
        self.connected = False

    async def refused(self) -> list[RefusedPart]:
        """Return what the centre did not take and may be sent once more. Raises as `UplinkLink.ask`."""
        return list(protocol.decode_refused_list(await self._link.ask("refused", timeout_s=ASK_S)).parts)
