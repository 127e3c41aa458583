"""Alarms of a whole gateway: a rule, a violation, the feed on several deliveries, a restart, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensegate.config import Config
from sensegate.config.people import EgressConfig
from tests.conftest import eventually
from tests.live.receiver import Receiver, receiving
from tests.live.site import Site, config_of, running, tiers

RULE = {"kind": "threshold", "property": "air_temperature", "above": 30.0, "margin": 2.0, "severity": "major"}


async def alarms(site: Site, **query: str) -> list[dict[str, Any]]:
    """Return the alarms."""
    rows: list[dict[str, Any]] = (await site.ask("GET", "/api/v1/alarms", params=query)).body["rows"]
    return rows


async def events(site: Site, token: str | None = None) -> list[dict[str, Any]]:
    """Return the records of the feed of alarms."""
    answer = await site.ask("GET", "/api/v1/feeds/alarms/records", token, params={"limit": "100"})
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.body["records"]
    return rows


async def test_an_alarm_through_a_restart(tmp_path: Path) -> None:
    """Opened, acknowledged, kept through a restart, closed; each event once in the feed, in the scope of the reader."""
    config = config_of(tmp_path, egress=EgressConfig(allow=("127.0.0.1",), retry_initial_s=0.05))
    async with receiving() as receiver:
        await _alarm_through_a_restart(config, receiver)
    events = [alarm["event"] for letter in receiver.kept for alarm in json.loads(letter.body)["alarms"]]
    assert events == ["opened", "acknowledged", "closed"]


async def _alarm_through_a_restart(config: Config, receiver: Receiver) -> None:
    async with running(config) as site:
        device = await site.device("hot")
        channel = {"kind": "webhook", "url": receiver.url, "secret": "0123456789abcdef", "severity": "major"}
        body = {**channel, "events": ["opened", "acknowledged", "closed"]}
        answer = await site.ask("PUT", "/api/v1/alarm-channels/duty", json=body)
        assert answer.status == 200, answer.body
        assert "0123456789abcdef" not in str(answer.body)
        stranger, _ = await site.token("city_operator", "4401")
        county, _ = await site.token("county_operator", "440103")
        assert (await site.ask("GET", "/api/v1/alarm-channels/duty", stranger)).status == 200
        assert (await site.ask("GET", "/api/v1/alarm-channels/duty", county)).status == 404
        assert (await site.ask("DELETE", "/api/v1/alarm-channels/duty", county)).status == 404
        refused = await site.ask("PUT", "/api/v1/alarm-channels/x", json={**channel, "url": "http://10.1.1.1/"})
        assert refused.status == 400, refused.body
        answer = await site.ask("PUT", "/api/v1/alarm-rules/heat", json=RULE)
        assert answer.status == 200, answer.body
        await site.push(device, json.dumps({"values": {"air_temperature": 35.5}}))
        (alarm,) = await eventually(lambda: alarms(site, state="open"))
        assert (alarm["device"], alarm["property"], alarm["value"]) == ("hot", "air_temperature", 35.5)
        path = f"/api/v1/alarms/{alarm['id']}/acknowledge"
        assert (await site.ask("POST", path, json={"note": "seen"})).status == 200
        assert (await site.ask("POST", path, json={"note": "seen"})).status == 409
        other, _ = await site.token("county_operator", "440103")
        assert (await site.ask("POST", path, other, json={})).status == 404
        assert await events(site, other) == []
        async with site.stream(site.admin, "alarms", since="1h") as stream:
            record = await stream.record()
            assert json.loads(record["value"])["event"] == "opened"
        assert await site.metric('sensegate_alarms{severity="major",state="acknowledged"}') == 1
    async with running(config) as site:
        (kept,) = await eventually(lambda: alarms(site, state="acknowledged"))
        assert kept["id"] == alarm["id"]
        assert kept["acknowledged"] > kept["opened"]
        await site.push(device, json.dumps({"values": {"air_temperature": 29.0}}))
        await site.push(device, json.dumps({"values": {"air_temperature": 27.0}}))
        await eventually(lambda: alarms(site, state="closed"))
        await eventually(lambda: len(receiver.kept) >= 2 and b'"closed"' in receiver.kept[-1].body)

        async def are_delivered() -> bool:
            (row,) = (await site.ask("GET", "/api/v1/alarm-channels")).body["rows"]
            return (row["delivered"], row["failures"]) == (3, 0)

        await eventually(are_delivered)  # the count is written after the receiver's answer
        documents = [json.loads(record["value"]) for record in await events(site)]
        assert [event["event"] for event in documents] == ["opened", "acknowledged", "closed"]
        assert {event["alarm"] for event in documents} == {alarm["id"]}
        assert "alarm.acknowledge" in {row["action"] for row in await site.audit()}
        assert [record["property"] for record in await site.records()] == ["air_temperature"] * 3

        async def has_no_warning() -> bool:
            return not (await site.ask("GET", "/readyz", "")).body["warnings"]

        await eventually(has_no_warning)


async def test_alarms_of_a_city_are_seen_by_its_province(tmp_path: Path) -> None:
    """Of a device and of the gateway itself: each event once in the feed of the node, once in that of its centre."""
    async with tiers(tmp_path) as (node, centre):
        device = await node.device("hot")
        assert (await node.ask("PUT", "/api/v1/alarm-rules/heat", json=RULE)).status == 200
        await node.push(device, json.dumps({"values": {"air_temperature": 35.5}}))
        for _ in range(25):
            assert (await node.push(device, b"no reading")).status == 202
        await node.push(device, json.dumps({"values": {"air_temperature": 20.0}}))

        async def transitions(site: Site) -> list[tuple[str, str, str]]:
            rows = await events(site)
            results = [(json.loads(row["value"]), row["device"]) for row in rows]
            return sorted((event["rule"], event["event"], device_) for event, device_ in results)

        async def is_told() -> bool:
            return len(await transitions(centre)) == 3

        await eventually(is_told)
        assert await transitions(node) == await transitions(centre)
        assert await transitions(centre) == [
            ("gateway:quarantine", "opened", "4401"),
            ("heat", "closed", "hot"),
            ("heat", "opened", "hot"),
        ]
        ids = {row["id"] for row in await events(node)}
        assert {row["id"] for row in await events(centre)} == ids
        assert (await centre.totals()).get("forwarded", 0) == 2, "two readings, and no event"
