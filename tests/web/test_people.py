"""REST of people: accounts, signing in with cookies and their guard, a provider of identities and its attackers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest
from joserfc.jwk import ECKey, RSAKey

from sensegate.authority.oidc import PENDING_MAX, PENDING_PER_NETWORK_MAX, Oidc
from sensegate.authority.scope import Role
from sensegate.bus.free_ports import free_port
from sensegate.clock import FakeClock, SystemClock
from sensegate.config import WebConfig
from sensegate.config.people import OidcConfig, OidcRule, PeopleConfig
from sensegate.errors import ConfigError
from sensegate.web.auth import CSRF
from tests.web.accounts import PASSWORD, account
from tests.web.provider import CLIENT, SECRET, Provider, providing
from tests.web.serving import Gateway, serving

RULES = (
    OidcRule(claim="groups", value="city", role="city_operator", scope="4401"),
    OidcRule(claim="groups", value="audit", role="auditor", scope="44"),
    OidcRule(claim="job", value="county", role="county_operator", scope_claim="place"),
)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with serving() as running:
        yield running


async def browser(gateway: Gateway, name: str = "li") -> tuple[dict[str, str], dict[str, Any]]:
    """Sign in by cookie; return the headers of a browser's next request, and the session."""
    body = {"name": name, "password": PASSWORD}
    _, session, response = await gateway.ask("POST", "/api/v1/session", json=body, expect=201)
    cookie = response.cookies["sensegate"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert session["token"] == ""
    gateway.session.cookie_jar.clear()
    return {"Cookie": f"sensegate={cookie.value}"}, session


async def test_a_session_by_bearer(gateway: Gateway) -> None:
    """As a program of a person uses it; the role and scope are those of the account; sign-out ends it."""
    await account(gateway)
    body = {"name": "li", "password": PASSWORD, "bearer": True}
    _, session, response = await gateway.ask("POST", "/api/v1/session", json=body, expect=201)
    assert "Set-Cookie" not in response.headers
    _, me, _ = await gateway.ask("GET", "/api/v1/me", session["token"], expect=200)
    assert (me["id"], me["role"], me["scope"]) == ("person:li", "city_operator", "4401")
    await gateway.ask("DELETE", "/api/v1/session", session["token"], expect=204)
    await gateway.ask("GET", "/api/v1/me", session["token"], expect=401)


async def test_a_change_by_cookie_needs_the_csrf_text(gateway: Gateway) -> None:
    """Reading works by cookie alone; a change without, with a wrong or with another's text is refused."""
    await account(gateway)
    await account(gateway, "wu")
    cookie, session = await browser(gateway)
    _, other = await browser(gateway, "wu")
    _, repeated, _ = await gateway.ask("GET", "/api/v1/session", headers=cookie, expect=200)
    assert repeated["csrf"] == session["csrf"]
    wanted = {"id": "hu", "role": "county_operator", "scope": "440106"}
    for given in ({}, {CSRF: ""}, {CSRF: "x"}, {CSRF: other["csrf"]}):
        await gateway.ask("POST", "/api/v1/people", headers={**cookie, **given}, json=wanted, expect=403)
    good = {**cookie, CSRF: session["csrf"]}
    await gateway.ask("POST", "/api/v1/people", headers=good, json=wanted, expect=201)


@pytest.mark.parametrize(
    "page", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_a_page_of_others_uses_no_session(gateway: Gateway, page: dict[str, str]) -> None:
    """Neither to read, to change, to open a WebSocket, nor to sign somebody in."""
    await account(gateway)
    cookie, session = await browser(gateway)
    await gateway.ask("GET", "/api/v1/me", headers={**cookie, **page}, expect=403)
    with pytest.raises(aiohttp.WSServerHandshakeError) as why:
        await gateway.session.ws_connect(f"{gateway.url}/api/v1/feeds/all/ws", headers={**cookie, **page})
    assert why.value.status == 403
    body = {"name": "li", "password": PASSWORD}
    await gateway.ask("POST", "/api/v1/session", headers=page, json=body, expect=403)
    own = {**cookie, "Origin": gateway.url, "Sec-Fetch-Site": "same-origin", CSRF: session["csrf"]}
    await gateway.ask("GET", "/api/v1/me", headers=own, expect=200)
    await gateway.ask("DELETE", "/api/v1/session", headers=own, expect=204)


async def test_a_page_that_asks_by_itself_keeps_no_session_alive() -> None:
    """With X-Background the idle time runs on; any other request begins it anew."""
    clock = FakeClock()
    async with serving(clock=clock) as gateway:
        await account(gateway)
        cookie, _ = await browser(gateway)
        await clock.advance(1_000)
        await gateway.ask("GET", "/api/v1/me", headers=cookie, expect=200)
        for _ in range(2):
            await clock.advance(800)
            await gateway.ask("GET", "/api/v1/me", headers={**cookie, "X-Background": "1"}, expect=200)
        await clock.advance(300)
        await gateway.ask("GET", "/api/v1/me", headers={**cookie, "X-Background": "1"}, expect=401)


async def test_where_there_is_tls_no_neighbour_sets_the_cookie() -> None:
    """`__Host-`, Secure: the browser takes it from us alone."""
    async with serving(WebConfig(), secure=True) as gateway:
        await account(gateway)
        body = {"name": "li", "password": PASSWORD}
        _, _, response = await gateway.ask("POST", "/api/v1/session", json=body, expect=201)
        assert response.cookies["__Host-sensegate"]["secure"]


async def test_accounts_are_cut_to_the_scope(gateway: Gateway) -> None:
    """What is out of scope does not exist: the same 404 for it and for nothing; no list, no count of it."""
    await account(gateway, "gz")
    await account(gateway, "sz", scope="4403")
    cookie, session = await browser(gateway, "gz")
    good = {**cookie, CSRF: session["csrf"]}
    _, answer, _ = await gateway.ask("GET", "/api/v1/people", headers=good, expect=200)
    assert [row["id"] for row in answer["rows"]] == ["gz"]
    for path, method in (("", "GET"), ("", "DELETE"), ("/password", "POST")):
        details = []
        for name in ("sz", "zz"):
            _, body, _ = await gateway.ask(method, f"/api/v1/people/{name}{path}", headers=good, expect=404)
            details.append(body["detail"].replace(name, "*"))
        assert details[0] == details[1]
    wanted = {"id": "x1", "role": "county_operator", "scope": "440305"}
    await gateway.ask("POST", "/api/v1/people", headers=good, json=wanted, expect=403)
    for role in (Role.COUNTY_OPERATOR, Role.SUBSCRIBER):
        await gateway.ask("GET", "/api/v1/people", await gateway.token(role, "440106"), expect=403)
    auditor = await gateway.token(Role.AUDITOR, "44")
    _, answer, _ = await gateway.ask("GET", "/api/v1/people", auditor, expect=200)
    assert answer["rows"] == [], "an auditor administers auditors"


async def test_changes_need_the_revision(gateway: Gateway) -> None:
    """If-Match, as everywhere; another duty is refused; disabled ends the session."""
    await account(gateway)
    admin = await gateway.token()
    cookie, _ = await browser(gateway)
    _, row, _ = await gateway.ask("GET", "/api/v1/people/li", admin, expect=200)
    await gateway.ask("PATCH", "/api/v1/people/li", admin, json={"title": "李"}, expect=428)
    match = {"If-Match": f'"{row["revision"]}"'}
    await gateway.ask("PATCH", "/api/v1/people/li", admin, json={"role": "admin"}, headers=match, expect=400)
    await gateway.ask("PATCH", "/api/v1/people/li", admin, json={"disabled": True}, headers=match, expect=200)
    await gateway.ask("PATCH", "/api/v1/people/li", admin, json={"disabled": False}, headers=match, expect=412)
    await gateway.ask("GET", "/api/v1/me", headers=cookie, expect=401)


async def test_a_token_is_refused_while_its_makers_account_is_disabled(gateway: Gateway) -> None:
    """On requests and on an open stream; the list of tokens says why, and given back it is good again."""
    await account(gateway)
    admin = await gateway.token()
    body = {"name": "li", "password": PASSWORD, "bearer": True}
    _, session, _ = await gateway.ask("POST", "/api/v1/session", json=body, expect=201)
    wanted = {"role": "city_operator", "scope": "4401"}
    _, made, _ = await gateway.ask("POST", "/api/v1/tokens", session["token"], json=wanted, expect=201)

    async def change(*, disabled: bool) -> str:
        """Disable or enable the account; return what the list says of the token."""
        _, row, _ = await gateway.ask("GET", "/api/v1/people/li", admin, expect=200)
        match = {"If-Match": f'"{row["revision"]}"'}
        await gateway.ask("PATCH", "/api/v1/people/li", admin, json={"disabled": disabled}, headers=match, expect=200)
        _, listed, _ = await gateway.ask("GET", f"/api/v1/tokens/{made['id']}", admin, expect=200)
        return str(listed["suspended"])

    headers = {"Authorization": f"Bearer {made['token']}"}
    async with gateway.session.get(f"{gateway.url}/api/v1/feeds/all/stream", headers=headers) as stream:
        assert stream.status == 200
        assert "account of the person who made it has ended" in await change(disabled=True)
        _, refused, _ = await gateway.ask("GET", "/api/v1/me", made["token"], expect=401)
        assert made["id"] in refused["detail"]
        async with asyncio.timeout(30.0):
            await stream.content.read()  # to its end
    assert not await change(disabled=False)
    await gateway.ask("GET", "/api/v1/me", made["token"], expect=200)


async def test_a_lock_is_the_same_for_all_names() -> None:
    """429 with how long to wait; answers do not tell who exists."""
    async with serving(people=PeopleConfig(failures_max=2)) as gateway:
        await account(gateway)
        results = []
        for name in ("li", "nobody"):
            body = {"name": name, "password": "wrong"}
            answers = [await gateway.ask("POST", "/api/v1/session", json=body) for _ in range(3)]
            results.append([(status, answer["detail"]) for status, answer, _ in answers])
            assert [status for status, _ in results[-1]] == [401, 401, 429]
            assert int(answers[-1][2].headers["Retry-After"]) > 800
        assert results[0] == results[1]


# ── a provider of identities ──────────────────────────────────────────────────────────────────────────


def settings(provider: Provider, gateway_url: str, folder: Path) -> OidcConfig:
    """Return how the gateway knows the provider."""
    file = folder / "secret"
    file.write_text(SECRET, encoding="ascii")
    return OidcConfig(
        issuer=provider.issuer,
        client_id=CLIENT,
        client_secret_file=str(file),
        redirect_url=f"{gateway_url}/api/v1/session/oidc/callback",
        rules=RULES,
    )


class Door:
    """A gateway with a provider, and a browser's way between them."""

    def __init__(self, gateway: Gateway, provider: Provider) -> None:
        self.gateway = gateway
        self.provider = provider

    async def begin(self) -> tuple[str, dict[str, str]]:
        """Return where the gateway sends the browser, and the cookie it gave."""
        url = f"{self.gateway.url}/api/v1/session/oidc"
        async with self.gateway.session.get(url, allow_redirects=False) as response:
            assert response.status == 303
            cookie = response.cookies["sensegate-sign-in"]
            assert cookie["samesite"] == "Lax"
            return response.headers["Location"], {"Cookie": f"sensegate-sign-in={cookie.value}"}

    async def consent(self, url: str) -> str:
        """Return where the provider sends the browser back to."""
        async with self.gateway.session.get(url, allow_redirects=False) as response:
            return response.headers["Location"]

    async def back(self, url: str, cookie: dict[str, str]) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Come back to the gateway."""
        self.gateway.session.cookie_jar.clear()
        return await self.gateway.ask("GET", url, headers=cookie, allow_redirects=False)

    async def sign_in(self) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Go the whole way."""
        url, cookie = await self.begin()
        return await self.back(await self.consent(url), cookie)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    port = free_port()
    async with providing() as provider:
        config = settings(provider, f"http://127.0.0.1:{port}", tmp_path)
        async with serving(WebConfig(port=port), oidc=config) as gateway:
            yield Door(gateway, provider)


async def test_signing_in_by_a_provider(door: Door) -> None:
    """PKCE, state, nonce; the claims' rule gives role and scope; the session is a cookie like any other."""
    status, _, response = await door.sign_in()
    assert (status, response.headers["Location"]) == (303, "/console/")
    cookie = {"Cookie": f"sensegate={response.cookies['sensegate'].value}"}
    _, me, _ = await door.gateway.ask("GET", "/api/v1/me", headers=cookie, expect=200)
    assert (me["id"], me["name"], me["role"], me["scope"]) == ("person:oidc:u-1", "li.wei", "city_operator", "4401")
    _, rows, _ = await door.gateway.ask("GET", "/api/v1/people", await door.gateway.token(), expect=200)
    assert rows["rows"][0]["external"]


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"groups": []}, "no rule"),
        ({"groups": "citys"}, "no rule"),
        ({"groups": ["city", "audit"]}, "two duties"),
        ({"groups": [], "job": "county", "place": "4401"}, "no scope"),
        ({"groups": [], "job": "county", "place": "x"}, "no scope"),
        ({"groups": [], "job": "county"}, "no scope"),
    ],
)
async def test_who_has_no_role_does_not_come_in(door: Door, claims: dict[str, Any], message: str) -> None:
    """403 with the reason; no session."""
    door.provider.claims |= claims
    status, body, response = await door.sign_in()
    assert (status, message in body["detail"]) == (403, True), body
    assert "sensegate" not in response.cookies


