"""A gateway with alarms: what survives a process, and processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec

from sensegate.alarms.engine import AlarmEngine, EngineInputs
from sensegate.alarms.operations import AlarmOperations
from sensegate.alarms.probes import GatewayProbes
from sensegate.alarms.rules import AlarmKind, AlarmRule, AlarmRules
from sensegate.alarms.states import AlarmStates
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.bus.unreadable import read_rows
from sensegate.clock import FakeClock
from sensegate.model import QualityRow
from sensegate.share.last_values import LastValues
from sensegate.share.reader import LogReader
from tests.conftest import eventually
from tests.share.made import NOW, make_batch, members
from tests.support.quality import hours_of

OPERATOR = Principal("op", Role.CITY_OPERATOR, Scope("4401"))
OTHER = Principal("other", Role.CITY_OPERATOR, Scope("4403"))
AUDITOR = Principal("auditor", Role.AUDITOR, Scope("44"))
HIGH = AlarmRule(name="high", kind=AlarmKind.THRESHOLD, property="pm2_5", above=75.0, margin=5.0, place=Scope("4401"))


class Gateway:
    """What survives a process: the log, the bucket of rules, and the probes that a test sets."""

    def __init__(self, *rules: AlarmRule) -> None:
        self.clock = FakeClock(NOW)
        self.log = MemoryLog(self.clock, epoch="e1")
        self.rules = MemoryBucket()
        self.trail = MemoryTrail()
        self.of_profiles = list(rules)
        self.lag: int | None = 0
        self.refused: int | None = 0
        self.store_problems = 0
        self.totals: dict[str, int] = {}
        self.free = 0.5
        self.quality: list[QualityRow] = []
        self.devices = Devices(MemoryBucket(), self.trail, self.clock)

    def probes(self) -> GatewayProbes:
        """Return probes of a gateway in good health, but for what a test sets."""

        async def refused() -> int | None:
            return self.refused

        return GatewayProbes(
            self.clock,
            Path("/"),
            totals=lambda: self.totals,
            lag=lambda: self.lag,
            refused=refused,
            store_problems=lambda: self.store_problems,
            free=lambda _directory: self.free,
        )

    async def commit(self, value: float | str, *, device: int = 0, name: str = "pm2_5") -> None:
        """Advance by a minute and write one reading."""
        await self.clock.advance(60)
        await self.log.write(members(make_batch([(device, name, value)], start=self.clock.now())))

    def events(self) -> list[tuple[str, str, str]]:
        """Return (event, rule, device) of everything in the feed of alarms, in order."""
        events = []
        for entry in self.log._entries:
            if entry.subject.startswith("alarms.") and (batch := read_rows(entry, "test")) is not None:
                for row, text in sorted(batch.text.items()):
                    event = msgspec.json.decode(text)
                    device = batch.origins.device[int(batch.origin[row])]
                    assert device not in text
                    events.append((event["event"], event["rule"], device))
        return events


class Process(msgspec.Struct, frozen=True):
    """One process of the gateway."""

    engine: AlarmEngine
    states: AlarmStates
    operations: AlarmOperations
    rules: AlarmRules
    reader: LogReader

    async def step(self) -> None:
        """Judge everything that is on the log."""
        _, end = await self.reader.log.bounds()
        await eventually(lambda: self.reader.end >= end)
        await self.engine.step()


@contextlib.asynccontextmanager
async def process(gateway: Gateway, *, failures: Iterable[bool] = ()) -> AsyncIterator[Process]:
    """Start a process on what survived; it is killed at the end."""
    reader = LogReader(gateway.log, gateway.clock)
    running = asyncio.create_task(reader.run(0))
    rules = AlarmRules(
        gateway.rules, gateway.trail, gateway.clock, home="4401", of_profiles=lambda: gateway.of_profiles
    )
    await rules.open()
    states = AlarmStates(gateway.log, gateway.clock, Divisions.load(), node="4401", partition=0, events_ttl_h=168)
    inputs = EngineInputs(
        reader=reader,
        devices=gateway.devices,
        quality_hours=lambda _since: hours_of(gateway.quality, gateway.devices.find),
        are_arrivals_known=lambda: True,
        last_values=LastValues(),
        probes=gateway.probes(),
        node="4401",
        division="4401",
    )
    engine = AlarmEngine(rules, states, gateway.clock, inputs)
    await engine._open()
    try:
        yield Process(engine, states, AlarmOperations(rules, states, gateway.trail, gateway.clock), rules, reader)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
