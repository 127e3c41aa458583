"""The body of a message of video metadata as it may be kept: what `cut` left of it, or what stands in its place.

``{"video": format, "removed": {field: count}, "body": …}`` holds what was let through; ``{"video": format, "sha256": …,
"bytes": …, "reason": …, "detail": …}`` stands for a message that could not be cut: nothing of it is kept. Whoever cuts
(the walk, or a listener of its own) puts its result in this form; nothing else of video metadata is ever written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.form import Cut

OTHER = "other"
"""In place of a field's name that is none a format would have: such a name may itself say something of somebody."""
_FIELD = re.compile(r"(?=.{1,80}\Z)[A-Za-z@_][A-Za-z@_:.\[\]/-]*(?:\d{1,2}[A-Za-z@_:.\[\]/-]*){0,4}")
_FIELDS_MAX = 400
"""Different names of one message; more are counted as OTHER."""


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a message."""

    video: str
    """Name of its format."""
    removed: Mapping[str, int] = {}
    body: msgspec.Raw = msgspec.Raw(b"")
    """What was let through, JSON; empty where the message could not be cut."""
    sha256: str = ""
    bytes: int = 0
    reason: str = ""
    """Value of `model.QuarantineReason`."""
    detail: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Body).decode
_BEGIN = b'{"video":"'


def field_name(name: str) -> str:
    """Return the name of a field as it may be told; `OTHER` where it is no name of a format."""
    return name if name.isascii() and _FIELD.fullmatch(name) else OTHER


def kept(name: str, cut: Cut) -> bytes:
    """Return the body of a message of format `name` that holds only what may be kept."""
    removed: dict[str, int] = {}
    for field, count in cut.removed.items():
        told = field_name(field)
        if len(removed) >= _FIELDS_MAX and told not in removed:
            told = OTHER
        removed[told] = removed.get(told, 0) + count
    return _encode(Body(name, removed, msgspec.Raw(cut.payload)))


def instead(name: str, payload: bytes, why: Rejected) -> bytes:
    """Return what stands in place of a message that could not be cut; nothing of it is in there."""
    digest = hashlib.sha256(payload).hexdigest()
    return _encode(Body(name, sha256=digest, bytes=len(payload), reason=why.reason, detail=why.detail))


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
    return Rejected(QuarantineReason(body.reason), f"{body.detail} ({body.bytes} bytes, sha256 {body.sha256[:16]}…)")
