"""One writer of a member's lanes: copies of a store are told apart, and nothing of either is lost silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.errors import ConfigError, PermissionDenied, Unavailable
from sensegate.tiers.protocol import Lane
from sensegate.tiers.writers import Claimant, SequenceShift, WriterState, WriterStateFile
from tests.tiers.machine import Machine, ids
from tests.tiers.world import World


@pytest.fixture
def machine(world: World) -> Machine:
    """The original."""
    return Machine(world, world.node, world.keeper)


async def test_a_process_that_is_started_again_goes_on(world: World, machine: Machine) -> None:
    """A restart claims the next epoch, whatever was lost of the claim before."""
    for turn in range(4):
        await machine.started()
        await machine.node.commit([(0, 2)])
        await machine.drain()
        assert machine.uplink._claimant.writer.epoch == turn + 1
    assert len(set(await ids(world))) == 8


async def test_a_claim_whose_answer_was_lost_is_no_copy(world: World, machine: Machine) -> None:
    """The centre has granted it, the node does not know: the next process of the store is known by its tokens."""
    result = world.centre.ask

    async def lost(question: str, payload: bytes = b"", timeout_s: float = 10.0) -> bytes:
        answer = await result(question, payload, timeout_s)
        if question == "claim":
            raise Unavailable("the answer was lost")
        return answer

    for _ in range(3):
        await machine.started()
        world.centre.ask = lost  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await machine.uplink.forward_live()
    world.centre.ask = result  # type: ignore[method-assign]
    await machine.node.commit([(0, 2)])
    await machine.started()
    await machine.node.commit([(0, 3)])
    await machine.drain()
    assert len(await ids(world)) == 5


async def test_a_copied_machine_beside_the_living_one_waits_and_is_told(world: World, machine: Machine) -> None:
    """Nothing of either is skipped: the living one goes on, what the copy has acknowledged waits, and both are told."""
    await machine.node.commit([(0, 3)])
    await machine.drain()
    machine.alive()
    copy = machine.copy()
    await copy.started()
    for _ in range(5):
        await copy.node.commit([(0, 4)])
        await machine.node.commit([(0, 2)])
        with pytest.raises(PermissionDenied, match="another process of this node is running"):
            await copy.uplink.forward_live()
        await machine.drain()
    assert len(await ids(world)) == 3 + 5 * 2
    assert "another process" in copy.uplink.problems[0]
    assert "two copies" in world.centre.receiver.health("4401").problems()[0]


@pytest.mark.parametrize("takes_over", ["copy", "original"])
async def test_the_operator_decides_which_copy_goes_on(world: World, machine: Machine, takes_over: str) -> None:
    """What waited at the one that takes over comes up, each reading once and under an id of its own."""
    await machine.node.commit([(0, 3)])
    await machine.drain()
    copy = machine.copy()
    if takes_over == "original":
        # The original was off when the copy began: it is the original that is late.
        await copy.started()
        await copy.node.commit([(0, 4)])
        await copy.drain()
        late, other, wrote = machine, copy, 7
    else:
        machine.alive()
        await copy.started()
        late, other, wrote = copy, machine, 3
    await late.started()
    for _ in range(3):
        await late.node.commit([(0, 5)])
        with pytest.raises(PermissionDenied, match="writer: another"):
            await late.uplink.forward_live()
        await other.node.commit([(0, 2)])
        await other.drain()
        wrote += 2
        await late.started()
    await other.node.commit([(0, 1)])
    await other.drain()
    wrote += 1
    await late.node.commit([(0, 6)])
    late.uplink.take_over()
    await late.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == wrote + 3 * 5 + 6
    late.alive()
    await other.node.commit([(0, 1)])
    with pytest.raises((Unavailable, PermissionDenied), match="writer"):
        await other.uplink.forward_live()
    with pytest.raises(PermissionDenied, match="writer"):
        await other.uplink.forward_live()


async def test_what_was_not_sent_when_a_copy_took_over_comes_up_from_where_it_is(
    world: World, machine: Machine
) -> None:
    """Ranges and rows that only the displaced one has are its own to bring, those that both have come once."""
    await machine.node.commit([(0, 3)])
    await machine.drain()
    copy = machine.copy()
    await machine.node.commit([(0, 2)])  # the copy has not these
    await machine.drain()
    await machine.node.commit([(0, 7)])  # nor these, and they are not up
    await copy.started()
    copy.uplink.take_over()
    await copy.node.commit([(0, 4)])
    await copy.drain()
    assert len(set(await ids(world))) == 3 + 2 + 4
    machine.uplink.take_over()
    await machine.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == 3 + 2 + 4 + 7


async def test_control_without_the_writer_the_copys_readings_are_skipped(
    world: World, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without claims both write under the same sequences, and readings of one are passed over."""
    monkeypatch.setattr("sensegate.tiers.lanes.is_writer", lambda *_: True)
    monkeypatch.setattr("sensegate.tiers.exchange.Exchange._is_own", lambda *_: True)
    await machine.node.commit([(0, 3)])
    await machine.drain()
    copy = machine.copy()
    copy.uplink._claimant.writer = machine.uplink._claimant.writer
    for _ in range(5):
        await copy.node.commit([(0, 4)])
        await machine.node.commit([(0, 2)])
        await machine.drain()
        await copy.drain()
    assert len(await ids(world)) < 3 + 5 * 4 + 5 * 2


