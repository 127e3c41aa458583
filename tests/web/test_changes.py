"""REST of one device's messages and changes, and of the trail searched from its end; all cut to the caller."""

from __future__ import annotations

import pytest

from sensegate.authority.scope import Role
from sensegate.bus import raw
from sensegate.clock import SystemClock
from sensegate.model import LogMessage, Message
from sensegate.web import messages
from tests.web.serving import Gateway


def received(topic: str, payload: bytes, number: int, principal: str = "") -> Message:
    """Return a message that has come."""
    return Message(topic, payload, SystemClock().now(), number, principal)


async def test_messages_of_a_device(gateway: Gateway) -> None:
    """By credential, by topic and by quarantine, oldest first, the newest kept; `after` brings only what is new."""
    for name in ("a-1", "a-2"):
        await gateway.device(name)
    await gateway.device("b-1", "440305")
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    plain = [received("up", b"one", 1, "a-1"), received("sg/a-1/up", b"two", 2), received("sg/a-2/up", b"no", 3, "a-2")]
    stored = raw.StoredMessage(received("x", b"\xff", 4), "mqtt", "malformed", "why", "a-1", "acme/th10@3")
    await gateway.log.write([LogMessage("raw.44-0", raw.encode(plain, "mqtt"), 24)])
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined([stored]), 24)])
    path = "/api/v1/devices/a-1/messages"
    _, first, _ = await gateway.ask("GET", path, token, expect=200)
    assert [(row["payload"], row["state"], row["reason"]) for row in first["rows"]] == [
        ("one", "decoded", ""),
        ("two", "decoded", ""),
        ("base64:/w==", "quarantined", "malformed"),
    ]
    assert first["more"] is False
    _, newest, _ = await gateway.ask("GET", f"{path}?limit=1", token, expect=200)
    assert [row["state"] for row in newest["rows"]] == ["quarantined"]
    await gateway.log.write([LogMessage("raw.44-0", raw.encode([received("up", b"three", 5, "a-1")], "mqtt"), 24)])
    _, later, _ = await gateway.ask("GET", f"{path}?after={first['after']}", token, expect=200)
    assert [row["payload"] for row in later["rows"]] == ["three"]
    await gateway.ask("GET", "/api/v1/devices/b-1/messages", token, expect=404)
    await gateway.ask("GET", "/api/v1/devices/nobody/messages", token, expect=404)
    await gateway.ask("GET", path, await gateway.token(Role.AUDITOR, "44"), expect=403)
    await gateway.ask("GET", f"{path}?after=x", token, expect=400)


async def test_a_name_that_stands_in_the_topics_of_others_opens_none_of_their_messages(gateway: Gateway) -> None:
    """A device with the alias `up` has no part in `…/up` of others, nor a topic of its own that others published to."""
    await gateway.device("spy-1", alias="up")
    await gateway.device("other-1", "440305")
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    plain = [
        received("sg/other-1/up", b"by topic", 1),
        received("sg/other-1/up", b"by credential", 2, "other-1"),
        received("sg/spy-1/up", b"of another sender", 3, "other-1"),
        received("sg/spy-1/up", b"own", 4),
    ]
    stored = raw.StoredMessage(received("sg/spy-1/up", b"refused", 5), "mqtt", "malformed", "why", "other-1", "p/p@1")
    await gateway.log.write([LogMessage("raw.44-0", raw.encode(plain, "mqtt"), 24)])
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined([stored]), 24)])
    _, body, _ = await gateway.ask("GET", "/api/v1/devices/spy-1/messages", token, expect=200)
    assert [row["payload"] for row in body["rows"]] == ["own"]


async def test_the_last_messages_are_found_from_the_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that may not read the whole period still has the newest messages; `after` then brings nothing old."""
    monkeypatch.setattr(messages, "SCAN_ENTRIES", 900)
    monkeypatch.setattr(messages, "SCAN_S", 60.0)  # on a busy machine the time would end it sooner
    await gateway.device("rare")
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    for number in range(30):
        await gateway.log.write(
            [LogMessage("raw.44-0", raw.encode([received("up", b"%d" % number, number, "rare")], "mqtt"), 24)]
        )
        others = [LogMessage("raw.44-0", raw.encode([received("up", b"x", 1, "other")], "mqtt"), 24)]
        for _ in range(40):
            await gateway.log.write(others)
    path = "/api/v1/devices/rare/messages"
    _, body, _ = await gateway.ask("GET", path, token, expect=200)
    assert [row["payload"] for row in body["rows"]] == [str(number) for number in range(10, 30)]
    _, later, _ = await gateway.ask("GET", f"{path}?after={body['after']}", token, expect=200)
    assert later["rows"] == []


async def test_changes_of_a_device(gateway: Gateway) -> None:
    """Who, when and what, newest first; what it was while out of the caller's scope is not shown."""
    await gateway.device("c-1", name="before")
    await gateway.device("c-10")
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    _, row, response = await gateway.ask("GET", "/api/v1/devices/c-1", token, expect=200)
    headers = {"If-Match": response.headers.get("ETag", f'"{row["revision"]}"')}
    await gateway.ask("PATCH", "/api/v1/devices/c-1", token, json={"name": "after"}, headers=headers, expect=200)
    _, body, _ = await gateway.ask("GET", "/api/v1/devices/c-1/changes", token, expect=200)
    assert [change["action"] for change in body["rows"]] == ["device.change", "device.add"]
    assert body["complete"] is True
    newest = body["rows"][0]
    assert newest["fields"] == [{"key": "name", "before": "before", "after": "after"}]
    assert newest["role"] == "county_operator"
    assert newest["actor"]
    assert newest["time"] > "2026"
    elsewhere = await gateway.token(Role.COUNTY_OPERATOR, "440305")
    await gateway.ask("GET", "/api/v1/devices/c-1/changes", elsewhere, expect=404)

    _, row, _ = await gateway.ask("GET", "/api/v1/devices/c-1", token, expect=200)
    city = await gateway.token(Role.CITY_OPERATOR, "4401")
    headers = {"If-Match": f'"{row["revision"]}"'}
    moved = {"division": "440103"}
    await gateway.ask("PATCH", "/api/v1/devices/c-1", city, json=moved, headers=headers, expect=200)
    other = await gateway.token(Role.COUNTY_OPERATOR, "440103")
    _, cut, _ = await gateway.ask("GET", "/api/v1/devices/c-1/changes", other, expect=200)
    assert "before" not in str([change["fields"] for change in cut["rows"][1:]]).replace("'before':", "")


async def test_the_trail_from_its_end(gateway: Gateway) -> None:
    """Filters take parts of actor, action and target; `next` goes on; without `newest` they are refused."""
    for number in range(5):
        await gateway.device(f"t-{number}")
    auditor = await gateway.token(Role.AUDITOR, "44")
    path = "/api/v1/audit?newest=true&action=device"
    _, body, _ = await gateway.ask("GET", f"{path}&limit=2", auditor, expect=200)
    assert [row["target"] for row in body["rows"]] == ["t-4", "t-3"]
    _, rest, _ = await gateway.ask("GET", f"{path}&limit=9&after={body['next']}", auditor, expect=200)
    assert [row["target"] for row in rest["rows"]] == ["t-2", "t-1", "t-0"]
    _, answer, _ = await gateway.ask("GET", f"{path}&target=t-3", auditor, expect=200)
    assert [row["target"] for row in answer["rows"]] == ["t-3"]
    await gateway.ask("GET", "/api/v1/audit?target=t-3", auditor, expect=400)
