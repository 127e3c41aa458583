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
from sensegate.bus.ledger import FORWARDED, REFUSED_BY_CENTRE, Ledger
from sensegate.clock import HOUR_US
from sensegate.tiers.checks import check_ledger, check_rows, check_sequences
from sensegate.tiers.protocol import ROW_KINDS, Part, PartKind, RefusedPart
from sensegate.tiers.refusals import GroupRefusal
from sensegate.tiers.span import SOURCE, count_rows
from sensegate.tiers.verdict import Checked, MemberFacts, Reason, Refusal, Rules, Taken

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
        """Make devices a member's own. Raises `Unavailable`, `StoreFull`."""
        if devices and self._claim:
            await self._claim(member, devices)

    async def note_conflicts(self, member: str, judged: Judged) -> None:
        """Tell which devices of others a member has sent. Raises `Unavailable`, `StoreFull`."""
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
                only = once_more.devices if once_more and once_more.devices else None
                checked = [
                    check_rows(part.payload, *group, sender=sender, rules=self._rules, now=now, only=only)
                    for part in members
                ]
                before = once_more.reason if once_more else ""
                _RowsOfGroup(judged, group, now, before).judge(list(zip(members, checked, strict=True)))
            elif group[0] is PartKind.LEDGER:
                _ledgers(judged, sender, members)
            else:
                _numbers(judged, members)
        taken = judged.rows_taken or judged.sequences or (len(judged.counts) and not judged.rows)
        judged.is_refused = bool(judged.refusals) and not taken
        return judged


class _RowsOfGroup:
    """The rows of one kind and grade of a span."""

    def __init__(self, judged: Judged, group: Group, now: int, before: str) -> None:
        """`before`: the reason for which they were refused when they came first; empty: they are new."""
        self._judged = judged
        self._group = group
        self._hour = now // HOUR_US
        self._before = before

    def judge(self, pairs: Sequence[tuple[Part, Checked]]) -> None:
        judged = self._judged
        wholes = (refusal for _, verdict in pairs for refusal in verdict.refusals if not refusal.devices)
        if whole := next(wholes, None):
            self._refuse_all(whole, pairs)
            return
        for part, verdict in pairs:
            for rows in verdict.taken:
                self._take(rows)
            self._refuse_devices(part, verdict)
            judged.marks.update(verdict.marks)
            judged.claims += verdict.claims
        self._name_as_all()

    def _take(self, rows: Taken) -> None:
        judged, batch = self._judged, rows.batch
        judged.rows_taken.append(RowsTaken(self._group[0], rows.grade, columns.encode(batch)))
        judged.taken_devices.setdefault(self._group, set()).update(batch.origins.device)
        judged.rows += len(batch)
        count_rows(judged.counts, batch, FORWARDED)
        self._take_back(batch)

    def _take_back(self, batch: Batch) -> None:
        if self._before:
            count_rows(self._judged.counts, batch, f"{REFUSED_BY_CENTRE}.{self._before}", sign=-1)

    def _refuse_devices(self, part: Part, verdict: Checked) -> None:
        judged = self._judged
        for refusal in verdict.refusals:
            if refusal.reason is Reason.FOREIGN_DEVICE:
                judged.foreign += refusal.devices
            batch = columns.decode(refusal.payload)
            count_rows(judged.counts, batch, f"{REFUSED_BY_CENTRE}.{refusal.reason}")
            self._take_back(batch)
            judged.rows += len(batch)
            named = Counter(batch.origins.device[entry] for entry in batch.origin.tolist())
            _add(judged, self._group, refusal, RefusedAmount(len(batch), len(part.payload), named))

    def _refuse_all(self, refusal: Refusal, pairs: Sequence[tuple[Part, Checked]]) -> None:
        """Refuse all parts, for one of them cannot be told from the others."""
        judged = self._judged
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
            judged.counts.add(self._hour, "", SOURCE, f"{REFUSED_BY_CENTRE}.{refusal.reason}", rows)
            if self._before:
                judged.counts.add(self._hour, "", SOURCE, f"{REFUSED_BY_CENTRE}.{self._before}", -rows)
        judged.rows += rows
        _add(judged, self._group, refusal, RefusedAmount(rows, size))

    def _name_as_all(self) -> None:
        """Name a refusal of all rows as such, without their devices."""
        refusals = self._judged.refusals
        mine = [place for place, known in enumerate(refusals) if (known.kind, known.grade) == self._group]
        if len(mine) == 1 and not self._judged.taken_devices.get(self._group):
            refusals[mine[0]] = msgspec.structs.replace(refusals[mine[0]], devices={})


class RefusedAmount(msgspec.Struct, frozen=True):
    """How much is refused."""

    rows: int
    size: int
    devices: Mapping[str, int] = {}


def _add(judged: Judged, group: Group, refusal: Refusal, refused: RefusedAmount) -> None:
    """Add a refusal to the group's others of the same reason."""
    for place, known in enumerate(judged.refusals):
        if (known.kind, known.grade, known.reason) == (*group, refusal.reason):
            devices = Counter(known.devices)
            devices.update(refused.devices)
            judged.refusals[place] = msgspec.structs.replace(
                known, rows=known.rows + refused.rows, devices=devices, size=known.size + refused.size
            )
            return
    body = refusal.payload
    judged.refusals.append(
        GroupRefusal(
            *group,
            refusal.reason,
            refusal.detail,
            refused.rows,
            dict(refused.devices),
            refused.size,
            hashlib.sha256(body).hexdigest(),
            body,
        )
    )


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
            _add(judged, (PartKind.LEDGER, part.grade), refusal, RefusedAmount(0, _size(parts)))
            return
        counts.merge(verdict.counts)
        judged.marks.update(verdict.marks)
    judged.counts.merge(counts)


def _numbers(judged: Judged, parts: Sequence[Part]) -> None:
    for part in parts:
        if refusal := check_sequences(part.payload).refusal:
            _add(judged, (PartKind.SEQUENCES, part.grade), refusal, RefusedAmount(0, _size(parts)))
            return
    judged.sequences = [part.payload for part in parts]


def _size(parts: Sequence[Part]) -> int:
    return sum(len(part.payload) for part in parts)
