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


class Kept(msgspec.Struct, frozen=True):
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


class LaneRecord(msgspec.Struct, frozen=True):
    """The last member of each commit of a node's lane at the centre: how far the node's log has come up."""

    batch_id: str
    number: int
    """Rises by one per commit of a lane."""
    committed_at: int
    life: str
    """Epoch of the node's log: sequences of two lives do not compare."""
    position: int
    """Live: every entry up to this sequence was given to a lane. Backlog: where the first range has come to."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Backlog only: (after, until] still to be forwarded, in the order in which they were opened."""
    totals: dict[str, int] = {}
    """``forwarded``, ``withheld.<reason>`` and the node's own ledger kinds: counts since the lane began.

    What came up of ``withheld.mode`` is taken from it, and counted as ``released.mode``, which stands only here.
    """
    before: dict[str, int] = {}
    """The part of `totals` that came of earlier lives of the node's log, which were lost."""
    kept: tuple[Kept, ...] = ()
    """Live: what it left out. Backlog: what it left out itself, and what it is to bring up of the live lane's."""
    format: int = 1


_lane = decoder(LaneRecord, "lane record", json=True)


def encode_lane(record: LaneRecord) -> bytes:
    """Return the record as one member of the centre's log."""
    return msgspec.json.encode(record)


def decode_lane(payload: bytes) -> LaneRecord:
    """Return the record of a member of the centre's log (`commit.<node>.<lane>`).

    Raises:
        ValueError: if it is none of a format known here.
    """
    return _lane(payload)
