"""The centre's side of the spans: what a member sends is judged here, made anew, and written in one atomic write.

    SpanRequest ─▶ writer? fence? ─▶ `Judge` ─▶ rows, ledger, numbers, refused parts, lanes' records ─▶ LOG

Nothing of a node is copied that is not checked: subjects, lives, roll-ups and fences are the centre's own, and so are
the counts of what it took. The answer comes after the write. Where the outcome is not known there is none: the node
asks for its `position`, and the fence decides between a late write and its next attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.record import LaneRecord, Writer, decode_lane, encode_lane
from sensegate.clock import Clock
from sensegate.config import StoreConfig
from sensegate.errors import Fenced, Overloaded, PermissionDenied, StoreFull, Unavailable
from sensegate.model import Member
from sensegate.tiers import lanes, protocol, refusals, writers
from sensegate.tiers.judging import Judge, Judged
from sensegate.tiers.lanes import Records
from sensegate.tiers.link import SPANS, NodeLinks
from sensegate.tiers.protocol import (
    ClaimAnswer,
    Lane,
    Outcome,
    PartKind,
    PositionAnswer,
    RefusedList,
    RefusedPart,
    SpanAnswer,
    SpanRequest,
)
from sensegate.tiers.refusals import LISTED_MAX, ListedLog, Listing
from sensegate.tiers.refused_store import Vault

RECORD_BYTES_MAX = 262_144
"""Largest record of a lane."""
SHARE_RETRY_S = 10.0
RESTARTS_MAX = 1_000
"""Most writers since a restored copy of which is looked whether they had its log."""
STRETCHES = 16
"""Stretches of time of a reading's life in which a member's bytes are counted."""
HOUR_US = 3_600_000_000

_log = structlog.get_logger("tiers")


class ReceiverLog(ListedLog, Protocol):
    """The centre's log."""

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload of a member."""
        ...


class Standing(msgspec.Struct):
    """What is wrong with a member's uplink, as its line on the page of nodes says."""

    refused_frame: str = ""
    """Why its last span was refused as a whole."""
    denied_claim: str = ""
    """Why a process was not taken as its writer; another one is."""
    over_share: bool = False
    """Its share of the log is used up."""
    refused_rows: dict[str, int] = {}
    """Reason -> rows that were refused since this process began."""

    def told(self) -> list[str]:
        """Return it as sentences."""
        sentences = []
        if self.denied_claim:
            sentences.append(f"two copies of its store: {self.denied_claim}")
        if self.refused_frame:
            sentences.append(f"a span of it is refused: {self.refused_frame}")
        if self.over_share:
            sentences.append("its share of the log is used up; its own log waits (nodes_quota.log_share)")
        if self.refused_rows:
            named = ", ".join(f"{reason} {count:,}" for reason, count in sorted(self.refused_rows.items()))
            sentences.append(f"rows refused: {named} (`sensegate node refused`)")
        return sentences


class _Held(msgspec.Struct, frozen=True):
    record: LaneRecord
    sequence: int
    """Of the record on the log; 0: there is none yet."""
    stored_at: int = 0


class _Uplink:
    """What is known of one member's uplink."""

    def __init__(self, listing: Listing) -> None:
        self.lock = asyncio.Lock()
        self.held: dict[Lane, _Held] | None = None
        self.listing = listing
        self.standing = Standing()

    def forget(self) -> None:
        """Believe nothing of what was held: it is read again."""
        self.held = None
        self.listing.forget()


