"""What the centre did not take of a span, as a list on its log from which the node can send it once more.

    span ─▶ refusals ─▶ `Listing.note`: entries ``refused.<member>.<id>``, in the same write as the rest of the span

An entry names exactly which rows it stands for: all of one kind and grade, or those of some devices, in a part of the
node's log. A refusal that goes on from span to span stays one entry, as long as none of its rows were taken.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from sensegate.model import LogEntry, LogMessage
from sensegate.ports import Log
from sensegate.tiers.protocol import (
    Lane,
    PartKind,
    PartRefusal,
    RefusedPart,
    Selection,
    decode_refused_part,
    encode_refused_part,
)

ENTRIES_MAX = 4_096
"""Most entries of a member; what is refused beyond them is counted and cannot be sent once more."""
DEVICES_MAX = 1_000
"""Most devices of an entry; a refusal of more makes several."""
OPEN_MAX = 64
"""Most entries of a lane that may go on."""
LISTED_MAX = 500
"""Most entries of one answer."""
BODY_BYTES_MAX = 262_144
"""A larger body is not kept: the digest names it."""
TOMBSTONE_TTL_H = 1


class ListedLog(Log, Protocol):
    """A log of which the entries of one subject, or of a pattern, can be read."""

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return the entries of a subject after a sequence, oldest first."""
        ...


class GroupRefusal(msgspec.Struct, frozen=True):
    """What of the rows of one kind and grade of a span is refused, for one reason."""

    kind: PartKind
    grade: int
    reason: str
    detail: str
    rows: int
    devices: Mapping[str, int] = {}
    """Device -> rows; empty: all rows of whatever device."""
    size: int = 0
    digest: str = ""
    body: bytes = b""


class _Open(msgspec.Struct):
    part: RefusedPart
    devices: frozenset[str]


def subject_of(member: str, part_id: str) -> str:
    """Return the subject of an entry."""
    return f"refused.{member}.{part_id}"


class Listing:
    """The list of one member."""

    def __init__(self, member: str, log: ListedLog, ttl_h: int) -> None:
        self._member = member
        self._log = log
        self._ttl_h = ttl_h
        self._count: int | None = None
        self._open: dict[Lane, list[_Open]] = {lane: [] for lane in Lane}

    async def read(self) -> list[RefusedPart]:
        """Return the entries, oldest first. Raises `Unavailable`."""
        parts: dict[str, RefusedPart] = {}
        after = 0
        while entries := await self._log.fetch_of(f"refused.{self._member}.*", after):
            for entry in entries:
                after = entry.sequence
                part = _readable(entry.payload)
                if part is not None:
                    parts[part.id] = part
                elif not entry.payload:
                    # On a copy of the log what was replaced stands before what replaces it.
                    parts.pop(entry.subject.rpartition(".")[2], None)
        self._count = len(parts)
        return list(parts.values())

    async def find(self, part_id: str) -> tuple[RefusedPart, int] | None:
        """Return an entry and its sequence on the log; None: it is not on the list. Raises `Unavailable`."""
        entry = await self._log.last(subject_of(self._member, part_id)) if part_id.isalnum() else None
        part = _readable(entry.payload) if entry and entry.payload else None
        return (part, entry.sequence) if part and entry else None

    def forget(self) -> None:
        """Let no entry go on: what comes is not the continuation of what was refused before."""
        for entries in self._open.values():
            entries.clear()
        self._count = None

    async def note(
        self,
        lane: Lane,
        selection: Selection,
        refusals: Sequence[GroupRefusal],
        taken: Mapping[tuple[PartKind, int], Collection[str]],
        *,
        life: str,
        now: int,
    ) -> tuple[list[LogMessage], list[PartRefusal]]:
        """Return the members that put the refusals of a span on the list, and what its node is told.

        Args:
            lane: of the span.
            selection: of what part of the node's log it was made.
            refusals: what is not taken of it.
            taken: (kind, grade) -> devices of which rows are taken.
            life: of that log.
            now: time of the centre, µs UTC.
        """
        if not refusals and not self._open[lane]:
            return [], []
        self._close(lane, selection, refusals, taken)
        members: list[LogMessage] = []
        told: list[PartRefusal] = []
        for refusal in refusals:
            for part, group in self._parts(lane, refusal):
                entry = _extended(part, group, selection) if part else _new(lane, selection, life, group, now)
                listed = part is not None or await self._has_room()
                if listed:
                    members.append(self._member_of(entry))
                    self._count = (self._count or 0) + (part is None)
                    self._go_on(lane, entry)
                told.append(
                    PartRefusal(
                        group.kind,
                        group.reason,
                        group.grade,
                        group.rows,
                        len(group.devices),
                        entry.id if listed else "",
                        is_new=part is None,
                    )
                )
        for kept in self._open[lane]:
            # None of its rows came in this span, or they were added: it names the span, too.
            kept.part = msgspec.structs.replace(
                kept.part, selection=msgspec.structs.replace(kept.part.selection, until=selection.until)
            )
        return members, told

    def resolved(self, part: RefusedPart, sequence: int, until: int, rows: int) -> LogMessage:
        """Return the member that takes what was sent once more from an entry: up to `until`, so many rows."""
        for entries in self._open.values():
            entries[:] = [entry for entry in entries if entry.part.id != part.id]
        if until >= part.selection.until:
            if self._count:
                self._count -= 1
            subject = subject_of(self._member, part.id)
            return LogMessage(subject, b"", TOMBSTONE_TTL_H, rollup=True, expect=sequence)
        selection = msgspec.structs.replace(part.selection, after=until)
        rest = msgspec.structs.replace(part, selection=selection, rows=max(0, part.rows - rows))
        return msgspec.structs.replace(self._member_of(rest), expect=sequence)

    async def _has_room(self) -> bool:
        if self._count is None:
            await self.read()
        return (self._count or 0) < ENTRIES_MAX

    def _member_of(self, part: RefusedPart) -> LogMessage:
        return LogMessage(subject_of(self._member, part.id), encode_refused_part(part), self._ttl_h, rollup=True)

    # ── what goes on ────────────────────────────────────────────────────────────────────────────────────

    def _close(
        self,
        lane: Lane,
        selection: Selection,
        refusals: Sequence[GroupRefusal],
        taken: Mapping[tuple[PartKind, int], Collection[str]],
    ) -> None:
        """Let no entry go on of which rows are taken now, or refused otherwise: it would name them, too."""
        self._open[lane] = [
            entry
            for entry in self._open[lane]
            if _same_making(entry.part.selection, selection)
            and not _crossed(entry, refusals, taken.get((entry.part.kind, entry.part.grade), ()))
        ]

    def _parts(self, lane: Lane, refusal: GroupRefusal) -> Iterable[tuple[RefusedPart | None, GroupRefusal]]:
        """Yield (entry that goes on or None for a new one, what of the refusal it takes)."""
        left = dict(refusal.devices)
        for entry in list(self._open[lane]):
            part = entry.part
            if (part.kind, part.grade, part.reason) != (refusal.kind, refusal.grade, refusal.reason):
                continue
            if not part.devices and not refusal.devices:
                yield part, refusal
                return
            if mine := {device: left.pop(device) for device in entry.devices & left.keys()}:
                yield part, _of_devices(refusal, mine)
        if not refusal.devices:
            yield None, refusal
        names = list(left)
        for start in range(0, len(names), DEVICES_MAX):
            yield None, _of_devices(refusal, {name: left[name] for name in names[start : start + DEVICES_MAX]})

    def _go_on(self, lane: Lane, part: RefusedPart) -> None:
        entries = [entry for entry in self._open[lane] if entry.part.id != part.id]
        self._open[lane] = [*entries, _Open(part, frozenset(part.devices))][-OPEN_MAX:]


