"""The active one of two centres: what it delivers, whom it counts, and when it is none any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.authority.chain import ChainHead
from sensegate.bus.kv_row import KvRow
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import Config, NodeUserConfig
from sensegate.config.sites import PeerConfig
from sensegate.errors import ConfigError, PermissionDenied, Superseded
from sensegate.failover import active as active_module
from sensegate.failover import standby as standby_module
from sensegate.failover import terms
from sensegate.failover.active import Activation, Leadership, ReplicatedStores
from sensegate.failover.lease import LeaseRequest, VoterConfiguration
from sensegate.failover.terms import CentreChoice, CentreState, Term, decode_state, encode
from sensegate.model import LogMessage
from tests.live.site import config_of

LEASE_S = 10.0
ALL = ("4401", "4403", "4404")


class Trail:
    """What a seat asks of an audit trail."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, Any]]] = []

    async def head(self) -> ChainHead:
        return ChainHead(7)

    async def record(self, _by: object, action: str, _target: str, *, after: dict[str, Any]) -> None:
        self.records.append((action, after))


class World:
    """A seat with nodes that it knows."""

    def __init__(self, directory: Path, term: Term, *, automatic: bool = True, nodes: Sequence[str] = ALL) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        config = config_of(directory, "44")
        self.config: Config = msgspec.structs.replace(
            config,
            nodes=tuple(NodeUserConfig(node, "") for node in nodes),
            peer=PeerConfig("nats://away:1", automatic=automatic, lease_s=LEASE_S, standby_timeout_s=5.0),
        )
        self.clock = FakeClock()
        self.log = MemoryLog(self.clock)
        self.trail = Trail()
        self.joined: Sequence[str] = ()
        self.buckets: dict[str, Any] = {}
        stores = ReplicatedStores(self.log, self.log, self.buckets, self.trail)  # type: ignore[arg-type] # as much as is asked
        self.leadership = Leadership(
            self.config, self.clock, Activation(term, "by order"), stores, joined=lambda: self.joined
        )
        self.held = self.leadership.delivered
        self.nodes = {node: CentreChoice(LEASE_S) for node in nodes}

    async def open(self) -> None:
        await self.leadership.begin()

    async def meet(self, *nodes: str) -> None:
        """Have nodes ask until all is said."""
        for node in nodes:
            resumed = True
            while resumed:
                choice = self.nodes[node]
                state = await self.asked(node, choice.lease_request("here"))
                resumed = choice.note_active("here", state, self.clock.monotonic())

    async def passes(self, seconds: float) -> None:
        """Let time pass, once all that has begun waits for it."""
        for _ in range(20):
            await asyncio.sleep(0)
        await self.clock.advance(seconds)

    async def asked(self, division: str, request: LeaseRequest) -> CentreState:
        return decode_state(await self.leadership.answers["lease"](division, encode(request)))

    async def seen(self) -> int:
        """Return up to which sequence is delivered."""
        return (await self.held.bounds())[1]


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other centre is not reached."""

    async def away(*_: object) -> None:
        return None

    async def at_once(work: Callable[..., Any], *given: Any) -> Any:
        return work(*given)

    monkeypatch.setattr(active_module, "peer_state", away)
    monkeypatch.setattr(asyncio, "to_thread", at_once)  # a thread knows nothing of our clock


async def promoted(tmp_path: Path, *, automatic: bool = True) -> World:
    """Return a centre whose term has just begun, with a commit on its log."""
    inherited = VoterConfiguration((1, 1), ALL)
    term = Term(2, active=True, unreplicated=True, history=((1, 0), (2, 0)), voters=(inherited,))
    world = World(tmp_path / "b", term, automatic=automatic)
    await world.log.write([LogMessage("commit.44.a", b"1")])
    await world.open()
    return world


async def test_alone_only_with_a_majority_that_knows(tmp_path: Path) -> None:
    """A centre that was promoted delivers nothing before more than half of the nodes are here and know that it does."""
    world = await promoted(tmp_path)
    assert world.trail.records == [("centre.active", {"term": 2, "log": 0, "trail": 7, "how": "by order"})]
    assert await world.seen() == 0
    await world.meet("4401")
    assert await world.seen() == 0
    await world.meet("4403")
    assert await world.seen() == 1
    # Nobody comes for most of the lease: what was given is given, nothing more is.
    await world.passes(LEASE_S * 0.8)
    await world.log.write([LogMessage("commit.44.a", b"2", rollup=True)])
    assert await world.seen() == 1
    for _ in range(2):  # they count from the answer that they repeat
        await world.meet("4403", "4404")
    assert await world.seen() == 2


async def test_first_it_is_on_the_disks_that_it_delivers_alone(tmp_path: Path) -> None:
    """On its own, then on those of half of the nodes; whoever is here and does not know would grant the other."""
    world = World(tmp_path / "a", Term(1, active=True, history=((1, 0),)))
    await world.open()
    await world.log.write([LogMessage("commit.44.a", b"1")])
    for _ in range(2):
        await world.meet("4401", "4403")
    await world.passes(5.5)  # the standby was not heard
    version = terms.read(world.directory).voters[-1].version
    answers = {node: await world.asked(node, LeaseRequest(1)) for node in ALL}
    assert [answer.unreplicated for answer in answers.values()] == [True] * 3
    # Said, and on the disk of all nodes, but not on its own.
    knowing = {
        node: LeaseRequest(1, voters_version=version, unreplicated=True, stamp=state.stamp)
        for node, state in answers.items()
    }
    for node, request in knowing.items():
        await world.asked(node, request)
    assert await world.seen() == 0
    await world.leadership._persist_state()
    assert terms.read(world.directory).unreplicated
    assert await world.seen() == 1
    # On its own, but on that of one node only.
    await world.log.write([LogMessage("commit.44.a", b"2", rollup=True)])
    for node in ("4403", "4404"):
        await world.asked(node, msgspec.structs.replace(knowing[node], unreplicated=False))
    assert await world.seen() == 1
    await world.asked("4404", knowing["4404"])
    assert await world.seen() == 2


async def test_by_order_it_asks_nobody(tmp_path: Path) -> None:
    """The control: whoever orders knows what he does."""
    world = await promoted(tmp_path, automatic=False)
    assert await world.seen() == 1


async def test_a_node_that_has_granted_the_other_is_not_counted(tmp_path: Path) -> None:
    """Nor does it say that the standby cannot be granted."""
    world = await promoted(tmp_path)
    await world.meet("4401")
    world.nodes["4403"].term = Term(2, granted=3, granted_to="there")
    await world.meet("4403")
    assert await world.seen() == 0
    await world.meet("4404")
    assert await world.seen() == 1


async def test_what_waited_in_a_queue_says_nothing(tmp_path: Path) -> None:
    """A question that was put before the process stood still is answered, and counts from when it was put."""
    world = await promoted(tmp_path)
    await world.meet("4401", "4403")
    late = [(node, world.nodes[node].lease_request("here")) for node in ("4401", "4403")]
    await world.passes(LEASE_S)
    for node, request in late:
        await world.asked(node, request)
    await world.log.write([LogMessage("commit.44.a", b"2", rollup=True)])
    assert await world.seen() == 1


async def test_who_is_told_what_and_when(tmp_path: Path) -> None:
    """A node that knows all is answered late, or at once when something changes; the standby hears who votes."""
    world = World(tmp_path / "a", Term(1, active=True, history=((1, 0),)), nodes=("4401",))
    await world.open()
    await world.meet("4401")
    joined = ["4403.1"]
    world.joined = joined
    running = asyncio.create_task(world.leadership.run())
    waiting = asyncio.create_task(world.asked("4401", world.nodes["4401"].lease_request("here", wait=True)))
    await world.passes(0.5)
    assert not waiting.done()
    world.nodes["4403"] = CentreChoice(LEASE_S)
    for _ in range(2):  # it says who it is, and that it has heard the answer
        request = world.nodes["4403"].lease_request("here", generation=1)
        world.nodes["4403"].note_active("here", await world.asked("4403", request), world.clock.monotonic())
    await world.passes(0.3)
    assert (await waiting).voters_version == (1, 2)
    fetched = await world.asked("44", LeaseRequest(1))
    assert fetched.voters == VoterConfiguration((1, 2), ("4401", "4403.1"))
    assert terms.read(world.directory).voters[-1] == fetched.voters
    assert (await world.asked("4401", LeaseRequest(1))).voters is None
    joined.clear()  # expelled
    await world.passes(0.3)
    assert terms.read(world.directory).voters[-1] == VoterConfiguration((1, 3), ("4401",))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_left_by_its_nodes_it_ends_and_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so on the disk: that term is not taken up again, though the other centre says that it is not active."""
    world = World(tmp_path / "a", Term(1, active=True, history=((1, 0),)))
    await world.open()
    running = asyncio.create_task(world.leadership.run())
    for _ in range(15):
        await world.meet("4401", "4403")
        await world.passes(2.0)
    assert not running.done()
    await world.passes(LEASE_S)
    with pytest.raises(Superseded, match="0 of 3 nodes"):
        await running
    term = terms.read(world.directory)
    assert (term.active, term.lapsed) == (True, True)
    stood: list[Term] = []

    async def standby(*_: object) -> CentreState:
        return CentreState(active=False, term=1)

    async def stand_by(_config: Config, _clock: object, term: Term, _cameras: object) -> tuple[Term, str]:
        stood.append(term)
        return msgspec.structs.replace(term, number=2, lapsed=False), "granted"

    monkeypatch.setattr(standby_module, "peer_state", standby)
    monkeypatch.setattr(standby_module, "_stand_by", stand_by)
    assert (await standby_module.await_activation(world.config, world.clock)).term.number == 2
    assert stood == [term]
    # The control: one that was only started again goes on at once.
    terms.write(world.directory, msgspec.structs.replace(term, lapsed=False))
    assert (await standby_module.await_activation(world.config, world.clock)).term.number == 1


