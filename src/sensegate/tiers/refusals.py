"""The list of refused parts of a member, on the centre's log, from which the node can send them again.

    span ─▶ refusals ─▶ `RefusedPartList.add`: entries ``refused.<member>.<id>``, in the same write as the span

An entry identifies its rows exactly: all of one kind and grade, or those of some devices, in a part of the node's log.
A refusal that continues from span to span stays one entry, as long as none of its rows are accepted.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from sensegate.bus.contract import Log
from sensegate.model import LogEntry, LogMessage
from sensegate.tiers.protocol import (
    Lane,
    PartKind,
    PartRefusal,
    RefusedPart,
    SpanSelection,
    decode_refused_part,
    encode_refused_part,
)

ENTRIES_MAX = 4_096
"""Most entries of a member; parts refused beyond that are counted and cannot be sent again."""
DEVICES_MAX = 1_000
"""Most devices of an entry; a refusal of more devices makes several entries."""
OPEN_MAX = 64
"""Most entries of a lane that may be continued."""
LISTED_MAX = 500
"""Most entries of one answer."""
BODY_BYTES_MAX = 262_144
"""Largest body that is stored; of a larger one only the digest is."""
TOMBSTONE_TTL_H = 1


class SubjectReadableLog(Log, Protocol):
    """A log that can be read by subject or pattern."""

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the entries of a subject after a sequence, oldest first."""
        ...


class GroupRefusal(msgspec.Struct, frozen=True):
    """Rows of one kind and grade of a span that are refused for one reason."""

    kind: PartKind
    grade: int
    reason: str
    detail: str
    rows: int
    devices: Mapping[str, int] = {}
    """Device -> number of rows; empty: the rows of all devices."""
    size: int = 0
    digest: str = ""
    body: bytes = b""


class _OpenEntry(msgspec.Struct):
    part: RefusedPart
    devices: frozenset[str]


def subject_of(member: str, part_id: str) -> str:
    """Return the subject of an entry."""
    return f"refused.{member}.{part_id}"


class RefusedPartList:
    """The refused parts of one member."""

    def __init__(self, member: str, log: SubjectReadableLog, ttl_h: int) -> None:
        self._member = member
        self._log = log
        self._ttl_h = ttl_h
        self._count: int | None = None
        self._open: dict[Lane, list[_OpenEntry]] = {lane: [] for lane in Lane}

    async def read(self) -> list[RefusedPart]:
        """Return the entries, oldest first. Raises `Unavailable`."""
        parts: dict[str, RefusedPart] = {}
        after = 0
        while entries := await self._log.fetch_of(f"refused.{self._member}.*", after):
            for entry in entries:
                after = entry.sequence
                part = _decode_or_none(entry.payload)
                if part is not None:
                    parts[part.id] = part
                elif not entry.payload:
                    # On a replica of the log a replaced entry precedes the one that replaces it.
                    parts.pop(entry.subject.rpartition(".")[2], None)
        self._count = len(parts)
        return list(parts.values())

    async def find(self, part_id: str) -> tuple[RefusedPart, int] | None:
        """Return an entry and its sequence on the log; None: it is not on the list. Raises `Unavailable`."""
        entry = await self._log.last(subject_of(self._member, part_id)) if part_id.isalnum() else None
        part = _decode_or_none(entry.payload) if entry and entry.payload else None
        return (part, entry.sequence) if part and entry else None

    def invalidate(self) -> None:
        """Continue no entry: the next refusals do not follow those before."""
        for entries in self._open.values():
            entries.clear()
        self._count = None

    async def add(
        self,
        lane: Lane,
        selection: SpanSelection,
        refusals: Sequence[GroupRefusal],
        accepted: Mapping[tuple[PartKind, int], Collection[str]],
        *,
        log_epoch: str,
        now: int,
    ) -> tuple[list[LogMessage], list[PartRefusal]]:
        """Return the log members that list the refusals of a span, and the refusals for its answer.

        Args:
            lane: of the span.
            selection: the part of the node's log from which the span was made.
            refusals: of the span.
            accepted: (kind, grade) -> devices of which rows are accepted.
            log_epoch: of the node's log.
            now: time of the centre, µs UTC.
        """
        if not refusals and not self._open[lane]:
            return [], []
        self._close_stale(lane, selection, refusals, accepted)
        members: list[LogMessage] = []
        answered: list[PartRefusal] = []
        for refusal in refusals:
            for part, group in self._entries_for(lane, refusal):
                listed = _extend(part, group, selection) if part else _new_entry(lane, selection, log_epoch, group, now)
                is_listed = part is not None or await self._has_room()
                if is_listed:
                    members.append(self._member_of(listed))
                    self._count = (self._count or 0) + (part is None)
                    self._keep_open(lane, listed)
                answered.append(
                    PartRefusal(
                        group.kind,
                        group.reason,
                        group.grade,
                        group.rows,
                        len(group.devices),
                        listed.id if is_listed else "",
                        is_new=part is None,
                    )
                )
        for entry in self._open[lane]:
            # Its rows in this span, if any, were added: the entry covers the span, too.
            entry.part = msgspec.structs.replace(
                entry.part, selection=msgspec.structs.replace(entry.part.selection, until=selection.until)
            )
        return members, answered

    def resolve(self, part: RefusedPart, sequence: int, until: int, rows: int) -> LogMessage:
        """Return the log member that reduces an entry by what was sent again.

        Args:
            part: the entry.
            sequence: of the entry on the log.
            until: last sequence of the node's log that was sent again; all of the entry: it is removed.
            rows: number of rows that were sent again.
        """
        for entries in self._open.values():
            entries[:] = [entry for entry in entries if entry.part.id != part.id]
        if until >= part.selection.until:
            if self._count:
                self._count -= 1
            subject = subject_of(self._member, part.id)
            return LogMessage(subject, b"", TOMBSTONE_TTL_H, rollup=True, expect=sequence)
        selection = msgspec.structs.replace(part.selection, after=until)
        left = msgspec.structs.replace(part, selection=selection, rows=max(0, part.rows - rows))
        return msgspec.structs.replace(self._member_of(left), expect=sequence)

    async def _has_room(self) -> bool:
        if self._count is None:
            await self.read()
        return (self._count or 0) < ENTRIES_MAX

    def _member_of(self, part: RefusedPart) -> LogMessage:
        return LogMessage(subject_of(self._member, part.id), encode_refused_part(part), self._ttl_h, rollup=True)

    # ── continued entries ────────────────────────────────────────────────────────────────────────────────────

    def _close_stale(
        self,
        lane: Lane,
        selection: SpanSelection,
        refusals: Sequence[GroupRefusal],
        accepted: Mapping[tuple[PartKind, int], Collection[str]],
    ) -> None:
        """Stop continuing entries whose rows are accepted or refused otherwise now: they would cover these rows."""
        self._open[lane] = [
            entry
            for entry in self._open[lane]
            if _continues(entry.part.selection, selection)
            and not _conflicts(entry, refusals, accepted.get((entry.part.kind, entry.part.grade), ()))
        ]

    def _entries_for(self, lane: Lane, refusal: GroupRefusal) -> Iterable[tuple[RefusedPart | None, GroupRefusal]]:
        """Yield (entry that is continued or None for a new one, the part of the refusal that it covers)."""
        left = dict(refusal.devices)
        for entry in list(self._open[lane]):
            part = entry.part
            if (part.kind, part.grade, part.reason) != (refusal.kind, refusal.grade, refusal.reason):
                continue
            if not part.devices and not refusal.devices:
                yield part, refusal
                return
            if covered := {device: left.pop(device) for device in entry.devices & left.keys()}:
                yield part, _of_devices(refusal, covered)
        if not refusal.devices:
            yield None, refusal
        names = list(left)
        for start in range(0, len(names), DEVICES_MAX):
            yield None, _of_devices(refusal, {name: left[name] for name in names[start : start + DEVICES_MAX]})

    def _keep_open(self, lane: Lane, part: RefusedPart) -> None:
        entries = [entry for entry in self._open[lane] if entry.part.id != part.id]
        self._open[lane] = [*entries, _OpenEntry(part, frozenset(part.devices))][-OPEN_MAX:]


