"""REST of the editor of profiles: findings with line and column, one message tried, examples accepted, the schema."""

from __future__ import annotations

from typing import Any

import pytest

from sensegate.authority.scope import Role
from tests.live.releasing import version
from tests.web.serving import Gateway

API = "/api/v1/profiles"


async def ask(gateway: Gateway, path: str, expect: int = 200, **body: Any) -> Any:
    """Return the answer of a route of the editor to an operator of a county."""
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    return (await gateway.ask("POST", f"{API}/{path}", token, json=body, expect=expect))[1]


async def test_findings_stand_at_line_and_column(gateway: Gateway) -> None:
    """Every fault of a text at once, each where the wrong value begins; a text without fault has none."""
    text = version(4)
    good = await ask(gateway, "lint", text=text)
    assert (good["profile"], good["version"], good["findings"]) == ("acme/th", 4, [])
    wrong = text.replace("air_temperature, unit: Cel", "air_temprature, unit: Cell").replace("topics:", "topic:")
    findings = (await ask(gateway, "lint", text=wrong))["findings"]
    lines = wrong.splitlines()
    marked = [lines[row["line"] - 1][row["column"] - 1 :][: row["length"]] for row in findings]
    assert {"air_temprature"} <= set(marked), findings
    assert any(row["key"].endswith("topic") for row in findings)
    assert {row["severity"] for row in findings} == {"error"}
    failing = (await ask(gateway, "lint", text=text.replace("value: 21.5", "value: 99")))["findings"]
    assert "example 'one'" in failing[0]["problem"]


@pytest.mark.parametrize("text", ["", "profile: [", "profile: ../../x/y\nversion: 1\n", "- 1\n", "profile: a/b\n"])
async def test_no_text_is_too_wrong(gateway: Gateway, text: str) -> None:
    """What is no profile yet has findings; nothing is written under the name that it bears."""
    answer = await ask(gateway, "lint", text=text)
    assert answer["findings"]
    assert ".." not in answer["profile"]


async def test_a_message_is_tried(gateway: Gateway) -> None:
    """Each stage is told, in text, hexadecimal or base64; a text that does not compile is refused with its line."""
    text = version(4)
    for encoding, payload in (("text", '{"t": 215}'), ("hex", b'{"t": 215}'.hex()), ("base64", "eyJ0IjogMjE1fQ==")):
        stages = (await ask(gateway, "try", text=text, topic="acme/d1/up", payload=payload, encoding=encoding))[
            "stages"
        ]
        assert "21.5" in str(stages), stages
    refused = (await ask(gateway, "try", text=text, topic="acme/d1/up", payload="no JSON"))["stages"]
    assert "malformed" in str(refused)
    wrong = await ask(gateway, "try", 400, text=text, topic="acme/d1/up", payload="x", encoding="hex")
    assert "payload" in wrong["detail"]
    broken = await ask(gateway, "try", 400, text=text.replace("air_temperature", "nothing"), topic="x", payload="{}")
    assert "acme/th.yaml:9" in broken["detail"]


async def test_examples_accept_what_was_seen(gateway: Gateway) -> None:
    """Only the expectations of examples that differ are rewritten; the text then has no finding."""
    text = version(4).replace("value: 21.5", "value: 99")
    answer = await ask(gateway, "accept", text=text)
    assert answer["labels"] == ["one"]
    assert (await ask(gateway, "lint", text=answer["text"]))["findings"] == []
    assert (await ask(gateway, "accept", text=answer["text"]))["labels"] == []


async def test_who_may_and_the_schema(gateway: Gateway) -> None:
    """Subscribers and auditors may not; the schema describes every key and is sent once."""
    for role in (Role.SUBSCRIBER, Role.AUDITOR):
        token = await gateway.token(role, "44")
        for path in ("lint", "accept"):
            await gateway.ask("POST", f"{API}/{path}", token, json={"text": "x"}, expect=403)
    token = await gateway.token(Role.COUNTY_OPERATOR, "440106")
    _, schema, response = await gateway.ask("GET", f"{API}/schema", token, expect=200)
    assert "topics" in schema["$defs"]["MessageRule"]["properties"]
    await gateway.ask("GET", f"{API}/schema", token, headers={"If-None-Match": response.headers["ETag"]}, expect=304)
