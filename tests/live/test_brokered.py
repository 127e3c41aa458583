"""A grant delivered by our broker: by MQTT to paho, by NATS to nats-py, neither of which knows anything of us."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import nats
import nats.errors
import paho.mqtt.client as paho
import pytest
import pytest_asyncio
from nats.aio.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from sensegate.share import cursor
from sensegate.share.transports.brokered import WAITING_MAX
from tests.conftest import eventually
from tests.live.granting import Granted, granted
from tests.live.phone import NOT_AUTHORISED
from tests.live.pushed import Mqtt, by_mqtt, by_nats
from tests.live.site import Made, Site, reading
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
REFUSED = 128
_minute = iter(range(1, 10_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(node: Site) -> Made:
    return await node.device("brokered-air")


async def push(site: Site, device: Made, *values: float) -> None:
    """Have readings with times of their own."""
    for value in values:
        minute = next(_minute)
        sample = reading(value, f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00Z")
        assert (await site.push(device, sample)).status == 202


async def end_of(site: Site, grant: Granted) -> str:
    """Return the cursor at the end of the feed as its subscriber reads it by page."""
    answer = await site.ask("GET", f"/api/v1/feeds/{grant.feed}/records", grant.token, params={"limit": "10000"})
    assert answer.status == 200, answer.body
    cursor: str = answer.body["next"]
    return cursor


async def page_of(site: Site, grant: Granted, after: str) -> list[dict[str, Any]]:
    answer = await site.ask("GET", f"/api/v1/feeds/{grant.feed}/records", grant.token, params={"after": after})
    records: list[dict[str, Any]] = answer.body["records"]
    return records


# ── MQTT ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_mqtt_history_then_live_with_the_cursors_of_a_page(node: Site, device: Made) -> None:
    """From the first on; the same cursors as by page; then what comes; a cursor goes on after a cut."""
    grant = await granted(node, "by-mqtt")
    await push(node, device, 1, 2, 3)
    await eventually(lambda: _least(node, grant, 3))
    async with by_mqtt(node, grant, "first") as mqtt:
        records = await mqtt.records(len(await page_of(node, grant, "")))
        await push(node, device, 4)
        records += await mqtt.records(1)
        assert [row["cursor"] for row in records] == [row["cursor"] for row in await page_of(node, grant, "")]
    await push(node, device, 5, 6)
    async with by_mqtt(node, grant, records[1]["cursor"]) as mqtt:
        repeated = await mqtt.records(len(records) - 2 + 2)
        assert [row["cursor"] for row in repeated] == [
            row["cursor"] for row in await page_of(node, grant, records[1]["cursor"])
        ]


async def _least(site: Site, grant: Granted, count: int) -> bool:
    return len(await page_of(site, grant, "")) >= count


async def test_a_kept_mqtt_session_goes_on_where_it_stood(node: Site, device: Made) -> None:
    """An empty control message: what waited in the session, then what followed, each once."""
    grant = await granted(node, "by-mqtt")
    start = await end_of(node, grant)
    async with by_mqtt(node, grant, start, clean=False) as mqtt:
        await push(node, device, 10)
        records = await mqtt.records(1)
    await push(node, device, 11, 12)
    async with by_mqtt(node, grant, "", clean=False, tag="") as mqtt:
        records += await mqtt.records(2)
    assert [row["value"] for row in records] == [10, 11, 12]


async def test_mqtt_in_a_form_and_under_a_tag_of_its_own(node: Site, device: Made) -> None:
    """CSV under the topic that the subscriber chose."""
    grant = await granted(node, "by-mqtt")
    text = json.dumps({"after": await end_of(node, grant), "form": "csv", "tag": "x7"})
    async with by_mqtt(node, grant, text, tag="x7") as mqtt:
        await push(node, device, 20)
        topic, payload = await mqtt.phone.next("message")
    assert topic == f"sg/grants/{grant.id}/x7"
    assert payload.startswith(b"id,cursor,device")


async def test_a_tag_ends_with_its_connection(node: Site, device: Made) -> None:
    """A later connection has none; within one, null takes it back; a message without a tag leaves it."""
    grant = await granted(node, "by-mqtt")
    tagged = json.dumps({"after": await end_of(node, grant), "tag": "x8"})
    records = f"sg/grants/{grant.id}/records"
    async with by_mqtt(node, grant, tagged) as mqtt:
        await push(node, device, 21)
        assert (await mqtt.phone.next("message"))[0] == f"sg/grants/{grant.id}/x8"
        for change, value, level in (({}, 22, "x8"), ({"tag": None}, 23, "records"), ({"tag": "x9"}, 24, "x9")):
            # With a cursor, a delivery that overtook the control message is made once more, under the tag it asks for.
            control = json.dumps({"after": await end_of(node, grant), **change})
            mqtt.phone.send(f"sg/control/{grant.id}/mqtt", control)
            await push(node, device, value)
            await _until_value(mqtt, f"sg/grants/{grant.id}/{level}", value)
    async with by_mqtt(node, grant, "") as mqtt:
        await push(node, device, 26)
        await _until_value(mqtt, records, 26)


async def _until_value(mqtt: Mqtt, topic: str, value: float) -> None:
    """Return once a value has come under a topic; deliveries before a control message may come once more."""
    async with asyncio.timeout(30):
        while True:
            under, payload = await mqtt.phone.next("message")
            if under == topic and any(row["value"] == value for row in json.loads(payload)["records"]):
                return


async def test_by_mqtt_a_cursor_that_is_not_good_is_no_silence(node: Site, device: Made) -> None:
    """The subscriber is told under ``problem``, with the first cursor that is good, and goes on from there.

    So it is where its line meets that by itself: it stood at a place that has expired.
    """
    grant = await granted(node, "by-mqtt")
    await push(node, device, 25)
    await eventually(lambda: _least(node, grant, 1))
    stale = str(cursor.after(b"absent", 1, 1_767_225_600_000_000))
    async with by_mqtt(node, grant, stale) as mqtt:
        topic, payload = await mqtt.phone.next("message")
        problem = json.loads(payload)
        assert topic == f"sg/grants/{grant.id}/problem"
        assert "another log" in problem["problem"]
        mqtt.phone.send(f"sg/control/{grant.id}/mqtt", problem["first"])
        await mqtt.records(len(await page_of(node, grant, problem["first"])))


async def test_what_mqtt_lets_nobody_hear_or_say(node: Site, device: Made) -> None:
    """A token without a grant, a wrong password, another's topics, all topics: refused; one's own: granted."""
    grant, other = await granted(node, "by-mqtt"), await granted(node, "by-mqtt")
    bare, bare_id = await node.token()
    for user, password in ((bare_id, bare), (grant.token_id, other.token), (grant.token_id, grant.token[:-1] + "!")):
        async with node.phone() as phone:
            assert await phone.connect(user, password) == NOT_AUTHORISED
    for client_id in (f"{other.token_id}-c", "sensegate-feeds", "mine"):
        async with node.phone() as phone:
            assert await phone.connect(grant.token_id, grant.token, client_id=client_id) == NOT_AUTHORISED
    async with by_mqtt(node, grant, await end_of(node, grant)) as mqtt:
        assert await mqtt.phone.subscribe(f"sg/grants/{other.id}/#") == REFUSED
        assert await mqtt.phone.subscribe("sg/grants/#") == REFUSED
        assert await mqtt.phone.subscribe("#") == REFUSED
        mqtt.phone.send(f"sg/control/{other.id}/mqtt", "first")
        mqtt.phone.send(f"sg/grants/{grant.id}/records", '{"records": [{"made": "up"}]}')
        await push(node, device, 30)
        assert [row["value"] for row in await mqtt.records(1)] == [30]


async def test_mqtt_revocation_is_in_force_within_two_seconds(node: Site, device: Made) -> None:
    """The connection is closed and not let in again; another's goes on (the control)."""
    grant, other = await granted(node, "by-mqtt"), await granted(node, "by-mqtt")
    async with (
        by_mqtt(node, grant, await end_of(node, grant)) as mqtt,
        by_mqtt(node, other, await end_of(node, other)) as control,
    ):
        await push(node, device, 40)
        await mqtt.records(1)
        await control.records(1)
        began = time.monotonic()
        assert (await node.ask("DELETE", f"/api/v1/grants/{grant.id}")).status == 200
        await mqtt.phone.next("closed", 60)
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        await push(node, device, 41)
        assert [row["value"] for row in await control.records(1)] == [41]
    async with node.phone() as phone:
        assert await phone.connect(grant.token_id, grant.token) == NOT_AUTHORISED