async def test_a_scope_may_come_by_claim_narrowed_to_a_department(door: Door) -> None:
    """`440106/police`."""
    door.provider.claims |= {"groups": [], "job": "county", "place": "440106/police"}
    _, _, response = await door.sign_in()
    cookie = {"Cookie": f"sensegate={response.cookies['sensegate'].value}"}
    _, me, _ = await door.gateway.ask("GET", "/api/v1/me", headers=cookie, expect=200)
    assert (me["role"], me["scope"], me["department"]) == ("county_operator", "440106", "police")


def _with(**other: Any) -> Callable[[Provider], Callable[[dict[str, Any]], str]]:
    return lambda provider: lambda claims: provider.signed({**claims, **other})


def _without(name: str) -> Callable[[Provider], Callable[[dict[str, Any]], str]]:
    return lambda provider: lambda claims: provider.signed({k: v for k, v in claims.items() if k != name})


def _by_another_key(provider: Provider) -> Callable[[dict[str, Any]], str]:
    other = Provider()
    other.key = RSAKey.generate_key(2048, parameters={"kid": str(provider.key.kid)})
    return other.signed


FORGERIES: dict[str, Callable[[Provider], Callable[[dict[str, Any]], str]]] = {
    "alg none": lambda provider: provider.unsigned,
    "public key as a shared secret": lambda provider: provider.by_public_key,
    "another key": _by_another_key,
    "another audience": _with(aud="other"),
    "two audiences, no azp": _with(aud=["sensegate", "other"]),
    "azp of another": _with(azp="other"),
    "another issuer": _with(iss="https://evil.example"),
    "expired": _with(exp=int(time.time()) - 120),
    "from the future": _with(iat=int(time.time()) + 3_600),
    "not yet": _with(nbf=int(time.time()) + 3_600),
    "another nonce": _with(nonce="replayed"),
    "no nonce": _without("nonce"),
    "no exp": _without("exp"),
    "no aud": _without("aud"),
    "no sub": _without("sub"),
    "not a token": lambda _: lambda _claims: "x.y.z",
}