def _of_devices(refusal: GroupRefusal, devices: Mapping[str, int]) -> GroupRefusal:
    """Return the part of a refusal that concerns some of its devices."""
    return msgspec.structs.replace(refusal, devices=devices, rows=sum(devices.values()))


def _extend(part: RefusedPart, group: GroupRefusal, selection: SpanSelection) -> RefusedPart:
    """Return an entry extended by a refusal that continues it."""
    return msgspec.structs.replace(
        part,
        selection=msgspec.structs.replace(part.selection, until=selection.until),
        rows=part.rows + group.rows,
        spans=part.spans + 1,
        size=part.size + group.size,
    )


def _new_entry(lane: Lane, selection: SpanSelection, log_epoch: str, group: GroupRefusal, now: int) -> RefusedPart:
    return RefusedPart(
        secrets.token_hex(6),
        lane,
        group.kind,
        group.reason,
        selection,
        log_epoch,
        group.grade,
        tuple(group.devices),
        group.rows,
        size=group.size,
        digest=group.digest,
        detail=group.detail,
        refused_at=now,
    )


def _continues(before: SpanSelection, now: SpanSelection) -> bool:
    """Return whether a span directly follows an entry's selection and was packed in the same way."""
    is_alike = (before.grade_max, before.shed, before.withheld_only) == (now.grade_max, now.shed, now.withheld_only)
    return is_alike and before.until == now.after


def _conflicts(entry: _OpenEntry, refusals: Iterable[GroupRefusal], accepted: Collection[str]) -> bool:
    """Return whether rows that an entry would cover are accepted now, or refused in another way."""
    part, devices = entry.part, entry.devices
    if (not devices and accepted) or not devices.isdisjoint(accepted):
        return True
    for refusal in refusals:
        if (refusal.kind, refusal.grade) != (part.kind, part.grade):
            continue
        is_same = refusal.reason == part.reason and bool(refusal.devices) == bool(devices)
        overlaps = not devices or not refusal.devices or not devices.isdisjoint(refusal.devices)
        if overlaps and not is_same:
            return True
    return False


def _decode_or_none(payload: bytes) -> RefusedPart | None:
    """Decode an entry; return None where the payload is of another release, or garbage."""
    try:
        return decode_refused_part(payload)
    except ValueError:
        return None
