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
