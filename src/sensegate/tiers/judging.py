"""The check of a whole span: its parts by `checks.py`, accepted and refused rows as counts of the ledger. Pure.

A refusal covers all rows of one kind and grade, or those of some devices among them, so that the node can build it
again from its log. Where a part cannot be decoded, all rows of its kind and grade are refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from sensegate.bus import columns
from sensegate.bus.batch import Batch
from sensegate.bus.ledger import ENTRY_HOURS_MAX, FORWARDED, REFUSED_BY_CENTRE, Ledger
from sensegate.clock import HOUR_US
from sensegate.tiers.checks import check_ledger, check_rows, check_sequences
from sensegate.tiers.protocol import ROW_KINDS, PartKind, RefusedPart, SpanPart
from sensegate.tiers.refusals import GroupRefusal
from sensegate.tiers.span import LEDGER_SOURCE, count_rows
from sensegate.tiers.verdict import AcceptedRows, CheckedRows, DeviceOwnership, MemberFacts, Reason, Refusal, Rules

CENTRE_COUNTS = frozenset({FORWARDED, REFUSED_BY_CENTRE})
"""Ledger kinds that only the centre counts."""

Group = tuple[PartKind, int]
"""(kind, grade) of parts."""


class EncodedRows(msgspec.Struct, frozen=True):
    """Accepted rows as they are written."""

    kind: PartKind
    grade: int
    payload: bytes


class JudgedSpan(msgspec.Struct, eq=False):
    """Result of checking a span."""

    accepted: list[EncodedRows] = []
    counts: Ledger = msgspec.field(default_factory=Ledger)
    """Counts of the node's ledger, and of the accepted and refused rows."""
    sequences: list[bytes] = []
    refusals: list[GroupRefusal] = []
    accepted_devices: dict[Group, set[str]] = {}
    """Devices of which rows are accepted."""
    marks: Counter[str] = msgspec.field(default_factory=Counter)
    claims: list[str] = []
    """Devices that the member comes to own."""
    foreign: list[str] = []
    """Devices that another member owns."""
    rows: int = 0
    """Number of rows, accepted or refused."""
    is_refused: bool = False
    """True if nothing is accepted and something is refused."""


class _SpanOwners:
    """Owners of devices as they are once the parts of a span checked before are accepted."""

    def __init__(self, stored: DeviceOwnership, member: str, claims: Iterable[str]) -> None:
        """`claims`: devices that `member` comes to own by the parts before."""
        self._stored = stored
        self._member = member
        self._claimed = set(claims)

    def add(self, claims: Iterable[str]) -> None:
        """Add the devices that the member comes to own by another part."""
        self._claimed.update(claims)

    def owner(self, device: str) -> str:
        return self._member if device in self._claimed else self._stored.owner(device)

    def may_send(self, member: str, device: str) -> bool:
        return device in self._claimed or self._stored.may_send(member, device)

    def room(self, member: str) -> int:
        return max(0, self._stored.room(member) - len(self._claimed))


