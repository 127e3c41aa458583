"""A span judged as a whole: its parts by `checks.py`, and what is taken and refused as counts of the ledger. Pure.

What is refused concerns all rows of one kind and grade, or those of some devices among them: so it can be named, and
made once more out of the node's log. Where a part cannot be read at all, its kind and grade are refused as a whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import FORWARDED, HOUR_US, REFUSED_BY_CENTRE, Ledger
from sensegate.tiers.checks import check_ledger, check_rows, check_sequences
from sensegate.tiers.protocol import ROW_KINDS, Part, PartKind, RefusedPart
from sensegate.tiers.refusals import GroupRefusal
from sensegate.tiers.span import SOURCE, count_rows
from sensegate.tiers.verdict import Checked, MemberFacts, Reason, Refusal, Rules

OWN_COUNTS = frozenset({FORWARDED, REFUSED_BY_CENTRE})
"""Counts that only the centre makes."""

Group = tuple[PartKind, int]


class RowsTaken(msgspec.Struct, frozen=True):
    """Rows that are written."""

    kind: PartKind
    grade: int
    payload: bytes


class Judged(msgspec.Struct, eq=False):
    """What becomes of the parts of a span."""

    rows_taken: list[RowsTaken] = []
    counts: Ledger = msgspec.field(default_factory=Ledger)
    """The node's own, and what of the rows is taken and refused."""
    sequences: list[bytes] = []
    refusals: list[GroupRefusal] = []
    taken_devices: dict[Group, set[str]] = {}
    marks: Counter[str] = msgspec.field(default_factory=Counter)
    claims: list[str] = []
    """Devices that become the member's."""
    foreign: list[str] = []
    """Devices of which another member is the owner."""
    rows: int = 0
    """How many rows were judged."""
    is_refused: bool = False
    """Nothing of it is taken, and something is refused."""


class Judge:
    """Judges spans by what the centre knows of their members."""

    def __init__(
        self,
        facts: Callable[[str], MemberFacts],
        rules: Rules,
        claim: Callable[[str, Sequence[str]], Awaitable[None]] | None = None,
        conflict: Callable[[str, Iterable[str]], Awaitable[None]] | None = None,
    ) -> None:
        """`facts` tells of a member; `claim` makes devices its own, durably; `conflict` hears of those of others."""
        self._facts = facts
        self._rules = rules
        self._claim = claim
        self._conflict = conflict

    async def claim_devices(self, member: str, devices: Sequence[str]) -> None:
        """Make devices a member's own. Raises `Lost`, `StoreFull`."""
        if devices and self._claim:
            await self._claim(member, devices)

    async def note_conflicts(self, member: str, judged: Judged) -> None:
        """Tell which devices of others a member has sent. Raises `Lost`, `StoreFull`."""
        if self._conflict and (foreign := judged.foreign):
            await self._conflict(member, foreign)

    def judged(self, member: str, parts: Sequence[Part], now: int, *, once_more: RefusedPart | None = None) -> Judged:
        """Return what becomes of the parts of a member's span; `once_more`: they were refused as this entry before."""
        sender = self._facts(member)
        judged = Judged()
        groups: dict[Group, list[Part]] = {}
        for part in parts:
            groups.setdefault((part.kind, part.grade), []).append(part)
        for group, members in groups.items():
            if group[0] in ROW_KINDS:
                self._rows(judged, sender, group, members, now, once_more)
            elif group[0] is PartKind.LEDGER:
                _ledgers(judged, sender, members)
            else:
                _numbers(judged, members)
        taken = judged.rows_taken or judged.sequences or (len(judged.counts) and not judged.rows)
        judged.is_refused = bool(judged.refusals) and not taken
        return judged

    def _rows(
        self,
        judged: Judged,
        sender: MemberFacts,
        group: Group,
        parts: Sequence[Part],
        now: int,
        once_more: RefusedPart | None,
    ) -> None:
        kind, grade = group
        only = once_more.devices if once_more and once_more.devices else None
        checked = [
            check_rows(part.payload, kind, grade, sender=sender, rules=self._rules, now=now, only=only)
            for part in parts
        ]
        pairs = list(zip(parts, checked, strict=True))
        before = once_more.reason if once_more else ""
        if whole := next(
            (refusal for _, verdict in pairs for refusal in verdict.refusals if not refusal.devices), None
        ):
            _refuse_all(judged, group, whole, pairs, now, before)
            return
        for part, verdict in pairs:
            for rows in verdict.taken:
                _take(judged, group, rows.grade, rows.batch, before)
            _refuse_devices(judged, group, part, verdict, before)
            judged.marks.update(verdict.marks)
            judged.claims += verdict.claims
        _named_as_all(judged, group)


