"""Terms of centres: no two may be granted at once, and a log that a later term never had is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import ConfigError
from sensegate.failover import terms
from sensegate.failover.lease import INITIAL_VERSION, LeaseRequest, VoterConfiguration, Votes
from sensegate.failover.terms import GRANT_S, REVOTE_S, CentreChoice, CentreState, Term

WANTS = CentreState(active=False, term=1, is_candidate=True, proposed_term=2)
ACTIVE = CentreState(active=True, term=1, voters_version=(1, 3), stamp=(7, 1.0))
LEASE_S = 10.0


def test_more_than_half_of_all_nodes() -> None:
    """Two of three are enough, of four not; a grant not renewed, taken back, or of another term, counts no more."""
    three, four = (
        (VoterConfiguration((1, 1), ("4401", "4403", "4404")),),
        (VoterConfiguration((1, 1), ("1", "2", "3", "4")),),
    )
    votes = Votes(GRANT_S)
    votes.add("4401", 2, 0.0)
    votes.add("9999", 2, 0.0)
    assert not votes.has_majority(2, three, 1.0)
    votes.add("4403", 2, 1.0)
    assert votes.has_majority(2, three, 1.0)
    assert not votes.has_majority(3, three, 1.0)
    assert not votes.has_majority(2, three, GRANT_S + 0.5)
    votes.add("4401", 2, 2.0)
    votes.add("4403", 0, 2.0)
    assert not votes.has_majority(2, three, 2.0)
    for name in "12":
        votes.add(name, 2, 2.0)
    assert not votes.has_majority(2, four, 2.0)
    votes.add("3", 2, 2.0)
    assert votes.has_majority(2, four, 2.0)
    assert not votes.has_majority(2, (*four, *three), 2.0)
    assert not votes.has_majority(2, (VoterConfiguration((1, 1)),), 2.0)  # where nobody votes, nobody is granted


def choice(lease_s: float = LEASE_S) -> CentreChoice:
    """Return a node that has met an active centre at the time 0."""
    made = CentreChoice(lease_s)
    made.note_active("a", msgspec.structs.replace(ACTIVE, voters_version=INITIAL_VERSION), 0.0)
    return made


def test_a_node_waits_for_the_whole_lease() -> None:
    """Not before it has met no active centre for so long; the centre may say a longer one."""
    node = choice()
    assert not node.grant("b", WANTS, LEASE_S - 0.1)
    assert node.grant("b", WANTS, LEASE_S)
    node.note_active("a", msgspec.structs.replace(ACTIVE, voters_version=INITIAL_VERSION, lease_s=30.0), 20.0)
    later = msgspec.structs.replace(WANTS, proposed_term=3)
    assert not node.grant("b", later, 49.0)
    assert node.grant("b", later, 50.0)


def test_who_lacks_what_was_delivered_is_granted_nothing() -> None:
    """While the active one delivered alone, it alone may come back; the node's disk remembers that."""
    node = choice()
    node.note_active("a", msgspec.structs.replace(ACTIVE, voters_version=INITIAL_VERSION, unreplicated=True), 20.0)
    assert not node.grant("b", WANTS, 100.0)
    reopened = CentreChoice(LEASE_S, node.term)
    assert not reopened.grant("b", WANTS, 100.0)
    assert not reopened.grant("b", WANTS, 200.0)
    assert reopened.grant("a", WANTS, 200.0)


def test_a_term_is_granted_once() -> None:
    """Not to two centres, not after a restart, none that has passed; the other hears of it."""
    node = choice()
    assert node.grant("b", WANTS, 20.0)
    assert not node.grant("a", WANTS, 21.0 + REVOTE_S)
    assert (node.lease_request("a").granted_elsewhere, node.lease_request("b").granted_elsewhere) == (2, 0)
    reopened = CentreChoice(LEASE_S, node.term)
    assert not reopened.grant("a", WANTS, 100.0)
    assert not reopened.grant("a", WANTS, 200.0)
    assert reopened.grant("b", WANTS, 200.0)
    assert reopened.grant("a", msgspec.structs.replace(WANTS, proposed_term=3), 300.0)
    node.note_active("a", msgspec.structs.replace(ACTIVE, term=5, voters_version=INITIAL_VERSION), 400.0)
    assert not node.grant("b", msgspec.structs.replace(WANTS, proposed_term=5), 500.0)


