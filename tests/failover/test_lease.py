"""A changing electorate: whatever is lost, late, cut off or started anew, no two centres hold a lease at once.

The world below plays centres, nodes and an operator at random by seeds; a rule taken away lets it find two leases.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from sensegate.failover import lease as module
from sensegate.failover.lease import INITIAL_VERSION, Lease, LeaseRequest, VoterConfiguration, Votes
from sensegate.failover.terms import GRANT_S, CentreChoice, CentreState, Term

LEASE_S = 10.0
POOL = ("1", "2", "3", "4", "5")
SEEDS = 500
STEPS = 300


class Centre:
    """One of two, active or not; what is in `term` survives."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name = name
        self.dice = dice
        self.term = Term()
        self.seen = self.granted = 0
        self.members: set[str] = set()
        self.lease: Lease | None = None
        self.votes = Votes(GRANT_S)

    @property
    def voters(self) -> tuple[VoterConfiguration, ...]:
        return self.term.voters or (VoterConfiguration(),)

    @property
    def would(self) -> int:
        return max(self.seen, self.granted, self.term.number) + 1

    def take_seat(self, now: float) -> None:
        self.lease = Lease(self.term.number, self.dice.getrandbits(62) + 1, LEASE_S, self.term.voters)
        self.turn(now)

    def turn(self, now: float) -> None:
        assert self.lease
        self.lease.voters = self.lease.next_voters((), sorted(self.members), now)
        self.term = msgspec.structs.replace(self.term, voters=self.lease.voters)

    def answer(self, node: str, request: LeaseRequest, now: float) -> CentreState:
        if self.lease is None:
            self.seen, self.granted = max(self.seen, request.term), max(self.granted, request.granted_elsewhere)
            self.votes.add(node, request.granted_here, now)
            wants = self.voters[-1].version != INITIAL_VERSION
            version = self.voters[-1].version
            return CentreState(
                active=False, term=self.seen, is_candidate=wants, proposed_term=self.would, voters_version=version
            )
        self.lease.take_request(node, request)
        active = request.term <= self.term.number
        version, stamp = self.lease.voters[-1].version, (self.lease.lease_id, now)
        if not active:
            self.stand_by(max(self.seen, request.term))
        return CentreState(active=active, term=self.term.number, voters_version=version, stamp=stamp, lease_s=LEASE_S)

    def stand_by(self, sequence: int) -> None:
        self.lease, self.seen, self.votes = None, sequence, Votes(GRANT_S)


