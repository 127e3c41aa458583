"""The commit record as it stands on the log: JSON, so that a person may read it with any NATS client."""

from __future__ import annotations

import msgspec

from sensegate.model import FORMAT, CommitRecord

_decoder = msgspec.json.Decoder(CommitRecord)


def encode_commit(record: CommitRecord) -> bytes:
    """Return the record as one member of the log."""
    return msgspec.json.encode(record)


def decode_commit(payload: bytes) -> CommitRecord:
    """Return the record of a member of the log.

    Raises:
        ValueError: if it is none of a format known here.
    """
    try:
        record = _decoder.decode(payload)
    except msgspec.DecodeError as why:
        raise ValueError(f"commit record: {why}") from why
    if record.format != FORMAT:
        raise ValueError(f"commit record: format {record.format} is not known to this release")
    return record


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
    """``forwarded``, ``withheld.<reason>`` and the node's own ledger kinds: counts since the lane began."""
    before: dict[str, int] = {}
    """The part of `totals` that came of earlier lives of the node's log, which were lost."""
    format: int = 1


_lane_decoder = msgspec.json.Decoder(LaneRecord)


def encode_lane(record: LaneRecord) -> bytes:
    """Return the record as one member of the centre's log."""
    return msgspec.json.encode(record)


def decode_lane(payload: bytes) -> LaneRecord:
    """Return the record of a member of the centre's log (`commit.<node>.<lane>`).

    Raises:
        ValueError: if it is none of a format known here.
    """
    try:
        record = _lane_decoder.decode(payload)
    except msgspec.DecodeError as why:
        raise ValueError(f"lane record: {why}") from why
    if record.format != FORMAT:
        raise ValueError(f"lane record: format {record.format} is not known to this release")
    return record
