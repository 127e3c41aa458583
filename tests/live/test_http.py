"""Malformed and hostile HTTP: every answer a problem document, every bound kept, everybody else unaffected."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sensegate.config import WebConfig
from tests.conftest import eventually
from tests.live.site import PROBLEM, Site, config_of, reading, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


async def raw(site: Site, sent: bytes, *, timeout_s: float = 60.0) -> bytes:
    """Return all that comes back until the gateway closes or an answer is complete; nothing but `sent` is sent."""
    place = urlsplit(site.addresses.http)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(sent)
        await writer.drain()
        async with asyncio.timeout(timeout_s):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            return head + await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError) as why:
        return why.partial if isinstance(why, asyncio.IncompleteReadError) else b""
    finally:
        writer.close()


def problem(answer: bytes, status: int) -> dict[str, object]:
    """Return the problem document of a raw answer, which must have this status."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == str(status).encode(), answer
    assert f"content-type: {PROBLEM}".encode() in head.lower()
    document: dict[str, object] = json.loads(body)
    assert document["status"] == status
    return document


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nA" + b"b" * 20_000 + b": 1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 20_000 + b"\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + b"\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request(node: Site, sent: bytes, status: int) -> None:
    """400 as a problem document that says nothing of us; the gateway goes on."""
    refusal = problem(await raw(node, sent), status)
    assert "aiohttp" not in json.dumps(refusal).lower()
    assert (await node.ask("GET", "/healthz", "")).status == 200


