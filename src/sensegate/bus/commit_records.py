"""Commit records of the log and of uplink lanes: JSON, so that they can be read with any NATS client."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensegate.bus.decoding import decoder
from sensegate.model import CommitRecord, SheddingRule

_commit = decoder(CommitRecord, "commit record", json=True)


def encode_commit(record: CommitRecord) -> bytes:
    """Return the encoded record."""
    return msgspec.json.encode(record)


def decode_commit(payload: bytes) -> CommitRecord:
    """Return the commit record of a payload.

    Raises:
        ValueError: it is not a commit record of a known format.
    """
    return _commit(payload)


class WithheldRange(msgspec.Struct, frozen=True):
    """A range of a node's log forwarded without the rows that mode orders shed; those follow when the orders end."""

    after: int
    until: int
    """The range is (after, until]."""
    shed: tuple[SheddingRule, ...]
    """Exactly the rows that match these rules were not forwarded."""
    grade_max: int
    """Rows above this grade were withheld because of the grade, not shed."""

    def overlaps(self, shed: Sequence[SheddingRule]) -> bool:
        """Return whether `shed`, the rules in force now, match some of the rows left out."""
        return any(_rules_overlap(rule, other) for rule in self.shed for other in shed)


def _rules_overlap(first: SheddingRule, second: SheddingRule) -> bool:
    nested = first.division.startswith(second.division) or second.division.startswith(first.division)
    same_department = not first.department or not second.department or first.department == second.department
    return nested and same_department and bool(first.properties & second.properties)


class Writer(msgspec.Struct, frozen=True):
    """The one process that may forward the spans of a member."""

    id: str = ""
    """Id of the store that it forwards; empty: no process has claimed the lanes yet."""
    epoch: int = 0
    """Increases with each claim."""
    token: str = ""
    """Random id of the process: two copies of a store that claim the same epoch differ in it."""


NO_WRITER = Writer()
STORED_MAX = 64
"""Most elements of `LaneRecord.stored`."""


class LaneRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Last message of each commit of a node's lane at the centre: up to where the node's log was forwarded.

    Only the centre writes it: position, ranges and shed ranges are claims of the node, checked against the previous
    record; the counts are the centre's own.
    """

    span_id: str
    number: int
    """Rises by one per commit of a lane."""
    committed_at: int
    """Time when the node built the span, µs UTC of its clock."""
    log_epoch: str
    """Epoch of the node's log: sequences of different epochs are not comparable."""
    position: int
    """Live lane: every entry up to this sequence was assigned to a lane. Backlog: progress within the first range."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Backlog only: ranges (after, until] still to be forwarded, in the order in which they were opened."""
    totals: dict[str, int] = {}
    """``forwarded``, ``withheld.<reason>``, ``refused_by_centre.<reason>`` and the node's own ledger kinds: counts
    since the lane began.

    Rows of ``withheld.mode`` that are forwarded later are subtracted from it and counted as ``released.mode``; refused
    rows that are accepted later are counted as ``readmitted.<reason>`` in the same way. Both occur only here.
    """
    previous_totals: dict[str, int] = {}
    """The part of `totals` from earlier epochs of the node's log, which were lost."""
    withheld: tuple[WithheldRange, ...] = ()
    """Live lane: its shed ranges. Backlog: its own, and those of the live lane that it is to forward."""
    reached: int = 0
    """Greatest position of this epoch: a node whose log ends before it has lost its end."""
    writer: Writer = NO_WRITER
    past_epochs: tuple[str, ...] = ()
    """Epochs of replaced logs: no writer may continue them."""
    refused: int = 0
    """Number of refused parts of this lane that the node may send again."""
    stored: tuple[tuple[int, int], ...] = ()
    """(number of a period, bytes) that the lane wrote recently, for the quota of the member."""
    format: int = 1


_lane = decoder(LaneRecord, "lane record", json=True)


def encode_lane(record: LaneRecord) -> bytes:
    """Return the record as one member of the centre's log."""
    return msgspec.json.encode(record)


def decode_lane(payload: bytes) -> LaneRecord:
    """Return the lane record of a payload (`commit.<member>.<lane>` of the centre's log).

    Raises:
        ValueError: it is not a lane record of a known format.
    """
    return _lane(payload)
