"""Subjects of the log, and the encoding of ids as tokens of a subject.

`.`, `*`, `>` and white space have a meaning in a subject, so an id is always encoded before it becomes part of one.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NewType

from sensegate.errors import ConfigError

Token = NewType("Token", str)
"""Non-empty string of the characters ``[A-Za-z0-9_~-]``."""

READINGS, OBSERVATIONS = "readings", "observations"
ROW_KINDS = (READINGS, OBSERVATIONS)
"""First tokens of the subjects whose messages are batches of rows that subscribers may read."""
ROW_PREFIXES = tuple(f"{kind}." for kind in ROW_KINDS)
"""Prefixes of the subjects of rows."""
ALARM_EVENTS, ALARM_STATES = "alarms", "alarm"
"""First tokens of the subjects of events of alarms, which are rows too, and of their newest states."""
SHARED_KINDS = (*ROW_KINDS, ALARM_EVENTS)
SHARED_PREFIXES = tuple(f"{kind}." for kind in SHARED_KINDS)
"""Prefixes of the subjects of everything that subscribers may read."""
OWN_AREA = "own"
PARTITION = 0
"""Number behind the node's id in record ids and in subjects such as ``commit.<node>-0``: a node has one committer."""
PADDING_SUBJECT = "seen.filler"
"""Subject of padding: empty messages that use up sequences which must not be assigned again."""


class RowsSubject(NamedTuple):
    """Parts of the subject of an entry of rows."""

    kind: str
    node: str
    area: str
    """``own`` for rows of the gateway's own commits, ``all`` for rows that a node uploaded, ``back`` for rows that its
    centre returned to it. Each spans the counties of the node."""
    grade: int


def rows_subject(subject: str) -> RowsSubject | None:
    """Return the parts of ``<kind>.<node>.<area>.<grade>``; None: it is not a subject of rows."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[0] not in SHARED_KINDS or not (len(parts[3]) == 1 and parts[3] in "0123456789"):
        return None
    kind, node, place, grade = parts
    return RowsSubject(kind, node, place, int(grade))


_PARTITION = re.compile(r"-[0-9]+$")


def node_of(subject: str) -> str:
    """Return the node in a subject such as ``ledger.<node>`` or ``ledger.<node>-<partition>``.

    The id of a node never ends in a dash and digits (`tiers.members`).
    """
    return _PARTITION.sub("", subject.partition(".")[2])


def writer_of(node: str) -> str:
    """Return the last token of the subjects that a node's committer writes."""
    return f"{node}-{PARTITION}"


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
        raise ConfigError("the id is not Unicode text", remedy="send ids as UTF-8") from why
    if len(raw) > ID_BYTES_MAX:
        raise ConfigError(f"the id has {len(raw)} bytes", remedy=f"use at most {ID_BYTES_MAX}")
    if not raw:
        return Token(_EMPTY)
    return Token("".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"~{byte:02x}" for byte in raw))


def name_of(encoded: str) -> str:
    """Return the id that `token` encoded.

    Raises:
        ConfigError: it is not the encoding of any id.
    """
    if encoded == _EMPTY:
        return ""
    if not _TOKEN.fullmatch(encoded):
        raise ConfigError(f"not a token: {encoded[:200]!r}")
    first, *escaped = encoded.encode().split(b"~")
    raw = first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in escaped)
    try:
        name = raw.decode()
    except UnicodeDecodeError as why:
        raise ConfigError(f"not a token: {encoded[:200]!r}") from why
    if token(name) != encoded:
        raise ConfigError(f"not a token: {encoded[:200]!r}")
    return name