@pytest.mark.parametrize("how", FORGERIES)
async def test_a_forged_token_does_not_come_in(door: Door, how: str) -> None:
    """401 for each; afterwards the honest one does."""
    door.provider.forge = FORGERIES[how](door.provider)
    status, body, response = await door.sign_in()
    assert status == 401, (how, body)
    assert "sensegate" not in response.cookies
    door.provider.forge = None
    assert (await door.sign_in())[0] == 303


async def test_the_way_back_is_bound_to_its_browser_and_good_once(door: Door) -> None:
    """Another browser, a state never given, another issuer, an answer again, a code of another sign-in: all refused."""
    url, cookie = await door.begin()
    back = await door.consent(url)
    assert (await door.back(back, {}))[0] == 401, "the victim's browser has no such cookie"
    url, cookie = await door.begin()
    back = await door.consent(url)
    assert (await door.back(back, cookie))[0] == 303
    assert (await door.back(back, cookie))[0] == 401, "again"
    assert (await door.back(back.replace("state=", "state=x"), cookie))[0] == 401
    url, cookie = await door.begin()
    back = await door.consent(url)
    assert (await door.back(back.partition("&iss=")[0] + "&iss=https://evil.example", cookie))[0] == 401
    stolen = parse_qs(urlsplit(await door.consent((await door.begin())[0])).query)["code"][0]
    url, cookie = await door.begin()
    parts = urlsplit(await door.consent(url))
    query = {key: values[0] for key, values in parse_qs(parts.query).items()} | {"code": stolen}
    status, body, _ = await door.back(parts._replace(query=urlencode(query)).geturl(), cookie)
    assert (status, "refused the code" in body["detail"]) == (401, True), "PKCE: the code was for another verifier"


