"""Terms of centres, by which at most one of two is active. Pure, but for the file that stores the term.

A term belongs to one centre; a higher one ends every lower one. Nodes store the highest term that they have met and
turn away from a centre of a lower one, which learns of the higher term in this way. A term begins by order, or when
more than half of the nodes grant it: a node grants a term once, and only if it has not met its active centre for a
whole lease. Who may grant, and how an active centre knows that no other was granted: `lease.py`.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import msgspec

from sensegate.bus.files import write_private
from sensegate.errors import ConfigError
from sensegate.failover.lease import INITIAL_VERSION, LeaseRequest, TermNumber, VoterConfiguration

FILE = "term.json"
GRANT_S = 4.0
"""Time after which a grant ends unless it is repeated."""
LONG_POLL_S = 1.0
"""Longest delay of the answer to a node that is up to date; news is answered at once."""
REVOTE_S = 3 * GRANT_S
"""Time between a node's last grant to one centre and its first grant to another, so that a split vote ends."""


class Term(msgspec.Struct, frozen=True, omit_defaults=True):
    """The highest term that a gateway knows, as stored on its disk."""

    number: int = 0
    active: bool = False
    """Centre: whether the term is its own."""
    unreplicated: bool = False
    """Centre: whether it delivers unreplicated records, so that the other may not take over by itself.

    Node: whether its active centre did when it was met last.
    """
    history: tuple[tuple[int, int], ...] = ()
    """Centre: (term, last sequence of the log when the term began) for each term of its log."""
    lapsed: bool = False
    """Centre: whether the nodes have left it in this term, which it must not resume."""
    partial: bool = False
    """Standby: whether its copy of the log may end in a state that the log never had: it does not take over by itself.
    """
    voters: tuple[VoterConfiguration, ...] = ()
    """Centre: every voter configuration by which a vote may still be counted, oldest first; the last is in force."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Node: newest voter configuration that it knows."""
    granted: int = 0
    """Node: the highest term that it has granted."""
    granted_to: str = ""
    """Node: address of the centre to which it was granted."""
    followed: str = ""
    """Node: address of the active centre that it met last."""

    def diverged(self, history: tuple[tuple[int, int], ...], last: int) -> bool:
        """Return whether a log that ends with sequence `last` has entries that a later term never had."""
        known = self.history[-1][0] if self.history else 0
        return any(term > known and began < last for term, began in history)


class CentreState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of a centre to a lease request."""

    active: bool
    term: TermNumber
    unreplicated: bool = False
    is_candidate: bool = False
    """True if it becomes active if the nodes grant it."""
    proposed_term: TermNumber = 0
    """Term that it would begin."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Version of the voter configuration by which it counts."""
    stamp: tuple[int, float] = (0, 0.0)
    """(lease id, time of this answer by the centre's clock)."""
    lease_s: float = 0.0
    voters: VoterConfiguration | None = None
    """Voter configuration from now on; sent to the other centre only."""


encode = msgspec.msgpack.Encoder().encode
decode_lease_request = msgspec.msgpack.Decoder(LeaseRequest).decode
decode_state = msgspec.msgpack.Decoder(CentreState).decode


def read(directory: Path) -> Term:
    """Return the stored term of a gateway. Raises `ConfigError` where its file cannot be read."""
    try:
        return msgspec.json.decode((directory / FILE).read_bytes(), type=Term)
    except FileNotFoundError:
        return Term()
    except (OSError, msgspec.DecodeError) as why:
        raise ConfigError(f"cannot be read: {why}", file=str(directory / FILE), remedy="restore it") from why


def write(directory: Path, term: Term) -> None:
    """Store a term; it is on the disk when this returns."""
    write_private(directory / FILE, msgspec.json.encode(term))


class CentreChoice:
    """A node's side: which centre it follows, and which it grants. `term` must be on the disk before it is sent."""

    def __init__(self, lease_s: float, term: Term | None = None, *, name: str = "") -> None:
        """Start to choose.

        Args:
            lease_s: duration of the lease.
            term: as stored on the disk.
            name: of the node, by which nodes differ in their patience.
        """
        self._lease_s = lease_s
        self._name = name
        self._changes = 0
        """Number of changes of the granted centre."""
        self.term = term or Term()
        self._active_met_at: float | None = None
        self._grant: tuple[str, float] | None = None
        self._grant_since = 0.0
        """Time of the first grant to the present centre."""
        self._stamp = (0, 0.0)

    def lease_request(self, centre: str, *, grant: int = 0, wait: bool = False, generation: int = 0) -> LeaseRequest:
        """Return the lease request to a centre."""
        term = self.term
        granted_elsewhere = 0 if term.granted_to == centre else term.granted
        return LeaseRequest(
            term.number,
            grant,
            granted_elsewhere,
            term.voters_version,
            term.unreplicated,
            self._stamp,
            wait,
            generation,
        )

    def follows(self, state: CentreState) -> bool:
        """Return whether a centre is active in no lower term than the highest one met."""
        return state.active and state.term >= self.term.number

    def note_active(self, centre: str, state: CentreState, now_s: float) -> bool:
        """Record that an active centre was met; return whether it should get our new state at once."""
        is_first = self._stamp[0] != state.stamp[0]
        self._active_met_at, self._grant, self._stamp = now_s, None, state.stamp
        self._lease_s = max(self._lease_s, state.lease_s)
        before, known = self.term, max(self.term.voters_version, state.voters_version)
        self.term = msgspec.structs.replace(
            before, number=state.term, unreplicated=state.unreplicated, voters_version=known, followed=centre
        )
        return is_first or self.term != before

    def is_granting(self, centre: str, now_s: float) -> bool:
        """Return whether this node grants a centre at present, and so contacts it again at once."""
        is_granted = self._grant is not None and self._grant[0] == centre and now_s - self._grant[1] < GRANT_S
        return is_granted and self._is_patient(now_s)

    def _is_patient(self, now_s: float) -> bool:
        """Return whether to wait for the granted centre to win: half of the nodes may grant the other one.

        The time differs by node and by change, so that the halves do not change sides together.
        """
        jitter = crc32(f"{self._name} {self._changes}".encode()) / 2**32
        return now_s - self._grant_since < REVOTE_S * (1 + jitter)

    def grant(self, centre: str, state: CentreState, now_s: float) -> bool:
        """Decide whether to grant its proposed term to a candidate; record the grant."""
        term = self.term
        if self._active_met_at is None:
            self._active_met_at = now_s  # as if met when this node started
        if not state.is_candidate or now_s - self._active_met_at < self._lease_s:
            return False
        if term.unreplicated and centre != term.followed:
            return False  # it lacks records that were delivered
        # A candidate with an older voter configuration than we know might count without the present voters. A node with
        # a new store knows none: it must first meet an active centre, unless there never was one.
        if state.voters_version != term.voters_version and (
            term.voters_version == INITIAL_VERSION or state.voters_version < term.voters_version
        ):
            return False
        is_repeated = state.proposed_term == term.granted and centre == term.granted_to
        if state.proposed_term <= term.number or not (is_repeated or state.proposed_term > term.granted):
            return False
        if self._grant is None or self._grant[0] != centre:
            if self._grant and self._is_patient(now_s) and now_s - self._grant[1] < REVOTE_S:
                return False
            self._grant_since, self._changes = now_s, self._changes + 1
        self._grant = centre, now_s
        if not is_repeated:
            self.term = msgspec.structs.replace(term, granted=state.proposed_term, granted_to=centre)
        return True
