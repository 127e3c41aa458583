"""The commit record as it stands on the log: JSON, so that a person may read it with any NATS client."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensegate.bus.decoding import decoder
from sensegate.model import CommitRecord, Shed

_commit = decoder(CommitRecord, "commit record", json=True)


def encode_commit(record: CommitRecord) -> bytes:
    """Return the record as one member of the log."""
    return msgspec.json.encode(record)


def decode_commit(payload: bytes) -> CommitRecord:
    """Return the record of a member of the log.

    Raises:
        ValueError: if it is none of a format known here.
    """
    return _commit(payload)


class WithheldRange(msgspec.Struct, frozen=True):
    """A part of a node's log that went up without what mode orders shed; it comes up when they are over."""

    after: int
    until: int
    """Entries in (after, until]."""
    shed: tuple[Shed, ...]
    """What was left out of it, exactly: what matches it did not go up, all else did."""
    grade_max: int
    """Above it nothing was shed: it was withheld for its grade."""

    def meets(self, shed: Sequence[Shed]) -> bool:
        """Return whether something of it would be shed now."""
        return any(_meet(one, other) for one in self.shed for other in shed)


def _meet(one: Shed, other: Shed) -> bool:
    inside = one.division.startswith(other.division) or other.division.startswith(one.division)
    same = not one.department or not other.department or one.department == other.department
    return inside and same and bool(one.properties & other.properties)


class Writer(msgspec.Struct, frozen=True):
    """The process that may send a member's spans: one at a time."""

    id: str = ""
    """Of the store that it forwards; empty: nobody has claimed the lanes yet."""
    epoch: int = 0
    """Rises with each claim."""
    token: str = ""
    """Of the process: two copies of a store that claim the same epoch differ in it."""


NO_WRITER = Writer()
STORED_MAX = 64
"""Most parts of `LaneRecord.stored`."""


class LaneRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last member of each commit of a node's lane at the centre: how far the node's log has come up.

    The centre alone makes it: position, ranges and what was kept back are the node's word, checked against the record
    before; the counts are the centre's own.
    """

    span_id: str
    number: int
    """Rises by one per commit of a lane."""
    committed_at: int
    """When the node made the span, µs UTC of its clock."""
    log_epoch: str
    """Epoch of the node's log: sequences of two lives do not compare."""
    position: int
    """Live: every entry up to this sequence was given to a lane. Backlog: where the first range has come to."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Backlog only: (after, until] still to be forwarded, in the order in which they were opened."""
    totals: dict[str, int] = {}
    """``forwarded``, ``withheld.<reason>``, ``refused_by_centre.<reason>`` and the node's own ledger kinds: counts
    since the lane began.

    What came up of ``withheld.mode`` is taken from it, and counted as ``released.mode``; what was refused and is taken
    after all is counted as ``readmitted.<reason>`` in the same way. Both stand only here.
    """
    previous_totals: dict[str, int] = {}
    """The part of `totals` that came of earlier lives of the node's log, which were lost."""
    withheld: tuple[WithheldRange, ...] = ()
    """Live: what it left out. Backlog: what it left out itself, and what it is to bring up of the live lane's."""
    reached: int = 0
    """Greatest position of this life: a node whose log ends before it has lost its end."""
    writer: Writer = NO_WRITER
    past_epochs: tuple[str, ...] = ()
    """Lives of logs that another one has replaced: no writer goes on with them."""
    refused: int = 0
    """Refused parts of this lane that the node may send once more."""
    stored: tuple[tuple[int, int], ...] = ()
    """(number of a stretch of time, bytes): what the lane wrote lately, by which the member's share is measured."""
    format: int = 1


_lane = decoder(LaneRecord, "lane record", json=True)


def encode_lane(record: LaneRecord) -> bytes:
    """Return the record as one member of the centre's log."""
    return msgspec.json.encode(record)


def decode_lane(payload: bytes) -> LaneRecord:
    """Return the record of a member of the centre's log (`commit.<member>.<lane>`).

    Raises:
        ValueError: if it is none of a format known here.
    """
    return _lane(payload)