async def test_slow_heads_and_bodies(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A head that trickles is cut off, a body that does is 408, while others are served."""
    web = WebConfig(header_timeout_s=0.3, body_timeout_s=0.3)
    async with running(config_of(tmp_path_factory.mktemp("slow"), web=web)) as site:
        place = urlsplit(site.addresses.http)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            writer.write(b"a")
            await asyncio.wait({closed}, timeout=0.05)
            assert (await site.ask("GET", "/healthz", "")).status == 200
        assert (await site.ask("GET", "/api/v1/me")).status == 200
        assert await site.metric('sensegate_limit_hits_total{limit="http_header_timeout"}') >= 1
        writer.close()
        device = await site.device("slow-body")
        head = (
            f"POST /api/v1/ingest/{device.id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {device.password}\r\n"
            "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        problem(await raw(site, head.encode()), 408)
        assert (await site.push(device, reading(1))).status == 202


async def test_connections_beyond_the_cap(tmp_path_factory: pytest.TempPathFactory) -> None:
    """They get 503 at once; when one hangs up, the next is served."""
    web = WebConfig(connections_max=5, connections_per_address_max=5)
    async with running(config_of(tmp_path_factory.mktemp("cap"), web=web)) as site:
        place = urlsplit(site.addresses.http)
        held = [await asyncio.open_connection(place.hostname, place.port) for _ in range(5)]
        request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

        async def served() -> bytes:
            return await raw(site, request)

        async def full() -> bool:
            return (await served()).startswith(b"HTTP/1.1 503")

        await eventually(full)
        for _, writer in held:
            writer.close()

        async def free() -> bool:
            return (await served()).startswith(b"HTTP/1.1 200")

        await eventually(free)


NEW = {"id": "d", "division": "440106", "profile": "sensegate/plain"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/devices", b'{"id": ', 400),
        ("POST", "/api/v1/devices", b"\xff\xfe", 400),
        ("POST", "/api/v1/devices", b"[" * 100_000, 400),
        ("POST", "/api/v1/devices", b"null", 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "admin": True}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "state": "active"}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "id": "../../etc/passwd"}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "id": "a.b>*"}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "id": "x" * 65}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "grade": 9}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "lon": 1e308, "lat": 0}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "division": "99"}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "profile": "no/such"}).encode(), 400),
        ("POST", "/api/v1/devices", json.dumps({**NEW, "name": "a\r\nb\u202e"}).encode(), 400),
        ("POST", "/api/v1/tokens", b'{"role": "god", "scope": "44"}', 400),
        ("POST", "/api/v1/tokens", b'{"role": "subscriber", "scope": "4401", "expires_s": 1e400}', 400),
        ("POST", "/api/v1/tokens", b'{"role": "subscriber", "scope": "4401", "expires_s": -1}', 400),
        ("POST", "/api/v1/feeds", b'{"name": "A B"}', 400),
        ("POST", "/api/v1/feeds", b'{"name": "x", "kinds": ["secret"]}', 400),
        ("DELETE", "/healthz", b"", 405),
        ("PUT", "/api/v1/devices", b"{}", 405),
        ("TRACE", "/api/v1/devices", b"", 405),
        ("GET", "/api/v1/nothing", b"", 404),
        ("GET", "/api/v2/devices", b"", 404),
        ("GET", "/static/..%2f..%2fconfig.py", b"", 404),
        ("GET", "/static/%2e%2e/app.py", b"", 404),
        ("GET", "/api/v1/devices?divison=44", b"", 400),
        ("GET", "/api/v1/feeds/all/records?limit=-1", b"", 400),
        ("GET", "/api/v1/feeds/all/records?wait=NaN", b"", 400),
        ("GET", "/api/v1/feeds/all/records?after=c1.AAAA", b"", 400),
        ("GET", "/api/v1/feeds/all/records?since=yesterday", b"", 400),
        ("GET", "/api/v1/feeds/all/records?division=abc", b"", 400),
    ],
)
async def test_requests_that_are_wrong(node: Site, method: str, path: str, body: bytes, status: int) -> None:
    """The right status, as a problem document (checked by `ask`); nothing is made."""
    headers = {"Content-Type": "application/json"} if body else {}
    answer = await node.ask(method, path, data=body or None, headers=headers)
    assert answer.status == status, answer.body
    assert (await node.ask("GET", "/api/v1/devices/d")).status == 404


async def test_a_body_that_grows_when_unpacked(node: Site) -> None:
    """Compressed bodies are refused with 415 before anything is unpacked."""
    device = await node.device("bomb")
    bomb = gzip.compress(b"[" * 10_000_000)
    answer = await node.push(device, bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status == 415


async def test_guessing_is_slowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """After 20 wrong tokens of an id it waits (429 with Retry-After); unknown and wrong are told in the same words."""
    async with running(config_of(tmp_path_factory.mktemp("guess"))) as site:
        _, name = await site.token()
        results = set()
        for number in range(40):
            secret = "x" * 32
            text = f"sg_{name if number % 2 else '0' * 16}_{secret}"
            answer = await site.ask("GET", "/api/v1/me", text)
            assert answer.status == 401
            results.add(answer.body["detail"])
        assert len(results) == 1
        answer = await site.ask("GET", "/api/v1/me", "sg_0000000000000000_" + "x" * 32)
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await site.ask("GET", "/healthz", "")).status == 200
        assert (await site.ask("GET", "/api/v1/me")).status == 200


async def test_no_secret_is_told(node: Site) -> None:
    """Passwords and tokens stand in no list, no audit record, no metric; files with secrets are ours alone."""
    device = await node.device("secretive")
    token, _ = await node.token()
    auditor, _ = await node.token("auditor", "4401")
    for path in ("/api/v1/devices", "/api/v1/tokens", "/api/v1/audit?limit=5000", "/metrics", "/openapi.json"):
        answer = await node.ask("GET", path, auditor if "audit" in path else None)
        assert answer.status == 200, path
        text = answer.body.decode() if isinstance(answer.body, bytes) else json.dumps(answer.body)
        for secret in (device.password, token.split("_", 2)[2], node.admin.split("_", 2)[2]):
            assert secret not in text, path
    directory = Path(node.config.directory)
    for file in (directory / "admin.token", directory / "run.json", *directory.glob("engine/*.conf")):
        assert file.stat().st_mode & 0o077 == 0, file
    assert directory.stat().st_mode & 0o077 == 0
