"""A machine with a node on it, which can be copied and started again."""

from __future__ import annotations

from sensegate.bus.memory import MemoryLog
from sensegate.tiers.uplink import Uplink
from tests.tiers.made import MemoryKeeper, Node, drive, rows_of
from tests.tiers.world import World


class Machine:
    """A machine with a node on it."""

    def __init__(self, world: World, node: Node, keeper: MemoryKeeper) -> None:
        self.world = world
        self.node = node
        self.keeper = keeper
        self.start()

    def start(self) -> None:
        """Start the node's process."""
        log = self.node.log
        assert isinstance(log, MemoryLog)
        self.uplink: Uplink = self.world.fresh(keeper=self.keeper, log=log)

    async def started(self) -> None:
        """Start the node's process; its log ends where it ended."""
        log = self.node.log
        assert isinstance(log, MemoryLog)
        self.uplink = self.world.fresh(keeper=self.keeper, log=log, began=(await log.bounds())[1])

    def copy(self) -> Machine:
        """Return a copy of the machine as it is now."""
        log = self.node.log
        assert isinstance(log, MemoryLog)
        node = Node(log.copy(), self.world.clock)
        node.number, node.ledger = self.node.number, self.node.ledger
        return Machine(self.world, node, self.keeper.copy())

    async def drain(self) -> None:
        """Bring up what there is."""
        clock = self.world.clock
        while await drive(clock, self.uplink.forward_live()) or await drive(clock, self.uplink.forward_backlog()):
            pass

    def alive(self) -> None:
        """Answer probes from now on."""
        self.world.centre.alive.add(self.uplink._claimant.writer.token)

    async def stop(self) -> None:
        """End the process."""
        self.world.centre.alive.discard(self.uplink._claimant.writer.token)


async def ids(world: World) -> list[str]:
    """Return the ids of all readings at the centre."""
    return (await rows_of(world.centre.log)).ids
