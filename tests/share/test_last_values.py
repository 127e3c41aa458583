"""Last values: the latest reading of every series, whatever the order of entries, kept through restarts."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.selection import DeviceFilter
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns, raw
from sensegate.bus.memory import MemoryLog
from sensegate.bus.raw import StoredMessage
from sensegate.clock import DAY_US, FakeClock
from sensegate.model import Device, DeviceState, LogMessage, Message
from sensegate.share import json_records, last_values_store
from sensegate.share.last_values import LastValues
from sensegate.share.last_values_store import SAVE_S, LastValueTask
from sensegate.share.reader import LogReader
from tests.conftest import eventually
from tests.share.made import DEVICES, NOW, make_batch, members

Step = tuple[int, str, int, int, float | str]
"""(device, property, phenomenon time, arrival, value)"""
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # device
        st.sampled_from(["pm2_5", "air_temperature", "pm2_5#b"]),
        st.integers(0, 6),  # phenomenon time
        st.integers(0, 6),  # arrival
        st.one_of(st.floats(-50, 50), st.sampled_from(["open", "closed"])),
    ),
    max_size=12,
)


def shown(values: LastValues) -> dict[tuple[str, str, str], tuple[object, int, int]]:
    """Return (node, device, property) -> (value, time, entry)."""
    result: dict[tuple[str, str, str], tuple[object, int, int]] = {}
    for part in values.batches(np.arange(len(values))):
        batch = part.batch
        for row in range(len(batch)):
            key = (batch.node, batch.origins.device[batch.origin[row]], batch.properties[batch.property[row]])
            result[key] = (batch.text.get(row, float(batch.value[row])), int(batch.time[row]), int(part.entry[row]))
    return result


def entry_of(steps: list[Step], node: str = "4401") -> columns.Batch:
    """Return the batch of some readings, as it is read from the log."""
    batch = make_batch([(place, name, value) for place, name, _, _, value in steps], node=node)
    # `make_batch` sorts its rows; times are given to them in that order.
    times = np.array([NOW + time * 1_000_000 for _, _, time, _, _ in steps], np.int64)
    arrivals = np.array([NOW + arrival * 1_000_000 for _, _, _, arrival, _ in steps], np.int64)
    return msgspec.structs.replace(batch, time=times, received=arrivals)


@given(st.lists(STEPS.filter(bool), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(entries: list[list[Step]], rng: random.Random) -> None:
    """The last value is that of the latest time (never later than the arrival), of equal times the last of the log."""
    batches = [(sequence, entry_of(steps)) for sequence, steps in enumerate(entries, 1)]
    expected: dict[tuple[str, str, str], tuple[object, int, int]] = {}
    rank: dict[tuple[str, str, str], tuple[int, int, int]] = {}
    for sequence, batch in batches:
        for row in range(len(batch)):
            key = (batch.node, batch.origins.device[batch.origin[row]], batch.properties[batch.property[row]])
            place = (int(min(batch.time[row], batch.received[row])), sequence, row)
            if place > rank.get(key, (-1, 0, 0)):
                rank[key] = place
                expected[key] = (batch.text.get(row, float(batch.value[row])), int(batch.time[row]), sequence)
    for order in (batches, rng.sample(batches, len(batches)), [*batches, *batches[::-1]]):
        values = LastValues()
        for sequence, batch in order:
            values.apply(batch, sequence)
        assert shown(values) == expected


def test_rows_of_the_table_are_encoded_as_those_of_the_log() -> None:
    """Id, device, value, unit, position and flags of a last value are those of its record in a feed."""
    batch = make_batch([(0, "pm2_5", 12.5), (1, "pm2_5#b", 3.0), (2, "door_state", "open")])
    values = LastValues()
    values.apply(batch, 7)
    of_log = set(json_records.json_lines(batch, np.arange(len(batch)), 7, ""))
    lines = set()
    for part in values.batches(np.arange(len(values))):
        for row in range(len(part.batch)):
            line = msgspec.json.decode(
                json_records.json_lines(part.batch, np.array([row]), int(part.entry[row]), "")[0]
            )
            lines.add(msgspec.json.encode({**line, "cursor": ""}))
    assert lines == {msgspec.json.encode({**msgspec.json.decode(line), "cursor": ""}) for line in of_log}


async def test_a_change_is_seen_and_an_older_reading_is_none() -> None:
    """A stream of changes gets each series that was replaced, and nothing for late data."""
    values = LastValues()
    values.apply(entry_of([(0, "pm2_5", 5, 5, 1.0), (1, "pm2_5", 5, 5, 2.0)]), 1)
    change = values.change
    values.apply(entry_of([(0, "pm2_5", 4, 6, 9.0)]), 2)
    assert values.change == change
    waiting = asyncio.create_task(values.wait_changed(change))
    await asyncio.sleep(0)
    values.apply(entry_of([(1, "pm2_5", 6, 6, 3.0)]), 3)
    await asyncio.wait_for(waiting, 30)
    assert values.changed_since(change).tolist() == values.series_of("4401", DEVICES[1].device).tolist()


def test_series_beyond_the_limit_are_counted_and_the_others_go_on() -> None:
    """A hostile node that invents devices cannot fill the memory."""
    values = LastValues(series_max=3)
    values.apply(entry_of([(0, "pm2_5", 1, 1, 1.0)]), 1)
    values.apply(entry_of([(0, "pm2_5", 2, 2, 5.0), (1, "pm2_5", 1, 1, 1.0), (2, "pm2_5", 1, 1, 1.0)]), 2)
    assert len(values) == 1
    assert shown(values)["4401", DEVICES[0].device, "pm2_5"][0] == 5.0


def test_what_is_saved_is_restored_and_inconsistent_tables_are_refused() -> None:
    """Values of entries that the log has lost, or that are very old, are not taken."""
    values = LastValues()
    values.apply(entry_of([(0, "pm2_5", 1, 1, 1.0), (1, "door_state", 1, 1, "open")]), 1)
    values.apply(entry_of([(2, "pm2_5", 2, 2, 1.0)]), 2)
    saved = values.save()
    twin = LastValues()
    twin.restore(saved, entry_max=1, received_min=0)
    assert shown(twin) == {key: value for key, value in shown(values).items() if value[2] == 1}
    twin.apply(entry_of([(0, "pm2_5", 0, 0, 9.0), (2, "pm2_5", 3, 3, 7.0)]), 3)
    assert shown(twin)["4401", DEVICES[2].device, "pm2_5"][0] == 7.0
    assert shown(twin)["4401", DEVICES[0].device, "pm2_5"][0] == 1.0
    with pytest.raises(ValueError, match="out of range"):
        LastValues().restore(msgspec.structs.replace(saved, properties=[]), entry_max=9, received_min=0)


class Running(msgspec.Struct, frozen=True):
    """A table that follows a log."""

    task: LastValueTask
    devices: Devices


@contextlib.asynccontextmanager
async def following(log: MemoryLog, bucket: MemoryBucket, clock: FakeClock, *, save: bool) -> AsyncIterator[Running]:
    """Run reader and table until the log is read; `save`: the process ends in order, otherwise it is killed."""
    devices = Devices(MemoryBucket(), MemoryTrail(), clock)
    operator = Principal("t", Role.ADMIN, Scope("44"))
    for name in ("gz-air-1", "gz-air-2", "quiet"):
        await devices.add(Device(name, "440106", "acme/th10"), by=operator)
    reader = LogReader(log, clock)
    task = LastValueTask(LastValues(), reader, bucket, devices, clock)
    await task.open()
    _, end = await log.bounds()
    running = [asyncio.create_task(reader.run(end)), asyncio.create_task(task.run())]
    await eventually(lambda: task.is_complete)
    try:
        yield Running(task, devices)
    finally:
        if save:
            await task.save()
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class SilentBucket(MemoryBucket):
    """A bucket of a store that answers no write."""

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        del key, value, expected
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_stop_does_not_wait_for_a_store_that_does_not_answer(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start reads the log instead."""
    monkeypatch.setattr(last_values_store, "CLOSE_S", 0.05)
    async with following(MemoryLog(clock, epoch="e1"), SilentBucket(), clock, save=False) as running:
        async with asyncio.timeout(30):
            await running.task.close()


