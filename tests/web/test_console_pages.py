"""First paint of the console: readable without scripts, for whom the session is, and nothing that is not theirs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sensegate.web.console import LISTS, language_of, read_texts
from tests.web.accounts import PASSWORD, account
from tests.web.serving import Gateway

MARK = "<script>alert(1)</script>"


async def entered(gateway: Gateway, name: str = "li", **form: str) -> tuple[int, str, dict[str, str]]:
    """Send the form of the sign-in as a browser without scripts; return status, page, and the cookie of its session."""
    values = {"name": name, "password": PASSWORD, **form}
    url = f"{gateway.url}/console/session"
    async with gateway.session.post(url, data=values, allow_redirects=False) as response:
        cookie = response.cookies.get("sensegate")
        gateway.session.cookie_jar.clear()
        headers = {"Cookie": f"sensegate={cookie.value}"} if cookie else {}
        return response.status, await response.text(), headers


async def page(gateway: Gateway, path: str, headers: dict[str, str]) -> str:
    """Return a page of the console."""
    async with gateway.session.get(f"{gateway.url}/console/{path}", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "'unsafe" not in response.headers["Content-Security-Policy"]
        return await response.text()


async def test_a_person_reads_without_scripts(gateway: Gateway) -> None:
    """Signs in by the form, reads the overview and every list in both languages, and signs out."""
    await account(gateway)
    await gateway.device("mine-1", "440106", owner=MARK)
    await gateway.device("other-1", "440305")
    assert "mine-1" not in await page(gateway, "devices", {})
    status, _, cookie = await entered(gateway)
    assert status == 303
    devices = await page(gateway, "devices", cookie)
    assert "mine-1" in devices
    assert "other-1" not in devices, "that of another city"
    assert MARK not in devices
    for known in LISTS:
        for language in ("en", "zh-CN"):
            body = await page(gateway, known.name, {**cookie, "Accept-Language": language})
            assert f'lang="{language}"' in body
            assert f"<h1>{read_texts()[language][known.title]}</h1>" in body
            assert len(body) < 50_000
    overview = await page(gateway, "", {**cookie, "Accept-Language": "zh-CN,zh;q=0.9"})
    assert "需要您处理的事项" in overview
    csrf = re.search(r'name="csrf" value="([^"]+)"', overview)
    assert csrf
    for text, expected in (("wrong", 403), (csrf[1], 303)):
        url = f"{gateway.url}/console/session/end"
        async with gateway.session.post(url, data={"csrf": text}, headers=cookie, allow_redirects=False) as response:
            assert response.status == expected
    assert "mine-1" not in await page(gateway, "devices", cookie)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_a_form_of_another_page_is_refused(gateway: Gateway, origin: str) -> None:
    """Nobody is signed in by a page of others; a wrong password is said in the page, without a session."""
    await account(gateway)
    values: dict[str, Any] = {"name": "li", "password": PASSWORD}
    url = f"{gateway.url}/console/session"
    async with gateway.session.post(url, data=values, headers={"Origin": origin}, allow_redirects=False) as response:
        assert response.status == 403
        assert "sensegate" not in response.cookies
    status, body, cookie = await entered(gateway, password="wrong")
    assert (status, cookie) == (401, {})
    assert 'role="alert"' in body


async def test_what_a_list_shows_is_its_address(gateway: Gateway) -> None:
    """Search and the place of the page are those of the address; a next page is a link."""
    await account(gateway)
    for number in range(60):
        await gateway.device(f"many-{number:02d}")
    _, _, cookie = await entered(gateway)
    first = await page(gateway, "devices", cookie)
    link = re.search(r'href="(/console/devices\?after=[^"]+)"', first)
    assert link
    second = await page(gateway, link[1].removeprefix("/console/"), cookie)
    assert "many-59" in second
    assert "many-59" not in first
    assert "many-07" in await page(gateway, "devices?q=many-07", cookie)
    assert "many-08" not in await page(gateway, "devices?q=many-07", cookie)


def test_languages() -> None:
    """Chinese for whoever prefers it, English else; the texts are those of the scripts."""
    assert [language_of(text) for text in ("zh-CN,zh;q=0.9", "zh-TW", "en", "")] == ["zh-CN", "zh-CN", "en", "en"]
    assert read_texts()["zh-CN"]["page.devices"] == "感知设备"
