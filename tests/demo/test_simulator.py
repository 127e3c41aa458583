from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from sensegate.bus.free_ports import free_port
from sensegate.decode.decode import Decoder
from sensegate.demo.faults import FAULTS, ExpectedOutcome, GoodMessage, Injector
from sensegate.demo.fleet import KINDS, DeviceFrame, FrameValue, SimulatedDevice, fleet, list_gateways, measure
from sensegate.demo.intents import Intents
from sensegate.demo.mqtt import Backlog, Publisher, RefusedConnection, connect_packet, publish_packet
from sensegate.demo.simulator import Broker, SimulationPlan
from sensegate.model import BOOL, Device, Message, Spec
from tests.support.profiles import library

DEADLINE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


class Mosquitto:
    """A broker of another house."""

    def __init__(self, directory: Path, anonymous: str = "true") -> None:
        self.anonymous = anonymous
        self.port = free_port()
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        conf = self.directory / "mosquitto.conf"
        conf.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous {self.anonymous}\nuser root\n")
        running = [str(shutil.which("mosquitto")), "-c", str(conf)]
        self.process = subprocess.Popen(running, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - starts at once
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """A running Mosquitto."""
    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(tmp_path)
    await broker.start()
    yield broker
    broker.kill()


def test_packets_are_those_of_the_standard() -> None:
    """CONNECT and PUBLISH byte for byte (MQTT 3.1.1, sections 3.1 and 3.3)."""
    assert connect_packet("c", "u", "p") == bytes.fromhex("10130004 4d515454 04c2003c 000163 000175 000170")
    assert publish_packet(b"a/b", b"xy", 10) == bytes.fromhex("32 09 0003 612f62 000a 7879")
    assert publish_packet(b"a", b"z" * 200, 1)[:3] == bytes.fromhex("32 cd 01")


def test_a_backlog_keeps_the_order() -> None:
    """What was in flight comes before what already waited."""
    backlog = Backlog()
    backlog.prepend([("c", b"", b"")])
    backlog.prepend([("a", b"", b""), ("b", b"", b"")])
    assert [backlog.pop()[0] for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.live
async def test_each_publish_is_acknowledged_in_order(mosquitto: Mosquitto) -> None:
    """The token of each message comes back once, with its PUBACK."""
    results: list[str] = []
    publisher = await Publisher.connect(
        "127.0.0.1", mosquitto.port, client_id="x", acknowledged=results.append, lost=lambda: None
    )
    for number in range(500):
        publisher.publish(str(number), b"t", b"payload")
    await until(lambda: len(results) == 500)
    assert results == [str(number) for number in range(500)]
    assert not publisher.in_flight
    publisher.close()


@pytest.mark.live
async def test_a_refused_connection_says_so(tmp_path: Path) -> None:
    """CONNACK 5 is an error of its own, not a lost connection."""
    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed")
    mosquitto = Mosquitto(tmp_path, anonymous="false")
    await mosquitto.start()
    with pytest.raises(RefusedConnection) as why:
        await Publisher.connect(
            "127.0.0.1",
            mosquitto.port,
            client_id="x",
            username="known",
            password="wrong",
            acknowledged=print,
            lost=lambda: None,
        )
    assert why.value.code == 5
    mosquitto.kill()


@pytest.mark.live
async def test_a_lost_connection_keeps_what_is_owed(mosquitto: Mosquitto) -> None:
    """After the broker dies, the unacknowledged messages are there, oldest first."""
    lost = asyncio.Event()
    publisher = await Publisher.connect(
        "127.0.0.1", mosquitto.port, client_id="x", acknowledged=lambda _: None, lost=lost.set
    )
    mosquitto.kill()
    publisher.publish("1", b"t", b"a")
    publisher.publish("2", b"t", b"b")
    await asyncio.wait_for(lost.wait(), DEADLINE_S)
    assert [token for token, _, _ in publisher.unacknowledged] == ["1", "2"]


def simulated(node: str = "4401", count: int = 30) -> list[SimulatedDevice]:
    return fleet(node, count, counties=("440106", "440104"), rng=random.Random(1))


def originals(devices: list[SimulatedDevice]) -> Iterator[GoodMessage]:
    for counter in range(2000):
        device = devices[counter % len(devices)]
        kind = KINDS[device.kind]
        at = 1_767_225_600_000_000 + counter * 2 * kind.resolution
        frame = DeviceFrame(device, at, measure(kind, device, counter), counter * 2)
        topic, payload = kind.encode(frame)
        yield GoodMessage(f"r{counter}", frame, topic, payload)


def test_every_kind_of_fault_is_injected_early() -> None:
    """Each kind that the fleet can show comes once before chance decides, and the seed repeats all."""

    def kinds() -> list[str]:
        devices = simulated()
        victim = next(device for device in devices if device.kind == "water")
        injector = Injector(random.Random(7), peers={"4401": victim})
        faults = [injector.after(original) for original in originals(devices)]
        return [injection.kind for injection in faults if injection]

    first = kinds()
    assert set(first[: len(FAULTS)]) == set(FAULTS)
    assert first == kinds()


def test_a_fleet_has_a_device_for_every_fault() -> None:
    """No kind of fault lacks a device that can show it."""
    devices = simulated()
    injector = Injector(random.Random(3), peers={"4401": devices[2]})
    for kind, fault in FAULTS.items():
        able = (original for original in originals(devices) if kind in KINDS[original.frame.device.kind].faults)
        assert any(fault.make(original, injector) for original in able), kind


def test_what_is_sent_is_what_the_profiles_read() -> None:
    """Each frame and each fault, decoded by the profiles of the repository, gives the values of its intent."""
    devices = simulated(count=40)
    decoder, specs, names = decoding(devices)
    injector = Injector(random.Random(5), peers={"4401": devices[2]})
    results: set[str] = set()
    for original in list(originals(devices))[:900]:
        injection = injector.after(original)
        sent: list[Sent] = [(original.topic, original.payload, original.frame.time, original.frame.values, "plain")]
        if injection and injection.kind != "refused":
            sent.append((injection.topic, injection.payload, injection.time, injection.values, injection.kind))
            results.add(injection.kind)
        for topic, payload, time, values, kind in sent:
            fields = decoder.decode([Message(topic, payload, time, 1)])
            read = {
                specs[spec].property: value * specs[spec].scale + specs[spec].offset
                for spec, value in zip(fields.spec.tolist(), fields.value.tolist(), strict=True)
            }
            assert read == pytest.approx(dict(values)), (kind, fields.quarantined, fields.rejected)
            step = KINDS[original.frame.device.kind].resolution
            assert not values or all(abs(at - time) < max(step, 1000) for at in fields.time.tolist()), kind
            if FAULTS.get(kind) and FAULTS[kind].outcome is ExpectedOutcome.QUARANTINE:
                assert [item.reason for item in fields.quarantined] == [kind]
            if FAULTS.get(kind) and FAULTS[kind].outcome is ExpectedOutcome.REJECTION:
                assert [item.reason for item in fields.rejected] == [kind]
    assert results == set(FAULTS) - {"refused"}
    assert names


Sent = tuple[str, bytes, int, Mapping[str, FrameValue], str]


def decoding(devices: list[SimulatedDevice]) -> tuple[Decoder, list[Spec], Registered]:
    profiles = library()
    names = Registered(devices)
    return Decoder(profiles, names), profiles.specs, names


class Registered:
    """The registry as the demo fills it."""

    version = 1

    def __init__(self, devices: list[SimulatedDevice]) -> None:
        self.records = [
            Device(
                id=device.id,
                division=device.division,
                profile=KINDS[device.kind].profile,
                alias=device.alias,
                gateway=device.username if device.username != device.id else "",
            )
            for device in devices
        ]
        self.records += [
            Device(id=gateway.id, division=gateway.division, profile=gateway.profile)
            for gateway in list_gateways(devices)
        ]
        self.places = {record.id: at for at, record in enumerate(self.records)}
        self.places |= {record.alias: at for at, record in enumerate(self.records) if record.alias}

    @property
    def enabled(self) -> BOOL:
        return np.ones(len(self.records), np.bool_)

    def find(self, name: str) -> int:
        return self.places.get(name, -1)

    def record(self, index: int) -> Device:
        return self.records[index]


def test_neighbouring_values_differ_and_stay_in_range() -> None:
    """A simulated series is never stuck and makes no step."""
    device = simulated()[0]
    series = [measure(KINDS[device.kind], device, counter)["air_temperature"] for counter in range(900)]
    numbers = [float(value) for value in series]
    assert all(a != b and abs(a - b) < 1 for a, b in pairwise(numbers))


def test_intents_are_whole_lines(tmp_path: Path) -> None:
    """The form that the judge reads, word for word."""
    intents = Intents(tmp_path / "x.ledger", "00c0ffee")
    rid = intents.intend("plain", "4401", "dev", 5, {"pm2_5": 1.5, "smoke": True})
    intents.acknowledged(rid)
    intents.end()
    first, second, third = (tmp_path / "x.ledger").read_text().splitlines()
    assert first.split(" ")[3:] == ["plain", "4401", "dev", "5", "-", "pm2_5=1.5;smoke=true"]
    assert second.startswith(f"A {rid} ")
    assert third.startswith("E ")


@pytest.mark.live
async def test_the_simulator_sends_again_after_the_broker_died(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Every intent ends acknowledged although the broker is killed in between; what is sent again keeps its rid."""
    devices = simulated(count=9)
    plan = SimulationPlan(
        run="0badcafe",
        ledger=str(tmp_path / "sim.ledger"),
        seed=1,
        rate=300,
        brokers={"4401": Broker("127.0.0.1", mosquitto.port)},
        devices=devices,
        drain_s=10,
    )
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sensegate.demo.simulator",
        str(tmp_path / "plan.json"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout

    async def status(condition: Callable[[dict[str, int]], bool]) -> None:
        assert process.stdout
        async with asyncio.timeout(DEADLINE_S):
            while not condition(json.loads(await process.stdout.readline())):
                pass

    await status(lambda now: now["connected"] == now["connections"] and now["sent"] > 100)
    mosquitto.kill()
    process.stdin.write(b'{"burst": 500}\n')
    await status(lambda now: now["connected"] == 0)
    await mosquitto.start()
    await status(lambda now: now["connected"] == now["connections"] and now["sent"] > 400)
    process.stdin.write(b'{"stop": true}\n')
    await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode == 0
    lines = [line.split(" ") for line in (tmp_path / "sim.ledger").read_text().splitlines()]
    intended = {words[1] for words in lines if words[0] == "I"}
    acknowledged = [words[1] for words in lines if words[0] == "A"]
    assert len(intended) > 400
    assert set(acknowledged) == intended
    assert len(acknowledged) == len(intended)
    assert lines[-1][0] == "E"
    assert not [words for words in lines if words[0] == "U"]
