"""Source of corrections: a kill at any moment corrects nothing twice and passes nothing over."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
from sensegate.clock import HOUR_US, FakeClock
from sensegate.lifecycle import corrections as module
from sensegate.lifecycle.corrections import Correction, CorrectionAction, Corrections, CorrectionSource
from sensegate.model import Device, LogMessage, SourcePosition
from sensegate.quantities.quality import Flag, Quality
from tests.persist.rig import NOW as RIG_NOW
from tests.persist.rig import SUPPRESS, Rig, Row, Sent
from tests.share.made import NOW, make_batch

OPERATOR = Principal("op", Role.CITY_OPERATOR, Scope("4401"))
DEVICE = "gz-air-1"
ENTRIES = 7
MINUTE_US = 60_000_000


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


def withdrawal(begin: int, end: int, device: str = DEVICE) -> Correction:
    """Return an order to withdraw the readings of a span."""
    return Correction(
        action=CorrectionAction.WITHDRAW,
        devices=(device,),
        begin=begin,
        end=end,
        quality=int(Quality.BAD),
        note="calibration",
    )


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
        return await self.corrections.order(withdrawal(NOW, NOW + HOUR_US), by=OPERATOR)

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


async def test_a_reading_that_arrived_long_before_its_own_time_is_corrected() -> None:
    """The clock of the device was three hours ahead: the span is one of its times, not of arrivals."""
    site = Site()
    await site.fill()
    await site.run()
    ahead = own(make_batch([(0, "pm2_5", 1.0)], start=NOW + 3 * HOUR_US))
    await site.log.write([LogMessage("readings.4401.own.1", columns.encode(ahead))])
    site.clock._now += 4 * HOUR_US
    await site.corrections.order(withdrawal(NOW + 3 * HOUR_US, NOW + 4 * HOUR_US), by=OPERATOR)
    await site.run()
    assert [sequence for sequence, _ in site.written] == list(range(1, ENTRIES + 2))


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_correction_leaves_the_value_with_which_the_next_is_compared(tmp_path: Path, *, restarts: bool) -> None:
    """Report by exception: a value equal to a corrected, older one is a change all the same."""
    rig = Rig(tmp_path)
    await rig.open()
    for minute, value in enumerate((20.0, 25.0)):
        time = RIG_NOW + minute * MINUTE_US
        await rig.commit([Sent((Row(SUPPRESS, value, time),), b"%d" % minute, received=time)])
    devices = Devices(MemoryBucket(), MemoryTrail(), rig.clock)
    await devices.add(Device("dev-0", "440103", "acme/th10"), by=OPERATOR)
    corrections = Corrections(MemoryBucket(), MemoryTrail(), rig.clock, rig.log, devices)
    await corrections.order(withdrawal(RIG_NOW, RIG_NOW + 1, "dev-0"), by=OPERATOR)
    source = CorrectionSource(rig.log, corrections, rig.committer.position, writer="4401-0")
    await source.start(None)
    await rig.committer.write(rig.committer.prepare_correction(await anext(source.deliveries())))
    if restarts:
        await rig.restart()
    time = RIG_NOW + 2 * MINUTE_US
    back = await rig.commit([Sent((Row(SUPPRESS, 20.0, time),), b"back", received=time)])
    assert back.accepted.tolist() == [True]
