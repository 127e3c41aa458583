"""The listener as a whole: health, errors, headers, limits, the document of its own routes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import msgspec
import pytest

from sensegate import metrics
from sensegate.authority.scope import Role, scope
from sensegate.config import WebConfig
from sensegate.errors import ConfigError
from sensegate.flow import ROUTES
from sensegate.web import listener
from tests.conftest import eventually
from tests.web.serving import ADMIN, Gateway, serving

PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/"}


async def test_health_and_metrics_need_no_token(gateway: Gateway) -> None:
    """Liveness, readiness, metrics and the pages are open; nothing else is."""
    for path in PUBLIC:
        await gateway.ask("GET", path, expect=200)
    for route in ROUTES:
        if route.token:
            path = re.sub(r"{\w+}", "x", route.path)
            status, _, response = await gateway.ask(route.method, path)
            assert status == 401, route.path
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


async def test_metrics_that_name_things_need_a_token(gateway: Gateway) -> None:
    """Names of devices, feeds and nodes are for who may see all of them; other counts are open."""
    metrics.DELIVERED.labels("police-feed", "http").inc()
    metrics.CAMERA_STREAM.labels("police-camera").set(1)
    metrics.NODE_DROPPED.labels("4403", "quota").inc()
    names = ("police-feed", "police-camera", 'node="4403"')
    for role, place, named in (
        (Role.AUDITOR, "44", True),
        (Role.PROVINCE_OPERATOR, "44", True),
        (Role.SUBSCRIBER, "44", False),
        (Role.CITY_OPERATOR, "4401", False),
        (None, "", False),
    ):
        token = await gateway.token(role, place) if role else ""
        _, body, _ = await gateway.ask("GET", "/metrics", token, expect=200)
        assert [name in body.decode() for name in names] == [named] * 3, (role, place)
        assert "sensegate_commits_total" in body.decode()
    await gateway.ask("GET", "/metrics", f"sg_{'0' * 16}_{'x' * 32}", expect=401)
    for family in metrics.REGISTRY.collect():
        labels = {label for sample in family.samples for label in sample.labels}
        assert not {label for label in labels - metrics.NAMING_LABELS if label in {"id", "name", "user", "token"}}


async def test_metrics_may_ask_for_a_token() -> None:
    """Counts of all scopes are for who may see all: others are refused, where the configuration says so."""
    async with serving(WebConfig(metrics="token")) as gateway:
        await gateway.ask("GET", "/metrics", expect=401)
        for role, place in ((Role.SUBSCRIBER, "44"), (Role.CITY_OPERATOR, "4401")):
            await gateway.ask("GET", "/metrics", await gateway.token(role, place), expect=403)
        await gateway.ask("GET", "/metrics", await gateway.token(Role.AUDITOR, "44"), expect=200)


async def test_readiness_names_its_reasons() -> None:
    """503 with every reason while something is missing."""
    reasons = ["the log is full"]
    async with serving(ready=lambda: reasons) as gateway:
        _, body, _ = await gateway.ask("GET", "/readyz", expect=503)
        assert (body["ready"], body["reasons"], body["warnings"]) == (False, ["the log is full"], [])
        reasons.clear()
        await gateway.ask("GET", "/readyz", expect=200)


async def test_routes_equal_the_document(gateway: Gateway) -> None:
    """OpenAPI lists exactly what is served, and its references resolve."""
    _, document, _ = await gateway.ask("GET", "/openapi.json", expect=200)
    written = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    served = {
        (route.method, route.resource.canonical)
        for route in gateway.web.app().router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    beside = {("GET", path) for path in ("/", "/docs", "/openapi.json", "/console", "/console/{page}")}
    beside |= {("POST", "/console/session"), ("POST", "/console/session/end")}
    assert {row for row in served if not row[1].startswith("/static/")} - beside == written
    text = msgspec.json.encode(document).decode()
    for name in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert name in document["components"]["schemas"]
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


async def test_errors_are_problems(gateway: Gateway) -> None:
    """No such path, no such method, unknown parameter, bad body: each names what is wrong."""
    token = await gateway.token()
    _, body, _ = await gateway.ask("GET", "/nothing", expect=404)
    assert "/docs" in body["detail"]
    _, _, response = await gateway.ask("DELETE", "/healthz", expect=405)
    assert "GET" in response.headers["Allow"]
    _, body, _ = await gateway.ask("GET", "/api/v1/devices?divsion=44", token, expect=400)
    assert "did you mean 'division'" in body["detail"]
    _, body, _ = await gateway.ask("POST", "/api/v1/devices", token, json={"id": 3}, expect=400)
    assert "id" in body["detail"]
    _, _, _ = await gateway.ask(
        "POST", "/api/v1/devices", token, data=b"{", headers={"Content-Type": "text/plain"}, expect=415
    )
    deep = b"[" * 100_000
    await gateway.ask(
        "POST", "/api/v1/devices", token, data=deep, headers={"Content-Type": "application/json"}, expect=400
    )


async def test_security_headers_and_request_ids(gateway: Gateway) -> None:
    """Every answer has them; a sound id of the caller is kept, any other replaced."""
    for path in ("/", "/healthz", "/nothing", "/api/v1/devices"):
        _, _, response = await gateway.ask("GET", path)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "sensegate"
    _, _, response = await gateway.ask("GET", "/healthz", headers={"X-Request-Id": "trace-1"})
    assert response.headers["X-Request-Id"] == "trace-1"
    _, _, response = await gateway.ask("GET", "/healthz", headers={"X-Request-Id": "a b<script>"})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["X-Request-Id"])


async def test_the_page_needs_nothing_from_outside(gateway: Gateway) -> None:
    """No inline script or style, no address but our own."""
    for path in ("/", "/docs"):
        _, body, _ = await gateway.ask("GET", path, expect=200)
        text = body.decode()
        assert "http://" not in text.replace("http://www.w3.org/", "")
        assert "https://" not in text
        assert not re.search(r"<script(?![^>]*src=)", text)
        assert not re.search(r"<style| style=| on\w+=", text)
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
            await gateway.ask("GET", asset, expect=200)


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────


async def test_bodies_are_bounded() -> None:
    """Too large is 413, by its length or in chunks; compressed is 415; too slow is 408."""
    async with serving(WebConfig(body_bytes_max=1_000, body_timeout_s=0.3)) as gateway:
        token = await gateway.token()
        kind = {"Content-Type": "application/json"}

        async def chunks(count: int, pause: asyncio.Event | None = None) -> AsyncIterator[bytes]:
            for _ in range(count):
                yield b" " * 100
                if pause:
                    await pause.wait()

        await gateway.ask("POST", "/api/v1/devices", token, data=b" " * 1_001, headers=kind, expect=413)
        await gateway.ask("POST", "/api/v1/devices", token, data=chunks(20), headers=kind, expect=413)
        zipped = {**kind, "Content-Encoding": "gzip"}
        await gateway.ask("POST", "/api/v1/devices", token, data=b"\x1f\x8b", headers=zipped, expect=415)
        never = asyncio.Event()
        await gateway.ask("POST", "/api/v1/devices", token, data=chunks(3, never), headers=kind, expect=408)


async def test_slow_heads_are_cut() -> None:
    """A head that does not become complete is cut off at its deadline, also on a connection used before."""
    async with serving(WebConfig(header_timeout_s=0.2)) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        for start in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(start)
            async with asyncio.timeout(30):
                assert await reader.read() == b""
            writer.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            assert b"200" in await reader.readuntil(b"}")
            writer.write(b"GET /he")
            assert await reader.read() == b""
        writer.close()


async def test_connections_are_capped() -> None:
    """One more than allowed is told so and closed; when one ends there is room again."""
    async with serving(WebConfig(connections_max=2, connections_per_address_max=2)) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503")
        writer.close()
        for _, other in held:
            other.close()
            await other.wait_closed()
        async with asyncio.timeout(30):
            while True:
                try:
                    await gateway.ask("GET", "/healthz", expect=200)
                    break
                except AssertionError:
                    await asyncio.sleep(0)


async def test_malformed_requests_are_problems(gateway: Gateway) -> None:
    """What is not HTTP is answered as a problem and closed; nothing of the inside is told."""
    host, port = gateway.url.removeprefix("http://").split(":")
    for line in (
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line)
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert b"400" in answer.split(b"\r\n")[0]
        assert b"application/problem+json" in answer
        assert b"Traceback" not in answer
        writer.close()


async def test_guessing_is_slowed(gateway: Gateway) -> None:
    """Wrong tokens of an id wait at their address, the right one never; the answer tells not which part was wrong."""
    right = await gateway.token()
    known = right.split("_")[1]
    wrong = [f"sg_{known}_{'x' * 32}", f"sg_{'0' * 16}_{'x' * 32}", "nonsense"]
    details = {(await gateway.ask("GET", "/api/v1/me", text, expect=401))[1]["detail"] for text in wrong}
    assert len(details) == 1
    for _ in range(20):
        await gateway.ask("GET", "/api/v1/me", wrong[0])
    _, _, response = await gateway.ask("GET", "/api/v1/me", wrong[0], expect=429)
    assert int(response.headers["Retry-After"]) >= 1
    await gateway.ask("GET", "/api/v1/me", right, expect=200)
    password = await gateway.device("d-1")
    for number in range(25):
        basic = {"Authorization": aiohttp.encode_basic_auth("d-1", "wrong")}
        expect = 401 if number < 20 else 429
        await gateway.ask("POST", "/api/v1/ingest/d-1", headers=basic, data=b"{}", expect=expect)
    basic = {"Authorization": aiohttp.encode_basic_auth("d-1", password), "Content-Type": "application/json"}
    await gateway.ask("POST", "/api/v1/ingest/d-1", headers=basic, data=b"{}", expect=202)


async def test_clients_behind_a_trusted_proxy_are_told_apart() -> None:
    """Wrong tokens of one client slow that client; without the configuration the header counts for nothing."""
    wrong = f"sg_{'0' * 16}_{'x' * 32}"
    for proxies, expect in ((("127.0.0.1",), 401), ((), 429)):
        async with serving(WebConfig(trusted_proxies=proxies)) as gateway:
            for _ in range(21):
                await gateway.ask("GET", "/api/v1/me", wrong, headers={"X-Forwarded-For": "192.0.2.1"})
            await gateway.ask("GET", "/api/v1/me", wrong, headers={"X-Forwarded-For": "192.0.2.2"}, expect=expect)
            await gateway.ask("GET", "/api/v1/me", wrong, headers={"X-Forwarded-For": "192.0.2.1"}, expect=429)


async def test_a_name_is_not_locked_elsewhere() -> None:
    """Five wrong passwords lock a name where they came from; its owner signs in from another address."""
    async with serving(WebConfig(trusted_proxies=("127.0.0.1",))) as gateway:
        first, _ = await gateway.people.create("li", Role.CITY_OPERATOR, scope("4401"), by=ADMIN)
        body = {"name": "li", "password": "wrong"}
        for expect in (401, 401, 401, 401, 401, 429):
            headers = {"X-Forwarded-For": "192.0.2.1"}
            await gateway.ask("POST", "/api/v1/session", headers=headers, json=body, expect=expect)
        right = {"name": "li", "password": first, "new_password": "Kapok-tree 2026"}
        headers = {"X-Forwarded-For": "198.51.100.9"}
        await gateway.ask("POST", "/api/v1/session", headers=headers, json=right, expect=201)


async def test_a_bug_is_told_by_its_id_only(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody expected is a 500 without its text."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret inside")

    monkeypatch.setattr(gateway.tokens, "verify", broken)
    async with gateway.session.get(f"{gateway.url}/api/v1/me", headers={"Authorization": "Bearer x"}) as response:
        assert response.status == 500
        assert response.content_type == "application/problem+json"
        assert "secret" not in await response.text()


async def test_plain_http_is_for_loopback_only() -> None:
    """Listening beyond loopback without certificates is a mistake that is named."""
    gateway = Gateway(WebConfig(host="0.0.0.0"))  # noqa: S104 - the point
    with pytest.raises(ConfigError, match="TLS is not configured"):
        await gateway.web.start()
    await gateway.web.stop()


async def test_a_stop_does_not_wait_for_subscribers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream, a WebSocket and a long poll end at once; what is short may still finish."""
    monkeypatch.setattr(listener, "SHUTDOWN_S", 1_000.0)
    begun, release = asyncio.Event(), asyncio.Event()

    async def push() -> None:
        begun.set()
        await release.wait()

    async with serving() as gateway:
        gateway.push = push
        token = await gateway.token()
        headers = {"Authorization": f"Bearer {token}"}
        feed = f"{gateway.url}/api/v1/feeds/all"
        device = {"Authorization": aiohttp.encode_basic_auth("gz-1", await gateway.device("gz-1"))}
        async with aiohttp.ClientSession(headers=headers) as session:
            stream = await session.get(f"{feed}/stream")
            socket = await session.ws_connect(f"{feed}/ws")
            polling = asyncio.create_task(session.get(f"{feed}/records?wait=25"))
            pushing = asyncio.create_task(session.post(f"{gateway.url}/api/v1/ingest/gz-1", json={}, headers=device))
            async with asyncio.timeout(60):
                await begun.wait()
                await eventually(lambda: len(gateway.web._listener.lasting._tasks) == 3)
                stopping = asyncio.create_task(gateway.web.stop())
                with pytest.raises(aiohttp.ClientError):
                    await polling
                with suppress(aiohttp.ClientError):
                    await stream.content.read()
                assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE}
                assert not stopping.done()
                release.set()
                async with await pushing as answer:
                    assert answer.status == 202
                await stopping
            stream.close()
            await socket.close()


def test_every_operation_stands_once() -> None:
    """Paths and methods are unique."""
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
