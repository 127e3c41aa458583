"""The story of sharing through REST alone, at a real node and a real centre.

A county hands in a profile and onboards a device; its city approves the profile and describes the feed; the feed stands
in the centre's catalogue; another city applies there; the owner decides at his own node, with masks and a quota; six
deliveries of the centre bring the same cursors and the same values; the quota bites; a revocation at the node stops
all six within two seconds; what was metered is what was delivered; the audit trail is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import nats.errors
import pytest

from sensegate.authority.chain import check_export
from sensegate.authority.heads import public_key
from sensegate.config.people import EgressConfig
from sensegate.share.usage_statements import verify_statement
from sensegate.tiers import membership
from tests.conftest import eventually
from tests.live.granting import ENTRY, Granted
from tests.live.pushed import by_mqtt, by_nats
from tests.live.receiver import receiving
from tests.live.releasing import version
from tests.live.site import Made, Site, config_of, running
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = pytest.mark.live

FEED = "4401-gz-air"
SIX = ("http", "sse", "ws", "webhook", "mqtt", "nats")


class Reader:
    """What one delivery brought, and when and why it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[dict[str, Any]] = []
        self.why = ""
        self.ended = asyncio.Event()
        self._more = asyncio.Condition()

    async def take(self, records: list[dict[str, Any]]) -> None:
        """Keep what came."""
        self.records += records
        async with self._more:
            self._more.notify_all()

    def end(self, why: object) -> None:
        """Note that nothing comes any more."""
        self.why = str(why)
        self.ended.set()

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Return the records once there are so many, and no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60), self._more:
                await self._more.wait_for(lambda: len(self.records) >= count or self.ended.is_set())
        assert len(self.records) == count, (self.name, self.why, [row["cursor"] for row in self.records])
        return self.records

    @property
    def last(self) -> str:
        """The cursor to go on from."""
        return str(self.records[-1]["cursor"]) if self.records else ""


class Story:
    """The people, the places and what they hold."""

    def __init__(self, node: Site, centre: Site) -> None:
        self.node = node
        self.centre = centre
        self.grant = Granted("", "", "", FEED)
        self._minute = iter(range(1_000))

    async def push(self, device: Made, count: int) -> None:
        """Have readings come in at the node."""
        for _ in range(count):
            minute = next(self._minute)
            answer = await self.node.push(device, f'{{"t": {200 + minute}}}')
            assert answer.status == 202, answer.body

    # ── six ways to read ──────────────────────────────────────────────────────────────────────────────

    async def by_page(self, reader: Reader) -> None:
        """Long poll after long poll."""
        while True:
            query = {"wait": "5", **({"after": reader.last} if reader.records else {})}
            path = f"/api/v1/feeds/{FEED}/records"
            answer = await self.centre.ask("GET", path, self.grant.token, params=query)
            if answer.status != 200:
                reader.end(answer.status)
                return
            await reader.take(answer.body["records"])

    async def by_sse(self, reader: Reader) -> None:
        """Server-sent events."""
        query = {"after": reader.last} if reader.records else {}
        async with self.centre.stream(self.grant.token, FEED, **query) as stream:
            while (event := await stream.next(60)) is not None:
                if event.get("event") == "problem":
                    reader.end(json.loads(event["data"])["status"])
                elif "data" in event:
                    await reader.take([json.loads(event["data"])])

    async def by_ws(self, reader: Reader) -> None:
        """WebSocket with credit."""
        query = {"after": reader.last} if reader.records else {}
        url = f"{self.centre.addresses.http}/api/v1/feeds/{FEED}/ws"
        headers = {"Authorization": f"Bearer {self.grant.token}"}
        async with self.centre.session.ws_connect(url, headers=headers, params=query) as socket:
            async for message in socket:
                assert message.type is aiohttp.WSMsgType.TEXT
                document = json.loads(message.data)
                if "problem" in document:
                    reader.end(document["problem"]["status"])
                    return
                await reader.take(document["records"])

    async def by_mqtt(self, reader: Reader) -> None:
        """Paho, QoS 1."""
        text = json.dumps({"after": reader.last or "first", "tag": "m"})
        async with by_mqtt(self.centre, self.grant, text, tag="m") as mqtt:
            while (event := await mqtt.phone.either("message", "closed"))[0] == "message":
                await reader.take(json.loads(event[1][1])["records"])
            reader.end("closed")

    async def by_nats(self, reader: Reader) -> None:
        """nats-py; each message is answered."""
        async with by_nats(self.centre, self.grant, None) as subscriber:
            subject = f"sg.feeds.{self.grant.id}.records"
            subscription = await subscriber.client.subscribe(subject)
            await subscriber.subscription.unsubscribe()
            subscriber.subscription = subscription
            control, cursor = f"sg.control.{self.grant.id}.nats", reader.last or "first"
            await subscriber.client.request(control, cursor.encode(), timeout=30)
            closed = asyncio.create_task(subscriber.closed.wait())
            heard = asyncio.create_task(self._nats_heard(subscriber, reader))
            await closed
            heard.cancel()
            reader.end("closed")

    @staticmethod
    async def _nats_heard(subscriber: Any, reader: Reader) -> None:
        while True:
            try:
                message = await subscriber.subscription.next_msg(timeout=60)
            except nats.errors.ConnectionClosedError:
                return
            await reader.take(json.loads(message.data)["records"])
            await message.respond(b"")


