"""A centre that stands by: what it copies of the registries, and when it would take over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.bus.engine import Engine
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import NodeUserConfig
from sensegate.config.sites import PeerConfig
from sensegate.errors import PermissionDenied, Unavailable
from sensegate.failover import terms
from sensegate.failover.lease import LEAP_MAX, LeaseRequest, VoterConfiguration
from sensegate.failover.replica import Replica
from sensegate.failover.standby import POLL_S, _Standby
from sensegate.failover.standby_status import STATUS, StandbyStatus
from sensegate.failover.terms import CentreState, Term, decode_state, encode
from tests.conftest import eventually
from tests.live.site import config_of

LEASE_S = 10.0
ALL = ("4401", "4403", "4404")


def make_standby(directory: Path, term: Term, *, copied: bool = True) -> tuple[_Standby, FakeClock]:
    """Return a standby that has lost the active centre just now."""
    directory.mkdir(parents=True, exist_ok=True)
    config = msgspec.structs.replace(
        config_of(directory, "44"),
        nodes=tuple(NodeUserConfig(node, "") for node in ALL),
        peer=PeerConfig("nats://away:1", automatic=True, lease_s=LEASE_S),
    )
    clock = FakeClock()
    made = _Standby(config, clock, cast("Engine", None), term)
    if copied:
        made._replica = Replica(MemoryLog(), config.store, clock, term)
        made._missing.clear()
    return made, clock


async def ask_lease(standby: _Standby, division: str, request: LeaseRequest) -> CentreState:
    """Return what a node is answered."""
    return decode_state(await standby._answer_lease(division, encode(request)))


async def test_it_wants_what_it_can_have(tmp_path: Path) -> None:
    """After the whole lease, with a copy, knowing who votes; or where the last term was its own."""
    known = (VoterConfiguration((1, 1), ALL),)
    for term, copied, wants in (
        (Term(1, voters=known), True, True),
        (Term(1, voters=known), False, False),  # it has not met the active centre since it began
        (Term(1), True, False),  # nor does it know who votes
        (Term(1, active=True, voters=known), False, True),
        (Term(1, active=True), False, True),  # the very first start
    ):
        standby, clock = make_standby(tmp_path / f"{term.active}{copied}{len(term.voters)}", term, copied=copied)
        assert not (await ask_lease(standby, "4401", LeaseRequest(1))).is_candidate
        await clock.advance(LEASE_S)
        assert (await ask_lease(standby, "4401", LeaseRequest(1))).is_candidate is wants, (term, copied)
        # Of a later term than its own it has nothing but what it copied.
        assert (await ask_lease(standby, "4401", LeaseRequest(2))).is_candidate is (wants and copied), (term, copied)


async def test_with_a_part_of_the_log_it_takes_over_by_no_vote(tmp_path: Path) -> None:
    """A copy that has just begun ends in a state that the log never had; the same copy takes over once it is whole."""
    for partial in (True, False):
        standby, clock = make_standby(
            tmp_path / str(partial), Term(1, voters=(VoterConfiguration((1, 1), ALL),), partial=partial)
        )
        await clock.advance(LEASE_S + 1)
        assert standby._is_candidate() is not partial
        standby._write_status()
        status = msgspec.json.decode((tmp_path / str(partial) / STATUS).read_bytes(), type=StandbyStatus)
        assert status.missing == (("log",) if partial else ())


async def test_a_part_of_the_log_is_told_after_a_restart_too(tmp_path: Path) -> None:
    """Also before the active centre was met again, which may be gone: whoever promotes this copy is told."""
    standby, _ = make_standby(tmp_path, Term(1, partial=True), copied=False)
    standby._write_status()
    status = msgspec.json.decode((tmp_path / STATUS).read_bytes(), type=StandbyStatus)
    assert "log" in status.missing


@pytest.mark.parametrize(
    ("reporting", "there", "resumes"),
    [((), 1, True), (("4401",), 1, True), (("4401", "4403"), 1, False), ((), 2, False)],
)
async def test_a_single_node_does_not_keep_it_from_its_own_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reporting: tuple[str, ...], there: int, *, resumes: bool
) -> None:
    """Both centres stand by and have met: neither knows a later term, and one node that claims to is not believed."""
    standby, clock = make_standby(
        tmp_path, Term(1, active=True, voters=(VoterConfiguration((1, 1), ALL),)), copied=False
    )
    for node in reporting:
        await ask_lease(standby, node, LeaseRequest(2))
    asked: list[str] = []

    class Link:
        async def close(self) -> None:
            asked.append("closed")

    async def connected(_config: object) -> Link:
        return Link()

    async def waiting(*_: object) -> bytes:
        return encode(CentreState(active=False, term=there))

    monkeypatch.setattr("sensegate.failover.standby.connect_peer", connected)
    monkeypatch.setattr("sensegate.failover.standby.ask_peer", waiting)
    copying = asyncio.create_task(standby._replicate())
    try:
        await eventually(lambda: asked)
        await clock.advance(POLL_S)
        await eventually(lambda: copying.done() or len(asked) > 1)
        assert copying.done() is resumes
        if resumes:
            assert copying.result() == (standby.term, "")
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def test_without_the_registries_it_takes_over_by_no_vote(tmp_path: Path) -> None:
    """Nobody could be let in; the parts are told until they were copied once."""
    standby, clock = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    standby._missing.add("registries")
    await clock.advance(LEASE_S)
    assert not standby._is_candidate()

    async def ask(subject: str, _payload: bytes) -> bytes:
        if subject == "buckets" and "registries" in standby._missing and not results:
            results.append(subject)
            raise PermissionDenied("this centre is still starting; ask again")
        return msgspec.msgpack.encode([])

    results: list[str] = []
    copying = asyncio.create_task(standby._copy_registries(ask))
    try:
        await eventually(lambda: results)
        await clock.advance(POLL_S)
        await eventually(standby._is_candidate)
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)


async def test_the_term_that_would_begin_is_later_than_every_other(tmp_path: Path) -> None:
    """Also than one that a node has granted to the other centre; grants of another term do not count."""
    standby, clock = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    await clock.advance(LEASE_S)
    assert (await ask_lease(standby, "4401", LeaseRequest(1, granted_here=2))).proposed_term == 2
    assert (await ask_lease(standby, "4403", LeaseRequest(1, granted_elsewhere=2))).proposed_term == 3
    assert (await ask_lease(standby, "4403", LeaseRequest(1, granted_here=2, granted_elsewhere=2))).term == 1
    assert not standby.votes.has_majority(standby._proposed_term, standby._voters, clock.monotonic())
    for node in ("4401", "4403"):
        await ask_lease(standby, node, LeaseRequest(1, granted_here=3))
    assert standby.votes.has_majority(standby._proposed_term, standby._voters, clock.monotonic())


async def test_a_term_that_no_majority_reports_is_refused(tmp_path: Path) -> None:
    """One node that claims a term far ahead does not use up the terms: the others are granted as before."""
    standby, clock = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    await clock.advance(LEASE_S)
    for request in (LeaseRequest(2**40), LeaseRequest(1, granted_elsewhere=2**40), LeaseRequest(LEAP_MAX + 2)):
        with pytest.raises(PermissionDenied, match=r"lease: term \d+ is implausible: the highest known one is 1"):
            await ask_lease(standby, "4401", request)
    for node in ("4403", "4404"):
        assert (await ask_lease(standby, node, LeaseRequest(1, granted_here=2))).proposed_term == 2
    assert standby.votes.has_majority(standby._proposed_term, standby._voters, clock.monotonic())


async def test_a_term_that_a_majority_reports_is_known(tmp_path: Path) -> None:
    """A standby that was away for long learns it, though a single node is not enough; others do not raise it."""
    standby, _ = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    for node in ("4403", "4405", "4405.1"):
        with pytest.raises(PermissionDenied):
            await ask_lease(standby, node, LeaseRequest(5_000))
    assert (await ask_lease(standby, "4404", LeaseRequest(5_000))).proposed_term == 5_001
    assert (await ask_lease(standby, "4403", LeaseRequest(5_000))).proposed_term == 5_001
    with pytest.raises(PermissionDenied):
        await ask_lease(standby, "4401", LeaseRequest(2**40))


async def test_a_node_of_many_generations_fills_no_memory(tmp_path: Path) -> None:
    """Only votes of those who may vote are remembered: a node names its own generation."""
    standby, _ = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    for generation in range(100):
        await ask_lease(standby, "4401", LeaseRequest(1, granted_here=2, generation=generation))
    assert len(standby.votes._granted) == 1


async def test_the_report_of_a_node_does_not_reach_the_other_centre(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other centre ends its term where this one tells of a later term: a single node must not bring that about."""
    standby, _ = make_standby(tmp_path, Term(1, voters=(VoterConfiguration((1, 1), ALL),)))
    assert (await ask_lease(standby, "4401", LeaseRequest(2))).proposed_term == 3, "it may be true"
    assert (await ask_lease(standby, "44", LeaseRequest(1))).term == 1
    asked: list[int] = []

    async def active(_link: object, _question: str, payload: bytes) -> bytes:
        asked.append(terms.decode_lease_request(payload).term)
        return encode(CentreState(active=True, term=1, voters=VoterConfiguration((1, 2), ALL)))

    monkeypatch.setattr("sensegate.failover.standby.ask_peer", active)
    await standby._fetch_state(cast("Any", None))
    assert asked == [1]
    assert terms.read(tmp_path).number == 1
    assert (await ask_lease(standby, "44", LeaseRequest(2))).term == 2, "its own word counts"


