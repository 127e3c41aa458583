"""One radio frame by many network servers, through the whole walk to the ledger: one reading, whoever brings it."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.config import TimeConfig
from sensegate.decode import Decoder, ProfileSet
from sensegate.model import Delivery, Device, Message
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.persist.identity import VERDICTS
from sensegate.quantities.series import SeriesIndex
from tests.support.networks import EUI, SAY, SOIL, VALUES

ROOT = Path(__file__).parents[1] / "device_profiles"
ADMIN = Principal("test", Role.ADMIN, scope("44"))
NOW = 1_767_225_600_000_000
SECOND, MINUTE = 1_000_000, 60_000_000

SERVERS = {
    "chirp4": "chirpstack/v4",
    "chirp3": "chirpstack/v3",
    "tts": "thethings/v3",
    "loriot": "loriot/lns",
    "actility": "actility/thingpark",
    "aws": "aws/iot-core-lorawan",
    "milesight": "milesight/gateway",
    "helium": "helium/console",
}


@cache
def server_profiles() -> ProfileSet:
    """Return the profiles of all network servers and of the probe."""
    return ProfileSet.load([ROOT / name.split("/")[0] for name in (*SERVERS.values(), "dragino/lse01")])


class City:
    """A node's walk on a log in memory, with a soil probe that all kinds of network servers hear."""

    def __init__(self, devices: Devices, directory: Path) -> None:
        self.clock, series = FakeClock(NOW), SeriesIndex()
        profiles = server_profiles()
        self.decoder = Decoder(profiles, devices)
        self.normaliser = Normaliser(profiles.specs, series=series, clock=self.clock, time=TimeConfig())
        duplicates = Deduplicator(directory / "duplicates", clock=self.clock, device_id=devices.id)
        self.committer = Committer(
            MemoryLog(self.clock), duplicates, devices.index, profiles.specs, self.clock, writer=CommitWriter("4401")
        )
        self._sequence = 0

    async def hear(self, server: str, count: int, at: int, *, data: bytes = SOIL, http: bool = False) -> Counter[str]:
        """Return how often each verdict was given to the values of a frame that a server hands on."""
        topic, tree = SAY[server](data, 2, count, NOW + at)
        self._sequence += 1
        if http:
            tree = (
                {"DevEUI_uplink": {**tree["DevEUI_uplink"], "DevEUI": EUI.upper()}} if "DevEUI_uplink" in tree else tree
            )
            tree = {**tree, "end_device_ids": {"dev_eui": EUI.upper()}} if "uplink_message" in tree else tree
            topic = f"http/{server}"
        message = Message(
            topic, msgspec.json.encode(tree), NOW + at + SECOND, self._sequence, principal=server if http else ""
        )

        async def nothing() -> None: ...

        fields = self.decoder.decode([message])
        assert not fields.quarantined, fields.quarantined
        readings, rejected = self.normaliser.normalise(fields, np.array([message.received], np.int64))
        pending = self.committer.prepare([Delivery("mqtt", [message], nothing)], fields, readings, rejected)
        await self.committer.write(pending)
        return Counter(VERDICTS[kind] for kind in pending.results[0].kind)


@pytest.fixture
async def city(tmp_path: Path) -> City:
    """The probe behind all eight servers."""
    devices = Devices(MemoryBucket(), MemoryTrail(), FakeClock(NOW), home="44")
    await devices.load()
    for name, profile in SERVERS.items():
        await devices.add(Device(name, "440106", profile), by=ADMIN)
    await devices.add(Device("probe", "440106", "dragino/lse01", alias=EUI, gateway=" ".join(SERVERS)), by=ADMIN)
    made = City(devices, tmp_path)
    await made.committer.open()
    return made


@pytest.mark.parametrize("first", SERVERS)
async def test_one_frame_by_all_servers_is_one_reading(city: City, first: str) -> None:
    """Whoever is first has the readings; the others' are copies by another way, each counted so."""
    assert await city.hear(first, 70_000, 0) == {"accepted": VALUES}
    for late, server in enumerate(name for name in SERVERS if name != first):
        assert await city.hear(server, 70_000, late * SECOND) == {"cross_path": VALUES}
    assert await city.hear(first, 70_000, 0) == {"redelivery": VALUES}
    assert await city.hear(first, 70_001, 20 * MINUTE) == {"accepted": VALUES}


@pytest.mark.parametrize("server", SERVERS)
async def test_by_topic_and_by_http_the_same(city: City, server: str) -> None:
    """One server with two integrations: what comes by the second is a copy."""
    assert await city.hear(server, 5, 0) == {"accepted": VALUES}
    assert await city.hear(server, 5, 0, http=True) == {"cross_path": VALUES}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_device_that_joined_anew(city: City, server: str) -> None:
    """Its counter starts again with the same values within minutes: readings, not repeats, and no conflict."""
    for count in range(3):
        assert await city.hear(server, count, count * MINUTE) == {"accepted": VALUES}
    for count in range(3):
        assert await city.hear(server, count, (count + 3) * MINUTE) == {"accepted": VALUES}
