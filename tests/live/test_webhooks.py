"""A feed posted to a subscriber's own address, by a whole gateway, to a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.config.people import EgressConfig
from tests.conftest import eventually
from tests.live.receiver import Receiver, receiving
from tests.live.site import Made, Site, config_of, reading, running
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]
HOOKS = "/api/v1/webhooks"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A node that may post to loopback, and is not patient with who does not answer."""
    config = config_of(
        tmp_path_factory.mktemp("node"),
        egress=EgressConfig(("127.0.0.0/8",), retry_initial_s=0.05, retry_max_s=0.2, failures_max=5),
    )
    async with running(config) as running_site:
        yield running_site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def device(site: Site) -> Made:
    return await site.device("hook-air")


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


_minute = iter(range(1, 10_000))


async def push(site: Site, device: Made, value: float) -> None:
    """Have one reading with a time of its own."""
    minute = next(_minute)
    answer = await site.push(device, reading(value, f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00Z"))
    assert answer.status == 202


async def hooked(site: Site, token: str, receiver: Receiver, **more: object) -> tuple[str, str]:
    """Make a webhook at the end of the log; return its id and secret."""
    body = {"feed": "all", "url": receiver.url, "since": "0s", **more}
    answer = await site.ask("POST", HOOKS, token, json=body)
    assert answer.status == 201, answer.body
    return answer.body["id"], answer.body["secret"]


async def standing(site: Site, hook: str, token: str | None = None) -> dict[str, object]:
    """Return the row of a line among the subscribers."""
    rows = (await site.ask("GET", "/api/v1/subscribers", token)).body["rows"]
    result: dict[str, object] = next((row for row in rows if row["id"] == hook), {})
    return result


async def test_history_then_live_signed_with_the_cursors_of_a_page(
    site: Site, device: Made, receiver: Receiver
) -> None:
    """From the oldest on, each record once, with the cursors that the page gives; signed; the secret is shown once."""
    for value in range(3):
        await push(site, device, value)
    token, _ = await site.token()
    await eventually(lambda: _count(site, token, 3))
    answer = await site.ask("POST", HOOKS, token, json={"feed": "all", "url": receiver.url, "batch": 2})
    hook, secret = answer.body["id"], answer.body["secret"]
    await receiver.until(3)
    await push(site, device, 3)
    records = await receiver.until(4)
    assert [row["cursor"] for row in records] == [row["cursor"] for row in await site.records(token)]
    assert all(letter.signed_by(secret) for letter in receiver.kept)
    assert not receiver.kept[0].signed_by("whsec_" + "A" * 43 + "=")
    assert len(receiver.kept[0].records) == 2
    assert secret not in str((await site.ask("GET", f"{HOOKS}/{hook}", token)).body)
    row = await eventually(lambda: standing(site, hook))
    assert (row["state"], row["records"], row["delivery"]) == ("live", 4, "webhook")
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204
    assert (await site.ask("GET", f"{HOOKS}/{hook}", token)).status == 404


async def _count(site: Site, token: str, least: int) -> bool:
    return len(await site.records(token)) >= least


async def test_a_failing_receiver_gets_the_same_letter_again(site: Site, device: Made, receiver: Receiver) -> None:
    """500, 503, then 200: the same id and body each time, nothing skipped, nothing twice."""
    token, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    receiver.answers = [500, 503]
    await push(site, device, 10)
    await receiver.until(1)
    await push(site, device, 11)
    assert [row["value"] for row in await receiver.until(2)] == [10, 11]
    assert len({(letter.id, letter.body) for letter in receiver.attempts[:3]}) == 1
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_one_that_never_answers_well_is_paused_and_resumed(site: Site, device: Made, receiver: Receiver) -> None:
    """After five failures it is paused and shown; another is not held up; resumed, it gets all it has missed."""
    token, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    receiver.answers = [500] * 5
    async with receiving() as other:
        good, _ = await hooked(site, token, other)
        for value in (20, 21, 22):
            await push(site, device, value)
        await other.until(3)

        async def paused() -> bool:
            return bool((await site.ask("GET", f"{HOOKS}/{hook}", token)).body["state"] == "paused")

        await eventually(paused)
        row = await standing(site, hook)
        assert row["state"] == "paused"
        assert "500" in str(row["reason"])
        assert receiver.kept == []
        await push(site, device, 23)
        await other.until(4)
        assert (await site.ask("DELETE", f"{HOOKS}/{good}", token)).status == 204
    assert (await site.ask("POST", f"{HOOKS}/{hook}/resume", token, json={})).body["state"] == "active"
    assert [row["value"] for row in await receiver.until(4)] == [20, 21, 22, 23]
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_410_ends_it(site: Site, device: Made, receiver: Receiver) -> None:
    """The receiver wants no more, and gets no more."""
    token, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    receiver.answers = [410]
    await push(site, device, 30)

    async def ended() -> bool:
        return bool((await site.ask("GET", f"{HOOKS}/{hook}", token)).body["state"] == "ended")

    await eventually(ended)
    assert len(receiver.attempts) == 1
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_a_revoked_token_gets_nothing_more_within_two_seconds(
    site: Site, device: Made, receiver: Receiver
) -> None:
    """What comes after the revocation is not sent; another token's webhook gets it (the control)."""
    token, name = await site.token()
    other, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    async with receiving() as control:
        kept, _ = await hooked(site, other, control)
        await push(site, device, 40)
        await receiver.until(1)
        await control.until(1)
        began = time.monotonic()
        assert (await site.ask("DELETE", f"/api/v1/tokens/{name}")).status == 200

        async def refused() -> bool:
            return (await standing(site, hook))["state"] == "refused"

        await eventually(refused)
        assert time.monotonic() - began < WITHIN_TWO_SECONDS
        await push(site, device, 41)
        await control.until(2)
        assert [row["value"] for row in receiver.records] == [40]
        for webhook in (hook, kept):
            assert (await site.ask("DELETE", f"{HOOKS}/{webhook}")).status == 204


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest",
        "https://10.0.0.1/x",
        "http://[::1]:9/x",
        "ftp://127.0.0.1/x",
        "http://example.com/x",
        "https://user:pw@127.0.0.1/x",
    ],
)
async def test_addresses_that_are_not_let_out(site: Site, url: str) -> None:
    """Refused at once, with the reason."""
    token, _ = await site.token()
    answer = await site.ask("POST", HOOKS, token, json={"feed": "all", "url": url})
    assert answer.status in {400, 422}, answer.body
    assert "url" in answer.body["detail"]


