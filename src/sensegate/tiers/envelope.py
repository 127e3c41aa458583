"""The envelope of every request between tiers and of its answer, and the greeting that comes first.

Both carry the protocol version and the term of the centre. Every release reads the envelope of ``hello``; the centre
chooses the newest version that both sides speak.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensegate.errors import PermissionDenied, Unavailable

PROTOCOL_VERSIONS = (1,)
"""Protocol versions that this release speaks, oldest first."""
ENVELOPE_BYTES = 1_024
"""Upper bound of what an envelope adds to its body."""
HELLO = "hello"
TERM_MAX = 2**40
"""Highest valid term: a request with a higher one is refused."""


class LinkRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request of a member to its centre."""

    version: int
    term: int
    """Highest term of a centre known to the sender."""
    question: str
    body: bytes


class LinkAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The answer of a centre."""

    version: int
    term: int
    value: bytes = b""
    refusal: str = ""
    """Reason of the refusal, and what to do; empty: the request was not refused."""
    unavailable: str = ""
    """Reason why the centre cannot answer now; empty: it has answered."""
    retry_after_s: float = 0.0
    """Above 0: nothing was processed; send the request again after this time."""


class MemberHello(msgspec.Struct, frozen=True, omit_defaults=True):
    """The greeting of a member that has connected."""

    versions: tuple[int, ...]
    release: str
    member: str
    term: int = 0
    writer: str = ""
    """Identity of the store whose log it forwards."""
    writer_epoch: int = 0


class Welcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a greeting."""

    version: int
    release: str
    term: int = 0
    active: bool = True
    """True if this centre takes spans."""
    clock: int = 0
    """Time of the centre, µs UTC."""


encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(LinkRequest).decode
_answer = msgspec.msgpack.Decoder(LinkAnswer).decode
decode_hello = msgspec.msgpack.Decoder(MemberHello).decode
decode_welcome = msgspec.msgpack.Decoder(Welcome).decode


def decode_request(payload: bytes) -> LinkRequest:
    """Decode a request. Raises `PermissionDenied` where the payload is none."""
    try:
        request = _request(payload)
    except (msgspec.DecodeError, RecursionError) as why:
        raise PermissionDenied(f"request: cannot be read ({why}); update the node") from why
    if not 0 <= request.term <= TERM_MAX:
        raise PermissionDenied("request: its term is out of bounds; check the node's term.json")
    return request


def decode_answer(payload: bytes) -> LinkAnswer:
    """Decode an answer. Raises `Unavailable` where the payload is none."""
    try:
        return _answer(payload)
    except (msgspec.DecodeError, RecursionError) as why:
        raise Unavailable(f"the centre's answer cannot be read: {why}") from why


def negotiated_version(offered: Sequence[int]) -> int:
    """Return the newest version that both sides speak.

    Raises:
        PermissionDenied: there is none; the text names the versions of both.
    """
    common = set(PROTOCOL_VERSIONS).intersection(offered)
    if not common:
        raise PermissionDenied(version_mismatch(offered))
    return max(common)


def version_mismatch(offered: Sequence[int]) -> str:
    """Return the error text for two sides that speak no common protocol version."""
    named = ", ".join(str(version) for version in offered[:8]) or "none"
    own = ", ".join(str(version) for version in PROTOCOL_VERSIONS)
    return f"protocol version: the node speaks {named}, the centre {own}; update the older one of the two"
