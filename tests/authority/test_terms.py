"""Terms of centres: no two may be granted at once, and a log that a later term never had is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority import terms
from sensegate.authority.terms import APART_S, GRANT_S, Choice, State, Term, Votes
from sensegate.errors import ConfigError

WANTS = State(active=False, term=1, wants=True)
LEASE_S = 10.0


def test_more_than_half_of_all_nodes() -> None:
    """Two of three are enough, of four not; a grant that was not renewed, or taken back, counts no more."""
    votes = Votes(["4401", "4403", "4404"])
    votes.add("4401", 0.0, grant=True)
    votes.add("9999", 0.0, grant=True)
    assert not votes.enough(1.0)
    votes.add("4403", 1.0, grant=True)
    assert votes.enough(1.0)
    assert not votes.enough(GRANT_S + 0.5)
    votes.add("4401", 2.0, grant=True)
    votes.add("4403", 2.0, grant=False)
    assert not votes.enough(2.0)
    four = Votes(["1", "2", "3", "4"])
    for name in "12":
        four.add(name, 0.0, grant=True)
    assert not four.enough(0.0)


def test_a_node_waits_for_the_whole_lease() -> None:
    """Not before it has met no active centre for so long; not while the last one delivered alone."""
    choice = Choice(LEASE_S)
    choice.met(0.0, alone=False)
    assert not choice.grants("b", WANTS, LEASE_S - 0.1)
    assert choice.grants("b", WANTS, LEASE_S)
    choice.met(20.0, alone=True)
    assert not choice.grants("b", WANTS, 100.0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.01, 5.0)), max_size=60))
def test_no_two_centres_are_granted_at_once(asked: list[tuple[str, float]]) -> None:
    """However a node is asked: a grant to one centre has ended long before one to the other begins."""
    choice, now, given_to = Choice(LEASE_S), 0.0, {"a": -1e9, "b": -1e9}
    choice.met(0.0, alone=False)
    for centre, pause in asked:
        now += pause
        if choice.grants(centre, WANTS, now):
            given_to[centre] = now
            other = given_to["b" if centre == "a" else "a"]
            assert now - other >= APART_S > GRANT_S


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
