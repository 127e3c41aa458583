"""The lease of the active centre, and the voters that decide which of two centres has it. Pure.

    members, `nodes` ─▶ the active centre makes a new voter configuration ─▶ on its disk ─▶ sent to nodes and standby
    a standby counts grants by its configuration; an active centre holds its lease by every configuration by which the
    other centre might count

There are never two leases at once. A node grants a term once, with the grant on its disk before it is sent; a centre
does not count a node that has granted a later term to the other. So where a majority has granted a term, no majority is
left for the term before, as long as the configuration is the same. Of two configurations the active centre needs both
majorities, until the older one can elect nobody: the other centre has one of this term, or half of the old voters know
one of this term, and grant to no centre that does not.

A node counts from the time of the answer that it repeats, not from the arrival of its request: a request that lay in a
queue while a process stood still proves nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Annotated

import msgspec

TermNumber = Annotated[int, msgspec.Meta(ge=0, le=2**40)]
"""A term in a request; higher ones are invalid."""
LEAP_MAX = 1_000
"""Greatest distance of a term that a single node reports from the highest that is known otherwise. Terms rise by one or
two with each fail-over: a node that reports more lies, unless a majority of the voters reports as much."""
INITIAL_VERSION = (0, 0)
"""Version of the voter configuration before any centre was active: the nodes of the configuration file."""
LEASE_FRACTION = 0.75
"""Fraction of the lease for which a node counts for its active centre; the node grants only after the whole lease."""


def voter_id(node: str, generation: int) -> str:
    """Return the identity under which a node votes: a replacing machine has no memory, and is another voter."""
    return f"{node}.{generation}" if generation else node


class LeaseRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Request of a node, or of the other centre, to a centre that may be active."""

    term: TermNumber = 0
    """Highest term that the sender has met."""
    granted_here: TermNumber = 0
    """Term that the node grants to this centre, after a whole lease without an active one; 0: none."""
    granted_elsewhere: TermNumber = 0
    """Highest term that the node has granted to another centre."""
    voters_version: tuple[int, int] = INITIAL_VERSION
    """Newest voter configuration on the sender's disk."""
    unreplicated: bool = False
    """True if the node has on its disk that the active centre delivers unreplicated records."""
    stamp: tuple[int, float] = (0, 0.0)
    """Stamp of the last answer of an active centre, as it came."""
    long_poll: bool = False
    """True if the answer may wait a moment for news."""
    generation: int = 0
    """Generation of a node that joined."""

    def voter(self, division: str) -> str:
        """Return the identity under which the sender votes."""
        return voter_id(division, self.generation)


class VoterConfiguration(msgspec.Struct, frozen=True):
    """The nodes whose majority decides which centre is active."""

    version: tuple[int, int] = INITIAL_VERSION
    """(term in which it was made, number within the term)."""
    nodes: tuple[str, ...] = ()
    """Voters, as `voter_id` names them."""

    def is_majority(self, nodes: Collection[str]) -> bool:
        """Return whether more than half of the voters are among some nodes; always where there are no voters."""
        return not self.nodes or self._count(nodes) * 2 > len(self.nodes)

    def is_half(self, nodes: Collection[str]) -> bool:
        """Return whether so many voters are among some nodes that the others are no majority."""
        return self._count(nodes) * 2 >= len(self.nodes)

    def _count(self, nodes: Collection[str]) -> int:
        return sum(node in nodes for node in self.nodes)


class ReportedTerms:
    """The terms that nodes report to a standby, of which a single one may be wrong."""

    def __init__(self) -> None:
        self._by_voter: dict[str, int] = {}
        self.highest = 0
        """Highest plausible term that was reported; 0: none."""

    def add(self, node: str, term: int, voters: VoterConfiguration, known: int) -> bool:
        """Record the term that a node reports; return whether it is plausible.

        Args:
            node: that reports it.
            term: its highest term.
            voters: configuration in force; what a majority of it reports is plausible.
            known: highest term that is known from elsewhere.
        """
        if node in voters.nodes:
            self._by_voter[node] = max(term, self._by_voter.get(node, 0))
        if term > known + LEAP_MAX:
            reporting = {voter for voter, reported in self._by_voter.items() if reported >= term}
            if not voters.nodes or not voters.is_majority(reporting):
                return False
        self.highest = max(self.highest, term)
        return True

    def is_majority_beyond(self, term: int, voters: VoterConfiguration) -> bool:
        """Return whether more than half of the voters report a later term."""
        reporting = {voter for voter, reported in self._by_voter.items() if reported > term}
        return bool(voters.nodes) and voters.is_majority(reporting)


