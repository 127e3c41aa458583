"""A store restored from a backup: the centre takes it where the original is dead, from exactly where it stands."""

from __future__ import annotations

import random

import msgspec
import pytest

from sensegate.bus.memory import MemoryLog
from sensegate.errors import PermissionDenied
from tests.tiers.machine import Machine, ids
from tests.tiers.made import rows_of
from tests.tiers.world import World


def restored(machine: Machine, *, marked: bool = True) -> Machine:
    """Return a machine with a copy of the store, as a restore leaves it."""
    copy = machine.copy()
    assert copy.keeper.state is not None
    copy.keeper.state = msgspec.structs.replace(copy.keeper.state, restored=marked)
    return copy


async def of(machine: Machine) -> list[str]:
    """Return the ids of the readings on a machine's own log."""
    log = machine.node.log
    assert isinstance(log, MemoryLog)
    return (await rows_of(log)).ids


async def later(machine: Machine, rng: random.Random) -> None:
    """Let the original go on after the backup: it commits, is restarted, brings some of it up."""
    for _ in range(rng.randrange(6)):
        match rng.randrange(3):
            case 0:
                await machine.node.commit([(0, rng.randrange(1, 5))])
            case 1:
                await machine.started()
            case _:
                await machine.drain()


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_the_original_did_since(world: World, seed: int) -> None:
    """All that the copy holds is at the centre once, beside what the original had brought up; new ones follow."""
    rng = random.Random(seed)
    machine = Machine(world, world.node, world.keeper)
    await machine.node.commit([(0, 3)])
    await machine.drain()
    await later(machine, rng)
    copy = restored(machine)
    held = await of(copy)
    await later(machine, rng)
    had = await ids(world)
    await copy.started()
    await copy.node.commit([(0, 4)])
    await copy.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids))
    assert {*held} <= {*entity_ids}, "a reading of before the backup never came up"
    assert {*had} <= {*entity_ids}
    assert len(entity_ids) == len({*held} | {*had}) + 4
    assert copy.keeper.state is not None
    assert not copy.keeper.state.restored
    assert copy.keeper.state.epoch == copy.uplink._claimant.writer.epoch > 0


async def test_control_a_takeover_alone_skips_what_was_not_up() -> None:
    """Negative control: taken for a copy that another one has displaced, its readings that were not up are skipped."""
    result = {}
    for marked in (True, False):
        fresh = World()
        machine = Machine(fresh, fresh.node, fresh.keeper)
        await machine.node.commit([(0, 3)])
        await machine.drain()
        await machine.node.commit([(0, 5)])  # on the copy, and not up
        copy = restored(machine, marked=marked)
        await machine.started()
        await machine.uplink._exchange._query_lanes()  # a newer epoch, that brings nothing
        await copy.started()
        if not marked:
            copy.uplink.take_over()
        await copy.drain()
        result[marked] = len(await ids(fresh))
    assert result == {True: 8, False: 3}


async def test_beside_the_living_original_it_waits(world: World) -> None:
    """Whoever restores a backup while the original answers is told so, and nothing of either is skipped."""
    machine = Machine(world, world.node, world.keeper)
    await machine.node.commit([(0, 3)])
    await machine.drain()
    machine.alive()
    copy = restored(machine)
    await copy.started()
    await copy.node.commit([(0, 4)])
    for _ in range(3):
        with pytest.raises(PermissionDenied, match="another process of this node is running"):
            await copy.uplink.forward_live()
    await machine.node.commit([(0, 2)])
    await machine.drain()
    assert len(await ids(world)) == 5
    await machine.stop()
    await copy.drain()
    entity_ids = await ids(world)
    assert len(entity_ids) == len(set(entity_ids)) == 9