class World:
    """Two centres, five nodes, and what happens to them."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = 100.0
        self.centres = [Centre(name, self.dice) for name in "ab"]
        self.nodes = {name: CentreChoice(LEASE_S) for name in POOL}
        self.late: list[tuple[Centre, str, LeaseRequest]] = []
        self.cut: set[tuple[str, str]] = set()
        self.terms = 0
        centre, other = self.centres
        centre.term, centre.members = Term(1, voters=(VoterConfiguration((1, 1), POOL[:3]),)), set(POOL[:3])
        other.term, other.members, other.seen = Term(0, voters=centre.term.voters), set(POOL[:3]), 1
        centre.take_seat(self.now)
        for _ in range(2):
            for name in POOL[:3]:
                self.talk(name, centre)

    def talk(self, name: str, centre: Centre) -> None:
        """As `tiers.Above._is_active`; a message may be late, an answer lost."""
        choice, grant = self.nodes[name], 0
        for _ in range(3):
            request = choice.lease_request(centre.name, grant=grant)
            grant = 0
            luck = self.dice.random()
            if luck < 0.05:
                self.late.append((centre, name, request))
                return
            state = centre.answer(name, request, self.now)
            if luck < 0.1:
                return
            if choice.follows(state):
                repeated = choice.note_active(centre.name, state, self.now)
            elif repeated := choice.grant(centre.name, state, self.now):
                grant = state.proposed_term
            if not repeated:
                return

    def step(self) -> None:
        """Have something happen."""
        dice = self.dice
        centre = dice.choice(self.centres)
        events = (self.meet, self.wait, self.cable, self.arrive, self.operate, self.kill, self.copy, self.renew)
        dice.choices(events, (50, 12, 12, 2, 10, 2, 4, 2))[0](centre)
        if dice.random() < 0.03 and centre.lease and not centre.lease.is_held(self.now):
            centre.stand_by(centre.term.number)
        if centre.lease:
            centre.turn(self.now)
        elif centre.votes.has_majority(would := centre.would, centre.voters, self.now):
            self.terms += 1
            centre.term = Term(would, voters=centre.voters)
            centre.take_seat(self.now)

    def meet(self, centre: Centre) -> None:
        for each in list(self.nodes):
            if each in centre.members and (each, centre.name) not in self.cut and self.dice.random() < 0.7:
                self.talk(each, centre)

    def wait(self, _centre: Centre) -> None:
        self.now += self.dice.choice((0.2, 1.0, 3.0, 8.0, 11.0))

    def cable(self, _centre: Centre) -> None:
        self.cut = {(node, centre) for node in self.nodes for centre in "ab" if self.dice.random() < 0.45}

    def arrive(self, _centre: Centre) -> None:
        if self.late:
            centre, name, request = self.late.pop(self.dice.randrange(len(self.late)))
            centre.answer(name, request, self.now)

    def operate(self, centre: Centre) -> None:
        """Have a node join or leave, or another machine join in its place: another voter, without a memory."""
        name = self.dice.choice(list(self.nodes))
        if not centre.lease:
            return
        if name not in centre.members:
            centre.members.add(name)
        elif len(centre.members) > 2:
            centre.members.remove(name)
            if self.dice.random() < 0.3:
                fresh = f"{name.partition('.')[0]}.{len(self.nodes)}"  # no generation is given twice
                self.nodes[fresh] = CentreChoice(LEASE_S)
                centre.members.add(fresh)

    def kill(self, centre: Centre) -> None:
        if centre.lease:
            centre.take_seat(self.now)

    def copy(self, centre: Centre) -> None:
        """Who may come in, and who votes."""
        other = self.centres[1 - self.centres.index(centre)]
        if centre.lease is None and other.lease and other.term.number >= centre.seen:
            centre.seen, centre.members = other.term.number, set(other.members)
            centre.term = Term(centre.seen, voters=other.lease.voters[-1:])
            other.lease.confirm_peer(centre.voters[-1].version)

    def renew(self, _centre: Centre) -> None:
        """Start a node again."""
        name = self.dice.choice(list(self.nodes))
        self.nodes[name] = CentreChoice(LEASE_S, self.nodes[name].term)

    def leases(self) -> int:
        return sum(bool(centre.lease and centre.lease.is_held(self.now)) for centre in self.centres)


def two_leases(seeds: int = SEEDS) -> tuple[str, int]:
    """Return where there were two leases at once (empty: nowhere), and how many terms had begun by grants."""
    terms = 0
    for seed in range(seeds):
        world = World(seed)
        for number in range(STEPS):
            world.step()
            if world.leases() > 1:
                return f"seed {seed}, step {number}", terms
        terms += world.terms
    return "", terms


@pytest.mark.slow
def test_never_two_leases() -> None:
    """And terms do begin, or nothing was tried."""
    result, terms = two_leases()
    assert result == ""
    assert terms > SEEDS


def _no_bar(patch: pytest.MonkeyPatch) -> None:
    taken = Lease.take_request
    patch.setattr(
        Lease,
        "take_request",
        lambda self, node, request: taken(self, node, msgspec.structs.replace(request, granted_elsewhere=0)),
    )


def _one_electorate(patch: pytest.MonkeyPatch) -> None:
    turned = Lease.next_voters
    patch.setattr(Lease, "next_voters", lambda self, *given: turned(self, *given)[-1:])


def _any_version(patch: pytest.MonkeyPatch) -> None:
    granted = CentreChoice.grant

    def grants(self: CentreChoice, centre: str, state: CentreState, now_s: float) -> bool:
        return granted(self, centre, msgspec.structs.replace(state, voters_version=self.term.voters_version), now_s)

    patch.setattr(CentreChoice, "grant", grants)


def _long_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "LEASE_FRACTION", 1.5)


def _heard_is_here(patch: pytest.MonkeyPatch) -> None:
    answered = Centre.answer

    def answer(self: Centre, node: str, request: LeaseRequest, now: float) -> CentreState:
        result = self.lease.lease_id if self.lease else 0
        return answered(self, node, msgspec.structs.replace(request, stamp=(result, now)), now)

    patch.setattr(Centre, "answer", answer)


@pytest.mark.parametrize("fault", [_no_bar, _one_electorate, _any_version, _long_memory, _heard_is_here])
def test_a_rule_taken_away_is_missed(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of each."""
    fault(monkeypatch)
    assert two_leases(4 * SEEDS)[0]