async def test_keys_that_change_are_fetched_again(door: Door) -> None:
    """A new key id is looked up; the old keys are kept in memory otherwise."""
    for _ in range(3):
        assert (await door.sign_in())[0] == 303
    assert door.provider.asked == ["keys"]
    door.gateway.web.deps.oidc._keys_at -= 60  # type: ignore[union-attr]
    door.provider.key = ECKey.generate_key("P-256", parameters={"kid": "two"})
    assert (await door.sign_in())[0] == 303
    assert door.provider.asked == ["keys", "keys"]


async def test_many_begun_sign_ins_of_a_network_leave_those_of_others(door: Door) -> None:
    """Anybody may begin a sign-in: whoever begins thousands loses his own, not somebody else's."""
    oidc = door.gateway.web.deps.oidc
    assert oidc
    url, cookie = await door.begin()
    for number in range(PENDING_MAX):
        await oidc.begin(f"2001:db8::{number:x}")
    assert len(oidc._pending) == 1 + PENDING_PER_NETWORK_MAX
    assert (await door.back(await door.consent(url), cookie))[0] == 303


async def test_an_answer_in_several_parts_is_read_whole(door: Door) -> None:
    """A large key set comes in several packets."""
    door.provider.in_parts = True
    assert (await door.sign_in())[0] == 303


