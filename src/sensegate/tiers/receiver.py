"""The centre's side of the span protocol: spans are checked, built anew, and stored in one atomic write.

    SpanRequest ─▶ writer? fence? ─▶ `Judge` ─▶ rows, ledger, sequences, refused parts, lane records ─▶ LOG

Nothing that a node sends is copied unchecked: subjects, retention, roll-ups and fences are set by the centre, and so
are the counts of what it accepted. The answer follows the write. Where the outcome is unknown there is no answer: the
node asks for its `position`, and the fence decides between a late write and its next attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.commit_records import LaneRecord, Writer, decode_lane, encode_lane
from sensegate.clock import HOUR_US, Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.model import LogMessage
from sensegate.tiers import lanes, protocol, refusals, writers
from sensegate.tiers.judging import Judge, JudgedSpan
from sensegate.tiers.lanes import Records
from sensegate.tiers.link import SPAN_CHANNELS, NodeLinks
from sensegate.tiers.members import NodeMember
from sensegate.tiers.protocol import (
    ClaimAnswer,
    Lane,
    PartKind,
    PositionAnswer,
    RefusedList,
    RefusedPart,
    SpanAnswer,
    SpanOutcome,
    SpanRequest,
)
from sensegate.tiers.refusals import LISTED_MAX, RefusedPartList, SubjectReadableLog
from sensegate.tiers.refused_store import RefusedBodyCipher

RECORD_BYTES_MAX = 262_144
"""Largest record of a lane."""
SHARE_RETRY_S = 10.0
"""Pause that a member over its share of the log is asked for."""
RESTARTS_MAX = 1_000
"""Most writers since a backup whose logs are compared with the restored one."""
PERIODS = 16
"""Number of periods, over the retention of a reading, in which a member's bytes are counted."""

_log = structlog.get_logger("tiers")


class ReceiverLog(SubjectReadableLog, Protocol):
    """The part of the centre's log that the receiver needs."""

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a member."""
        ...


class UplinkHealth(msgspec.Struct):
    """Problems of a member's uplink, as the list of nodes shows them."""

    refused_frame: str = ""
    """Reason why its last span was refused as a whole."""
    denied_claim: str = ""
    """Reason why a second process was denied as its writer."""
    over_share: bool = False
    """True if its share of the log is used up."""
    refused_rows: dict[str, int] = {}
    """Reason -> rows refused since this process started."""

    def problems(self) -> list[str]:
        """Return the problems, one sentence each."""
        sentences = []
        if self.denied_claim:
            sentences.append(f"two copies of its store: {self.denied_claim}")
        if self.refused_frame:
            sentences.append(f"a span is refused: {self.refused_frame}")
        if self.over_share:
            sentences.append("its share of the log is used up; readings wait in its own log (node_quota.log_share)")
        if self.refused_rows:
            named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.refused_rows.items()))
            sentences.append(f"rows refused: {named} (`sensegate node refused`)")
        return sentences


class _StoredLane(msgspec.Struct, frozen=True):
    record: LaneRecord
    sequence: int
    """Sequence of the record on the log; 0: there is none yet."""
    stored_at: int = 0


class _Uplink:
    """State of one member's uplink."""

    def __init__(self, refused_list: RefusedPartList) -> None:
        self.lock = asyncio.Lock()
        self.lanes: dict[Lane, _StoredLane] | None = None
        self.refused_list = refused_list
        self.health = UplinkHealth()

    def invalidate(self) -> None:
        """Drop the lanes and open list entries: they are read again."""
        self.lanes = None
        self.refused_list.invalidate()


class MemberChecks(msgspec.Struct, frozen=True, eq=False):
    """Questions about members."""

    probe: Callable[[str, str], Awaitable[bool]] | None = None
    """(member, token) -> whether the process with that token answers now; None: unknown."""
    admits: Callable[[str], bool] = lambda _member: True
    """True if a member may send spans; the peer centre uses the same link and may not."""


