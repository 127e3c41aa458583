"""Stored form of a video metadata message: the redacted message, or a digest of one that could not be redacted.

``{"video": format, "removed": {field: count}, "body": …}`` holds the redacted message; ``{"video": format, "digest": …,
"bytes": …, "reason": …, "detail": …}`` replaces a message that could not be redacted, of which nothing is stored. Every
component that redacts (the ingest pipeline, or a listener) uses this form; video metadata is stored in no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.format import Pseudonymiser, Redacted
from sensegate.video.values import OTHER, field_name

_FIELDS_MAX = 400
"""Different field names of one message; further ones are counted as `OTHER`."""


class StoredBody(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Stored form of one message."""

    video: str
    """Name of its format."""
    removed: Mapping[str, int] = {}
    body: msgspec.Raw = msgspec.Raw(b"")
    """The redacted message as JSON; empty if it could not be redacted."""
    digest: str = ""
    bytes: int = 0
    reason: str = ""
    """Value of `model.QuarantineReason`."""
    detail: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredBody).decode
_BEGIN = b'{"video":"'


def encode_redacted(name: str, cut: Redacted) -> bytes:
    """Encode a redacted message of the format `name`."""
    removed: dict[str, int] = {}
    for field, count in cut.removed.items():
        reported = field_name(field)
        if len(removed) >= _FIELDS_MAX and reported not in removed:
            reported = OTHER
        removed[reported] = removed.get(reported, 0) + count
    return _encode(StoredBody(name, removed, msgspec.Raw(cut.payload)))


def encode_withheld(name: str, payload: bytes, why: Rejected, pseudonymiser: Pseudonymiser) -> bytes:
    """Encode a digest in place of a message that could not be redacted; nothing of its content is included.

    Equal messages have equal digests; the digest is keyed, as a short message could otherwise be guessed and proved.
    """
    digest = pseudonymiser.identifier(hashlib.sha256(payload).hexdigest())
    return _encode(StoredBody(name, digest=digest, bytes=len(payload), reason=why.reason, detail=why.detail))


def decode_stored(payload: bytes) -> StoredBody | None:
    """Decode a stored body; None if the payload is not one."""
    if not payload.startswith(_BEGIN):
        return None
    try:
        body = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body if bool(bytes(body.body)) != bool(body.reason) else None


def rejection(body: StoredBody) -> Rejected:
    """Return the reason for which a message could not be redacted."""
    return Rejected(QuarantineReason(body.reason), f"{body.detail} ({body.bytes} bytes, digest {body.digest})")