@contextlib.asynccontextmanager
async def both(folder: Path) -> AsyncIterator[Story]:
    """Run a centre and a node that has joined it."""
    egress = EgressConfig(("127.0.0.0/8",), retry_initial_s=0.05, retry_max_s=0.2, failures_max=5)
    quick = msgspec.structs.replace(config_of(folder / "centre", "44"), egress=egress)
    async with running(quick) as centre, running(config_of(folder / "node")) as node:
        invited = await centre.ask("POST", "/api/v1/nodes", json={"division": "4401"})
        await membership.join(folder / "node", invited.body["code"], centre.addresses.http, member="4401")
        yield Story(node, centre)


async def wait_for(look: Callable[[], Awaitable[Any]]) -> Any:
    """Return what `look` gives once it is there."""
    return await eventually(look, timeout_s=60.0)


async def test_the_story(tmp_path: Path) -> None:  # noqa: PLR0915 - it is one story
    """From a county's device to another city's six subscribers and back."""
    async with both(tmp_path) as story, receiving() as receiver:
        node, centre = story.node, story.centre
        county, _ = await node.token("county_operator", "440106")
        city, _ = await node.token("city_operator", "4401")
        reader, reader_id = await centre.token("subscriber", "4403")

        # The county hands in a profile and proposes it; only the city releases it.
        path = "/api/v1/profiles/acme/th"
        assert (await node.ask("POST", f"{path}/versions", county, json={"text": version(1)})).status == 201
        assert (await node.ask("POST", f"{path}/versions/1/propose", county, json={})).status == 200
        assert (await node.ask("POST", f"{path}/versions/1/release", county, json={})).status == 403
        released = await node.ask("POST", f"{path}/versions/1/release", city, json={})
        assert released.status == 200, released.body
        wanted = {"id": "gz-th-1", "division": "440106", "profile": "acme/th", "lon": 113.36123, "lat": 23.12345}
        made = await node.ask("POST", "/api/v1/devices", county, json=wanted)
        assert made.status == 201, made.body
        device = Made("gz-th-1", made.body["password"], made.body["topics"])
        await story.push(device, 8)

        # The feed with its entry, at the node; it stands at the centre with a code of the centre.
        feed = {"name": "gz-air", "divisions": ["4401"], "domains": []}
        assert (await node.ask("POST", "/api/v1/feeds", city, json=feed)).status == 201
        entry = await node.ask("PATCH", "/api/v1/catalogue/gz-air", city, json=ENTRY)
        assert entry.body["state"] == "published", entry.body

        async def listed() -> Any:
            rows = (await centre.ask("GET", "/api/v1/catalogue", reader, params={"q": "廣州"})).body["rows"]
            return [row for row in rows if row["feed"] == FEED]

        (row,) = await wait_for(listed)
        assert (row["origin"], row["code"]) == ("4401", "440100-theme-000001")

        async def coded() -> Any:
            return (await node.ask("GET", "/api/v1/catalogue/gz-air", city)).body["code"]

        assert await wait_for(coded) == row["code"]

        # What others share at the centre is found at the node, too; it is applied for above.
        assert (await centre.ask("POST", "/api/v1/feeds", json={"name": "sz", "divisions": ["4403"]})).status == 201
        assert (await centre.ask("PATCH", "/api/v1/catalogue/sz", json={**ENTRY, "title": "深圳"})).status == 200

        async def known_below() -> Any:
            answer = await node.ask("GET", "/api/v1/catalogue/sz", city)
            return answer.body if answer.status == 200 else None

        assert (await wait_for(known_below))["origin"] == "44"
        below = {"feeds": ["sz"], "purpose": "p", "legal_basis": "l"}
        assert (await node.ask("POST", "/api/v1/applications", city, json=below)).status == 409

        # Another city applies at the centre; the owner decides at his own node.
        story.grant = Granted("", reader, reader_id, FEED)
        wish = {"feeds": [FEED], "purpose": "聯合預報", "legal_basis": "國務院令第809號", "days": 30}
        reply = await centre.ask("POST", "/api/v1/applications", reader, json=wish)
        assert reply.status == 201, reply.body
        application = reply.body["id"]

        async def arrived() -> Any:
            rows = (await node.ask("GET", "/api/v1/applications", city)).body["rows"]
            return [row for row in rows if row["id"] == application and row["state"] == "pending"]

        await wait_for(arrived)
        decision = {
            "approve": True,
            "volume": 60,
            "mask": {
                "hash": ["device"],
                "grid_m": 1000,
                "round": [{"property": "air_temperature", "step": 0.5}],
            },
        }
        decide = f"/api/v1/applications/{application}/decision"
        assert (await node.ask("POST", decide, county, json=decision)).status in {403, 404}
        decided = await node.ask("POST", decide, city, json=decision)
        assert decided.status == 200, decided.body
        (grant,) = decided.body["grants"]
        story.grant = Granted(grant, reader, reader_id, FEED)

        # Six deliveries, history first, then live.
        async def up() -> Any:
            return len(await centre.records()) >= 8

        await wait_for(up)
        readers = {name: Reader(name) for name in SIX}
        ways = {
            "http": story.by_page,
            "sse": story.by_sse,
            "ws": story.by_ws,
            "mqtt": story.by_mqtt,
            "nats": story.by_nats,
        }
        tasks = {name: asyncio.create_task(route(readers[name]), name=name) for name, route in ways.items()}
        hook = await centre.ask("POST", "/api/v1/webhooks", reader, json={"feed": FEED, "url": receiver.url})
        assert hook.status == 201, hook.body

        async def each_has(count: int, *, names: tuple[str, ...] = SIX) -> list[list[dict[str, Any]]]:
            readers["webhook"].records = list(await receiver.until(count)) if "webhook" in names else []
            return [await readers[name].until(count) if name != "webhook" else receiver.records for name in names]

        await each_has(8)
        await story.push(device, 2)
        every = await each_has(10)
        raw = await centre.records()
        assert [row["cursor"] for row in raw] == [row["cursor"] for row in every[0]]
        here = (await node.ask("GET", "/api/v1/feeds/gz-air/records", city)).body["records"]
        assert [(row["id"], row["value"]) for row in here] == [(row["id"], row["value"]) for row in raw], "both tiers"
        assert {row["device"] for row in raw} == {"gz-th-1"}, "the control: the centre has it unmasked"
        alike(every)
        assert "gz-th-1" not in json.dumps(every)
        assert all(row["value"] * 2 == int(row["value"] * 2) for row in every[0])
        assert [row["value"] for row in every[0]] != [row["value"] for row in raw]

        # The quota is used up: nobody gets more; by page and stream it is said with 429.
        await story.push(device, 1)

        async def eleven() -> Any:
            return len(await centre.records()) == 11

        await wait_for(eleven)
        for name in ("http", "sse", "ws"):
            async with asyncio.timeout(60):
                await readers[name].ended.wait()
            assert readers[name].why == "429", name
            assert len(readers[name].records) == 10, name
        shown = (await centre.ask("GET", f"/api/v1/grants/{grant}", reader)).body
        assert (shown["used"], shown["volume"]) == (60, 60)
        late = await centre.ask(
            "GET", f"/api/v1/feeds/{FEED}/records", reader, params={"after": every[0][-1]["cursor"]}
        )
        assert late.status == 429
        assert int(late.headers["Retry-After"]) >= 1
        assert [len(readers[name].records) for name in ("mqtt", "nats")] == [10, 10]
        assert len(receiver.records) == 10

        # The owner allows more; each goes on from its cursor.
        owner, _ = await centre.token("city_operator", "4401")
        etag = {"If-Match": str(shown["revision"])}
        more = await centre.ask("PATCH", f"/api/v1/grants/{grant}", owner, json={"volume": 100}, headers=etag)
        assert more.status == 200, more.body
        for name in ("http", "sse", "ws"):
            await tasks[name]
            readers[name].ended.clear()
            tasks[name] = asyncio.create_task(ways[name](readers[name]), name=name)
        every = await each_has(11)
        alike(every)

        # Revoked at the node: all six stop within two seconds; the owner's own stream goes on.
        async def known() -> Any:
            return (await node.ask("GET", f"/api/v1/grants/{grant}", city)).status == 200

        await wait_for(known)
        async with centre.stream(owner, FEED, after=every[0][-1]["cursor"]) as control:
            began = time.monotonic()
            gone = await node.ask("DELETE", f"/api/v1/grants/{grant}", city, params={"reason": "用途不符"})
            assert gone.body["state"] == "revoked", gone.body
            for name in ways:
                async with asyncio.timeout(WITHIN_TWO_SECONDS + 1):
                    await readers[name].ended.wait()
            assert time.monotonic() - began < WITHIN_TWO_SECONDS
            await asyncio.sleep(max(0.0, began + 2 - time.monotonic()))
            await story.push(device, 1)
            assert (await control.record(10))["device"] == "gz-th-1"
            assert {name: readers[name].why for name in ways} == {
                "http": "403",
                "sse": "403",
                "ws": "403",
                "mqtt": "closed",
                "nats": "closed",
            }
            assert [len(readers[name].records) for name in ways] == [11] * 5
            assert len(receiver.records) == 11
        await asyncio.gather(*tasks.values())

        # What was metered is what was delivered; the receipt says so, signed; the trails are whole.
        usage = (await centre.ask("GET", f"/api/v1/grants/{grant}/usage", reader)).body
        by_delivery = {row["delivery"]: row["records"] for row in usage["rows"]}
        assert by_delivery == {"json": 11, "sse": 11, "ws": 11, "webhook": 11, "mqtt": 11, "nats": 11}
        ledger = (await centre.ask("GET", "/api/v1/ledger", params={"since": "1h"})).body
        counts = (await centre.ask("GET", "/api/v1/usage")).body["rows"]
        assert ledger["balanced"]
        assert ledger["delivered"] == sum(count["records"] for count in counts)
        assert sum(count["records"] for count in counts if count["token"] == reader_id) == 66
        receipt = await centre.ask("GET", f"/api/v1/grants/{grant}/statements/{usage['month']}", reader)
        key = public_key(centre.config_file("statements.pub"))
        assert verify_statement(msgspec.json.encode(receipt.body), key=key).records == 66
        for site in (node, centre):
            auditor, _ = await site.token("auditor", site.config.division)
            lines = (await site.ask("GET", "/api/v1/audit/export", auditor)).body.removesuffix(b"\n").split(b"\n")
            report = check_export(lines, key=public_key(site.config_file("audit.pub")))
            assert report.fault is None
            assert report.last > 5
        actions = {row["action"] for row in await centre.audit()}
        assert {"entry.synchronise", "application.create", "grant.create", "grant.revoke"} <= actions


def alike(every: list[list[dict[str, Any]]]) -> None:
    """See that all deliveries brought the same records with the same cursors."""
    cursors = {name: [row["cursor"] for row in records] for name, records in zip(SIX, every, strict=True)}
    assert all(cursors[name] == cursors["http"] for name in SIX), cursors
    assert all(records == every[0] for records in every)
