"""Terms of centres: which of two is active, so that never both are. Pure, but for the file that remembers the term.

A term belongs to one centre; a higher one ends every lower. Nodes remember the highest that they have met and turn away
from a centre of a lower one, which learns of it so. A term begins by order, or where more than half of the nodes grant
it: a node grants a term once, and only when it has not met its active centre for the whole lease. Who may grant, and
how an active centre knows that nobody else was granted: `voters.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import msgspec

from sensegate.errors import ConfigError
from sensegate.failover.lease import FIRST, Plea, Voters

FILE = "term.json"
GRANT_S = 4.0
"""A grant that was not given again for so long has ended."""
NEWS_S = 1.0
"""A node that knows all is answered so late, or at once when there is something new."""
APART_S = 3 * GRANT_S
"""A node grants to another centre only so long after its last grant to the one before: votes are not split for ever."""


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """The highest term that a gateway knows, and whether it is its own."""

    number: int = 0
    active: bool = False
    """Of a centre: the term is its own."""
    alone: bool = False
    """Of a centre: since it delivers what the other has not, the other may not take over by itself.

    Of a node: so was its active centre when it was met last.
    """
    history: tuple[tuple[int, int], ...] = ()
    """Of a centre: (term, last sequence of the log when it began), of its log's past."""
    lapsed: bool = False
    """Of a centre: the nodes have left it in this term, which is not taken up again."""
    voters: tuple[Voters, ...] = ()
    """Of a centre: every electorate by which a vote may still be counted, oldest first; the last is in force."""
    known: tuple[int, int] = FIRST
    """Of a node: newest electorate that it has heard of."""
    granted: int = 0
    """Of a node: the highest term that it has granted."""
    granted_to: str = ""
    met_at: str = ""
    """Of a node: the active centre that it met last."""

    def diverged(self, history: tuple[tuple[int, int], ...], held: int) -> bool:
        """Return whether a log that ends with `held` has what a later term of another history never had."""
        known = self.history[-1][0] if self.history else 0
        return any(term > known and began < held for term, began in history)


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a centre answers."""

    active: bool
    term: int
    alone: bool = False
    wants: bool = False
    """It would become active if the nodes grant it."""
    would: int = 0
    """The term that it would begin."""
    version: tuple[int, int] = FIRST
    """Of the electorate by which it counts."""
    stamp: tuple[int, float] = (0, 0.0)
    """Seat, and when this was answered by its clock."""
    lease_s: float = 0.0
    voters: Voters | None = None
    """For the other centre: who votes from now on."""


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


class Choice:
    """A node's side: whom it follows, and whom it grants. `kept` must be on the disk before it is told to anybody."""

    def __init__(self, lease_s: float, kept: Term | None = None, *, name: str = "") -> None:
        """`kept`: what is on the disk; `name`: of the node, by which nodes differ in patience."""
        self._lease_s = lease_s
        self._name = name
        self._changes = 0
        """How often another centre was granted."""
        self.kept = kept or Term()
        self._met: float | None = None
        self._given: tuple[str, float] | None = None
        self._since = 0.0
        """When we began to grant that centre."""
        self._stamp = (0, 0.0)

    def plea(self, centre: str, *, grant: int = 0, wait: bool = False, generation: int = 0) -> Plea:
        """Return what is told to a centre."""
        kept = self.kept
        granted = 0 if kept.granted_to == centre else kept.granted
        return Plea(kept.number, grant, granted, kept.known, kept.alone, self._stamp, wait, generation)

    def follows(self, state: State) -> bool:
        """Return whether this is the centre that is active, of no lower term than we have met."""
        return state.active and state.term >= self.kept.number

    def met(self, centre: str, state: State, now_s: float) -> bool:
        """Say that an active centre was met; return whether it should hear at once what we know now."""
        first = self._stamp[0] != state.stamp[0]
        self._met, self._given, self._stamp = now_s, None, state.stamp
        self._lease_s = max(self._lease_s, state.lease_s)
        before, known = self.kept, max(self.kept.known, state.version)
        self.kept = msgspec.structs.replace(before, number=state.term, alone=state.alone, known=known, met_at=centre)
        return first or self.kept != before

    def granted(self, centre: str, now_s: float) -> bool:
        """Return whether this is the centre that is granted at the moment: it is looked at again at once."""
        given = self._given is not None and self._given[0] == centre and now_s - self._given[1] < GRANT_S
        return given and self._is_patient(now_s)

    def _is_patient(self, now_s: float) -> bool:
        """Return whether the centre that is granted may still come of it: half of the nodes may grant the other one.

        For how long differs by node and by turn, so that halves do not change sides together.
        """
        part = crc32(f"{self._name} {self._changes}".encode()) / 2**32
        return now_s - self._since < APART_S * (1 + part)

    def grants(self, centre: str, state: State, now_s: float) -> bool:
        """Return whether a centre that wants to be active is granted its term now."""
        kept = self.kept
        if self._met is None:
            self._met = now_s  # since we began
        if not state.wants or now_s - self._met < self._lease_s:
            return False
        if kept.alone and centre != kept.met_at:
            return False  # it has not all that was delivered
        # Who counts by an electorate older than we know of might count without those who vote now. A node in a new
        # store knows of none: it first meets an active centre, but where there never was one.
        if state.version != kept.known and (kept.known == FIRST or state.version < kept.known):
            return False
        again = state.would == kept.granted and centre == kept.granted_to
        if state.would <= kept.number or not (again or state.would > kept.granted):
            return False
        if self._given is None or self._given[0] != centre:
            if self._given and self._is_patient(now_s) and now_s - self._given[1] < APART_S:
                return False
            self._since, self._changes = now_s, self._changes + 1
        self._given = centre, now_s
        if not again:
            self.kept = msgspec.structs.replace(kept, granted=state.would, granted_to=centre)
        return True
