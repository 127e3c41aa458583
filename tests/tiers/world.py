"""A node, a centre and the uplink between them, all in memory."""

from __future__ import annotations

from sensegate.bus.commit_records import LaneRecord
from sensegate.bus.contract import Log
from sensegate.bus.ledger import Ledger
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import UplinkConfig
from sensegate.model import SheddingRule
from sensegate.tiers.exchange import Exchange
from sensegate.tiers.protocol import Lane
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.writers import Claimant
from tests.tiers.made import NODE, Centre, MemoryKeeper, Node, drive

CONFIG = UplinkConfig(url="nats://centre")


class World:
    """A node, a centre and an uplink, all in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.node = Node(MemoryLog(self.clock, epoch="node"), self.clock)
        self.centre = Centre(MemoryLog(self.clock, epoch="centre"), self.clock)
        self.keeper = MemoryKeeper()
        self.shed: list[SheddingRule] = []
        self.uplink = self.fresh()

    def fresh(self, *, began: int = -1, keeper: MemoryKeeper | None = None, log: Log | None = None) -> Uplink:
        """Return the uplink of a new process."""
        log = log or self.node.log
        claimant = Claimant(keeper or self.keeper, log, began=began)
        return Uplink(
            log, Exchange(self.centre, claimant, log, self.clock), CONFIG, self.clock, node=NODE, shed=lambda: self.shed
        )

    def record(self, lane: Lane) -> LaneRecord:
        """Return a lane's record as the uplink holds it."""
        return self.uplink._exchange.lanes[lane].record

    async def live(self) -> bool:
        return bool(await drive(self.clock, self.uplink.forward_live()))

    async def drain(self) -> None:
        while await self.live() or await drive(self.clock, self.uplink.forward_backlog()):
            pass

    async def ledger_totals(self) -> dict[str, int]:
        """Return what the centre's ledger says of the node."""
        sums = Ledger()
        for entry in await self.centre.log.fetch(0, limit=100_000):
            if entry.subject == f"ledger.{NODE}":
                sums.merge(Ledger.decode(entry.payload))
        return sums.totals()
