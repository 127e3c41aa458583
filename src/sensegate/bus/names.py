"""The one way from an id to a token of a subject.

Subjects are lines of a text protocol with `.`, `*`, `>` and white space as syntax, so an id never enters one as it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from sensegate.errors import ConfigError

Token = NewType("Token", str)
"""Characters of ``[A-Za-z0-9_~-]``, never empty."""

READINGS, OBSERVATIONS = "readings", "observations"
LOGGED = (READINGS, OBSERVATIONS)
"""First tokens of the subjects whose members are batches of rows that subscribers may see."""
ROWS = tuple(f"{kind}." for kind in LOGGED)
"""With these the subjects begin."""
FILLER = "seen.filler"
"""Of empty members that take sequences which must not be given again."""


class RowsSubject(NamedTuple):
    """What the subject of an entry of rows says."""

    kind: str
    node: str
    place: str
    """A county; ``all`` of what a node brought up, ``back`` of what its centre gave back to it."""
    grade: int


def rows_subject(subject: str) -> RowsSubject | None:
    """Return the parts of ``<kind>.<node>.<place>.<grade>``; None: it is no subject of rows."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[0] not in LOGGED or not (len(parts[3]) == 1 and parts[3] in "0123456789"):
        return None
    kind, node, place, grade = parts
    return RowsSubject(kind, node, place, int(grade))


_PARTITION = re.compile(r"-[0-9]+$")


def node_of(subject: str) -> str:
    """Return the node in a subject such as ``ledger.<node>`` or ``ledger.<node>-<partition>``.

    The id of a node never ends in a dash and digits (`authority.members`).
    """
    return _PARTITION.sub("", subject.partition(".")[2])


def city_of(node: str) -> str:
    """Return the division of a node; its id begins with it (``4401``, ``4401-port``)."""
    return node.partition("-")[0]


ID_BYTES_MAX = 128
_EMPTY = "~"
_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|~[0-9a-f]{2})+")


def token(name: str) -> Token:
    """Return `name` as one token: bytes of its UTF-8 outside ``[A-Za-z0-9_-]`` as ``~xx``. Injective, reversible.

    Raises:
        ConfigError: `name` has more than 128 bytes or is not Unicode text (a lone surrogate).
    """
    if name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= ID_BYTES_MAX:
        return Token(name)
    try:
        raw = name.encode()
    except UnicodeEncodeError as why:
        raise ConfigError("id is not Unicode text", remedy="send ids as UTF-8") from why
    if len(raw) > ID_BYTES_MAX:
        raise ConfigError(f"id of {len(raw)} bytes", remedy=f"ids have at most {ID_BYTES_MAX}")
    if not raw:
        return Token(_EMPTY)
    return Token("".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"~{byte:02x}" for byte in raw))


def name_of(made: str) -> str:
    """Return the id of which `token` made this.

    Raises:
        ConfigError: `token` never makes this.
    """
    if made == _EMPTY:
        return ""
    if not _TOKEN.fullmatch(made):
        raise ConfigError(f"not a token: {made[:200]!r}")
    first, *rest = made.encode().split(b"~")
    raw = first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest)
    try:
        name = raw.decode()
    except UnicodeDecodeError as why:
        raise ConfigError(f"not a token: {made[:200]!r}") from why
    if token(name) != made:
        raise ConfigError(f"not a token: {made[:200]!r}")
    return name
