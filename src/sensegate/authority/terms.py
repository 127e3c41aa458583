"""Terms of centres: which of two is active, so that never both are. Pure, but for the file that remembers the term.

A term belongs to one centre; a higher one ends every lower. Nodes remember the highest that they have met and turn away
from a centre of a lower one, which learns of it so. A term begins by order, or where more than half of the nodes grant
it: a node grants to one centre at a time, and only when it has not met its active centre for the whole lease.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from sensegate.errors import ConfigError

FILE = "term.json"
GRANT_S = 4.0
"""A grant that was not given again for so long has ended."""
APART_S = 3 * GRANT_S
"""A node grants to another centre only so long after its last grant to the one before."""


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """The highest term that a gateway knows, and whether it is its own."""

    number: int = 0
    active: bool = False
    """Of a centre: the term is its own."""
    alone: bool = False
    """Of a centre: since it delivers what the other has not, the other may not take over by itself."""
    history: tuple[tuple[int, int], ...] = ()
    """Of a centre: (term, last sequence of the log when it began), of its log's past."""

    def diverged(self, history: tuple[tuple[int, int], ...], held: int) -> bool:
        """Return whether a log that ends with `held` has what a later term of another history never had."""
        known = self.history[-1][0] if self.history else 0
        return any(term > known and began < held for term, began in history)


class Plea(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node, or the other centre, tells a centre that it turns to."""

    term: int = 0
    """The highest that it has met."""
    grant: bool = False
    """It has met no active centre for the whole lease, and would follow this one."""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a centre answers."""

    active: bool
    term: int
    alone: bool = False
    wants: bool = False
    """It would become active if the nodes grant it."""


encode = msgspec.msgpack.Encoder().encode
decode_plea = msgspec.msgpack.Decoder(Plea).decode
decode_state = msgspec.msgpack.Decoder(State).decode


def read(directory: Path) -> Term:
    """Return the term that a gateway remembers. Raises `ConfigError` where its file cannot be read."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Term)
    except FileNotFoundError:
        return Term()
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(directory / FILE), remedy="restore it") from why


def write(directory: Path, term: Term) -> None:
    """Remember a term; on the disk when this returns."""
    fresh = directory / f"{FILE}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(term))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / FILE)


class Votes:
    """Grants of nodes as they come in, by a clock that only rises."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = frozenset(nodes)
        self._granted: dict[str, float] = {}

    def add(self, division: str, now_s: float, *, grant: bool) -> None:
        """Take what a node says."""
        if division in self._nodes and grant:
            self._granted[division] = now_s
        else:
            self._granted.pop(division, None)

    def enough(self, now_s: float) -> bool:
        """Return whether more than half of all nodes grant now."""
        return sum(now_s - given < GRANT_S for given in self._granted.values()) * 2 > len(self._nodes)


class Choice:
    """A node's side: whom it grants."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._met: float | None = None
        self._given: tuple[str, float] | None = None
        self.alone = False
        """The active centre delivered without the other when it was met last."""

    def met(self, now_s: float, *, alone: bool) -> None:
        """Say that an active centre was met."""
        self._met, self.alone, self._given = now_s, alone, None

    def granted(self, centre: str, now_s: float) -> bool:
        """Return whether this is the centre that is granted at the moment: it is looked at again at once."""
        return self._given is not None and self._given[0] == centre and now_s - self._given[1] < GRANT_S

    def grants(self, centre: str, state: State, now_s: float) -> bool:
        """Return whether a centre that wants to be active is granted it now; remembers that it was."""
        if self._met is None:
            self._met = now_s  # since we began
        if not state.wants or self.alone or now_s - self._met < self._lease_s:
            return False
        if self._given and self._given[0] != centre and now_s - self._given[1] < APART_S:
            return False
        self._given = centre, now_s
        return True