async def test_rows_go_in_pieces_that_fit(tmp_path: Path) -> None:
    """A registry of large rows is copied, too: an answer is no larger than a message may be."""
    world = await promoted(tmp_path)
    values = {f"k{number}": bytes([number]) * 300_000 for number in range(5)} | {"large": b"x" * 900_000}
    rows = [KvRow(key, value, number) for number, (key, value) in enumerate(values.items(), 1)]

    class Bucket:
        async def changes(self, after: int, *, limit: int) -> list[KvRow]:
            return rows[after : after + limit]

    world.buckets["large"] = Bucket()
    await world.leadership.begin()
    got: dict[str, bytes] = {}
    after, answers = 0, 0
    while True:
        raw = await world.leadership.answers["rows"]("44", msgspec.msgpack.encode(("large", after)))
        assert len(raw) < 1024**2 - 512
        some, after = msgspec.msgpack.decode(raw, type=tuple[list[tuple[str, bytes]], int])
        if not some:
            break
        answers += 1
        got |= dict(some)
    assert (got, answers) == (values, 6)
    with pytest.raises(PermissionDenied):
        await world.leadership.answers["rows"]("4401", msgspec.msgpack.encode(("large", 0)))


@pytest.mark.parametrize("tellers", [("44",), ("4401", "4403")])
async def test_it_ends_on_a_later_term(tmp_path: Path, tellers: Sequence[str]) -> None:
    """The other centre is believed when it tells of a later term, and so are more than half of the nodes."""
    world = World(tmp_path / "centre", Term(1, active=True, history=((1, 0),)))
    await world.open()
    running = asyncio.create_task(world.leadership.run())
    await world.passes(1.0)
    active = [(await world.asked(teller, LeaseRequest(2))).active for teller in tellers]
    assert active == [*([True] * (len(tellers) - 1)), False]
    assert world.leadership.current_term() is None
    with pytest.raises(Superseded, match="term 2"):
        await running
    assert not terms.read(world.directory).active