def _of_devices(refusal: GroupRefusal, devices: Mapping[str, int]) -> GroupRefusal:
    """Return the part of a refusal that concerns some of its devices."""
    return msgspec.structs.replace(refusal, devices=devices, rows=sum(devices.values()))


def _extended(part: RefusedPart, group: GroupRefusal, selection: Selection) -> RefusedPart:
    """Return an entry with a refusal that follows it."""
    return msgspec.structs.replace(
        part,
        selection=msgspec.structs.replace(part.selection, until=selection.until),
        rows=part.rows + group.rows,
        spans=part.spans + 1,
        size=part.size + group.size,
    )


def _new(lane: Lane, selection: Selection, life: str, group: GroupRefusal, now: int) -> RefusedPart:
    """Return a new entry."""
    return RefusedPart(
        secrets.token_hex(6),
        lane,
        group.kind,
        group.reason,
        selection,
        life,
        group.grade,
        tuple(group.devices),
        group.rows,
        size=group.size,
        digest=group.digest,
        detail=group.detail,
        at=now,
    )


def _same_making(before: Selection, now: Selection) -> bool:
    """Return whether a span follows what an entry was made of, and was made in the same way."""
    made = (before.grade_max, before.shed, before.kept_back) == (now.grade_max, now.shed, now.kept_back)
    return made and before.until == now.after


def _crossed(entry: _Open, refusals: Iterable[GroupRefusal], taken: Collection[str]) -> bool:
    """Return whether rows that an entry would name are taken now, or refused in another way."""
    part, devices = entry.part, entry.devices
    if (not devices and taken) or not devices.isdisjoint(taken):
        return True
    for refusal in refusals:
        if (refusal.kind, refusal.grade) != (part.kind, part.grade):
            continue
        is_same = refusal.reason == part.reason and bool(refusal.devices) == bool(devices)
        overlaps = not devices or not refusal.devices or not devices.isdisjoint(refusal.devices)
        if overlaps and not is_same:
            return True
    return False


def _readable(payload: bytes) -> RefusedPart | None:
    """Return an entry; None where a record of another release, or garbage, stands in its place."""
    try:
        return decode_refused_part(payload)
    except ValueError:
        return None