async def test_values_and_arrivals_survive_a_restart_and_a_kill(clock: FakeClock) -> None:
    """After a kill the log is read from the saved position; a quarantined message counts as heard."""
    log, bucket = MemoryLog(clock, epoch="e1"), MemoryBucket()
    async with following(log, bucket, clock, save=True) as first:
        await log.write(members(make_batch([(0, "pm2_5", 1.0)])))
        await eventually(lambda: len(first.task.values) == 1)
        first.devices.observe(np.array([0], np.int32), np.array([NOW], np.int64))
    async with following(log, bucket, clock, save=False) as second:
        assert shown(second.task.values)["4401", "gz-air-1", "pm2_5"][0] == 1.0
        assert second.devices.seen(second.devices.find("gz-air-1")) >= NOW
        bad = StoredMessage(Message("t/quiet", b"?", NOW + 9, 1), "mqtt", "malformed", "", "quiet")
        await log.write(
            [
                *members(make_batch([(0, "pm2_5", 2.0), (1, "pm2_5", 3.0)], start=NOW + 1_000_000)),
                LogMessage("quarantine.4401-0", raw.encode_quarantined([bad])),
            ]
        )
    async with following(log, bucket, clock, save=False) as third:
        assert shown(third.task.values)["4401", "gz-air-1", "pm2_5"][0] == 2.0
        assert shown(third.task.values)["4401", "gz-air-2", "pm2_5"][0] == 3.0
        assert third.devices.seen(third.devices.find("quiet")) == NOW + 9
        await clock.advance(DAY_US / 1e6)
        quiet = third.devices.list(None, DeviceFilter(frozenset({DeviceState.SILENT})))
        assert [device.id for device in quiet] == ["gz-air-1", "quiet"]
        assert third.devices.count_states()[DeviceState.SILENT] == 2


async def test_without_a_saved_state_nothing_older_than_the_log_is_known(clock: FakeClock) -> None:
    """Control: values that the log no longer has come from the saved state alone."""
    log, bucket = MemoryLog(clock, epoch="e1"), MemoryBucket()
    async with following(log, bucket, clock, save=False):
        await log.write(members(make_batch([(0, "pm2_5", 1.0)])))
        await clock.advance(SAVE_S)
        await eventually(lambda: bucket.get("head"))
    emptied = MemoryLog(clock, epoch="e1")
    async with following(emptied, MemoryBucket(), clock, save=False) as unsaved:
        assert len(unsaved.task.values) == 0
    other = MemoryLog(clock, epoch="e2")
    async with following(other, bucket, clock, save=False) as foreign:
        assert len(foreign.task.values) == 0