async def test_a_node_of_many_generations_fills_no_memory(tmp_path: Path) -> None:
    """Only what voters say is remembered: a node names its own generation."""
    world = World(tmp_path / "centre", Term(1, active=True, history=((1, 0),)))
    world.joined = ["4405.7"]
    await world.open()
    for generation in range(100):
        for node in ("4401", "4405"):
            await world.asked(node, LeaseRequest(2, granted_elsewhere=2, generation=generation))
            await world.asked(node, LeaseRequest(1, generation=generation))
    leadership = world.leadership
    assert leadership._reporting_later_term == {"4401", "4405.7"}
    assert leadership.lease._granted_elsewhere == {"4401", "4405.7"}
    assert set(leadership.lease._voters_known) <= {"4401", "4405.7"}


async def test_one_node_that_tells_of_a_later_term_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may lie: the other centre is asked at once, and only its word ends this one."""
    results: list[float] = []
    world = World(tmp_path / "centre", Term(1, active=True, history=((1, 0),)))

    async def peer(*_: object) -> CentreState | None:
        results.append(world.clock.monotonic())
        return CentreState(active=True, term=2) if len(results) > 2 else None

    monkeypatch.setattr(active_module, "peer_state", peer)
    await world.open()
    running = asyncio.create_task(world.leadership.run())
    await world.passes(1.0)
    assert (await world.asked("4401", LeaseRequest(2))).active
    assert (await world.asked("4401", LeaseRequest(2**40))).active
    await world.passes(0)
    assert results == [results[0], results[0] + 1.0], "not at its next turn, but at once"
    assert world.leadership.current_term() == 1
    with pytest.raises(msgspec.ValidationError):
        await world.asked("4401", LeaseRequest(2**62))
    await world.passes(active_module.PROBE_S)
    with pytest.raises(Superseded, match="term 2"):
        await running


async def test_a_secret_that_cannot_be_read_for_a_while_does_not_end_the_probes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other centre is asked again when the file is there: its later term is met."""
    answers: list[CentreState | None] = [None, CentreState(active=True, term=2)]

    async def peer(*_: object) -> CentreState | None:
        if (answer := answers.pop(0)) is None:
            raise ConfigError("cannot be read", key="peer.secret_file", remedy="restore it")
        return answer

    monkeypatch.setattr(active_module, "peer_state", peer)
    world = World(tmp_path / "centre", Term(1, active=True, history=((1, 0),)))
    await world.open()
    running = asyncio.create_task(world.leadership.run())
    await world.passes(active_module.PROBE_S)
    await world.passes(1.0)
    assert world.leadership.current_term() is None
    with pytest.raises(Superseded, match="term 2"):
        await running
