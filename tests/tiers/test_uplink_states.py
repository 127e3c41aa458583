"""The uplink under crashes, lost answers and cuts at any point: a state machine against logs in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import UplinkConfig
from sensegate.errors import Unavailable
from sensegate.tiers.exchange import ENVELOPE_BYTES, Exchange
from sensegate.tiers.uplink import Uplink
from sensegate.tiers.writers import Claimant
from tests.tiers.made import NODE, Centre, MemoryKeeper, Node, check, drive

FAULT = st.sampled_from(["", "", "", "before", "after", "late", "down", "unsure"])
CONFIG = UplinkConfig(url="nats://centre", backlog_bytes_max=4_096)


class UplinkStates(RuleBasedStateMachine):
    """A node that commits, an uplink that forwards, and everything that can come between."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.node = Node(MemoryLog(self.clock, epoch="node"), self.clock)
        self.centre = Centre(
            MemoryLog(self.clock, epoch="centre"), self.clock, request_bytes_max=ENVELOPE_BYTES + 2_000
        )
        self.keeper = MemoryKeeper()
        self.uplink = self.fresh()
        self.zombie = self.fresh()

    def fresh(self) -> Uplink:
        log = self.node.log
        exchange = Exchange(self.centre, Claimant(self.keeper, log), log, self.clock)
        return Uplink(log, exchange, CONFIG, self.clock, node=NODE)

    def run(self, step: Any) -> Any:
        with asyncio.Runner() as runner:
            return runner.run(drive(self.clock, step))

    @rule(
        parts=st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=3, unique_by=lambda part: part[0]
        ),
        alarm=st.booleans(),
    )
    def commit(self, parts: list[tuple[int, int]], alarm: bool) -> None:  # noqa: FBT001
        self.run(self.node.commit(parts, alarm=alarm))

    @rule(seconds=st.sampled_from([0.01, 1.0, 3.0, 30.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    def step(self, uplink: Uplink, lane: str, fault: str) -> None:
        self.centre.fault = fault
        try:
            self.run(uplink.forward_live() if lane == "live" else uplink.forward_backlog())
        except Unavailable:
            pass
        finally:
            self.centre.fault = ""

    @rule(lane=st.sampled_from(["live", "backlog"]), fault=FAULT)
    def forward(self, lane: str, fault: str) -> None:
        self.step(self.uplink, lane, fault)

    @rule(lane=st.sampled_from(["live", "backlog"]), fault=FAULT)
    def forward_by_a_forgotten_process(self, lane: str, fault: str) -> None:
        self.step(self.zombie, lane, fault)

    @rule()
    def restart_the_centre(self) -> None:
        self.centre.fresh()

    @rule()
    def crash(self) -> None:
        self.uplink = self.fresh()

    @rule()
    def land(self) -> None:
        self.run(self.centre.land())

    def teardown(self) -> None:
        self.run(self.centre.land())
        uplink = self.fresh()
        while self.run(uplink.forward_live()) or self.run(uplink.forward_backlog()):
            pass
        self.run(check(self.node, self.centre.log))
        totals = uplink.totals
        assert totals.get("forwarded", 0) + totals.get("withheld.grade", 0) == totals.get("accepted", 0)


TestUplinkStates = UplinkStates.TestCase
TestUplinkStates.settings = settings(max_examples=settings().max_examples, stateful_step_count=25)
