"""Who votes which of two centres is active, while nodes join and leave. Pure.

    Members, `nodes` ─▶ the active centre makes a version of the electorate ─▶ on its disk ─▶ told to nodes and standby
    a standby counts grants by its electorate; an active centre has its lease by each by which the other might count

Never two leases at once. A grant is for one term, once, on the node's disk before it is given; a centre counts no node
that has granted a later term to another. So where a majority has granted, no majority is left for the term before: of
the same electorate. Of two versions the active centre needs both majorities, until the older can elect nobody: the
other centre has one of this term, or half of the old voters know of one of this term, and grant to nobody who does not.
A node is counted from when the answer was given that it repeats, not from when it was heard: what lay in a queue while
a process stood still says nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

TermNumber = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
"""Of a term as others tell it: no term is later."""
INITIAL_VERSION = (0, 0)
"""Version of the electorate before any centre was active: the nodes of the configuration."""
LEASE_FRACTION = 0.75
"""Of the lease: so long a node that was heard counts for its active centre; it grants only after the whole."""


def voter_id(node: str, generation: int) -> str:
    """Return as whom a node votes: a machine in its place remembers nothing, and is another voter."""
    return f"{node}.{generation}" if generation else node


class LeaseRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node, or the other centre, tells a centre that it turns to."""

    term: TermNumber = 0
    """The highest that it has met."""
    granted_here: TermNumber = 0
    """The term that it grants this centre: it has met no active one for the whole lease; 0: none."""
    granted_elsewhere: TermNumber = 0
    """The highest term that it has granted to another centre."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Newest electorate that it has on its disk."""
    unreplicated: bool = False
    """It has on its disk that the active centre delivers alone."""
    stamp: tuple[int, float] = (0, 0.0)
    """Of the last answer of an active centre, as it came."""
    long_poll: bool = False
    """The answer may wait a moment for something new."""
    generation: int = 0
    """Of a node that joined: which machine it is."""

    def voter(self, division: str) -> str:
        """Return as whom this votes."""
        return voter_id(division, self.generation)


class VoterConfiguration(msgspec.Struct, frozen=True):
    """An electorate."""

    version: tuple[int, int] = INITIAL_VERSION
    """(term in which it was made, number in it)."""
    nodes: tuple[str, ...] = ()
    """As of `voter_id`."""

    def is_majority(self, some: Collection[str]) -> bool:
        """Return whether more than half are among some; of none everybody."""
        return not self.nodes or self._count(some) * 2 > len(self.nodes)

    def is_half(self, some: Collection[str]) -> bool:
        """Return whether so many are among some that the others are no majority."""
        return self._count(some) * 2 >= len(self.nodes)

    def _count(self, some: Collection[str]) -> int:
        return sum(node in some for node in self.nodes)


class Votes:
    """Grants of nodes as a standby gets them, by a clock that only rises."""

    def __init__(self, grant_s: float) -> None:
        self._grant_s = grant_s
        self._granted: dict[str, tuple[int, float]] = {}

    def add(self, node: str, term: int, now_s: float) -> None:
        """Take what a node says; `term`: that it grants; 0: none."""
        if term:
            self._granted[node] = term, now_s
        else:
            self._granted.pop(node, None)

    def has_majority(self, term: int, voters: Sequence[VoterConfiguration], now_s: float) -> bool:
        """Return whether more than half of every electorate grant a term now."""
        given = {node for node, (number, at) in self._granted.items() if number == term and now_s - at < self._grant_s}
        return bool(voters) and bool(voters[-1].nodes) and all(voter.is_majority(given) for voter in voters)


class Lease:
    """An active centre's side: whether it is still the one, and who votes."""

    def __init__(self, term: int, seat: int, lease_s: float, voters: tuple[VoterConfiguration, ...]) -> None:
        """`lease_id`: tells this one from every other; `voters`: electorates in force, as they are on the disk."""
        self._term = term
        self.lease_id = seat
        self._lease_s = lease_s * LEASE_FRACTION
        self.voters = tuple(
            voter for voter in voters if voter.version != INITIAL_VERSION
        )  # by the first only a first centre counts
        self._heard_at: dict[str, float] = {}
        self._voters_known: dict[str, tuple[int, int]] = {}
        self._knowing_unreplicated: set[str] = set()
        self._granted_elsewhere: set[str] = set()
        self._peer_version = INITIAL_VERSION

    def take_request(self, node: str, plea: LeaseRequest) -> None:
        """Take what a node says."""
        if plea.granted_elsewhere > self._term:
            self._granted_elsewhere.add(node)  # from now on it counts for the other, if for anybody
            self._voters_known.pop(node, None)
            self._knowing_unreplicated.discard(node)
        if node in self._granted_elsewhere:
            return
        if plea.stamp[0] == self.lease_id:
            self._heard_at[node] = max(plea.stamp[1], self._heard_at.get(node, plea.stamp[1]))
        self._voters_known[node] = max(plea.voters_version, self._voters_known.get(node, INITIAL_VERSION))
        (self._knowing_unreplicated.add if plea.unreplicated else self._knowing_unreplicated.discard)(node)

    def confirm_peer(self, version: tuple[int, int]) -> None:
        """Say which electorate the other centre has on its disk: it counts by none before."""
        self._peer_version = max(self._peer_version, version)

    def present_nodes(self, now_s: float) -> set[str]:
        """Return the nodes that count now."""
        lately = {node for node, at in self._heard_at.items() if now_s - at < self._lease_s}
        return lately - self._granted_elsewhere

    def is_held(self, now_s: float) -> bool:
        """Return whether no other centre can have been granted a later term."""
        here = self.present_nodes(now_s)
        return all(voter.is_majority(here) for voter in self.voters)

    def is_unreplicated_known(self) -> bool:
        """Return whether so many know that we deliver alone that the other cannot be granted."""
        return all(voter.is_half(self._knowing_unreplicated) for voter in self.voters)

    def clear_unreplicated(self) -> None:
        """Forget who knew that we deliver alone: we do not any more."""
        self._knowing_unreplicated.clear()

    def next_voters(
        self, configured: Collection[str], joined: Collection[str], now_s: float
    ) -> tuple[VoterConfiguration, ...]:
        """Return the electorates that are to be in force; those that differ from `voters` go to the disk first.

        A node that joined votes from when it was heard here: one that cannot reach us, or knows no other centre, is
        not to be missed.
        """
        present = self.voters[-1] if self.voters else VoterConfiguration()
        here = self.present_nodes(now_s)
        nodes = tuple(sorted({*configured, *(one for one in joined if one in present.nodes or one in here)}))
        found = self.voters
        if nodes != present.nodes or present.version[0] != self._term:
            number = present.version[1] + 1 if present.version[0] == self._term else 1
            found = (*found, VoterConfiguration((self._term, number), nodes))
        return tuple(one for one, after in pairwise(found) if not self._is_superseded(one, after)) + found[-1:]

    def _is_superseded(self, old: VoterConfiguration, after: VoterConfiguration) -> bool:
        """Return whether nobody can be granted by an electorate any more, after which there is another.

        Only one of this term counts: the other centre may have made one of an earlier term after the same old one, and
        who knows less than that grants it.
        """
        ours = max(after.version, (self._term, 1))
        newer = {node for node, version in self._voters_known.items() if version >= ours}
        return self._peer_version >= ours or old.is_half(newer)