async def test_an_expelled_node_votes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From when the standby has heard of it; the control: before, its grant counted."""
    standby, clock = make_standby(tmp_path, Term(1, active=True, voters=(VoterConfiguration((1, 1), ALL),)))
    for node in ("4401", "4403"):
        await ask_lease(standby, node, LeaseRequest(1, granted_here=2))
    assert standby.votes.has_majority(2, standby._voters, clock.monotonic())

    async def active(*_: object) -> bytes:
        return encode(CentreState(active=True, term=1, voters=VoterConfiguration((1, 2), ("4401", "4404"))))

    monkeypatch.setattr("sensegate.failover.standby.ask_peer", active)
    await standby._fetch_state(cast("Any", None))
    kept = terms.read(tmp_path)
    assert (kept.voters, kept.active) == ((VoterConfiguration((1, 2), ("4401", "4404")),), False)
    assert not standby.votes.has_majority(2, standby._voters, clock.monotonic())
    await ask_lease(standby, "4404", LeaseRequest(1, granted_here=2))
    assert standby.votes.has_majority(2, standby._voters, clock.monotonic())


@pytest.mark.parametrize("question", ["buckets", "rows"])
async def test_an_answer_that_cannot_be_read_does_not_end_the_standby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    """It counts as no answer, and is asked for once more."""
    standby, _ = make_standby(tmp_path, Term(1))

    async def ask(subject: str, _payload: bytes) -> bytes:
        return b"damaged" if subject == question else msgspec.msgpack.encode(["tokens"])

    async def bucket(_name: str) -> MemoryBucket:
        return MemoryBucket()

    monkeypatch.setattr(standby, "_bucket", bucket)
    with pytest.raises(Unavailable, match="the other centre's answer"):
        await standby._copy_registries(ask)


async def test_rows_that_are_gone_at_the_active_centre_are_gone_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago: a token that was revoked while this centre was away is not in force after a promotion."""
    standby, _ = make_standby(tmp_path, Term(1))
    own, there = MemoryBucket(), MemoryBucket()
    for bucket, keys in ((own, ("kept", "revoked")), (there, ("kept", "new"))):
        for key in keys:
            await bucket.put(key, key.encode())

    async def opened(_name: str) -> Any:
        return own

    async def ask(subject: str, payload: bytes) -> bytes:
        _, after = msgspec.msgpack.decode(payload, type=tuple[str, int])
        rows = there._newer(after)[:1]
        return msgspec.msgpack.encode(([(row.key, row.value) for row in rows], rows[-1].revision if rows else after))

    monkeypatch.setattr(standby, "_bucket", opened)
    await standby._copy_registry("tokens", ask)
    assert {row.key for row in (await own.load_all())[0]} == {"kept", "new"}
    await standby._copy_registry("tokens", ask)  # nothing new: nothing goes
    assert {row.key for row in (await own.load_all())[0]} == {"kept", "new"}
    await there.delete("new")
    await standby._copy_registry("tokens", ask)
    assert {row.key for row in (await own.load_all())[0]} == {"kept"}