def heard(lease: Lease, node: str, now: float, **more: object) -> None:
    """Have a node say that it has what was answered now."""
    request = LeaseRequest(
        1, voters_version=lease.voters[-1].version if lease.voters else INITIAL_VERSION, stamp=(lease.lease_id, now)
    )
    lease.take_request(node, msgspec.structs.replace(request, **more))


def test_a_node_that_joined_votes_once_it_was_heard_and_an_expelled_one_no_more() -> None:
    """One that never comes is not missed; without the one that left there is a majority of those that are."""
    lease = Lease(1, 9, LEASE_S, ())
    lease.voters = lease.next_voters((), ["4401", "4403"], 0.0)
    assert lease.voters == (VoterConfiguration((1, 1)),)
    assert lease.is_held(1e6)
    heard(lease, "4401", 0.0)
    lease.voters = lease.next_voters((), ["4401", "4403"], 1.0)
    assert lease.voters == (VoterConfiguration((1, 2), ("4401",)),)
    heard(lease, "4403", 1.0)
    lease.voters = lease.next_voters((), ["4401", "4403"], 1.0)
    assert [voter.nodes for voter in lease.voters] == [("4401",), ("4401", "4403")]
    assert lease.is_held(1.0)
    heard(lease, "4401", 2.0)  # it knows of the newer one: by the older nobody is granted any more
    lease.voters = lease.next_voters((), ["4401", "4403"], 2.0)
    assert [voter.nodes for voter in lease.voters] == [("4401", "4403")]
    heard(lease, "4401", 20.0)
    assert not lease.is_held(20.0)
    lease.voters = lease.next_voters((), ["4401"], 20.0)
    assert not lease.is_held(20.0)  # the other centre might still count the expelled one …
    lease.confirm_peer(lease.voters[-1].version)
    lease.voters = lease.next_voters((), ["4401"], 20.0)
    assert [voter.nodes for voter in lease.voters] == [("4401",)]
    assert lease.is_held(20.0)  # … until it has who votes now


def test_an_older_electorate_ends_by_one_of_this_term() -> None:
    """The other centre may have made (6, 2) after (1, 1): who knows (1, 2) would grant it, by (1, 1) among others."""
    lease = Lease(7, 9, LEASE_S, (VoterConfiguration((1, 1), ("1", "2", "3")), VoterConfiguration((1, 2), ("1", "2"))))
    for node in ("1", "2"):
        lease.take_request(node, LeaseRequest(7, voters_version=(1, 2), stamp=(9, 0.0)))
    lease.confirm_peer((6, 2))
    lease.voters = lease.next_voters((), ["1", "2"], 0.0)
    assert [voter.version for voter in lease.voters] == [(1, 1), (1, 2), (7, 1)]
    lease.take_request("1", LeaseRequest(7, voters_version=(7, 1), stamp=(9, 0.0)))
    lease.voters = lease.next_voters((), ["1", "2"], 0.0)
    assert [voter.version for voter in lease.voters] == [(1, 1), (7, 1)]  # one of three is not half
    lease.take_request("2", LeaseRequest(7, voters_version=(7, 1), stamp=(9, 0.0)))
    assert [next_voter.version for next_voter in lease.next_voters((), ["1", "2"], 0.0)] == [(7, 1)]


def test_alone_only_where_the_other_cannot_be_granted() -> None:
    """Half of the nodes must have it on their disk; one that has granted a later term does not count."""
    lease = Lease(1, 9, LEASE_S, (VoterConfiguration((1, 1), ("1", "2", "3", "4")),))
    heard(lease, "1", 0.0, unreplicated=True)
    assert not lease.is_unreplicated_known()
    heard(lease, "2", 0.0, unreplicated=True)
    assert lease.is_unreplicated_known()
    heard(lease, "2", 0.0, unreplicated=True, granted_elsewhere=2)
    assert not lease.is_unreplicated_known()
    heard(lease, "3", 0.0, unreplicated=True)
    assert lease.is_unreplicated_known()
    lease.clear_unreplicated()
    assert not lease.is_unreplicated_known()
