"""The body of a message of video metadata as it may be kept: what `cut` left of it, or what stands in its place.

``{"video": format, "removed": {field: count}, "body": …}`` holds what was let through; ``{"video": format, "digest": …,
"bytes": …, "reason": …, "detail": …}`` stands for a message that could not be cut: nothing of it is kept. Whoever cuts
(the walk, or a listener of its own) puts its result in this form; nothing else of video metadata is ever written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.format import Cut, Veil
from sensegate.video.values import OTHER, field_name

_FIELDS_MAX = 400
"""Different names of one message; more are counted as OTHER."""


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a message."""

    video: str
    """Name of its format."""
    removed: Mapping[str, int] = {}
    body: msgspec.Raw = msgspec.Raw(b"")
    """What was let through, JSON; empty where the message could not be cut."""
    digest: str = ""
    bytes: int = 0
    reason: str = ""
    """Value of `model.QuarantineReason`."""
    detail: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Body).decode
_BEGIN = b'{"video":"'


def kept(name: str, cut: Cut) -> bytes:
    """Return the body of a message of format `name` that holds only what may be kept."""
    removed: dict[str, int] = {}
    for field, count in cut.removed.items():
        told = field_name(field)
        if len(removed) >= _FIELDS_MAX and told not in removed:
            told = OTHER
        removed[told] = removed.get(told, 0) + count
    return _encode(Body(name, removed, msgspec.Raw(cut.payload)))


def instead(name: str, payload: bytes, why: Rejected, veil: Veil) -> bytes:
    """Return what stands in place of a message that could not be cut; nothing of it is in there.

    By the digest equal messages are told as such; it is keyed, or whoever guesses a short message could prove it.
    """
    digest = veil.word(hashlib.sha256(payload).hexdigest())
    return _encode(Body(name, digest=digest, bytes=len(payload), reason=why.reason, detail=why.detail))


def opened(payload: bytes) -> Body | None:
    """Return the body that `kept` or `instead` made, None where the payload is none."""
    if not payload.startswith(_BEGIN):
        return None
    try:
        body = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return body if bool(bytes(body.body)) != bool(body.reason) else None


def refusal(body: Body) -> Rejected:
    """Return why a message could not be cut."""
    return Rejected(QuarantineReason(body.reason), f"{body.detail} ({body.bytes} bytes, digest {body.digest})")