class Receiver:
    """Receives the spans of all members."""

    def __init__(
        self,
        log: ReceiverLog,
        judge: Judge,
        clock: Clock,
        store: StoreConfig,
        *,
        log_share: float = 1.0,
        members: MemberChecks = MemberChecks(),  # noqa: B008 - frozen
        cipher: RefusedBodyCipher | None = None,
    ) -> None:
        """Prepare to receive; `serve` registers the handlers.

        Args:
            log: of the centre.
            judge: checks spans.
            clock: source of time.
            store: sizes and retention of what is written.
            log_share: fraction of the log that one member may fill.
            members: answers questions about members.
            cipher: encrypts bodies of refused parts; None: they are not stored.
        """
        self._admits = members.admits
        self._log = log
        self._judge = judge
        self._clock = clock
        self._store = store
        self._bytes_max = int(store.log_bytes * log_share)
        self._probe = members.probe
        self._cipher = cipher
        self._uplinks: dict[str, _Uplink] = {}
        self._ttl_us = store.readings_ttl_h * HOUR_US
        self._width_us = max(self._ttl_us // PERIODS, 1)
        self.on_denied: list[Callable[[str, str], Awaitable[None]]] = []
        """(member, reason): called when a process was denied as writer."""
        self.on_claim: list[Callable[[str, str], Awaitable[None]]] = []
        """(member, `takeover`, `restored` or `lost_end`): called when a claim was by force, or the log was cut."""

    def serve(self, links: NodeLinks) -> None:
        """Register the handlers of spans and of the questions that belong to them."""
        for channel in SPAN_CHANNELS:
            links.serve(channel, self.span)
        links.answers |= {"position": self.position, "claim": self.claim, "refused": self.refused}

    def health(self, member: str) -> UplinkHealth:
        """Return the problems of a member's uplink."""
        known = self._uplinks.get(member)
        return known.health if known else UplinkHealth()

    def _uplink(self, member: str) -> _Uplink:
        if not self._admits(member):
            raise PermissionDenied(f"span: {member} is not a member that may send spans here; invite it")
        if member not in self._uplinks:
            self._uplinks[member] = _Uplink(RefusedPartList(member, self._log, self._store.quarantine_ttl_h))
        return self._uplinks[member]

    async def _lanes(self, member: str) -> dict[Lane, _StoredLane] | None:
        """Return the stored lanes of a member; None: no process has claimed them yet."""
        uplink = self._uplink(member)
        if uplink.lanes is None:
            stored_lanes = {}
            for lane in Lane:
                entry = await self._log.last(f"commit.{member}.{lane}")
                if entry is None:
                    return None
                try:
                    stored_lanes[lane] = _StoredLane(decode_lane(entry.payload), entry.sequence, entry.time)
                except ValueError as why:
                    raise PermissionDenied(
                        f"span: the centre's own record of lane {lane} cannot be read ({why}); "
                        "run `sensegate doctor CONFIG` at the centre"
                    ) from why
            uplink.lanes = stored_lanes
        return uplink.lanes

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────

    async def position(self, member: str, _payload: bytes) -> bytes:
        """Answer with the present lane records. Raises `Unavailable`."""
        uplink = self._uplink(member)
        async with uplink.lock:
            stored_lanes = await self._lanes(member)
            records = _records(stored_lanes) if stored_lanes else {}
            stored_at = stored_lanes[Lane.LIVE].stored_at if stored_lanes else 0
            return protocol.encode(PositionAnswer(records, self._clock.now(), stored_at))

    async def claim(self, member: str, payload: bytes) -> bytes:
        """Answer a process that claims the lanes. Raises `PermissionDenied`, `Unavailable`, `StoreFull`."""
        claim = protocol.decode_claim_request(payload)
        uplink = self._uplink(member)
        async with uplink.lock:
            answer = await self._claim(member, claim)
        uplink.health.denied_claim = "" if answer.granted else answer.reason
        if not answer.granted:
            metrics.NODE_REFUSED.labels(member, "writer").inc()
            _log.error("claim of a node's lanes denied", member=member, reason=answer.reason)
            for hook in self.on_denied:
                await hook(member, answer.reason)
        return protocol.encode(answer)

    async def _claim(self, member: str, claim: protocol.ClaimRequest) -> ClaimAnswer:
        stored_lanes = await self._lanes(member)
        records = _records(stored_lanes) if stored_lanes else None
        present = records[Lane.LIVE].writer if records else None
        displaced = None
        if claim.force and (entry := await self._log.last(_displaced_subject(member, claim.epoch))):
            try:
                displaced = writers.decode_displaced(entry.payload)
            except ValueError as why:
                _log.error("lanes of a displaced writer cannot be read", member=member, reason=str(why))
        agreed = await self._agreed(member, claim, present) if present and claim.restored else -1
        verdict = writers.judge(claim, records, displaced, agreed=agreed)
        if isinstance(verdict, str):
            return writers.deny(verdict)
        if verdict.repeated and records:
            return ClaimAnswer(granted=True, writer=records[Lane.LIVE].writer, lanes=dict(records))
        is_asked = not claim.force or claim.restored
        if present and present.id and is_asked and self._probe and await self._probe(member, present.token):
            return writers.deny(
                "writer: another process of this node is running, so new readings wait here; stop one of the two, and "
                "if the remaining one is still denied, run `sensegate node takeover` there"
            )
        members = []
        if records and present and records[Lane.LIVE].log_epoch == claim.log_epoch:
            body = writers.encode_displaced(writers.Displaced(dict(records), verdict.common))
            members.append(
                LogMessage(_displaced_subject(member, present.epoch), body, self._store.readings_ttl_h, rollup=True)
            )
        self._uplink(member).refused_list.invalidate()
        try:
            await self._write(member, members, verdict.lanes)
        except Fenced as why:
            raise Unavailable("another process of the centre has written since; ask again") from why
        _log.info(
            "lanes of a node claimed", member=member, epoch=verdict.lanes[Lane.LIVE].writer.epoch, force=claim.force
        )
        event = "lost_end" if verdict.lost_end else ""
        if claim.force:
            event = "restored" if claim.restored else "takeover"
        if event:
            metrics.NODE_REFUSED.labels(member, event).inc()
            for hook in self.on_claim:
                await hook(member, event)
        return ClaimAnswer(granted=True, writer=verdict.lanes[Lane.LIVE].writer, lanes=verdict.lanes)

    async def _agreed(self, member: str, claim: protocol.ClaimRequest, present: Writer) -> int:
        """Return up to which sequence the logs of all writers since a backup are the restored one's; -1: not known."""
        agreed = protocol.NATURAL_MAX
        if present.epoch - claim.epoch > RESTARTS_MAX:
            return -1
        for epoch in range(claim.epoch, present.epoch):
            entry = await self._log.last(_displaced_subject(member, epoch))
            if entry is None:
                return -1
            try:
                agreed = min(agreed, writers.decode_displaced(entry.payload).common)
            except ValueError:
                return -1
        return agreed

    async def refused_parts(self, member: str) -> list[RefusedPart]:
        """Return the refused parts of a member that it can send again. Raises `Unavailable`."""
        return await self._uplink(member).refused_list.read()

    async def refused_count(self, members: Iterable[NodeMember]) -> int:
        """Return how many refused parts members have; those that may not send spans have none to send again.

        Raises `Unavailable`.
        """
        return sum([len(await self.refused_parts(member.id)) for member in members if self._admits(member.id)])

    async def refused(self, member: str, _payload: bytes) -> bytes:
        """Answer with the list of refused parts. Raises `Unavailable`."""
        parts = await self.refused_parts(member)
        return protocol.encode(RefusedList(tuple(parts[:LISTED_MAX]), more=len(parts) > LISTED_MAX))

    async def refused_body(self, member: str, part_id: str) -> bytes | None:
        """Return the first refused body of an entry; None where it was not stored. Raises `Unavailable`."""
        entry = await self._log.last(f"{refusals.subject_of(member, part_id)}.body") if part_id.isalnum() else None
        return self._cipher.decrypt(entry.payload) if entry and self._cipher else None

    # ── spans ───────────────────────────────────────────────────────────────────────────────────────────

    async def span(self, member: str, payload: bytes) -> bytes:
        """Answer a span.

        Raises:
            PermissionDenied: it contradicts the protocol or the lane records.
            Overloaded: the member's share of the log is used up.
            Unavailable: whether it was stored is not known.
            StoreFull: the log has no room.
        """
        uplink = self._uplink(member)
        try:
            request = protocol.decode_span_request(payload)
            async with uplink.lock:
                answer = await self._span(member, uplink, request, len(payload))
        except PermissionDenied as why:
            metrics.NODE_REFUSED.labels(member, "frame").inc()
            if uplink.health.refused_frame != str(why):
                _log.error("span of a node refused", member=member, reason=str(why))
            uplink.health.refused_frame = str(why)
            raise
        uplink.health.refused_frame = ""
        return protocol.encode(answer)

    async def _span(self, member: str, uplink: _Uplink, request: SpanRequest, size: int) -> SpanAnswer:
        stored_lanes = await self._lanes(member)
        if stored_lanes is None:
            return SpanAnswer(SpanOutcome.UNCLAIMED)
        records = _records(stored_lanes)
        now = self._clock.now()
        if (outcome := _early_outcome(request, records)) is not None:
            return SpanAnswer(outcome, records, clock=now)
        self._demand_room(uplink, records, now, size)
        listed = None
        if request.resend_of:
            listed = await uplink.refused_list.find(request.resend_of)
            if listed is None:
                return SpanAnswer(SpanOutcome.STALE, records, clock=now)
            _demand_match(request, listed[0])
        judged = self._judge.judge(member, request.parts, now, resent=listed[0] if listed else None)
        if listed and judged.is_refused:
            return SpanAnswer(SpanOutcome.STILL_REFUSED, records, tuple(map(_part_refusal, judged.refusals)), now)
        await self._judge.claim_devices(member, judged.claims)
        written, refused = await self._write_span(member, request, judged, records, listed)
        if written is None:
            stored_lanes = await self._lanes(member)
            return SpanAnswer(SpanOutcome.STALE, _records(stored_lanes) if stored_lanes else {}, clock=now)
        self._count(member, uplink, judged)
        try:
            await self._judge.note_conflicts(member, judged)
        except (Unavailable, StoreFull) as why:
            _log.warning("conflict of device owners not recorded in the trail", member=member, reason=str(why))
        return SpanAnswer(SpanOutcome.ACCEPTED, {**records, **written}, tuple(refused), now)

    def _demand_room(self, uplink: _Uplink, records: Records, now: int, size: int) -> None:
        stored = lanes.stored_bytes(records.values(), now, self._width_us, self._ttl_us)
        uplink.health.over_share = stored + size > self._bytes_max
        if uplink.health.over_share:
            metrics.LIMIT_HITS.labels("node_log_share").inc()
            raise Overloaded("this node's share of the centre's log is used up", retry_after_s=SHARE_RETRY_S)

    async def _write_span(
        self,
        member: str,
        request: SpanRequest,
        judged: JudgedSpan,
        records: Records,
        listed: tuple[RefusedPart, int] | None,
    ) -> tuple[dict[Lane, LaneRecord] | None, Sequence[protocol.PartRefusal]]:
        """Write a span; return the new lane records (None: fenced) and the refused parts."""
        now = self._clock.now()
        uplink = self._uplink(member)
        lane = next((update.lane for update in request.updates if update.lane is Lane.LIVE), Lane.BACKLOG)
        written = None
        try:
            entries, refused = await uplink.refused_list.add(
                lane, request.selection, judged.refusals, judged.accepted_devices, log_epoch=request.log_epoch, now=now
            )
            members = [*self._members(member, judged), *entries, *self._bodies(member, judged, refused)]
            if listed:
                part, sequence = listed
                until = min(request.selection.until, part.selection.until)
                members.append(uplink.refused_list.resolve(part, sequence, until, judged.rows))
            size = sum(len(item.payload) for item in members)
            advanced = lanes.advance(
                records, request, judged.counts.totals(), written=size, now=now, width_us=self._width_us
            )
            await self._write(member, members, advanced)
            written = advanced
        except Fenced:
            return None, ()
        finally:
            if written is None:
                uplink.refused_list.invalidate()  # its new entries may not be on the log
        return written, refused

    def _members(self, member: str, judged: JudgedSpan) -> list[LogMessage]:
        """Return the accepted parts of a span as log members with the centre's own subjects and retention."""
        store, bytes_max = self._store, self._log.payload_bytes_max
        ttls_h = {
            PartKind.READINGS: store.readings_ttl_h,
            PartKind.OBSERVATIONS: store.observations_ttl_h,
            PartKind.ALARMS: store.readings_ttl_h,
        }
        members = [
            LogMessage(f"{rows.kind}.{member}.all.{rows.grade}", rows.payload, ttls_h[rows.kind])
            for rows in judged.accepted
        ]
        if len(judged.counts):
            members += [
                # Like those of our own commits: their hourly sums are kept longer, in stream LEDGER.
                LogMessage(f"ledger.{member}", payload, store.readings_ttl_h)
                for payload in judged.counts.encode_parts(bytes_max)
            ]
        members += [LogMessage(f"sequences.{member}", payload, store.readings_ttl_h) for payload in judged.sequences]
        if any(len(item.payload) > bytes_max for item in members):
            raise PermissionDenied("span: a part is larger than the centre's log allows; skip it")
        return members

    def _bodies(self, member: str, judged: JudgedSpan, refused: Sequence[protocol.PartRefusal]) -> list[LogMessage]:
        """Return the encrypted first body of each new entry of the list of refused parts."""
        if self._cipher is None:
            return []
        bodies = {(group.kind, group.grade, group.reason): group.body for group in judged.refusals}
        return [
            LogMessage(
                f"{refusals.subject_of(member, refusal.id)}.body",
                self._cipher.encrypt(body),
                self._store.quarantine_ttl_h,
                rollup=True,
            )
            for refusal in refused
            if refusal.id
            and refusal.is_new
            and 0
            < len(body := bodies.get((refusal.kind, refusal.grade, refusal.reason), b""))
            <= refusals.BODY_BYTES_MAX
        ]

    async def _write(self, member: str, members: Sequence[LogMessage], records: Records) -> None:
        """Write members with the lane records; after any doubt drop the local records, so that they are read again."""
        uplink = self._uplink(member)
        stored_lanes = uplink.lanes or {}
        batch = list(members)
        for lane, record in records.items():
            payload = encode_lane(record)
            if len(payload) > RECORD_BYTES_MAX:
                raise PermissionDenied(
                    "span: its withheld ranges are too many for the lane record; end some mode orders"
                )
            expect = stored_lanes[lane].sequence if lane in stored_lanes else 0
            batch.append(LogMessage(f"commit.{member}.{lane}", payload, rollup=True, expect=expect))
        uplink.lanes = last = None
        try:
            last = await self._log.write(batch)
        finally:
            if last is None:
                uplink.invalidate()
        now = self._clock.now()
        sequences = {lane: last - index for index, lane in enumerate(reversed(list(records)))}
        uplink.lanes = {
            **stored_lanes,
            **{lane: _StoredLane(record, sequences[lane], now) for lane, record in records.items()},
        }

    def _count(self, member: str, uplink: _Uplink, judged: JudgedSpan) -> None:
        for mark, rows in judged.marks.items():
            metrics.NODE_NONCONFORMANT.labels(member, mark).inc(rows)
        refused = uplink.health.refused_rows = dict(uplink.health.refused_rows)
        for group in judged.refusals:
            metrics.NODE_REFUSED.labels(member, group.reason).inc()
            refused[group.reason] = refused.get(group.reason, 0) + group.rows
            _log.warning(
                "part of a node's span refused",
                member=member,
                kind=group.kind,
                grade=group.grade,
                rows=group.rows,
                reason=f"{group.reason}: {group.detail}",
            )


def _early_outcome(request: SpanRequest, records: Records) -> SpanOutcome | None:
    """Return the outcome that the lane records alone decide; None: the span must be checked."""
    updated = [records[update.lane] for update in request.updates]
    if all(record.span_id == request.span_id for record in updated):
        return SpanOutcome.ACCEPTED
    if not lanes.is_writer(records[Lane.LIVE], request):
        return SpanOutcome.UNCLAIMED
    return SpanOutcome.STALE if lanes.is_stale(records, request) else None


def _part_refusal(group: refusals.GroupRefusal) -> protocol.PartRefusal:
    return protocol.PartRefusal(group.kind, group.reason, group.grade, group.rows, len(group.devices))


def _displaced_subject(member: str, epoch: int) -> str:
    return f"displaced.{member}.{epoch}"


def _records(stored_lanes: Mapping[Lane, _StoredLane]) -> dict[Lane, LaneRecord]:
    return {lane: item.record for lane, item in stored_lanes.items()}


def _demand_match(request: SpanRequest, part: RefusedPart) -> None:
    """Return if a span sends an entry of the list, or its beginning, again. Raises `PermissionDenied`."""
    now, then = request.selection, part.selection
    matches = now.after == then.after < now.until <= then.until and request.log_epoch == part.log_epoch
    matches &= all(item.kind is part.kind and item.grade == part.grade for item in request.parts)
    updated = [update.lane for update in request.updates]
    if not matches or updated != [Lane.BACKLOG]:
        raise PermissionDenied(f"span: it does not match the refused part {part.id}; list the refused parts again")