async def test_a_grant_for_one_form_is_delivered_in_it(node: Site, device: Made) -> None:
    """Without a word in the only form that is granted; another form is refused, told so, and moves nothing."""
    grant = await granted(node, "by-mqtt", forms=["csv"])
    start = (await node.ask("GET", "/api/v1/feeds/all/records", params={"since": "0s"})).body["next"]
    async with by_mqtt(node, grant, json.dumps({"after": start, "form": "json"})) as mqtt:
        await push(node, device, 50)
        topic, payload = await mqtt.phone.next("message")
        assert (topic, "json" in json.loads(payload)["problem"]) == (f"sg/grants/{grant.id}/problem", True), payload
        with pytest.raises(TimeoutError):
            await mqtt.phone.next("message", 1.0)
        mqtt.phone.send(f"sg/control/{grant.id}/mqtt", start)
        _, payload = await mqtt.phone.next("message")
    assert payload.startswith(b"id,cursor,device")
    assert payload.count(b"\r\n") == 2


async def test_a_slow_mqtt_subscriber_is_held_and_shown(node: Site, device: Made) -> None:
    """One who acknowledges nothing gets eight letters and no more, and is shown; another gets all."""
    grant, other = await granted(node, "by-mqtt"), await granted(node, "by-mqtt")
    start = await end_of(node, grant)
    got: list[int] = []
    slow = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{grant.token_id}-slow", manual_ack=True)
    slow.username_pw_set(grant.token_id, grant.token)
    slow.on_message = lambda _c, _u, message: got.append(message.mid)
    slow.on_connect = lambda client, *_: client.subscribe(f"sg/grants/{grant.id}/#", 1)
    slow.on_subscribe = lambda client, *_: client.publish(f"sg/control/{grant.id}/mqtt", start)
    await asyncio.to_thread(slow.connect, "127.0.0.1", urlsplit(node.addresses.mqtt).port or 0)
    slow.loop_start()
    try:
        async with by_mqtt(node, other, start) as mqtt:

            async def row() -> dict[str, Any]:
                rows = (await node.ask("GET", "/api/v1/subscribers", grant.token)).body["rows"]
                return next((row for row in rows if row["id"] == f"{grant.id}-mqtt"), {})

            await eventually(row)
            for value in range(12):
                await push(node, device, 60 + value)
                await mqtt.records(1)

            async def held() -> bool:
                sums = await row()
                return "slow" in str(sums.get("reason")) and int(sums["lag_entries"]) > 0

            await eventually(held)
            assert len(got) == WAITING_MAX
            assert (await row())["state"] == "waiting"
            for mid in got[:]:
                slow.ack(mid, 1)
            await eventually(lambda: len(got) > WAITING_MAX)  # what had piled up comes in one letter
    finally:
        slow.disconnect()
        await asyncio.to_thread(slow.loop_stop)


