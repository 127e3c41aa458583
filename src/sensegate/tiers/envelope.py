"""The envelope of every request between tiers and of its answer, and the greeting that comes first.

Both carry the form in which they are written and the term of the centre. The envelope of ``hello`` is read by every
release; the centre chooses the newest form that both sides speak.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensegate.errors import PermissionDenied, Unavailable

PROTOCOL_VERSIONS = (1,)
"""Forms of the requests that this release speaks, oldest first."""
ENVELOPE_BYTES = 1_024
"""More than an envelope adds to its body."""
HELLO = "hello"
TERM_MAX = 2**40
"""No term is later: what claims to be so is no request."""


class LinkRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a member asks."""

    version: int
    term: int
    """Highest term of a centre that the sender knows."""
    question: str
    body: bytes


class LinkAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What a centre answers."""

    version: int
    term: int
    value: bytes = b""
    refusal: str = ""
    """Why not, and what to do; empty: it was not refused."""
    unavailable: str = ""
    """Why the centre cannot answer now; empty: it can."""
    retry_after_s: float = 0.0
    """Nothing was taken; ask again after so long."""


class MemberHello(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a member tells of itself when it has connected."""

    versions: tuple[int, ...]
    release: str
    member: str
    term: int = 0
    writer: str = ""
    """Identity of its uplink."""
    writer_epoch: int = 0


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the centre answers to that."""

    version: int
    release: str
    term: int = 0
    active: bool = True
    """Whether this centre takes spans."""
    clock: int = 0
    """Its time, µs UTC."""


encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(LinkRequest).decode
_answer = msgspec.msgpack.Decoder(LinkAnswer).decode
decode_hello = msgspec.msgpack.Decoder(MemberHello).decode
decode_welcome = msgspec.msgpack.Decoder(Welcome).decode


def decode_request(payload: bytes) -> LinkRequest:
    """Return a request. Raises `PermissionDenied` where it is none."""
    try:
        request = _request(payload)
    except (msgspec.DecodeError, RecursionError) as why:
        raise PermissionDenied(f"request: cannot be read ({why}); update the node") from why
    if not 0 <= request.term <= TERM_MAX:
        raise PermissionDenied("request: its term is out of bounds; check the node's term.json")
    return request


def decode_answer(payload: bytes) -> LinkAnswer:
    """Return an answer. Raises `Unavailable` where it is none."""
    try:
        return _answer(payload)
    except (msgspec.DecodeError, RecursionError) as why:
        raise Unavailable(f"the centre's answer cannot be read: {why}") from why


def negotiated_version(theirs: Sequence[int]) -> int:
    """Return the newest form that both sides speak. Raises `PermissionDenied` naming both where there is none."""
    common = set(PROTOCOL_VERSIONS).intersection(theirs)
    if not common:
        raise PermissionDenied(version_mismatch(theirs))
    return max(common)


def version_mismatch(theirs: Sequence[int]) -> str:
    """Return that no form is common, naming those of both sides."""
    named = ", ".join(str(form) for form in theirs[:8]) or "none"
    ours = ", ".join(str(form) for form in PROTOCOL_VERSIONS)
    return f"form: the node speaks {named}, the centre {ours}; update the older one of the two"
