"""People at a running gateway: from the command line, by a real provider of identities, until their streams end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from sensegate.bus.free_ports import free_port
from sensegate.cli import app
from sensegate.config.people import OidcConfig, OidcRule
from tests.conftest import eventually
from tests.live.site import Site, config_of, running
from tests.support.timing import WITHIN_TWO_SECONDS

pytestmark = pytest.mark.live
PASSWORD = "Kapok-tree 2026"


async def shell(site: Site, token: str, *words: str, **more: str) -> Any:
    """Run `sensegate people …`."""
    environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": token, "COLUMNS": "200", **more}
    result = await asyncio.to_thread(CliRunner().invoke, app, ["people", *words], env=environment)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.mark.asyncio(loop_scope="module")
async def test_from_the_command_line(node: Site) -> None:
    """The first admin appoints a city operator, who appoints a county's; each sees its own; removal ends a stream."""
    first = json.loads(
        await shell(node, node.admin, "add", "gz", "--role", "city_operator", "--scope", "4401", "--json")
    )
    secret = {"SENSEGATE_PASSWORD": first["password"], "SENSEGATE_NEW_PASSWORD": PASSWORD}
    city = (await shell(node, "", "sign-in", "gz", **secret)).strip()
    await shell(node, city, "add", "th", "--role", "county_operator", "--scope", "440106", "--title", "天河")
    rows = json.loads(await shell(node, city, "list", "--json"))
    assert [(row["id"], row["duty"]) for row in rows] == [("gz", "operator"), ("th", "operator")]
    await shell(node, city, "change", "th", "--department", "police")
    assert (await node.ask("GET", "/api/v1/people/th")).body["department"] == "police"
    await shell(node, city, "reset", "th")
    await shell(node, city, "remove", "th")
    async with node.stream(city) as stream:
        loop = asyncio.get_running_loop()
        row = (await node.ask("GET", "/api/v1/people/gz")).body
        match = {"If-Match": f'"{row["revision"]}"'}
        answer = await node.ask("PATCH", "/api/v1/people/gz", json={"disabled": True}, headers=match)
        assert answer.status == 200, answer.body
        began = loop.time()
        while await stream.next() is not None:
            pass
        assert loop.time() - began < WITHIN_TWO_SECONDS
    assert (await node.ask("GET", "/api/v1/me", city)).status == 401
    actions = [row["action"] for row in await node.audit()]
    assert [action for action in actions if action.startswith("person.")] == [
        "person.create",
        "person.password",
        "person.create",
        "person.change",
        "person.reset",
        "person.remove",
        "person.change",
    ]


@pytest.mark.asyncio(loop_scope="module")
async def test_break_glass(node: Site, tmp_path: Path) -> None:
    """On the machine of the gateway: a token of an auditor, which appoints one; the trail has user and reason."""
    config = tmp_path / "node.yaml"
    config.write_text(f"role: node\ndivision: '4401'\ndirectory: {node.config.directory}\n")
    words = ["token", "break-glass", str(config), "--role", "auditor", "--reason", "nobody audits"]
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    token = result.stdout.split()[0]

    async def entered() -> bool:
        return (await node.ask("GET", "/api/v1/me", token)).status == 200

    await eventually(entered, 30)
    (record,) = [row for row in await node.audit() if row["action"] == "token.break_glass"]
    assert record["after"]["reason"] == "nobody audits"
    assert record["actor"] == f"local:{record['after']['user']}"
    await shell(node, token, "add", "auditor-1", "--role", "auditor", "--scope", "4401")
    rows = json.loads(await shell(node, token, "list", "--json"))
    assert [row["id"] for row in rows] == ["auditor-1"]
    await shell(node, token, "remove", "auditor-1")


@contextlib.asynccontextmanager
async def provider(person: dict[str, Any]) -> AsyncIterator[str]:
    """Run oidc-provider-mock as a process of its own; yield its address."""
    port = free_port()
    words = ("-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), "--user-claims", json.dumps(person))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )

    async def there() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True
        return False

    try:
        await eventually(there, 30)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def test_by_a_provider_of_identities(tmp_path: Path) -> None:
    """oidc-provider-mock (Authlib) vouches for a person; accounts outlive a restart, sessions do not."""
    port = free_port()
    async with provider(
        {"sub": "li-1", "preferred_username": "li.wei", "groups": ["sensing"], "area": "440106"}
    ) as url:
        (tmp_path / "client").write_text("secret of the client", encoding="ascii")
        config = replace(
            config_of(tmp_path / "node"),
            web=replace(config_of(tmp_path).web, port=port),
            oidc=OidcConfig(
                issuer=url,
                client_id="sensegate",
                client_secret_file=str(tmp_path / "client"),
                redirect_url=f"http://127.0.0.1:{port}/api/v1/session/oidc/callback",
                rules=(OidcRule("groups", "sensing", "county_operator", scope_claim="area"),),
            ),
        )
        browsing = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        async with running(config) as site, browsing as browser:
            begin = f"{site.addresses.http}/api/v1/session/oidc"
            async with browser.get(begin) as page:
                assert "Authorize" in await page.text()
                form = page.url
            async with browser.post(form, data={"sub": "li-1"}) as home:
                assert (home.status, str(home.url)) == (200, f"{site.addresses.http}/console/"), await home.text()
            async with browser.get(f"{site.addresses.http}/api/v1/session") as response:
                session = await response.json()
            assert (session["id"], session["name"]) == ("person:oidc:li-1", "li.wei")
            assert (session["role"], session["scope"]) == ("county_operator", "440106")
            wanted = {"id": "by-li", "division": "440106", "profile": "sensegate/plain"}
            devices = f"{site.addresses.http}/api/v1/devices"
            async with browser.post(devices, json=wanted) as response:
                assert response.status == 403
            async with browser.post(devices, json=wanted, headers={"X-CSRF-Token": session["csrf"]}) as response:
                assert response.status == 201
            added = next(row for row in await site.audit() if row["action"] == "device.add")
            assert added["actor"] == "person:oidc:li-1"
            kept = {cookie.key: cookie.value for cookie in browser.cookie_jar}
        async with running(config) as site:
            answer = await site.ask("GET", "/api/v1/session", "", headers={"Cookie": f"sensegate={kept['sensegate']}"})
            assert answer.status == 401
            rows = (await site.ask("GET", "/api/v1/people")).body["rows"]
            assert [row["id"] for row in rows] == ["oidc:li-1"]
