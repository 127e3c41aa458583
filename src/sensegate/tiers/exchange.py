"""The requests of an uplink to its centre: claims, positions, spans.

The lane records are kept at the centre. The copies of them here are dropped after any doubt and asked for again: the
same span is then built again from the log, and the centre stores it once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Protocol

import msgspec

from sensegate.bus.commit_records import LaneRecord, WithheldRange
from sensegate.bus.contract import Log
from sensegate.clock import Clock
from sensegate.errors import Overloaded, PermissionDenied, Unavailable
from sensegate.tiers import protocol
from sensegate.tiers.protocol import (
    Lane,
    LaneUpdate,
    RefusedPart,
    SpanAnswer,
    SpanOutcome,
    SpanPart,
    SpanRequest,
    SpanSelection,
)
from sensegate.tiers.writers import Claimant

REQUEST_TIMEOUT_S = 10.0
SPAN_TIMEOUT_S = 3.0
"""Time-out of a span, in addition to its transmission time on a slow link."""
SLOW_BYTES_PER_S = 65_536
"""Slowest link for which the time-out allows."""
ENVELOPE_BYTES = 16_384
"""Upper bound of a span without its parts, with the envelope of the request."""


class UplinkLink(Protocol):
    """The part of `link.CentreLink` that an uplink needs."""

    @property
    def payload_bytes_max(self) -> int:
        """Largest body of a request."""
        ...

    async def ask(self, question: str, payload: bytes = b"", timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Return the centre's answer. Raises `Unavailable`, `PermissionDenied`, `Overloaded`."""
        ...

    async def send_span(self, lane: str, payload: bytes, timeout_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Return the centre's answer to a span. Raises `Unavailable`, `PermissionDenied`, `Overloaded`."""
        ...


class LaneState(msgspec.Struct, frozen=True):
    """The local copy of a lane record."""

    record: LaneRecord
    """Lane record as the centre confirmed it; its position may be ahead by entries without a row for the centre."""
    confirmed: int
    """Position of the record at the centre."""

    def advanced(self, position: int, withheld: tuple[WithheldRange, ...]) -> LaneState:
        """Return the lane moved past entries that bring nothing to the centre."""
        return LaneState(msgspec.structs.replace(self.record, position=position, withheld=withheld), self.confirmed)


class Exchange:
    """Sends the requests of one uplink over one connection."""

    def __init__(self, link: UplinkLink, claimant: Claimant, log: Log, clock: Clock) -> None:
        self._link = link
        self.claimant = claimant
        self._log = log
        self._clock = clock
        self._query_lock = asyncio.Lock()
        self.lanes: dict[Lane, LaneState] = {}
        """Confirmed lanes; empty after any doubt."""
        self.connected = False
        """True if the last request was answered."""

    @property
    def parts_bytes_max(self) -> int:
        """Most bytes of the parts of a span."""
        return self._link.payload_bytes_max - ENVELOPE_BYTES

    async def lane(self, lane: Lane) -> LaneState:
        """Return a lane; after any doubt ask the centre for it, or claim the lanes.

        Raises:
            Unavailable, Overloaded: the lane is not known now.
            PermissionDenied: this process is denied as the writer, or the centre refuses the question.
        """
        if state := self.lanes.get(lane):
            return state
        async with self._query_lock:
            if lane not in self.lanes:
                records = await self._query_lanes()
                self.connected = True
                for name, record in records.items():
                    self.lanes.setdefault(name, LaneState(record, record.position))
        return self.lanes[lane]

    async def verify_writer(self) -> None:
        """Check that this process is still the writer while nothing is sent. Raises as `lane`."""
        async with self._query_lock:
            try:
                answer = protocol.decode_position_answer(await self._link.ask("position", timeout_s=REQUEST_TIMEOUT_S))
            except Unavailable:
                self.connected = False
                raise
            self.connected = True
            live = answer.lanes.get(Lane.LIVE)
            if live is None or not self._is_own(live):
                self.claimant.lose()
                self.invalidate()

    async def _query_lanes(self) -> dict[Lane, LaneRecord]:
        if self.claimant.writer.id:
            answer = protocol.decode_position_answer(await self._link.ask("position", timeout_s=REQUEST_TIMEOUT_S))
            live = answer.lanes.get(Lane.LIVE)
            if live and self._is_own(live):
                return answer.lanes
            self.claimant.lose()
        records = await self.claimant.claim(self._link)
        if records is None:
            raise PermissionDenied(self.claimant.denied)
        return records

    def _is_own(self, record: LaneRecord) -> bool:
        own, present = self.claimant.writer, record.writer
        # A centre that took over before it had copied our claim still has an older epoch of ours.
        is_older = present.id == own.id and present.epoch < own.epoch
        return record.log_epoch == self._log.epoch and (present == own or is_older)

    async def send(
        self,
        parts: Sequence[SpanPart],
        updates: Sequence[LaneUpdate],
        selection: SpanSelection,
        *,
        resend_of: str = "",
    ) -> SpanAnswer:
        """Send a span; after any doubt drop the local lanes.

        Args:
            parts: of the span; empty where it only updates lanes.
            updates: the lanes after the span.
            selection: the part of the log from which it was made.
            resend_of: id of the refused part that it sends again; empty: none.

        Raises:
            Unavailable: the outcome is unknown, or the lanes must be claimed.
            PermissionDenied: the centre refuses it.
            Overloaded: the centre asks for a pause; nothing was stored.
        """
        lane = next((update.lane for update in updates if update.lane is Lane.LIVE), Lane.BACKLOG)
        now = self._clock.now()
        request = SpanRequest(
            self.claimant.writer,
            self._log.epoch,
            secrets.token_hex(8),
            now,
            tuple(updates),
            tuple(parts),
            selection,
            resend_of,
        )
        payload = protocol.encode(request)
        if len(payload) > self._link.payload_bytes_max:
            raise PermissionDenied(
                f"span: {len(payload):,} bytes are more than a message to the centre holds "
                f"({self._link.payload_bytes_max:,}); raise engine.max_payload_bytes at the centre, or skip the span"
            )
        answer: SpanAnswer | None = None
        try:
            timeout_s = SPAN_TIMEOUT_S + len(payload) / SLOW_BYTES_PER_S
            answer = protocol.decode_span_answer(await self._link.send_span(lane, payload, timeout_s))
        except (PermissionDenied, Overloaded):
            self.connected = True
            raise
        finally:
            if answer is None or answer.outcome is SpanOutcome.UNCLAIMED:
                self.invalidate()
        self._apply(answer, [update.lane for update in updates])
        return answer

    def _apply(self, answer: SpanAnswer, updated: Sequence[Lane]) -> None:
        """Store the lane records of an answer. Raises `Unavailable` where the lanes must be claimed."""
        if answer.outcome is SpanOutcome.UNCLAIMED:
            self.claimant.lose()
            raise Unavailable("the centre knows another writer of this node's lanes; claiming them")
        self.connected = True
        for lane, record in answer.lanes.items():
            if lane in updated or answer.outcome is SpanOutcome.STALE:
                self.lanes[lane] = LaneState(record, record.position)

    def invalidate(self) -> None:
        """Drop the local lanes: the centre is asked before anything is sent."""
        self.lanes.clear()
        self.connected = False

    async def refused_parts(self) -> list[RefusedPart]:
        """Return the parts that the centre refused and that can be sent again. Raises as `UplinkLink.ask`."""
        return list(protocol.decode_refused_list(await self._link.ask("refused", timeout_s=REQUEST_TIMEOUT_S)).parts)
