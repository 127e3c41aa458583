"""Devices are told to do something: by REST, to their topic, and back by what they then report."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
import msgspec
import pytest

from tests.collect.mosquitto import Mosquitto
from tests.conftest import eventually
from tests.live.mqtt_libraries import Broker, Paho
from tests.live.site import PROFILES, Answer, Made, Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def give(site: Site, device: str, task: str, token: str | None = None, **parameters: Any) -> Answer:
    """Give a task."""
    wanted = {"task": task, "parameters": parameters}
    return await site.ask("POST", f"/api/v1/devices/{device}/tasks", token, json=wanted)


async def state(site: Site, task: dict[str, Any]) -> str:
    """Return the state of a task."""
    state: str = (await site.ask("GET", f"/api/v1/tasks/{task['id']}")).body["state"]
    return state


async def interval(site: Site, device: Made, value: int) -> None:
    """Have a device report its interval, now."""
    sent = json.dumps({"values": {"report_interval": value}})
    assert (await site.push(device, sent)).status == 202


async def test_what_a_device_can_be_told(node: Site) -> None:
    """The capabilities of its profile, with parameters, ranges and both names."""
    await node.device("t1")
    answer = await node.ask("GET", "/api/v1/devices/t1/tasking-capabilities")
    matches = {task["task"]: task for task in answer.body}
    assert set(matches) == {"report-interval", "switch"}
    (interval_,) = matches["report-interval"]["parameters"]
    assert (interval_["low"], interval_["high"], interval_["unit"]) == (1, 86_400, "s")
    assert matches["report-interval"]["label_zh"] == "上报间隔"
    assert matches["switch"]["role"] == "city_operator"


async def test_a_task_is_sent_and_confirmed(node: Site) -> None:
    """The device hears it at its topic; another value does not confirm it, the right one does; the trail tells all."""
    device = await node.device("t2")
    async with node.phone() as phone:
        assert await phone.connect(device.id, device.password) == 0
        assert await phone.subscribe("sg/t2/down") in {0, 1}
        task = (await give(node, "t2", "report-interval", interval=10)).body
        topic, payload = await phone.next("message")
        assert (topic, json.loads(payload)) == ("sg/t2/down", {"set": {"report_interval": 10}})
    assert await state(node, task) == "sent"
    await interval(node, device, 30)
    await interval(node, device, 10)
    await eventually(lambda: state_is(node, task, "done"))
    rows = [row for row in await node.audit() if row["target"] == "t2" and row["action"].startswith("task.")]
    assert [row["action"] for row in rows] == ["task.order", "task.end"]
    assert rows[0]["after"]["parameters"] == {"interval": 10}
    assert rows[1]["after"]["state"] == "done"


async def state_is(site: Site, task: dict[str, Any], wanted: str) -> bool:
    """Return whether a task is in a state."""
    return await state(site, task) == wanted


async def _commands(broker: Broker, order: Callable[[int], Awaitable[None]]) -> list[tuple[bytes, int]]:
    """Return payload and QoS of two commands to a device: it is connected, and its connection is broken for a while."""
    topic, heard = f"sg/{broker.user}/down", list[tuple[bytes, int]]()
    async with Paho(broker, "own", expiry_s=3_600) as device:
        await device.subscribe(topic, handling=2)
        await order(10)
        await device.until(topic)
        await device.unsubscribe("none")  # its PUBACK is sent then
        device.break_off()
        await device.disconnected
        heard += [(bytes(message.payload), message.qos) for message in device.received]
    await order(20)
    async with Paho(broker, "own", expiry_s=3_600, clean=False) as device:
        await device.until(topic)
        heard += [(bytes(message.payload), message.qos) for message in device.received]
    return heard


async def test_a_command_outlives_a_broken_connection(node: Site, tmp_path: Path) -> None:
    """MQTT-3.8.4-8, 4.3.2-1 to -3: at QoS 1, as the device has subscribed; it is not lost while its session goes on.

    The same script against Mosquitto, to which another client publishes the commands.
    """
    made = await node.device("t9")
    ours = Broker(urlsplit(node.addresses.mqtt).port or 0, made.id, made.password)

    async def order(value: int) -> None:
        if value == 20:
            await interval(node, made, 10)
        task = (await give(node, made.id, "report-interval", interval=value)).body
        await eventually(lambda: state_is(node, task, "sent"))

    result = await _commands(ours, order)
    async with Mosquitto(tmp_path, persistent=False) as server, aiomqtt.Client("127.0.0.1", server.port) as sender:

        async def publish(value: int) -> None:
            await sender.publish(f"sg/{made.id}/down", result[value // 10 - 1][0], qos=1)

        theirs = await _commands(msgspec.structs.replace(ours, port=server.port), publish)
    assert [json.loads(payload) for payload, _ in result] == [{"set": {"report_interval": value}} for value in (10, 20)]
    assert result == theirs
    assert [qos for _, qos in result] == [1, 1]


async def test_one_is_under_way_at_a_time(node: Site) -> None:
    """The second waits for the end of the first; one that waits can be cancelled."""
    device = await node.device("t3")
    first = (await give(node, "t3", "report-interval", interval=10)).body
    second = (await give(node, "t3", "report-interval", interval=20)).body
    third = (await give(node, "t3", "report-interval", interval=30)).body
    await eventually(lambda: state_is(node, first, "sent"))
    assert await state(node, second) == "queued"
    assert (await node.ask("DELETE", f"/api/v1/tasks/{third['id']}")).body["state"] == "cancelled"
    await interval(node, device, 10)
    await eventually(lambda: state_is(node, second, "sent"))
    assert await state(node, first) == "done"
    assert await state(node, third) == "cancelled"


async def test_a_task_that_must_not_happen_twice_is_not_taken_back(node: Site) -> None:
    """Sent once, it is 409 to cancel it: it may have been done."""
    await node.device("t4")
    task = (await give(node, "t4", "switch", on=True)).body
    await eventually(lambda: state_is(node, task, "sent"))
    assert (await node.ask("DELETE", f"/api/v1/tasks/{task['id']}")).status == 409


@pytest.mark.parametrize(
    ("task", "parameters", "says"),
    [
        ("report-interval", {"interval": 0}, "integer from 1 to 86400 s"),
        ("report-interval", {"interval": 1.5}, "is not allowed"),
        ("report-interval", {"interval": True}, "is not allowed"),
        ("report-interval", {}, "parameters.interval: is required"),
        ("report-interval", {"intervall": 5}, "did you mean 'interval'?"),
        ("report-intervall", {"interval": 5}, "did you mean 'report-interval'?"),
    ],
)
async def test_what_may_not_be_said(node: Site, task: str, parameters: dict[str, Any], says: str) -> None:
    """400 that names the parameter and what may stand there; nothing is queued."""
    if (await node.ask("GET", "/api/v1/devices/t5")).status == 404:
        await node.device("t5")
    answer = await give(node, "t5", task, **parameters)
    assert answer.status == 400, answer.body
    assert says in answer.body["detail"]
    assert (await node.ask("GET", "/api/v1/tasks", params={"device": "t5"})).body["rows"] == []


async def test_who_may(node: Site) -> None:
    """Of another county, of another role, of too low a one: refused; nothing tells that the device is there."""
    await node.device("t6", division="440106")
    county, _ = await node.token("county_operator", "440106")
    other, _ = await node.token("county_operator", "440103")
    reader, _ = await node.token("subscriber", "4401")
    assert (await give(node, "t6", "report-interval", county, interval=5)).status == 202
    assert (await give(node, "t6", "switch", county, on=True)).status == 403
    assert (await give(node, "t6", "report-interval", other, interval=5)).status == 404
    assert (await give(node, "t6", "report-interval", reader, interval=5)).status == 403
    task = (await node.ask("GET", "/api/v1/tasks", params={"device": "t6"})).body["rows"][0]
    assert (await node.ask("GET", f"/api/v1/tasks/{task['id']}", other)).status == 404
    assert (await node.ask("GET", "/api/v1/tasks", other)).body["rows"] == []


async def enable(site: Site, device: str, wanted: str) -> None:
    """Set the state of a device."""
    row = (await site.ask("GET", f"/api/v1/devices/{device}")).body
    headers = {"If-Match": f'"{row["revision"]}"'}
    answer = await site.ask("PATCH", f"/api/v1/devices/{device}", json={"state": wanted}, headers=headers)
    assert answer.status == 200, answer.body


async def test_tasks_outlive_a_restart(tmp_path: Path) -> None:
    """A task given to a disabled device waits; after a restart and once it may speak again it is sent and confirmed."""
    config = config_of(tmp_path)
    async with running(config) as site:
        device = await site.device("t7")
        await enable(site, "t7", "disabled")
        task = (await give(site, "t7", "report-interval", interval=9)).body
    async with running(config) as site:
        assert await state(site, task) == "queued"
        await enable(site, "t7", "registered")
        await eventually(lambda: state_is(site, task, "sent"))
        await interval(site, device, 9)
        await eventually(lambda: state_is(site, task, "done"))


async def test_a_profile_names_the_topic(tmp_path: Path) -> None:
    """Tasmota's own topic: the device may subscribe to it because its profile has a task there."""
    async with running(config_of(tmp_path, profiles=(str(PROFILES / "tasmota" / "sensor.yaml"),))) as site:
        device = await site.device("plug-1", profile="tasmota/sensor")
        async with site.phone() as phone:
            assert await phone.connect(device.id, device.password) == 0
            assert await phone.subscribe("cmnd/plug-1/POWER") in {0, 1}
            task = (await give(site, "plug-1", "switch", on=True)).body
            assert await phone.next("message") == ("cmnd/plug-1/POWER", b"ON")
            await phone.publish("tele/plug-1/STATE", json.dumps({"POWER": "OFF"}))
            await phone.publish("tele/plug-1/STATE", json.dumps({"POWER": "ON"}))
        await eventually(lambda: state_is(site, task, "done"))