class Judge:
    """Checks spans against the facts about their members."""

    def __init__(
        self,
        facts: Callable[[str], MemberFacts],
        rules: Rules,
        claim: Callable[[str, Sequence[str]], Awaitable[None]] | None = None,
        conflict: Callable[[str, Iterable[str]], Awaitable[None]] | None = None,
    ) -> None:
        """Judge by the facts and rules of a centre.

        Args:
            facts: returns the facts about a member.
            rules: against which rows are checked.
            claim: makes a member the owner of devices, durably.
            conflict: records that a member sent devices of others.
        """
        self._facts = facts
        self._rules = rules
        self._claim = claim
        self._conflict = conflict

    async def claim_devices(self, member: str, devices: Sequence[str]) -> None:
        """Make a member the owner of devices. Raises `Unavailable`, `StoreFull`."""
        if devices and self._claim:
            await self._claim(member, devices)

    async def note_conflicts(self, member: str, judged: JudgedSpan) -> None:
        """Record the devices of others that a member has sent. Raises `Unavailable`, `StoreFull`."""
        if self._conflict and (foreign := judged.foreign):
            await self._conflict(member, foreign)

    def judge(
        self, member: str, parts: Sequence[SpanPart], now: int, *, resent: RefusedPart | None = None
    ) -> JudgedSpan:
        """Check the parts of a member's span; `resent`: the refused part that the span sends again."""
        sender = self._facts(member)
        judged = JudgedSpan()
        groups: dict[Group, list[SpanPart]] = {}
        for part in parts:
            groups.setdefault((part.kind, part.grade), []).append(part)
        for group, members in groups.items():
            if group[0] in ROW_KINDS:
                only = resent.devices if resent and resent.devices else None
                owners = _SpanOwners(self._rules.devices, sender.member, judged.claims)
                rules = msgspec.structs.replace(self._rules, devices=owners)
                checked = []
                for part in members:
                    verdict = check_rows(part.payload, *group, sender=sender, rules=rules, now=now, only=only)
                    owners.add(verdict.claims)
                    checked.append(verdict)
                before = resent.reason if resent else ""
                _RowsOfGroup(judged, group, now, before).judge(list(zip(members, checked, strict=True)))
            elif group[0] is PartKind.LEDGER:
                _judge_ledgers(judged, sender, members)
            else:
                _judge_sequences(judged, members)
        accepted = judged.accepted or judged.sequences or (len(judged.counts) and not judged.rows)
        judged.is_refused = bool(judged.refusals) and not accepted
        return judged


class _RowsOfGroup:
    """The rows of one kind and grade of a span."""

    def __init__(self, judged: JudgedSpan, group: Group, now: int, before: str) -> None:
        """`before`: the reason for which a resent part was refused; empty: the rows are new."""
        self._judged = judged
        self._group = group
        self._hour = now // HOUR_US
        self._before = before

    def judge(self, pairs: Sequence[tuple[SpanPart, CheckedRows]]) -> None:
        judged = self._judged
        wholes = (refusal for _, verdict in pairs for refusal in verdict.refusals if not refusal.devices)
        if whole := next(wholes, None):
            self._refuse_all(whole, pairs)
            return
        for part, verdict in pairs:
            for rows in verdict.accepted:
                self._accept(rows)
            self._refuse_devices(part, verdict)
            judged.marks.update(verdict.marks)
            judged.claims += verdict.claims
        self._widen_refusal()

    def _accept(self, rows: AcceptedRows) -> None:
        judged, batch = self._judged, rows.batch
        judged.accepted.append(EncodedRows(self._group[0], rows.grade, columns.encode(batch)))
        judged.accepted_devices.setdefault(self._group, set()).update(batch.origins.device)
        judged.rows += len(batch)
        self._count(batch, FORWARDED)
        self._reverse_refusal(batch)

    def _reverse_refusal(self, batch: Batch) -> None:
        if self._before:
            self._count(batch, f"{REFUSED_BY_CENTRE}.{self._before}", sign=-1)

    def _count(self, batch: Batch, kind: str, *, sign: int = 1) -> None:
        """Count rows in the ledger, which knows values but no events of alarms."""
        if self._group[0] is not PartKind.ALARMS:
            count_rows(self._judged.counts, batch, kind, sign=sign)

    def _refuse_devices(self, part: SpanPart, verdict: CheckedRows) -> None:
        judged = self._judged
        for refusal in verdict.refusals:
            if refusal.reason is Reason.FOREIGN_DEVICE:
                judged.foreign += refusal.devices
            batch = columns.decode(refusal.payload)
            self._count(batch, f"{REFUSED_BY_CENTRE}.{refusal.reason}")
            self._reverse_refusal(batch)
            judged.rows += len(batch)
            named = Counter(batch.origins.device[entry] for entry in batch.origin.tolist())
            _add_refusal(judged, self._group, refusal, RefusedAmount(len(batch), len(part.payload), named))

    def _refuse_all(self, refusal: Refusal, pairs: Sequence[tuple[SpanPart, CheckedRows]]) -> None:
        """Refuse all parts of the group, because one of them is refused as a whole."""
        judged = self._judged
        count = size = 0
        for part, verdict in pairs:
            whole = next((item for item in verdict.refusals if not item.devices), None)
            readable = sum(len(rows.batch) for rows in verdict.accepted) + sum(
                item.rows for item in verdict.refusals if item.devices
            )
            # Of a part that cannot be decoded only the node knows the number of rows.
            count += (whole.rows or part.rows) if whole else readable
            size += len(part.payload)
        if count and self._group[0] is not PartKind.ALARMS:
            judged.counts.add(self._hour, "", LEDGER_SOURCE, f"{REFUSED_BY_CENTRE}.{refusal.reason}", count)
            if self._before:
                judged.counts.add(self._hour, "", LEDGER_SOURCE, f"{REFUSED_BY_CENTRE}.{self._before}", -count)
        judged.rows += count
        _add_refusal(judged, self._group, refusal, RefusedAmount(count, size))

    def _widen_refusal(self) -> None:
        """Drop the devices of a refusal that covers all rows of the group."""
        refusals = self._judged.refusals
        own = [index for index, known in enumerate(refusals) if (known.kind, known.grade) == self._group]
        if len(own) == 1 and not self._judged.accepted_devices.get(self._group):
            refusals[own[0]] = msgspec.structs.replace(refusals[own[0]], devices={})