class Votes:
    """The grants that a standby has received, by a monotonic clock."""

    def __init__(self, grant_s: float) -> None:
        """`grant_s`: time for which a grant counts unless it is repeated."""
        self._grant_s = grant_s
        self._granted: dict[str, tuple[int, float]] = {}

    def add(self, node: str, term: int, now_s: float) -> None:
        """Record the term that a node grants; 0: none."""
        if term:
            self._granted[node] = term, now_s
        else:
            self._granted.pop(node, None)

    def has_majority(self, term: int, configurations: Sequence[VoterConfiguration], now_s: float) -> bool:
        """Return whether a majority of every configuration grants a term now."""
        granting = {
            node for node, (number, at) in self._granted.items() if number == term and now_s - at < self._grant_s
        }
        return (
            bool(configurations)
            and bool(configurations[-1].nodes)
            and all(configuration.is_majority(granting) for configuration in configurations)
        )


class Lease:
    """The active centre's side: whether it still holds its lease, and who votes."""

    def __init__(self, term: int, lease_id: int, lease_s: float, voters: tuple[VoterConfiguration, ...]) -> None:
        """Take up the lease of a term.

        Args:
            term: of this centre.
            lease_id: random number that tells this lease from every other.
            lease_s: duration of the lease.
            voters: configurations in force, as they are on the disk, oldest first.
        """
        self._term = term
        self.lease_id = lease_id
        self._lease_s = lease_s * LEASE_FRACTION
        # By the initial configuration only the first active centre counts.
        self.voters = tuple(configuration for configuration in voters if configuration.version != INITIAL_VERSION)
        self._heard_at: dict[str, float] = {}
        self._voters_known: dict[str, tuple[int, int]] = {}
        self._knowing_unreplicated: set[str] = set()
        self._granted_elsewhere: set[str] = set()
        self._peer_version = INITIAL_VERSION

    def take_request(self, node: str, request: LeaseRequest) -> None:
        """Record the request of a node."""
        if request.granted_elsewhere > self._term:
            self._granted_elsewhere.add(node)  # from now on it counts for the other centre, if for any
            self._voters_known.pop(node, None)
            self._knowing_unreplicated.discard(node)
        if node in self._granted_elsewhere:
            return
        if request.stamp[0] == self.lease_id:
            self._heard_at[node] = max(request.stamp[1], self._heard_at.get(node, request.stamp[1]))
        self._voters_known[node] = max(request.voters_version, self._voters_known.get(node, INITIAL_VERSION))
        (self._knowing_unreplicated.add if request.unreplicated else self._knowing_unreplicated.discard)(node)

    def confirm_peer(self, version: tuple[int, int]) -> None:
        """Record the voter configuration on the other centre's disk: it counts by none before."""
        self._peer_version = max(self._peer_version, version)

    def present_nodes(self, now_s: float) -> set[str]:
        """Return the nodes that count for this centre now."""
        recent = {node for node, at in self._heard_at.items() if now_s - at < self._lease_s}
        return recent - self._granted_elsewhere

    def is_held(self, now_s: float) -> bool:
        """Return whether no other centre can have been granted a later term."""
        present = self.present_nodes(now_s)
        return all(configuration.is_majority(present) for configuration in self.voters)

    def is_unreplicated_known(self) -> bool:
        """Return whether so many nodes know of unreplicated delivery that the other centre cannot be granted."""
        return all(configuration.is_half(self._knowing_unreplicated) for configuration in self.voters)

    def clear_unreplicated(self) -> None:
        """Forget which nodes know of unreplicated delivery, after it has ended."""
        self._knowing_unreplicated.clear()

    def next_voters(
        self, configured: Collection[str], joined: Collection[str], now_s: float
    ) -> tuple[VoterConfiguration, ...]:
        """Return the configurations to be in force; those that differ from `voters` go to the disk first.

        A node that joined votes once it was heard here: a node that cannot reach us, or knows no other centre, must not
        count as missing.
        """
        newest = self.voters[-1] if self.voters else VoterConfiguration()
        present = self.present_nodes(now_s)
        nodes = tuple(sorted({*configured, *(node for node in joined if node in newest.nodes or node in present)}))
        voters = self.voters
        if nodes != newest.nodes or newest.version[0] != self._term:
            number = newest.version[1] + 1 if newest.version[0] == self._term else 1
            voters = (*voters, VoterConfiguration((self._term, number), nodes))
        return tuple(old for old, newer in pairwise(voters) if not self._is_superseded(old, newer)) + voters[-1:]

    def _is_superseded(self, old: VoterConfiguration, newer: VoterConfiguration) -> bool:
        """Return whether an old configuration, which a newer one follows, can no longer elect anybody.

        Only a configuration of this term counts as newer: the other centre may have made one of an earlier term after
        the same old one, and nodes that know no later one grant it.
        """
        needed = max(newer.version, (self._term, 1))
        knowing = {node for node, version in self._voters_known.items() if version >= needed}
        return self._peer_version >= needed or old.is_half(knowing)
