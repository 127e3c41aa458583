"""Gateways, fronts and servers of a city are killed under load: nothing acknowledged is lost, nothing is doubled.

The devices number their messages, move between the fronts of two machines while their batches are in flight, and send
again what is not acknowledged. `make soak` kills the active gateway 100 times and a server of three 100 times.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sensegate.collect.front.packets import Version
from tests.cluster.machines import GATEWAYS, City, city, payload_from
from tests.collect.front.retransmitter import Retransmitter
from tests.conftest import eventually
from tests.support.server_cluster import NAMES

pytestmark = [pytest.mark.live, pytest.mark.slow]

SOAK = bool(os.environ.get("SENSEGATE_SOAK"))
KILLS = int(os.environ.get("SENSEGATE_KILLS", "100")) if SOAK else 1
FLEET = [(version, qos) for version in (Version.MQTT_3_1_1, Version.MQTT_5) for qos in (1, 2)]
START_S = 120.0
"""Two gateways, two fronts and three servers begin at once, on a machine that may be busy."""
PACE_S = 0.2 if SOAK else 0.05


async def fleet_of(machines: City) -> list[Retransmitter]:
    """Register devices that publish by both fronts."""
    start = time.time_ns() // 1_000
    fleet = []
    for at, (version, qos) in enumerate(FLEET):
        body = {"id": f"d{at}", "division": "440106", "profile": "sensegate/plain"}
        made = await machines.ask("POST", "/api/v1/devices", json=body)
        fleet.append(
            Retransmitter(
                machines.front_ports if at % 2 else machines.front_ports[::-1],
                f"d{at}",
                version,
                qos,
                password=made["password"].encode(),
                topic=made["topics"][0],
                payload=payload_from(start),
                pace_s=PACE_S,
            )
        )
    return fleet


async def progressed(fleet: list[Retransmitter], count: int) -> None:
    """Wait until each device has so many more acknowledgements."""
    before = [len(device.acknowledged) for device in fleet]

    def done() -> bool:
        return all(len(device.acknowledged) >= entry + count for device, entry in zip(fleet, before, strict=True))

    await eventually(done, 60.0)


async def kill_active(machines: City) -> float:
    """Kill the active gateway and start it again as the standby; return how long it took until the other was ready."""
    name = await eventually(machines.active)
    other = next(each for each in GATEWAYS if each != name)
    began = time.monotonic()
    await machines.gateways[name].kill()

    async def taken() -> bool:
        return await machines.active() == other

    await eventually(taken, 60.0, every_s=0.05)
    taken_s = time.monotonic() - began
    await machines.gateways[name].start()
    return taken_s


async def kill_server(machines: City, fleet: list[Retransmitter], chance: random.Random) -> float:
    """Kill a server; return how long it took until every device had an acknowledgement again."""
    name = chance.choice(NAMES)
    began = time.monotonic()
    await machines.cluster.kill(name)
    await progressed(fleet, 30)
    recovered_s = time.monotonic() - began
    await machines.cluster.start(name)

    async def healed() -> bool:
        answer = await machines.ask("GET", "/readyz")
        return bool(answer) and not any("engine:" in text for text in answer["warnings"])

    await eventually(healed, 60.0, every_s=0.2)
    return recovered_s


async def missing(machines: City, fleet: list[Retransmitter], rows: list[dict[str, Any]]) -> str:
    """Return which numbers of which device are not among the records, and what the ledger and quarantine say."""
    lines = []
    for device in fleet:
        results = {int(str(row["value"]).split(".")[0]) for row in rows if row["device"] == device.device}
        absent = sorted(set(range(device.sent)) - results)
        lines.append(f"{device.device}: {len(absent)} of {device.sent} are missing: {absent[:20]} to {absent[-1:]}")
    lines.append(f"active: {await machines.active()!r}")
    lines += [f"{path}: {await machines.ask('GET', path)}" for path in ("/api/v1/ledger", "/api/v1/quarantine/groups")]
    return "\n".join(lines)


async def judge(machines: City, fleet: list[Retransmitter], running: list[asyncio.Task[None]]) -> int:
    """Require that each message is there once, in the order of its device; return their number."""
    for device in fleet:
        device.stop()
    async with asyncio.timeout(120):
        await asyncio.gather(*running)
    total = sum(device.sent for device in fleet)

    rows: list[dict[str, Any]] = []

    async def complete() -> bool:
        rows[:] = await machines.records()
        return len(rows) >= total

    try:
        await eventually(complete, 60.0, every_s=0.5)
    except AssertionError as why:
        raise AssertionError(await missing(machines, fleet, rows)) from why
    for device in fleet:
        values = [int(str(row["value"]).split(".")[0]) for row in rows if row["device"] == device.device]
        assert device.acknowledged == set(range(device.sent))
        assert not device.acknowledged - set(values), "acknowledged and lost"
        assert not [value for value, count in Counter(values).items() if count > 1], "doubled"
        assert values == sorted(values), "out of order"
    return total


async def test_a_standby_takes_over(tmp_path: Path) -> None:
    """The active gateway is killed, devices change fronts: PUBACKs go on, 0 lost, 0 doubled, each device in order."""
    async with city(tmp_path) as machines:
        await eventually(machines.active, START_S)
        fleet = await fleet_of(machines)
        running = [asyncio.create_task(device.run()) for device in fleet]
        taken_s = []
        for _ in range(KILLS):
            await progressed(fleet, 50)
            for device in fleet:
                device.move()
            taken_s.append(await kill_active(machines))
            await progressed(fleet, 20)
        total = await judge(machines, fleet, running)
    longest, middle = max(taken_s), sorted(taken_s)[len(taken_s) // 2]
    print(
        f"\n{KILLS} gateways killed, {total} messages: taken over in {middle:.1f} s (median), {longest:.1f} s (longest)"
    )


@pytest.mark.skipif(not SOAK, reason="elections of servers take 4 to 9 s each; `make soak` kills 100")
async def test_servers_are_killed(tmp_path: Path) -> None:
    """A server of three is killed under load: 0 lost, 0 doubled, each device in order."""
    chance = random.Random(12)
    async with city(tmp_path) as machines:
        await eventually(machines.active, START_S)
        fleet = await fleet_of(machines)
        running = [asyncio.create_task(device.run()) for device in fleet]
        recovered_s = []
        for _ in range(KILLS):
            await progressed(fleet, 50)
            for device in fleet:
                device.move()
            recovered_s.append(await kill_server(machines, fleet, chance))
        total = await judge(machines, fleet, running)
    longest, middle = max(recovered_s), sorted(recovered_s)[len(recovered_s) // 2]
    print(
        f"\n{KILLS} servers killed, {total} messages: recovered in {middle:.1f} s (median), {longest:.1f} s (longest)"
    )
    print(f"{sum(seconds < 5 for seconds in recovered_s)} of them in less than 5 s")
