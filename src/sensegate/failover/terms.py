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
from sensegate.failover.lease import INITIAL_VERSION, LeaseRequest, VoterConfiguration

FILE = "term.json"
GRANT_S = 4.0
"""A grant that was not given again for so long has ended."""
LONG_POLL_S = 1.0
"""A node that knows all is answered so late, or at once when there is something new."""
REVOTE_S = 3 * GRANT_S
"""A node grants to another centre only so long after its last grant to the one before: votes are not split for ever."""


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """The highest term that a gateway knows, and whether it is its own."""

    number: int = 0
    active: bool = False
    """Of a centre: the term is its own."""
    unreplicated: bool = False
    """Of a centre: since it delivers what the other has not, the other may not take over by itself.

    Of a node: so was its active centre when it was met last.
    """
    history: tuple[tuple[int, int], ...] = ()
    """Of a centre: (term, last sequence of the log when it began), of its log's past."""
    lapsed: bool = False
    """Of a centre: the nodes have left it in this term, which is not taken up again."""
    voters: tuple[VoterConfiguration, ...] = ()
    """Of a centre: every electorate by which a vote may still be counted, oldest first; the last is in force."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Of a node: newest electorate that it has heard of."""
    granted: int = 0
    """Of a node: the highest term that it has granted."""
    granted_to: str = ""
    followed: str = ""
    """Of a node: the active centre that it met last."""

    def diverged(self, history: tuple[tuple[int, int], ...], held: int) -> bool:
        """Return whether a log that ends with `held` has what a later term of another history never had."""
        known = self.history[-1][0] if self.history else 0
        return any(term > known and began < held for term, began in history)


class CentreState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a centre answers."""

    active: bool
    term: int
    unreplicated: bool = False
    is_candidate: bool = False
    """It would become active if the nodes grant it."""
    proposed_term: int = 0
    """The term that it would begin."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Of the electorate by which it counts."""
    stamp: tuple[int, float] = (0, 0.0)
    """Seat, and when this was answered by its clock."""
    lease_s: float = 0.0
    voters: VoterConfiguration | None = None
    """For the other centre: who votes from now on."""


encode = msgspec.msgpack.Encoder().encode
decode_lease_request = msgspec.msgpack.Decoder(LeaseRequest).decode
decode_state = msgspec.msgpack.Decoder(CentreState).decode


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


class CentreChoice:
    """A node's side: whom it follows, and whom it grants. `term` must be on the disk before it is told to anybody."""

    def __init__(self, lease_s: float, term: Term | None = None, *, name: str = "") -> None:
        """`term`: what is on the disk; `name`: of the node, by which nodes differ in patience."""
        self._lease_s = lease_s
        self._name = name
        self._changes = 0
        """How often another centre was granted."""
        self.term = term or Term()
        self._active_met_at: float | None = None
        self._grant: tuple[str, float] | None = None
        self._grant_since = 0.0
        """When we began to grant that centre."""
        self._stamp = (0, 0.0)

    def lease_request(self, centre: str, *, grant: int = 0, wait: bool = False, generation: int = 0) -> LeaseRequest:
        """Return what is told to a centre."""
        kept = self.term
        granted = 0 if kept.granted_to == centre else kept.granted
        return LeaseRequest(
            kept.number, grant, granted, kept.voters_version, kept.unreplicated, self._stamp, wait, generation
        )

    def follows(self, state: CentreState) -> bool:
        """Return whether this is the centre that is active, of no lower term than we have met."""
        return state.active and state.term >= self.term.number

    def note_active(self, centre: str, state: CentreState, now_s: float) -> bool:
        """Say that an active centre was met; return whether it should hear at once what we know now."""
        first = self._stamp[0] != state.stamp[0]
        self._active_met_at, self._grant, self._stamp = now_s, None, state.stamp
        self._lease_s = max(self._lease_s, state.lease_s)
        before, known = self.term, max(self.term.voters_version, state.voters_version)
        self.term = msgspec.structs.replace(
            before, number=state.term, unreplicated=state.unreplicated, voters_version=known, followed=centre
        )
        return first or self.term != before

    def is_granting(self, centre: str, now_s: float) -> bool:
        """Return whether this is the centre that is granted at the moment: it is looked at again at once."""
        given = self._grant is not None and self._grant[0] == centre and now_s - self._grant[1] < GRANT_S
        return given and self._is_patient(now_s)

    def _is_patient(self, now_s: float) -> bool:
        """Return whether the centre that is granted may still come of it: half of the nodes may grant the other one.

        For how long differs by node and by turn, so that halves do not change sides together.
        """
        part = crc32(f"{self._name} {self._changes}".encode()) / 2**32
        return now_s - self._grant_since < REVOTE_S * (1 + part)

    def grant(self, centre: str, state: CentreState, now_s: float) -> bool:
        """Return whether a centre that wants to be active is granted its term now."""
        kept = self.term
        if self._active_met_at is None:
            self._active_met_at = now_s  # since we began
        if not state.is_candidate or now_s - self._active_met_at < self._lease_s:
            return False
        if kept.unreplicated and centre != kept.followed:
            return False  # it has not all that was delivered
        # Who counts by an electorate older than we know of might count without those who vote now. A node in a new
        # store knows of none: it first meets an active centre, but where there never was one.
        if state.voters_version != kept.voters_version and (
            kept.voters_version == INITIAL_VERSION or state.voters_version < kept.voters_version
        ):
            return False
        again = state.proposed_term == kept.granted and centre == kept.granted_to
        if state.proposed_term <= kept.number or not (again or state.proposed_term > kept.granted):
            return False
        if self._grant is None or self._grant[0] != centre:
            if self._grant and self._is_patient(now_s) and now_s - self._grant[1] < REVOTE_S:
                return False
            self._grant_since, self._changes = now_s, self._changes + 1
        self._grant = centre, now_s
        if not again:
            self.term = msgspec.structs.replace(kept, granted=state.proposed_term, granted_to=centre)
        return True
