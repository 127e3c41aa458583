"""Source of corrections: a kill at any moment corrects nothing twice and passes nothing over."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.batch import Batch, LocalColumns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.lifecycle import corrections as module
from sensegate.lifecycle.corrections import Correction, CorrectionAction, Corrections, CorrectionSource
from sensegate.model import Device, LogMessage, SourcePosition
from sensegate.quantities.quality import Flag, Quality
from tests.share.made import NOW, make_batch

OPERATOR = Principal("op", Role.CITY_OPERATOR, Scope("4401"))
DEVICE = "gz-air-1"
ENTRIES = 7


def own(batch: Batch) -> Batch:
    """Return a batch with the local columns of the gateway that committed it."""
    rows = len(batch)
    local = LocalColumns(
        batch.time,
        np.zeros(rows, np.uint16),
        np.zeros(rows, np.uint8),
        np.arange(rows, dtype=np.uint32),
        np.arange(1, rows + 1, dtype=np.uint64),
    )
    return msgspec.structs.replace(batch, local=local)


class Site:
    """A log with some entries of readings, and a correction over all of them."""

    def __init__(self) -> None:
        self.clock = FakeClock(NOW)
        self.log = MemoryLog(self.clock, epoch="e1")
        self.devices = Devices(MemoryBucket(), MemoryTrail(), self.clock)
        self.corrections = Corrections(MemoryBucket(), MemoryTrail(), self.clock, self.log, self.devices)
        self.position: SourcePosition | None = None
        self.written: list[tuple[int, Batch]] = []

    async def fill(self) -> Correction:
        """Write the entries and order the correction."""
        await self.devices.add(Device(DEVICE, "440106", "acme/th10"), by=OPERATOR)
        for minute in range(ENTRIES):
            batch = own(make_batch([(0, "pm2_5", 1.0), (1, "pm2_5", 2.0)], start=NOW + minute * 60_000_000))
            await self.log.write([LogMessage("readings.4401.own.1", columns.encode(batch))])
        wanted = Correction(
            action=CorrectionAction.WITHDRAW,
            devices=(DEVICE,),
            begin=NOW,
            end=NOW + 3_600_000_000,
            quality=int(Quality.BAD),
            note="calibration",
        )
        return await self.corrections.order(wanted, by=OPERATOR)

    async def run(self, *, kill_after: int = 99, keeps_position: bool = True) -> None:
        """Run a process that dies after some commits, between a commit and its acknowledgement."""
        source = CorrectionSource(self.log, self.corrections, lambda _name: self.position, writer="4401-0")
        await source.start(None)
        deliveries = source.deliveries()
        correction = await self.corrections.next()
        for _ in range(kill_after):
            if not [item for item in self.corrections.list(OPERATOR) if item.ended == 0]:
                break
            try:
                delivery = await asyncio.wait_for(anext(deliveries, None), 0.5)
            except TimeoutError:
                break
            assert delivery is not None
            assert delivery.source == correction.source
            self.written += [(message.sequence, columns.decode(message.payload)) for message in delivery.messages]
            if keeps_position:
                self.position = delivery.position
            await delivery.ack()
        await source.stop()


@pytest.mark.parametrize("kill_after", range(1, ENTRIES))
async def test_a_kill_corrects_each_reading_once(kill_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process goes on after the committed position; all are corrected, and only the device's."""
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 1)
    site = Site()
    await site.fill()
    await site.run(kill_after=kill_after)
    await site.run()
    assert [sequence for sequence, _ in site.written] == list(range(1, ENTRIES + 1))
    for _, batch in site.written:
        assert batch.origins.device == [DEVICE]
        assert (batch.revision.tolist(), batch.quality.tolist()) == ([1], [Quality.BAD])
        assert batch.flags[0] & Flag.WITHDRAWN
        assert batch.value.tolist() == [1.0]
    (done,) = site.corrections.list(OPERATOR)
    assert (done.state, done.corrected) == ("done", ENTRIES)


async def test_without_the_committed_position_readings_are_corrected_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: it is the position in the commits that a process goes on from."""
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 1)
    site = Site()
    await site.fill()
    await site.run(kill_after=3, keeps_position=False)
    await site.run(keeps_position=False)
    assert len(site.written) == ENTRIES + 3