# ── NATS ──────────────────────────────────────────────────────────────────────────────────────────────


async def is_refused(site: Site, user: str, password: str) -> None:
    """See that a client is not let in."""
    client = Client()
    try:
        with pytest.raises(nats.errors.Error):
            await client.connect(site.addresses.nats, user=user, password=password, allow_reconnect=False)
    finally:
        await client.close()


async def test_nats_history_then_live_with_the_cursors_of_a_page(node: Site, device: Made) -> None:
    """From the first on with the cursors of a page; what was answered does not come again, the rest does."""
    grant = await granted(node, "by-nats")
    await push(node, device, 1, 2, 3)
    await eventually(lambda: _least(node, grant, 3))
    async with by_nats(node, grant, "first") as subscriber:
        records = await subscriber.records(len(await page_of(node, grant, "")))
        await push(node, device, 4)
        records += await subscriber.records(1)
        assert [row["cursor"] for row in records] == [row["cursor"] for row in await page_of(node, grant, "")]
        await push(node, device, 5)
        unanswered = await subscriber.message()
    async with by_nats(node, grant, None) as subscriber:
        repeated = await subscriber.message()
        assert repeated.headers is not None
        assert unanswered.headers is not None
        assert repeated.headers["Nats-Msg-Id"] == unanswered.headers["Nats-Msg-Id"]
        assert repeated.data == unanswered.data
        await repeated.respond(b"")