async def test_webhooks_of_others_are_as_if_they_were_not_there(site: Site, receiver: Receiver) -> None:
    """404 for every verb and not listed; the admin sees it (the control)."""
    token, _ = await site.token()
    other, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        more: dict[str, Any] = {"json": {}} if method == "POST" else {}
        assert (await site.ask(method, f"{HOOKS}/{hook}{path}", other, **more)).status == 404
    assert (await site.ask("GET", HOOKS, other)).body["rows"] == []
    assert await standing(site, hook, other) == {}
    assert [row["id"] for row in (await site.ask("GET", HOOKS)).body["rows"]] == [hook]
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_what_was_taken_is_metered(site: Site, device: Made, receiver: Receiver) -> None:
    """One request a letter, and as many records as were taken."""
    token, name = await site.token()
    hook, _ = await hooked(site, token, receiver)
    receiver.answers = [500]
    await push(site, device, 60)
    await receiver.until(1)

    async def metered() -> list[tuple[int, int]]:
        rows = (await site.ask("GET", "/api/v1/usage")).body["rows"]
        return [(row["requests"], row["records"]) for row in rows if row["token"] == name]

    assert await eventually(metered) == [(1, 1)]
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_a_slow_receiver_holds_up_nobody(site: Site, device: Made, receiver: Receiver) -> None:
    """While one does not answer, another has everything; when it answers, it gets all, once."""
    token, _ = await site.token()
    hook, _ = await hooked(site, token, receiver)
    receiver.open.clear()
    async with receiving() as other:
        quick, _ = await hooked(site, token, other)
        for value in range(70, 75):
            await push(site, device, value)
        await other.until(5)
        assert receiver.kept == []
        receiver.open.set()
        assert [row["value"] for row in await receiver.until(5)] == [70, 71, 72, 73, 74]
        assert (await site.ask("DELETE", f"{HOOKS}/{quick}", token)).status == 204
    await asyncio.sleep(0)
    assert (await site.ask("DELETE", f"{HOOKS}/{hook}", token)).status == 204


async def test_from_the_command_line(site: Site, device: Made, receiver: Receiver) -> None:
    """Create with its secret, list, pause, resume, who reads, remove."""
    token, _ = await site.token()

    async def shell(*words: str) -> str:
        environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": token, "COLUMNS": "300"}
        result = await asyncio.to_thread(CliRunner().invoke, app, [*words], env=environment)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout

    made = await shell("webhook", "create", "all", receiver.url, "--since", "0s")
    assert "whsec_" in made
    hook = made.split()[1].rstrip(";")
    assert receiver.url in await shell("webhook", "list", "--json")
    await shell("webhook", "pause", hook)
    await push(site, device, 80)
    assert "paused" in await shell("webhook", "list")
    await shell("webhook", "resume", hook)
    assert [row["value"] for row in await receiver.until(1)] == [80]

    async def shown() -> bool:
        rows = json.loads(await shell("feed", "subscribers", "--json"))
        return [(row["id"], row["records"]) for row in rows] == [(hook, 1)]

    await eventually(shown)
    await shell("webhook", "delete", hook)
    assert hook not in await shell("webhook", "list")