class Receiver:
    """Takes the spans of all members."""

    def __init__(
        self,
        log: ReceiverLog,
        judge: Judge,
        clock: Clock,
        store: StoreConfig,
        *,
        log_share: float = 1.0,
        probe: Callable[[str, str], Awaitable[bool]] | None = None,
        vault: Vault | None = None,
        admits: Callable[[str], bool] = lambda _member: True,
    ) -> None:
        """Take nothing yet.

        Args:
            log: of the centre.
            judge: judges the parts of a span.
            clock: the time.
            store: sizes and lives of what is written.
            log_share: part of the log that one member may fill.
            probe: (member, token) -> whether the process with that token answers now.
            vault: encrypts what was refused; None: bodies are not kept.
            admits: whether spans are taken of who asks: the other centre asks in the same way, and sends none.
        """
        self._admits = admits
        self._log = log
        self._judge = judge
        self._clock = clock
        self._store = store
        self._bytes_max = int(store.log_bytes * log_share)
        self._probe = probe
        self._vault = vault
        self._uplinks: dict[str, _Uplink] = {}
        self._ttl_us = store.readings_ttl_h * HOUR_US
        self._width_us = max(self._ttl_us // STRETCHES, 1)
        self.on_denied: list[Callable[[str, str], Awaitable[None]]] = []
        """(member, why): a process was not taken as writer."""
        self.on_claim: list[Callable[[str, str], Awaitable[None]]] = []
        """(member, how): a store has gone on by force, was restored from a backup, or its log has lost its end."""

    def serve(self, links: NodeLinks) -> None:
        """Have spans and the questions that belong to them answered from here."""
        for channel in SPANS:
            links.serve(channel, self.span)
        links.answers |= {"position": self.position, "claim": self.claim, "refused": self.refused}

    def standing(self, member: str) -> Standing:
        """Return what is wrong with a member's uplink."""
        known = self._uplinks.get(member)
        return known.standing if known else Standing()

    def _uplink(self, member: str) -> _Uplink:
        if not self._admits(member):
            raise PermissionDenied(f"span: {member} is no member that sends spans here; invite it")
        if member not in self._uplinks:
            self._uplinks[member] = _Uplink(Listing(member, self._log, self._store.quarantine_ttl_h))
        return self._uplinks[member]

    async def _held(self, member: str) -> dict[Lane, _Held] | None:
        """Return the lanes' records with their places; None: nobody has claimed them yet."""
        uplink = self._uplink(member)
        if uplink.held is None:
            held = {}
            for lane in Lane:
                entry = await self._log.last(f"commit.{member}.{lane}")
                if entry is None:
                    return None
                try:
                    held[lane] = _Held(decode_lane(entry.payload), entry.sequence, entry.time)
                except ValueError as why:
                    raise PermissionDenied(
                        f"span: the centre's own record of lane {lane} cannot be read ({why}); run `sensegate doctor` "
                        "at the centre"
                    ) from why
            uplink.held = held
        return uplink.held

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────

    async def position(self, member: str, _payload: bytes) -> bytes:
        """Answer where the lanes stand. Raises `Unavailable`."""
        uplink = self._uplink(member)
        async with uplink.lock:
            held = await self._held(member)
            records = _records(held) if held else {}
            stored_at = held[Lane.LIVE].stored_at if held else 0
            return protocol.encode(PositionAnswer(records, self._clock.now(), stored_at))

    async def claim(self, member: str, payload: bytes) -> bytes:
        """Answer a process that asks to be the writer. Raises `PermissionDenied`, `Unavailable`, `StoreFull`."""
        claim = protocol.decode_claim_request(payload)
        uplink = self._uplink(member)
        async with uplink.lock:
            answer = await self._claimed(member, claim)
        uplink.standing.denied_claim = "" if answer.granted else answer.reason
        if not answer.granted:
            metrics.NODE_REFUSED.labels(member, "writer").inc()
            _log.error("a process is not taken as a node's writer", member=member, reason=answer.reason)
            for hook in self.on_denied:
                await hook(member, answer.reason)
        return protocol.encode(answer)

    async def _claimed(self, member: str, claim: protocol.ClaimRequest) -> ClaimAnswer:
        held = await self._held(member)
        records = _records(held) if held else None
        present = records[Lane.LIVE].writer if records else None
        displaced = None
        if claim.force and (entry := await self._log.last(_displaced_subject(member, claim.epoch))):
            try:
                displaced = writers.decode_displaced(entry.payload)
            except ValueError as why:
                _log.error("what a node's store had sent is not known any more", member=member, reason=str(why))
        agreed = await self._agreed(member, claim, present) if present and claim.restored else -1
        verdict = writers.judge(claim, records, displaced, agreed=agreed)
        if isinstance(verdict, str):
            return writers.denied(verdict)
        if verdict.repeated and records:
            return ClaimAnswer(granted=True, writer=records[Lane.LIVE].writer, lanes=dict(records))
        is_asked = not claim.force or claim.restored
        if present and present.id and is_asked and self._probe and await self._probe(member, present.token):
            return writers.denied(
                "writer: another process of this node answers at this moment; what comes here waits: stop one of the "
                "two, and if the one that is to go on is not taken then, run `sensegate node takeover` there"
            )
        members = []
        if records and present and records[Lane.LIVE].life == claim.life:
            body = writers.encode_displaced(writers.Displaced(dict(records), verdict.common))
            members.append(
                Member(_displaced_subject(member, present.epoch), body, self._store.readings_ttl_h, rollup=True)
            )
        self._uplink(member).listing.forget()
        try:
            await self._write(member, members, verdict.lanes)
        except Fenced as why:
            raise Unavailable("another process of the centre has written since; ask again") from why
        _log.info("a node's writer", member=member, epoch=verdict.lanes[Lane.LIVE].writer.epoch, force=claim.force)
        how = "lost_end" if verdict.lost_end else ""
        if claim.force:
            how = "restored" if claim.restored else "takeover"
        if how:
            metrics.NODE_REFUSED.labels(member, how).inc()
            for hook in self.on_claim:
                await hook(member, how)
        return ClaimAnswer(granted=True, writer=verdict.lanes[Lane.LIVE].writer, lanes=verdict.lanes)

    async def _agreed(self, member: str, claim: protocol.ClaimRequest, present: Writer) -> int:
        """Return up to which entry the logs of all writers since a restored copy are the copy's; -1: not known."""
        agreed = protocol.PLACE_MAX
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

    async def listed(self, member: str) -> list[RefusedPart]:
        """Return the refused parts of a member that it may send once more. Raises `Unavailable`."""
        return await self._uplink(member).listing.read()

    async def refused(self, member: str, _payload: bytes) -> bytes:
        """Answer with the list of refused parts. Raises `Unavailable`."""
        parts = await self.listed(member)
        return protocol.encode(RefusedList(tuple(parts[:LISTED_MAX]), more=len(parts) > LISTED_MAX))

    async def body(self, member: str, part_id: str) -> bytes | None:
        """Return what was refused first of an entry; None where it was not kept. Raises `Unavailable`."""
        entry = await self._log.last(f"{refusals.subject_of(member, part_id)}.body") if part_id.isalnum() else None
        return self._vault.opened(entry.payload) if entry and self._vault else None

    # ── spans ───────────────────────────────────────────────────────────────────────────────────────────

    async def span(self, member: str, payload: bytes) -> bytes:
        """Take a span.

        Raises:
            PermissionDenied: it contradicts the protocol, or the lanes' records.
            Overloaded: the member's share of the log is used up.
            Unavailable: whether it stands on the log is not known.
            StoreFull: the log has no room.
        """
        uplink = self._uplink(member)
        try:
            request = protocol.decode_span_request(payload)
            async with uplink.lock:
                answer = await self._span(member, uplink, request, len(payload))
        except PermissionDenied as why:
            metrics.NODE_REFUSED.labels(member, "frame").inc()
            if uplink.standing.refused_frame != str(why):
                _log.error("a node's span is refused", member=member, reason=str(why))
            uplink.standing.refused_frame = str(why)
            raise
        uplink.standing.refused_frame = ""
        return protocol.encode(answer)

    async def _span(self, member: str, uplink: _Uplink, request: SpanRequest, size: int) -> SpanAnswer:
        held = await self._held(member)
        if held is None:
            return SpanAnswer(Outcome.UNCLAIMED)
        records = _records(held)
        now = self._clock.now()
        if (outcome := _outcome_at_once(request, records)) is not None:
            return SpanAnswer(outcome, records, clock=now)
        self._demand_room(uplink, records, now, size)
        listed = None
        if request.readmits:
            listed = await uplink.listing.find(request.readmits)
            if listed is None:
                return SpanAnswer(Outcome.STALE, records, clock=now)
            _demand_fitting(request, listed[0])
        judged = self._judge.judged(member, request.parts, now, once_more=listed[0] if listed else None)
        if listed and judged.is_refused:
            return SpanAnswer(Outcome.STILL_REFUSED, records, tuple(map(_told, judged.refusals)), now)
        await self._judge.claim_devices(member, judged.claims)
        written, told = await self._write_span(member, request, judged, records, listed)
        if written is None:
            held = await self._held(member)
            return SpanAnswer(Outcome.STALE, _records(held) if held else {}, clock=now)
        self._count(member, uplink, judged)
        try:
            await self._judge.note_conflicts(member, judged)
        except (Unavailable, StoreFull) as why:
            _log.warning("devices of two members are not in the trail", member=member, reason=str(why))
        return SpanAnswer(Outcome.TAKEN, {**records, **written}, tuple(told), now)

    def _demand_room(self, uplink: _Uplink, records: Records, now: int, size: int) -> None:
        kept = lanes.kept_bytes(records.values(), now, self._width_us, self._ttl_us)
        uplink.standing.over_share = kept + size > self._bytes_max
        if uplink.standing.over_share:
            metrics.LIMITED.labels("node_log_share").inc()
            raise Overloaded("this node's share of the centre's log is used up", retry_after_s=SHARE_RETRY_S)

    async def _write_span(
        self,
        member: str,
        request: SpanRequest,
        judged: Judged,
        records: Records,
        listed: tuple[RefusedPart, int] | None,
    ) -> tuple[dict[Lane, LaneRecord] | None, Sequence[protocol.PartRefusal]]:
        """Write what a span brings; return the new records (None: fenced) and what was not taken."""
        now = self._clock.now()
        uplink = self._uplink(member)
        lane = next((move.lane for move in request.moves if move.lane is Lane.LIVE), Lane.BACKLOG)
        written = None
        try:
            noted, told = await uplink.listing.note(
                lane, request.selection, judged.refusals, judged.taken_devices, life=request.life, now=now
            )
            members = [*self._members(member, judged), *noted, *self._bodies(member, judged, told)]
            if listed:
                part, sequence = listed
                until = min(request.selection.until, part.selection.until)
                members.append(uplink.listing.resolved(part, sequence, until, judged.rows))
            wrote = sum(len(item.payload) for item in members)
            made = lanes.moved(records, request, judged.counts.totals(), wrote=wrote, now=now, width_us=self._width_us)
            await self._write(member, members, made)
            written = made
        except Fenced:
            return None, ()
        finally:
            if written is None:
                uplink.listing.forget()  # what it has noted does not stand on the log, or may not
        return written, told

    def _members(self, member: str, judged: Judged) -> list[Member]:
        """Return what is taken of a span as members of the log, made anew: subjects and lives are the centre's."""
        store, most = self._store, self._log.payload_bytes_max
        lives = {PartKind.READINGS: store.readings_ttl_h, PartKind.OBSERVATIONS: store.observations_ttl_h}
        members = [
            Member(f"{rows.kind}.{member}.all.{rows.grade}", rows.payload, lives[rows.kind])
            for rows in judged.rows_taken
        ]
        if len(judged.counts):
            members += [
                Member(f"ledger.{member}", payload, store.ledger_ttl_h) for payload in judged.counts.encoded(most)
            ]
        members += [Member(f"sequences.{member}", payload, store.readings_ttl_h) for payload in judged.sequences]
        if any(len(item.payload) > most for item in members):
            raise PermissionDenied("span: a part is larger than the centre's log takes; skip it")
        return members

    def _bodies(self, member: str, judged: Judged, told: Sequence[protocol.PartRefusal]) -> list[Member]:
        """Return what was refused first of each new entry, encrypted."""
        if self._vault is None:
            return []
        bodies = {(group.kind, group.grade, group.reason): group.body for group in judged.refusals}
        return [
            Member(
                f"{refusals.subject_of(member, refusal.id)}.body",
                self._vault.sealed(body),
                self._store.quarantine_ttl_h,
                rollup=True,
            )
            for refusal in told
            if refusal.id
            and refusal.is_new
            and 0
            < len(body := bodies.get((refusal.kind, refusal.grade, refusal.reason), b""))
            <= refusals.BODY_BYTES_MAX
        ]

    async def _write(self, member: str, members: Sequence[Member], records: Records) -> None:
        """Write members with the lanes' records; after any doubt forget the records, so that they are read again."""
        uplink = self._uplink(member)
        held = uplink.held or {}
        batch = list(members)
        for lane, record in records.items():
            payload = encode_lane(record)
            if len(payload) > RECORD_BYTES_MAX:
                raise PermissionDenied(
                    "span: what it says was kept back is too much for the lane's record; end mode orders"
                )
            expect = held[lane].sequence if lane in held else 0
            batch.append(Member(f"commit.{member}.{lane}", payload, rollup=True, expect=expect))
        uplink.held = last = None
        try:
            last = await self._log.write(batch)
        finally:
            if last is None:
                uplink.forget()
        now = self._clock.now()
        places = {lane: last - place for place, lane in enumerate(reversed(list(records)))}
        uplink.held = {**held, **{lane: _Held(record, places[lane], now) for lane, record in records.items()}}

    def _count(self, member: str, uplink: _Uplink, judged: Judged) -> None:
        for mark, rows in judged.marks.items():
            metrics.NODE_MARKED.labels(member, mark).inc(rows)
        refused = uplink.standing.refused_rows = dict(uplink.standing.refused_rows)
        for group in judged.refusals:
            metrics.NODE_REFUSED.labels(member, group.reason).inc()
            refused[group.reason] = refused.get(group.reason, 0) + group.rows
            _log.warning(
                "a part of a node's span is refused",
                member=member,
                kind=group.kind,
                grade=group.grade,
                rows=group.rows,
                reason=f"{group.reason}: {group.detail}",
            )


def _outcome_at_once(request: SpanRequest, records: Records) -> Outcome | None:
    """Return what is to be said of a span without looking at what it brings; None: it is to be judged."""
    named = [records[move.lane] for move in request.moves]
    if all(record.span_id == request.span_id for record in named):
        return Outcome.TAKEN
    if not lanes.is_writer(records[Lane.LIVE], request):
        return Outcome.UNCLAIMED
    return Outcome.STALE if lanes.stale(records, request) else None


def _told(group: refusals.GroupRefusal) -> protocol.PartRefusal:
    return protocol.PartRefusal(group.kind, group.reason, group.grade, group.rows, len(group.devices))


def _displaced_subject(member: str, epoch: int) -> str:
    return f"displaced.{member}.{epoch}"


def _records(held: Mapping[Lane, _Held]) -> dict[Lane, LaneRecord]:
    return {lane: item.record for lane, item in held.items()}


def _demand_fitting(request: SpanRequest, part: RefusedPart) -> None:
    """Return if a span brings what an entry of the list names, or its beginning. Raises `PermissionDenied`."""
    now, then = request.selection, part.selection
    fits = now.after == then.after < now.until <= then.until and request.life == part.life
    fits &= all(item.kind is part.kind and item.grade == part.grade for item in request.parts)
    moved = [move.lane for move in request.moves]
    if not fits or moved != [Lane.BACKLOG]:
        raise PermissionDenied(f"span: it does not bring what was refused as {part.id}; list the refused parts again")
