"""The walk and what decoding remembers: a batch that comes again is read as it was the first time."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.clock import SystemClock
from sensegate.decode.memory import DecoderMemory
from sensegate.model import BOOL, I64, Device, Fields, Message, Readings, RejectedValue
from tests.decode.formats.sparkplug_payloads import metric, payload
from tests.live.site import PROFILES
from tests.support.pipeline import ADMIN, COUNT, Faulty, Script, Walk

RUN = 7
"""So many messages between two births; each birth gives the aliases to the other metric."""


def node_life(now: int) -> list[Message]:
    """Return births and values by alias: `Level` counts the messages, `Tilt` counts them down."""
    at = now // 1_000 - COUNT
    messages = []
    for number in range(1, COUNT + 1):
        result, place = divmod(number - 1, RUN)
        level, tilt = (1, 2) if result % 2 else (2, 1)
        if place == 0:
            kind = "NBIRTH"
            metrics = [
                metric("bdSeq", "UInt64", result),
                metric("Level", "Double", number / 10, alias=level, timestamp=at + number),
                metric("Tilt", "Double", -number / 10, alias=tilt, timestamp=at + number),
            ]
        else:
            kind = "NDATA"
            metrics = [
                metric(alias=level, value=number / 10, as_kind="Double", timestamp=at + number),
                metric(alias=tilt, value=-number / 10, as_kind="Double", timestamp=at + number),
            ]
        messages.append(Message(f"spBv1.0/Water/{kind}/pump-01", payload(*metrics, seq=place), now, number))
    return messages


Normalised = tuple[Readings, list[RejectedValue]]


class Node(Walk):
    """The walk of one Sparkplug node."""

    async def values(self) -> dict[str, list[tuple[float, int]]]:
        """Return (value, quality) of the readings on the log by property, in its order."""
        values: dict[str, list[tuple[float, int]]] = {}
        for entry in await self.log.fetch(0, limit=10_000):
            if entry.subject.startswith("readings."):
                batch = columns.decode(entry.payload, sequence=entry.sequence)
                names = [batch.properties[index] for index in batch.property.tolist()]
                for name, value, quality in zip(names, batch.value.tolist(), batch.quality.tolist(), strict=True):
                    values.setdefault(name, []).append((round(value, 1), quality))
        return values

    async def quarantined(self) -> int:
        entries = await self.log.fetch(0, limit=10_000)
        return sum(entry.subject.startswith("quarantine.") for entry in entries)


@pytest.fixture
async def devices() -> Devices:
    """A registry that knows the node."""
    made = Devices(MemoryBucket(), MemoryTrail(), SystemClock(), home="44")
    await made.load()
    await made.add(Device("n1", "440106", "sparkplug/pump-station", alias="Water/pump-01"), by=ADMIN)
    return made


FAULTS = [
    pytest.param({}, [], id="nothing happens"),
    pytest.param({}, [1, 4, 7], id="the source is lost"),
    pytest.param({1: "lost", 5: "lost", 6: "lost"}, [], id="writes are lost"),
    pytest.param({2: "fenced", 6: "fenced"}, [], id="another worker"),
]


def walk_of(
    devices: Devices, directory: Path, faults: dict[int, str], lost_after: list[int], memory: DecoderMemory
) -> Node:
    source = Script(SystemClock().now(), lost_after)
    source._messages = node_life(SystemClock().now())
    return Node(Faulty(faults), source, devices, directory, profiles=PROFILES / "sparkplug", memory=memory)


@pytest.mark.parametrize(("faults", "lost_after"), FAULTS)
async def test_a_batch_that_comes_again_meets_the_births_that_it_met(
    devices: Devices, tmp_path: Path, faults: dict[int, str], lost_after: list[int]
) -> None:
    """Aliases change hands with each birth: every value is committed once, under its own property, none in doubt."""
    walk = walk_of(devices, tmp_path, faults, lost_after, DecoderMemory(undoable=True))
    await walk.until_done()
    values = await walk.values()
    assert values["liquid_level"] == [(number / 10, 0) for number in range(1, COUNT + 1)]
    assert values["tilt_angle"] == [(-number / 10, 0) for number in range(1, COUNT + 1)]
    assert await walk.quarantined() == 0


class Stubborn(DecoderMemory):
    """A memory that never takes back what it was told."""

    def rollback(self, savepoint: int = 0) -> None:
        pass


async def test_without_the_rewind_it_would_not(devices: Devices, tmp_path: Path) -> None:
    """The control: a memory ahead of the log refuses, doubts or mistakes what comes again."""
    walk = walk_of(devices, tmp_path, {2: "fenced", 6: "fenced"}, [1, 4, 7], Stubborn(undoable=True))
    await walk.until_done()
    values = await walk.values()
    right = [(number / 10, 0) for number in range(1, COUNT + 1)]
    assert values["liquid_level"] != right or await walk.quarantined()


async def test_a_batch_that_is_halved_after_a_crash_meets_the_births_that_it_met(
    devices: Devices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug behind the decoder costs nothing that was remembered: the halves are read as the whole was."""
    walk = walk_of(devices, tmp_path, {}, [], DecoderMemory(undoable=True))
    normaliser = walk.ingest._stages.interpreter.normaliser
    sound, crashes = normaliser.normalise, 0

    def crashing(
        fields: Fields, received: I64, best_effort: BOOL | None = None, redelivered: BOOL | None = None
    ) -> tuple[Readings, list[RejectedValue]]:
        nonlocal crashes
        if len(received) > RUN // 2:
            crashes += 1
            raise RuntimeError("a bug that some batches meet")
        return sound(fields, received, best_effort, redelivered)

    monkeypatch.setattr(normaliser, "normalise", crashing)
    await walk.until_done()
    assert crashes > 1
    assert await walk.quarantined() == 0
    values = await walk.values()
    assert values["liquid_level"] == [(number / 10, 0) for number in range(1, COUNT + 1)]
    assert values["tilt_angle"] == [(-number / 10, 0) for number in range(1, COUNT + 1)]