async def test_rows_behind_a_lost_end_bear_places_of_their_own(world: World, machine: Machine) -> None:
    """A node that lost power commits before it reaches its centre: no id that was given comes a second time."""
    await machine.node.commit([(0, 2)])
    older = machine.copy()
    await machine.node.commit([(0, 3)])
    await machine.drain()
    older.keeper = machine.keeper
    await older.started()
    await older.node.commit([(0, 4)])
    await older.drain()
    await older.node.commit([(0, 1)])
    await older.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == 10


async def test_a_claim_by_force_needs_a_known_place(world: World, machine: Machine) -> None:
    """Where nobody knows any more what of a store has come up it is not guessed: a new store must join."""
    await machine.node.commit([(0, 2)])
    await machine.drain()
    copy = machine.copy()
    await copy.drain()
    await world.clock.advance(200 * 3_600)  # what was displaced has expired
    machine.uplink.take_over()
    with pytest.raises(PermissionDenied, match="new store"):
        await machine.uplink.forward_live()


async def test_a_store_that_has_lost_its_file_goes_on_by_order(world: World, machine: Machine) -> None:
    """Nobody can tell it from a copy by itself; by a takeover it goes on where the records stand."""
    await machine.node.commit([(0, 2)])
    await machine.drain()
    await machine.node.commit([(0, 3)])
    machine.keeper.state = None
    for _ in range(2):
        await machine.started()
        with pytest.raises(PermissionDenied, match="takeover"):
            await machine.uplink.forward_live()
    machine.uplink.take_over()
    await machine.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == 5
    await machine.started()
    await machine.node.commit([(0, 1)])
    await machine.drain()
    assert len(await ids(world)) == 6


async def test_the_file_is_read_as_it_was_written_or_refused(tmp_path: Path) -> None:
    """None is a first start; garbage is named with what to do."""
    keeper = WriterStateFile(tmp_path)
    assert await keeper.read() is None
    state = WriterState("a", 3, ("x", "y"), 7, (SequenceShift(1, 2, 3),))
    await keeper.write(state)
    assert await keeper.read() == state
    (tmp_path / "writer.json").write_text("{")
    with pytest.raises(ConfigError, match="takeover"):
        await keeper.read()


async def test_a_file_that_cannot_be_read_is_told_and_ends_nothing(world: World, tmp_path: Path) -> None:
    """The node goes on alone and says why; once the file is mended it goes up."""
    (tmp_path / "writer.json").write_text("garbage")
    claimant = Claimant(WriterStateFile(tmp_path), world.node.log)
    assert await claimant.claim(world.centre) is None
    assert "writer.json" in claimant.denied
    (tmp_path / "writer.json").unlink()
    assert await claimant.claim(world.centre) is not None
    assert claimant.denied == ""


async def test_a_centre_that_has_not_copied_a_claim_takes_the_newer_epoch(world: World, machine: Machine) -> None:
    """A standby takes over with an older record of the lanes: the same process goes on without an operator."""
    await machine.started()
    await machine.node.commit([(0, 2)])
    await machine.drain()
    standby = world.centre.log.copy()
    await machine.started()
    await machine.node.commit([(0, 3)])
    await machine.drain()
    world.centre.log = standby
    world.centre.fresh()
    machine.uplink._exchange.invalidate()
    await machine.node.commit([(0, 1)])
    await machine.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == 6
    assert machine.uplink._exchange.lanes[Lane.LIVE].record.writer.epoch == 2
