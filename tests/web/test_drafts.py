"""REST: messages that no profile explains, by shape, and drafts learned from them."""

from __future__ import annotations

import asyncio
import json

import pytest

from sensegate.authority.scope import Role
from sensegate.bus import raw
from sensegate.decode.grammar import parse
from sensegate.decode.topics import matches_filter
from sensegate.model import LogMessage, Message
from tests.web.serving import Gateway

UNKNOWN, LEARN = "/api/v1/profiles/unknown", "/api/v1/profiles/learn"


async def fill(gateway: Gateway) -> None:
    """Ten messages of two unknown devices in quarantine, one refused for its rate, five good ones of another make."""
    now = gateway.web.deps.clock.now()
    kept = [
        raw.StoredMessage(
            Message(f"acme/dev-000{at % 2}/up", json.dumps({"t": 21.5 + at, "co2": 400 + at}).encode(), now + at, at),
            "mqtt",
            "unknown_device",
        )
        for at in range(10)
    ]
    kept.append(raw.StoredMessage(Message("acme/dev-0009/up", b"{}", now, 20), "mqtt", "rate"))
    good = [Message(f"beta/{at:04}/state", b'{"humidity": 55}', now + at, at) for at in range(5)]
    await gateway.log.write(
        [
            LogMessage("quarantine.44-0", raw.encode_quarantined(kept), 720),
            LogMessage("raw.44-0", raw.encode(good, "mqtt"), 24),
        ]
    )


async def test_unknown_messages_by_shape(gateway: Gateway) -> None:
    """One row for both devices, with reasons and what seems to be in it; what a profile cannot change is left out."""
    await fill(gateway)
    _, body, _ = await gateway.ask("GET", UNKNOWN, await gateway.token(), expect=200)
    (row,) = body["rows"]
    assert (row["pattern"], row["format"], row["messages"]) == ("acme/{device}/up", "json", 10)
    assert row["reasons"] == {"unknown_device": 10}
    assert row["name"] == "acme/up"
    assert {"co2", "air_temperature"} == set(row["recognised"])
    assert row["first"].endswith("Z")


async def test_a_draft_of_a_shape(gateway: Gateway) -> None:
    """The draft is a profile that loads; guesses have reasons."""
    await fill(gateway)
    token = await gateway.token(Role.PROVINCE_OPERATOR, "44")
    _, body, _ = await gateway.ask("GET", UNKNOWN, token, expect=200)
    shape = body["rows"][0]["id"]
    wanted = {"shape": shape, "profile": "acme/co2"}
    _, body, _ = await gateway.ask("POST", LEARN, token, json=wanted, expect=200)
    assert body["profile"] == "acme/co2"
    assert body["problem"] == ""
    source, _ = parse(body["text"])
    assert {reading.property for reading in source.messages[0].readings} == {"co2", "air_temperature"}
    co2 = next(member for member in body["recognised"] if member["field"] == "co2")
    assert co2["sure"]
    assert "says carbon dioxide" in co2["reason"]


async def test_a_draft_waits_for_another_read(gateway: Gateway) -> None:
    """A page that lists the shapes does not refuse the draft that is asked for on it."""
    await fill(gateway)
    token = await gateway.token(Role.PROVINCE_OPERATOR, "44")
    asked = (gateway.ask("POST", LEARN, token, json={"topic": "beta/+/state"}) for _ in range(4))
    assert [status for status, _, _ in await asyncio.gather(*asked)] == [200] * 4


async def test_a_draft_of_a_topic_sees_good_messages_too(gateway: Gateway) -> None:
    """A filter names what is decoded already: for the next version of its profile."""
    await fill(gateway)
    _, body, _ = await gateway.ask("POST", LEARN, await gateway.token(), json={"topic": "beta/+/state"}, expect=200)
    assert body["messages"] == 5
    assert body["topics"] == [f"beta/{at:04}/state" for at in range(5)]


async def test_who_may_not_see_the_whole_node_sees_none(gateway: Gateway) -> None:
    """A message of an unknown device belongs to the node alone; subscribers and counties are refused."""
    await fill(gateway)
    for role, where in ((Role.COUNTY_OPERATOR, "440106"), (Role.SUBSCRIBER, "44"), (Role.AUDITOR, "44")):
        token = await gateway.token(role, where)
        await gateway.ask("GET", UNKNOWN, token, expect=403)
        await gateway.ask("POST", LEARN, token, json={"topic": "#"}, expect=403)
    await gateway.ask("GET", UNKNOWN, expect=401)


async def test_what_is_wrong_is_told(gateway: Gateway) -> None:
    """Nothing recorded: 404; nothing asked for, a wrong name or key: 400."""
    token = await gateway.token()
    _, body, _ = await gateway.ask("POST", LEARN, token, json={"topic": "acme/#"}, expect=404)
    assert "since" in body["detail"]
    await gateway.ask("POST", LEARN, token, json={}, expect=400)
    await gateway.ask("POST", LEARN, token, json={"topic": "#", "profile": "../x"}, expect=400)
    await gateway.ask("POST", LEARN, token, json={"topics": "#"}, expect=400)


@pytest.mark.parametrize(
    ("topic", "wanted", "so"),
    [
        ("a/b/c", "a/+/c", True),
        ("a/b/c", "a/#", True),
        ("a", "a/#", True),
        ("a/b", "a/+/c", False),
        ("a/b/c", "a/b", False),
        ("a/b", "#", True),
        ("a/b", "a/b", True),
    ],
)
def test_filters_are_those_of_mqtt(topic: str, wanted: str, so: bool) -> None:  # noqa: FBT001 - a column of a table
    """+ is one level, # the rest."""
    assert matches_filter(topic, wanted) is so