@given(st.sets(st.sampled_from([f"44{number:02}" for number in range(1, 22)]), min_size=2, max_size=8))
def test_halves_come_together(names: set[str]) -> None:
    """Half grant one centre, half the other: patience differs, so one of the two has a majority before long."""
    nodes = {name: CentreChoice(LEASE_S, name=name) for name in sorted(names)}
    turns = {name: number % 2 for number, name in enumerate(nodes)}
    for node in nodes.values():
        node.note_active("a", msgspec.structs.replace(ACTIVE, voters_version=INITIAL_VERSION), 0.0)
    granted: dict[str, tuple[str, float]] = {}
    would = {"a": 2, "b": 2}
    for step in range(400):
        now = LEASE_S + step * 0.5
        for name, node in nodes.items():
            centre = "ab"[turns[name]]
            would[centre] = max(would[centre], node.lease_request(centre).granted_elsewhere + 1)
            if node.grant(centre, msgspec.structs.replace(WANTS, proposed_term=would[centre]), now):
                granted[name] = centre, now
            if not node.is_granting(centre, now):
                turns[name] = 1 - turns[name]
        for centre in "ab":
            here = [name for name, (to, at) in granted.items() if to == centre and now - at < GRANT_S]
            if len(here) * 2 > len(nodes):
                return
    raise AssertionError("halves for ever")


@pytest.mark.parametrize(
    ("known", "counts_by", "grants"),
    [
        (INITIAL_VERSION, INITIAL_VERSION, True),
        (INITIAL_VERSION, (1, 1), False),  # a new store: it may be in the place of one that had voted
        ((1, 3), (1, 3), True),
        ((1, 3), (2, 1), True),
        ((1, 3), (1, 2), False),
        ((2, 1), (1, 9), False),
    ],
)
def test_nobody_counts_by_an_older_electorate(
    known: tuple[int, int], counts_by: tuple[int, int], *, grants: bool
) -> None:
    """A centre that does not know who votes now is granted nothing."""
    node = CentreChoice(LEASE_S, Term(1, voters_version=known))
    wants = msgspec.structs.replace(WANTS, voters_version=counts_by)
    assert not node.grant("b", wants, 0.0)
    assert node.grant("b", wants, LEASE_S) is grants


def test_what_was_learnt_is_told_at_once() -> None:
    """A node asks again where it learnt something; then all is said."""
    node = CentreChoice(LEASE_S)
    assert node.note_active("a", ACTIVE, 0.0)
    assert node.lease_request("a") == LeaseRequest(1, voters_version=(1, 3), stamp=(7, 1.0))
    assert not node.note_active("a", msgspec.structs.replace(ACTIVE, stamp=(7, 2.0)), 1.0)
    assert node.note_active("a", msgspec.structs.replace(ACTIVE, unreplicated=True), 2.0)
    assert node.lease_request("a").unreplicated
    assert node.note_active(
        "a", msgspec.structs.replace(ACTIVE, unreplicated=True, stamp=(8, 1.0)), 3.0
    )  # another seat
    assert not node.follows(msgspec.structs.replace(ACTIVE, term=0))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 5.0), st.booleans()), max_size=60))
def test_no_two_centres_are_granted_a_term(requests: list[tuple[str, float, bool]]) -> None:
    """However a node is asked and started again: a term is granted to one, and a later one follows it."""
    node, now, to = choice(), 0.0, dict[int, str]()
    for centre, pause, request in requests:
        now += pause
        # Each would begin the term after all that it has heard of.
        own, other = node.term.granted, node.term.granted_to
        would = max(2, own if other == centre else own + 1)
        if node.grant(centre, msgspec.structs.replace(WANTS, proposed_term=would), now):
            assert would >= max(to, default=0)
            assert to.setdefault(would, centre) == centre
            assert node.lease_request("b" if centre == "a" else "a").granted_elsewhere == would
        if request:
            node = CentreChoice(1.0, node.term)


def test_a_tail_that_a_later_term_never_had() -> None:
    """Its own past is known; a later term that began behind its end is not."""
    own = Term(1, history=((1, 0),))
    assert not own.diverged(((1, 0),), 100)
    assert not own.diverged(((1, 0), (2, 100)), 100)
    assert own.diverged(((1, 0), (2, 99)), 100)
    # A term that it missed altogether counts, whatever came after.
    assert own.diverged(((1, 0), (2, 50), (3, 500)), 100)
    assert not Term(3, history=((1, 0), (2, 50), (3, 500))).diverged(((1, 0), (2, 50), (3, 500)), 900)


def test_it_is_remembered(tmp_path: Path) -> None:
    """Through a restart; a broken file is told, never taken for term 0."""
    assert terms.read(tmp_path) == Term()
    terms.write(tmp_path, Term(7, active=True, history=((7, 3),)))
    assert terms.read(tmp_path) == Term(7, active=True, history=((7, 3),))
    (tmp_path / terms.FILE).write_text("{")
    with pytest.raises(ConfigError, match=r"term\.json"):
        terms.read(tmp_path)


@pytest.mark.parametrize("state", [{"active": True, "term": 2**41}, {"active": False, "term": 1, "proposed_term": -1}])
def test_a_term_that_no_request_could_repeat_is_no_answer(state: dict[str, object]) -> None:
    """A node that followed it would send it to the honest centre, which refuses such a request."""
    with pytest.raises(msgspec.ValidationError):
        terms.decode_state(msgspec.msgpack.encode(state))
