"""One radio frame by many network servers, through the whole walk to the ledger: one reading, whoever brings it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from sensegate.normalise.series import SeriesIndex
from sensegate.persist.commit import Committer
from sensegate.persist.duplicates import Deduplicator
from sensegate.persist.identity import VERDICTS

ROOT = Path(__file__).parents[1] / "device_profiles"
ADMIN = Principal("test", Role.ADMIN, scope("44"))
NOW = 1_767_225_600_000_000
SECOND, MINUTE = 1_000_000, 60_000_000
EUI = "70b3d5e7a0000109"
SOIL = bytes.fromhex("0b45 0105 05dc 0105 00c8 00".replace(" ", ""))
VALUES = 5

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


def _iso(at: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat(timespec="microseconds")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


Say = Callable[[bytes, int, int, int], tuple[str, Any]]
"""(bytes, port, frame counter, µs) -> (topic, message) as one kind of server has it."""
SAY: dict[str, Say] = {
    "chirp4": lambda data, port, count, at: (
        f"application/a/device/{EUI}/event/up",
        {"time": _iso(at), "deviceInfo": {"devEui": EUI}, "fCnt": count, "fPort": port, "data": _b64(data)},
    ),
    "chirp3": lambda data, port, count, at: (
        f"application/1/device/{EUI}/event/up",
        {"devEUI": EUI, "publishedAt": _iso(at), "fCnt": count, "fPort": port, "data": _b64(data)},
    ),
    "tts": lambda data, port, count, at: (
        f"v3/app@ttn/devices/eui-{EUI}/up",
        {"uplink_message": {"f_port": port, "f_cnt": count, "frm_payload": _b64(data), "received_at": _iso(at)}},
    ),
    "loriot": lambda data, port, count, at: (
        f"loriot/{EUI.upper()}/rx",
        {"cmd": "rx", "EUI": EUI.upper(), "ts": at // 1000, "fcnt": count, "port": port, "data": data.hex()},
    ),
    "actility": lambda data, port, count, at: (
        f"mqtt/things/{EUI.upper()}/uplink",
        {"DevEUI_uplink": {"Time": _iso(at), "FPort": port, "FCntUp": count & 0xFFFF, "payload_hex": data.hex()}},
    ),
    "aws": lambda data, port, count, at: (
        f"lorawan/uplink/{EUI}",
        {
            "PayloadData": _b64(data),
            "WirelessMetadata": {"LoRaWAN": {"DevEui": EUI, "FPort": port, "FCnt": count, "Timestamp": _iso(at)}},
        },
    ),
    "milesight": lambda data, port, count, at: (
        f"milesight/uplink/{EUI}",
        {"data": _b64(data), "devEUI": EUI, "fCnt": count, "fPort": port, "time": _iso(at)},
    ),
    "helium": lambda data, port, count, at: (
        f"helium/{EUI}/rx",
        {"dev_eui": EUI.upper(), "fcnt": count, "payload": _b64(data), "port": port, "reported_at": at // 1000},
    ),
}


class City:
    """A node's walk on a log in memory, with a soil probe that all kinds of network servers hear."""

    def __init__(self, devices: Devices, directory: Path) -> None:
        self.clock, series = FakeClock(NOW), SeriesIndex()
        profiles = ProfileSet.load([ROOT / name.split("/")[0] for name in (*SERVERS.values(), "dragino/lse01")])
        self.decoder = Decoder(profiles, devices)
        self.normaliser = Normaliser(profiles.specs, series=series, clock=self.clock, time=TimeConfig())
        duplicates = Deduplicator(directory / "duplicates", clock=self.clock, device_id=devices.id)
        self.committer = Committer(
            MemoryLog(self.clock), duplicates, devices.index, profiles.specs, self.clock, division="4401"
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