async def test_a_provider_that_is_away_is_said(tmp_path: Path) -> None:
    """503, not a hang; the gateway serves all else."""
    nobody = Provider()
    nobody.issuer = "http://127.0.0.1:9"
    async with serving(oidc=settings(nobody, "http://127.0.0.1:9", tmp_path)) as gateway:
        await gateway.ask("GET", "/api/v1/session/oidc", expect=503)
        _, ways, _ = await gateway.ask("GET", "/api/v1/session/methods", expect=200)
        assert ways == {"password": True, "provider": nobody.issuer}


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"issuer": "http://idp.example"}, "issuer"),
        ({"redirect_url": "http://gateway.example/x"}, "redirect_url"),
        ({"client_id": ""}, "client_id"),
        ({"rules": ()}, "rules"),
        ({"rules": (OidcRule("a", "b", "county_operator", scope="4401"),)}, "rules"),
        ({"rules": (OidcRule("a", "b", "auditor"),)}, "rules"),
        ({"ca_file": "/nowhere.pem"}, "ca_file"),
    ],
)
def test_a_configuration_that_could_not_be_safe_is_refused(wrong: dict[str, Any], key: str) -> None:
    """Plain http beyond loopback, no rules, a role wider than it may be."""
    good = {"issuer": "https://idp.example", "client_id": "x", "redirect_url": "https://g.example/x", "rules": RULES}
    Oidc(OidcConfig(**good), SystemClock())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=key):
        Oidc(OidcConfig(**{**good, **wrong}), SystemClock())
