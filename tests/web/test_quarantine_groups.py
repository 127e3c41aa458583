"""REST of the quarantine as an inbox, and of filters of lists."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from sensegate.authority.scope import Role
from sensegate.bus import raw
from sensegate.clock import HOUR_US, SystemClock
from sensegate.model import LogEntry, LogMessage, Message
from sensegate.web import quarantine
from tests.web.serving import Gateway

ROWS = (
    ("acme/d-1/up", "d-1", "acme/th10@3", "no_values"),
    ("acme/d-2/up", "d-2", "acme/th10@3", "no_values"),
    ("acme/d-1/up", "d-1", "acme/th10@3", "malformed"),
    ("meters/4711/now", "", "", "no_profile"),
    ("meters/4712/now", "", "", "no_profile"),
)


async def test_alike_messages_are_one_group(gateway: Gateway) -> None:
    """One group for each reason, profile and pattern of topic, the largest first; cut to the devices of the caller."""
    for name, division in (("d-1", "440106"), ("d-2", "440305")):
        await gateway.device(name, division)
    now = SystemClock().now()
    stored = [
        raw.StoredMessage(Message(topic, b"{}", now, number), "mqtt", reason, "why", device, profile)
        for number, (topic, device, profile, reason) in enumerate(ROWS, 1)
    ]
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined(stored), 720)])
    path = "/api/v1/quarantine/groups"
    _, inbox, _ = await gateway.ask("GET", path, await gateway.token(), expect=200)
    assert (inbox["messages"], inbox["more"]) == (5, False)
    assert [(row["reason"], row["pattern"], row["profile"], row["messages"]) for row in inbox["rows"]] == [
        ("no_values", "acme/{device}/up", "acme/th10@3", 2),
        ("no_profile", "meters/*/now", "", 2),
        ("malformed", "acme/{device}/up", "acme/th10@3", 1),
    ]
    assert inbox["rows"][0]["devices"] == ["d-1", "d-2"]
    county = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    _, cut, _ = await gateway.ask("GET", path, county, expect=200)
    assert sorted(row["reason"] for row in cut["rows"]) == ["malformed", "no_values"]
    _, answer, _ = await gateway.ask("GET", f"{path}?reason=malformed", await gateway.token(), expect=200)
    assert answer["messages"] == 1


async def test_the_messages_of_a_group(gateway: Gateway) -> None:
    """Reason, profile and pattern select those of one group, also an empty profile; `order=desc`: newest first."""
    now, token = SystemClock().now(), await gateway.token()
    stored = [
        raw.StoredMessage(Message(topic, b"{}", now, number), "mqtt", reason, "why", device, profile)
        for number, (topic, device, profile, reason) in enumerate(ROWS, 1)
    ]
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined(stored), 720)])
    for query, topics in (
        ({"profile": "acme/th10@3", "reason": "no_values", "order": "desc"}, ["acme/d-2/up", "acme/d-1/up"]),
        ({"profile": "acme/th10@3", "order": "desc", "limit": "1"}, ["acme/d-1/up"]),
        ({"profile": ""}, ["meters/4711/now", "meters/4712/now"]),
        ({"pattern": "meters/*/now", "order": "desc"}, ["meters/4712/now", "meters/4711/now"]),
        ({"pattern": "acme/{device}/up", "reason": "malformed"}, ["acme/d-1/up"]),
        ({"pattern": "acme"}, []),
    ):
        _, page, _ = await gateway.ask("GET", f"/api/v1/quarantine?{urlencode(query)}", token, expect=200)
        assert [row["topic"] for row in page["rows"]] == topics, query
    await gateway.ask("GET", "/api/v1/quarantine?order=newest", token, expect=400)


def refused(topic: str, received: int) -> raw.StoredMessage:
    """Return a message in quarantine."""
    return raw.StoredMessage(Message(topic, b"{}", received, 1), "mqtt", "no_profile", "why", "", "")


@pytest.mark.parametrize("window", [1, 3, 64, 4_096])
@pytest.mark.parametrize("others", [0, 7])
async def test_the_newest_are_those_of_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, window: int, others: int
) -> None:
    """Of more entries than one scan reads, `order=desc` returns the newest, however many entries lie between them."""
    monkeypatch.setattr(quarantine, "_SCAN_ENTRIES", 10)
    monkeypatch.setattr(quarantine, "_WINDOW", window)
    fetch_all = gateway.log.fetch_of

    async def fetch_few(subject: str, after: int) -> list[LogEntry]:
        return (await fetch_all(subject, after))[:5]

    monkeypatch.setattr(gateway.log, "fetch_of", fetch_few)
    now, token = SystemClock().now(), await gateway.token()
    for number in range(40):
        stored = [refused(f"m/{number}/{part}", now) for part in "ab"]
        noise = [LogMessage("other.44", b"", 720) for _ in range(others)]
        await gateway.log.write([*noise, LogMessage("quarantine.44-0", raw.encode_quarantined(stored), 720)])
    newest = [f"m/{number}/{part}" for number in reversed(range(40)) for part in "ba"]
    for limit in (1, 3, 8):
        _, page, _ = await gateway.ask("GET", f"/api/v1/quarantine?order=desc&limit={limit}", token, expect=200)
        assert [row["topic"] for row in page["rows"]] == newest[:limit]
    _, page, _ = await gateway.ask("GET", "/api/v1/quarantine?order=desc&pattern=m/*/b&limit=4", token, expect=200)
    assert [row["topic"] for row in page["rows"]] == newest[:8:2]
    assert "searched_to" not in page, "the page is full"
    for rare in ("device=none", "pattern=m/3/a"):
        _, page, _ = await gateway.ask("GET", f"/api/v1/quarantine?order=desc&{rare}&limit=4", token, expect=200)
        assert page["rows"] == []
        assert page["searched_to"], "those before were not searched, and it says so"


async def test_a_search_of_everything_says_nothing(gateway: Gateway) -> None:
    """With few entries all are searched, whether one matches or none."""
    now, token = SystemClock().now(), await gateway.token()
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined([refused("m/1", now)]), 720)])
    for more in ("device=none", "pattern=m/*"):
        _, page, _ = await gateway.ask("GET", f"/api/v1/quarantine?order=desc&{more}", token, expect=200)
        assert "searched_to" not in page


async def test_since_is_the_time_of_arrival_for_messages_and_groups(gateway: Gateway) -> None:
    """An entry that was stored since then may hold a message that arrived before: neither list has it."""
    now, token = SystemClock().now(), await gateway.token()
    stored = [refused("old/x", now - 3 * HOUR_US), refused("new/x", now)]
    await gateway.log.write([LogMessage("quarantine.44-0", raw.encode_quarantined(stored), 720)])
    for path in ("?since=1h", "?since=1h&order=desc", "/groups?since=1h"):
        _, page, _ = await gateway.ask("GET", f"/api/v1/quarantine{path}", token, expect=200)
        assert [row["topic"] for row in page["rows"]] == ["new/x"], path
    _, page, _ = await gateway.ask("GET", "/api/v1/quarantine?since=4h", token, expect=200)
    assert [row["topic"] for row in page["rows"]] == ["old/x", "new/x"]


async def test_filters_of_a_list(gateway: Gateway) -> None:
    """Several values of a filter: any of them; after `!` none of them."""
    token = await gateway.token()
    await gateway.ask("POST", "/api/v1/feeds", token, json={"name": "a", "description": "x"}, expect=201)
    await gateway.ask("POST", "/api/v1/feeds", token, json={"name": "b", "description": "y"}, expect=201)
    names = {}
    for query in ("name=a,b", "name=!a", "name=a&description=y", "name=!a,!b"):
        _, body, _ = await gateway.ask("GET", f"/api/v1/feeds?{query}", token, expect=200)
        assert body["total"] == len(body["rows"])
        names[query] = sorted({row["name"] for row in body["rows"]} & {"a", "b"})
    assert names == {"name=a,b": ["a", "b"], "name=!a": ["b"], "name=a&description=y": [], "name=!a,!b": []}