async def test_what_nats_lets_nobody_hear_or_say(node: Site, device: Made) -> None:
    """No grant: refused. Another's subject, the store's API, another's inbox: nothing is heard or done."""
    grant, other = await granted(node, "by-nats"), await granted(node, "by-nats")
    bare, bare_id = await node.token()
    await is_refused(node, bare_id, bare)
    async with (
        by_nats(node, other, await end_of(node, other)) as control,
        by_nats(node, grant, await end_of(node, grant)) as subscriber,
    ):
        await push(node, device, 10)
        await subscriber.records(1)
        await control.records(1)
        heard = [
            await subscriber.client.subscribe(subject)
            for subject in (
                f"sg.feeds.{other.id}.>",
                ">",
                "sg.feeds.*.records",
                f"sg.grants.{grant.id}.>",
                f"_INBOX_{other.token_id}.>",
            )
        ]
        await subscriber.client.publish(f"sg.feeds.{other.id}.records", b"made up")
        await subscriber.client.publish(f"sg.control.{other.id}.nats", b"first")
        await push(node, device, 11)
        assert [row["value"] for row in await subscriber.records(1)] == [11]
        assert [row["value"] for row in await control.records(1)] == [11]
        assert all(message.pending_msgs == 0 for message in heard)
        # Last: a control message has the subscriber's own line go on from where it is known to stand.
        for reply in (
            f"sg.feeds.{other.id}.records",
            "$JS.API.STREAM.DELETE.$MQTT_rmsgs",
            f"_INBOX_{other.token_id}.x",
        ):
            await subscriber.client.publish(f"sg.control.{grant.id}.nats", b"", reply=reply)
        await eventually(lambda: _refused_replies(node, 3))
        await push(node, device, 12)
        assert [row["value"] for row in await control.records(1)] == [12]


async def _refused_replies(site: Site, least: int) -> bool:
    return await site.metric('sensegate_limit_hits_total{limit="control_reply"}') >= least


async def test_nats_revocation_is_in_force_within_two_seconds(node: Site, device: Made) -> None:
    """Of the grant, and of the token: closed, not let in again; another's goes on."""
    grant, third, other = [await granted(node, "by-nats") for _ in range(3)]
    async with (
        by_nats(node, grant, await end_of(node, grant)) as first,
        by_nats(node, third, await end_of(node, third)) as second,
        by_nats(node, other, await end_of(node, other)) as control,
    ):
        await push(node, device, 20)
        for awarded in (first, second, control):
            await awarded.records(1)
        began = time.monotonic()
        assert (await node.ask("DELETE", f"/api/v1/grants/{grant.id}")).status == 200
        assert (await node.ask("DELETE", f"/api/v1/tokens/{third.token_id}")).status == 200
        async with asyncio.timeout(WITHIN_TWO_SECONDS):
            await first.closed.wait()
            await second.closed.wait()
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        await push(node, device, 21)
        assert [row["value"] for row in await control.records(1)] == [21]
    for ended in (grant, third):
        await is_refused(node, ended.token_id, ended.token)


async def test_who_is_subscribed_is_shown(node: Site, device: Made) -> None:
    """The line with its state; one that does not answer is waiting, and is not sent the next."""
    grant = await granted(node, "by-nats")
    async with by_nats(node, grant, await end_of(node, grant)) as subscriber:

        async def row() -> dict[str, Any]:
            rows = (await node.ask("GET", "/api/v1/subscribers", grant.token)).body["rows"]
            return next((row for row in rows if row["id"] == f"{grant.id}-nats"), {})

        await eventually(row)
        await push(node, device, 30)
        await subscriber.records(1)

        async def took() -> bool:
            return (await row()).get("records") == 1

        await eventually(took)
        assert (await row())["state"] == "live"