class RefusedAmount(msgspec.Struct, frozen=True):
    """Amount of refused rows."""

    rows: int
    size: int
    devices: Mapping[str, int] = {}


def _add_refusal(judged: JudgedSpan, group: Group, refusal: Refusal, refused: RefusedAmount) -> None:
    """Add a refusal, merged with another of its group and reason."""
    for index, known in enumerate(judged.refusals):
        if (known.kind, known.grade, known.reason) == (*group, refusal.reason):
            devices = Counter(known.devices)
            devices.update(refused.devices)
            judged.refusals[index] = msgspec.structs.replace(
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


def _judge_ledgers(judged: JudgedSpan, sender: MemberFacts, parts: Sequence[SpanPart]) -> None:
    counts = Ledger()
    for part in parts:
        verdict = check_ledger(part.payload, sender=sender)
        refusal = verdict.refusal
        if verdict.counts is not None:
            own = {kind.partition(".")[0] for kind in verdict.counts.totals()}
            if own & CENTRE_COUNTS:
                refusal = Refusal(Reason.COUNT, "counts that only the centre makes", payload=part.payload)
        if refusal is not None or verdict.counts is None:
            refusal = refusal or Refusal(Reason.UNREADABLE, "no counts")
            _add_refusal(judged, (PartKind.LEDGER, part.grade), refusal, RefusedAmount(0, _size(parts)))
            return
        counts.merge(verdict.counts)
        judged.marks.update(verdict.marks)
    if (hours := len(counts.hours())) > ENTRY_HOURS_MAX:
        refusal = Refusal(Reason.COUNT, f"counts of {hours} hours; at most {ENTRY_HOURS_MAX}", payload=parts[0].payload)
        _add_refusal(judged, (PartKind.LEDGER, parts[0].grade), refusal, RefusedAmount(0, _size(parts)))
        return
    judged.counts.merge(counts)


def _judge_sequences(judged: JudgedSpan, parts: Sequence[SpanPart]) -> None:
    for part in parts:
        if refusal := check_sequences(part.payload).refusal:
            _add_refusal(judged, (PartKind.SEQUENCES, part.grade), refusal, RefusedAmount(0, _size(parts)))
            return
    judged.sequences = [part.payload for part in parts]


def _size(parts: Sequence[SpanPart]) -> int:
    return sum(len(part.payload) for part in parts)