def _take(judged: Judged, group: Group, grade: int, batch: Batch, before: str) -> None:
    judged.rows_taken.append(RowsTaken(group[0], grade, columns.encode(batch)))
    judged.taken_devices.setdefault(group, set()).update(batch.origins.device)
    judged.rows += len(batch)
    count_rows(judged.counts, batch, FORWARDED)
    if before:
        count_rows(judged.counts, batch, f"{REFUSED_BY_CENTRE}.{before}", sign=-1)


def _refuse_devices(judged: Judged, group: Group, part: Part, verdict: Checked, before: str) -> None:
    for refusal in verdict.refusals:
        if refusal.reason is Reason.FOREIGN_DEVICE:
            judged.foreign += refusal.devices
        batch = columns.decode(refusal.payload)
        count_rows(judged.counts, batch, f"{REFUSED_BY_CENTRE}.{refusal.reason}")
        if before:
            count_rows(judged.counts, batch, f"{REFUSED_BY_CENTRE}.{before}", sign=-1)
        judged.rows += len(batch)
        named = Counter(batch.origins.device[entry] for entry in batch.origin.tolist())
        _add(judged, group, refusal, len(batch), named, len(part.payload))


def _refuse_all(
    judged: Judged,
    group: Group,
    refusal: Refusal,
    pairs: Iterable[tuple[Part, Checked]],
    now: int,
    before: str,
) -> None:
    """Refuse all parts of a kind and grade, for one of them cannot be told from the others."""
    rows = size = 0
    for part, verdict in pairs:
        whole = next((item for item in verdict.refusals if not item.devices), None)
        readable = sum(len(taken.batch) for taken in verdict.taken) + sum(
            item.rows for item in verdict.refusals if item.devices
        )
        # Only the node knows how many rows there are in what cannot be read.
        rows += (whole.rows or part.rows) if whole else readable
        size += len(part.payload)
    if rows:
        judged.counts.add(now // HOUR_US, "", SOURCE, f"{REFUSED_BY_CENTRE}.{refusal.reason}", rows)
        if before:
            judged.counts.add(now // HOUR_US, "", SOURCE, f"{REFUSED_BY_CENTRE}.{before}", -rows)
    judged.rows += rows
    _add(judged, group, refusal, rows, {}, size)


def _add(judged: Judged, group: Group, refusal: Refusal, rows: int, devices: Mapping[str, int], size: int) -> None:
    """Add a refusal to the group's others of the same reason."""
    for place, known in enumerate(judged.refusals):
        if (known.kind, known.grade, known.reason) == (*group, refusal.reason):
            merged = dict(known.devices)
            for device, count in devices.items():
                merged[device] = merged.get(device, 0) + count
            judged.refusals[place] = msgspec.structs.replace(
                known, rows=known.rows + rows, devices=merged, size=known.size + size
            )
            return
    body = refusal.payload
    judged.refusals.append(
        GroupRefusal(
            *group,
            refusal.reason,
            refusal.detail,
            rows,
            dict(devices),
            size,
            hashlib.sha256(body).hexdigest(),
            body,
        )
    )


def _named_as_all(judged: Judged, group: Group) -> None:
    """Name a refusal of all rows of a kind and grade as such, without their devices."""
    mine = [place for place, known in enumerate(judged.refusals) if (known.kind, known.grade) == group]
    if len(mine) == 1 and not judged.taken_devices.get(group):
        judged.refusals[mine[0]] = msgspec.structs.replace(judged.refusals[mine[0]], devices={})


def _ledgers(judged: Judged, sender: MemberFacts, parts: Sequence[Part]) -> None:
    counts = Ledger()
    for part in parts:
        verdict = check_ledger(part.payload, sender=sender)
        refusal = verdict.refusal
        if verdict.counts is not None:
            own = {kind.partition(".")[0] for kind in verdict.counts.totals()}
            if own & OWN_COUNTS:
                refusal = Refusal(Reason.COUNT, "counts that the centre alone makes", payload=part.payload)
        if refusal is not None or verdict.counts is None:
            refusal = refusal or Refusal(Reason.UNREADABLE, "no counts")
            _add(judged, (PartKind.LEDGER, part.grade), refusal, 0, {}, sum(len(item.payload) for item in parts))
            return
        counts.merge(verdict.counts)
        judged.marks.update(verdict.marks)
    judged.counts.merge(counts)


def _numbers(judged: Judged, parts: Sequence[Part]) -> None:
    for part in parts:
        if refusal := check_sequences(part.payload).refusal:
            _add(judged, (PartKind.SEQUENCES, part.grade), refusal, 0, {}, sum(len(item.payload) for item in parts))
            return
    judged.sequences = [part.payload for part in parts]
