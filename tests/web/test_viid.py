"""The listener of GA/T 1400 by itself: whatever comes, the answer is a status object, and none is a bug of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.config import WebConfig
from sensegate.config.viid import ViidConfig, ViidDeviceConfig
from sensegate.errors import Overloaded, PermissionDenied, Rejected, Unavailable
from sensegate.model import Device
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.viid.client import ViidClient
from sensegate.viid.listener import COLLECTIONS, ViidDeps, ViidListener
from sensegate.viid.password_digests import PasswordDigests
from tests.conftest import eventually

ADMIN = Principal("admin", Role.ADMIN, scope("44"))
SERVER, CAMERA, OLD, ABOVE = (f"4401000000503000000{number}" for number in range(1, 5))


class StubOutcome:
    """What a body became."""

    answers = (ObjectResult("x"),)
    listed = True
    at = 0


class Nobody:
    """No subscriptions."""

    async def update(self, peer: str, payload: bytes) -> Sequence[ObjectResult]:
        assert peer == ABOVE
        return [ObjectResult("s")]

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[ObjectResult]:
        assert peer == ABOVE
        return [ObjectResult(name) for name in names]

    def listed(self, peer: str) -> bytes:
        assert peer == ABOVE
        return b'{"SubscribeListObject":{"SubscribeObject":[]}}'


class Rig:
    """The listener, with a camera that has registered."""

    def __init__(self, directory: Path, *, web: WebConfig | None = None, **more: Any) -> None:
        self.clock = FakeClock()
        self.digests = PasswordDigests(directory / "viid.key", "viid")
        self.devices = Devices(MemoryBucket(), MemoryTrail(), self.clock, digest=self.digests.seal)
        self.raises: Exception | None = None
        self.bodies: list[bytes] = []
        self.gone: list[str] = []
        self.above = ""
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.web = ViidListener(
            ViidDeps(
                config=ViidConfig(
                    server_id=SERVER,
                    body_bytes_max=10_000,
                    requests_per_s=10_000,
                    auth_failures_max=3,
                    **more,
                    devices=(ViidDeviceConfig(device=OLD, compact_challenge=True, algorithms=("MD5",)),),
                ),
                web=web or WebConfig(),
                clock=self.clock,
                devices=self.devices,
                digests=self.digests,
                take=self._take,
                orders=Nobody(),
                catalogue=lambda _asker, kind, _names: json.dumps({f"{kind}ListObject": {}}).encode(),
                gone=self.gone.append,
                superior=lambda code, address: (code, address) == (ABOVE, self.above),
            )
        )
        self.http: aiohttp.ClientSession
        self.url = ""
        self.password = ""

    async def _take(self, _sender: Device, payload: bytes, _kinds: frozenset[str]) -> StubOutcome:
        self.bodies.append(payload)
        await self.may_take.wait()
        if self.raises is not None:
            raise self.raises
        return StubOutcome()

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
        """Return (status, the tree of the answer)."""
        sent = {"User-Identify": CAMERA, **{name.replace("_", "-"): value for name, value in headers.items()}}
        async with self.http.request(method, self.url + path, data=body or None, headers=sent) as response:
            tree: dict[str, Any] = await response.json(content_type=None)
            return response.status, tree


@pytest.fixture
async def rig(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, **getattr(request, "param", {}))
    made.password = await made.devices.add(Device(CAMERA, "440100", "sensegate/viid"), by=ADMIN)
    async with TestServer(made.web.app()) as server, aiohttp.ClientSession() as http:
        made.url, made.http = str(server.make_url("")).rstrip("/"), http
        client = ViidClient(made.url, CAMERA, password=made.password)
        await client.register()
        await client.close()
        yield made


PATHS = [
    "/",
    "/VIID",
    "/VIID/System/Register",
    "/VIID/System/Unregister",
    "/viid/system/keepalive",
    "/VIID/Subscribes",
    "/VIID/Subscribes/1",
    "/VIID/Subscribe/Notifications",
    "/VIID/%00",
    "/VIID/Images/1/Data",
    "/VIID/Images/1/Info",
    *(f"/VIID/{name}" for name in COLLECTIONS),
]
BODIES = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b'{"RegisterObject": {"DeviceID": 7}}',
    b'{"FaceListObject": {"FaceObject": []}}',
]


async def test_whatever_comes_is_answered_by_a_status(rig: Rig) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for body in BODIES if method in {"POST", "PUT"} else [b""]:
                status, tree = await rig.ask(method, path, body)
                assert status < 500, (method, path, body)
                if status >= 400:
                    element = tree["ResponseStatusObject"]
                    assert set(element) == {"RequestURL", "StatusCode", "StatusString", "Id", "LocalTime"}
                    assert element["StatusCode"] > 0


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (Overloaded("x"), 503, 2),
        (Unavailable("x"), 503, 2),
        (Rejected("malformed", "x"), 400, 7),
        (Rejected("not_utf8", "x"), 400, 7),
        (Rejected("schema", "x"), 400, 8),
        (Rejected("too_large", "x"), 413, 8),
    ],
)
async def test_what_a_body_cannot_become_is_told(rig: Rig, raised: Exception, status: int, code: int) -> None:
    rig.raises = raised
    answer, tree = await rig.ask("POST", "/VIID/Faces", b"{}")
    assert (answer, tree["ResponseStatusObject"]["StatusCode"]) == (status, code)


async def test_bytes_that_are_no_text_are_answered_too(rig: Rig) -> None:
    host, port = rig.url.removeprefix("http://").split(":")
    for head in (
        b"POST /VIID/Faces HTTP/1.1\r\nHost: x\r\nUser-Identify: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /VIID/\xff%FF HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /VIID/System/Register HTTP/1.1\r\nHost: x\r\nAuthorization: Digest username=\xff, nonce=\xff, uri=\xff, "
        b"response=\xff\r\nContent-Length: 41\r\n\r\n" + b'{"RegisterObject": {"DeviceID": "\xe5\xbc\xa0\xe4\xb8"}}',
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)
        answer = await asyncio.wait_for(reader.read(200), 30)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer


async def test_a_body_beyond_the_limit_is_not_read(rig: Rig) -> None:
    status, tree = await rig.ask("POST", "/VIID/Faces", b"x" * 10_001)
    assert (status, tree["ResponseStatusObject"]["StatusCode"]) == (413, 8)
    assert not rig.bodies


async def test_forms_of_answers(rig: Rig) -> None:
    _, tree = await rig.ask("POST", "/VIID/Faces", b"{}")
    assert "ResponseStatusListObject" in tree
    _, tree = await rig.ask("PUT", "/VIID/Faces/1", b"{}")
    assert "ResponseStatusObject" in tree
    _, tree = await rig.ask("POST", "/VIID/Images/1/Info", b"{}")
    assert "ResponseStatusObject" in tree


async def test_a_challenge_as_a_camera_needs_it(rig: Rig) -> None:
    body = json.dumps({"RegisterObject": {"DeviceID": OLD}}).encode()
    async with rig.http.post(f"{rig.url}/VIID/System/Register", data=body) as response:
        lines = response.headers.getall("WWW-Authenticate")
    assert len(lines) == 1
    assert ", " not in lines[0]


async def test_a_registration_lapses_and_is_told(rig: Rig) -> None:
    await rig.clock.advance(299)
    assert (await rig.ask("POST", "/VIID/Faces", b"{}"))[0] == 200
    await rig.clock.advance(301)
    status, tree = await rig.ask("POST", "/VIID/Faces", b"{}")
    assert (status, tree["ResponseStatusObject"]["StatusCode"]) == (401, 4)


async def test_a_platform_above_subscribes_from_its_address_and_does_no_more(rig: Rig) -> None:
    assert (await rig.ask("GET", "/VIID/Subscribes", User_Identify=ABOVE))[0] == 401
    rig.above = "127.0.0.1"
    assert (await rig.ask("GET", "/VIID/Subscribes", User_Identify=ABOVE))[0] == 200
    assert (await rig.ask("POST", "/VIID/Subscribes", b"{}", User_Identify=ABOVE))[0] == 200
    status, tree = await rig.ask("DELETE", "/VIID/Subscribes?IDList=a,b", User_Identify=ABOVE)
    assert (status, len(tree["ResponseStatusListObject"]["ResponseStatusObject"])) == (200, 2)
    assert (await rig.ask("GET", "/VIID/APEs", User_Identify=ABOVE))[0] == 200
    assert (await rig.ask("POST", "/VIID/Faces", b"{}", User_Identify=ABOVE))[0] == 403
    assert (await rig.ask("GET", "/VIID/Subscribes"))[0] == 403


BEHIND = {"User_Identify": ABOVE, "X_Forwarded_For": "203.0.113.5"}


@pytest.mark.parametrize(
    ("rig", "status"),
    [({"web": WebConfig(trusted_proxies=("127.0.0.0/8",))}, 200), ({"web": WebConfig()}, 401)],
    indirect=["rig"],
    ids=["trusted proxy", "control: no proxy"],
)
async def test_the_address_is_the_clients_behind_a_trusted_proxy_alone(rig: Rig, status: int) -> None:
    """Registrations, lock-outs and platforms above are judged by it; who is no proxy names no address."""
    rig.above = "203.0.113.5"
    assert (await rig.ask("GET", "/VIID/Subscribes", b"", **BEHIND))[0] == status
    # The camera registered without the header: behind the proxy it is another sender, else the same.
    answer, _ = await rig.ask("POST", "/VIID/Faces", b"{}", X_Forwarded_For="203.0.113.6")
    assert answer == (401 if status == 200 else 200)


async def test_a_password_of_one_device_registers_no_other(rig: Rig) -> None:
    other = await rig.devices.add(Device(OLD, "440100", "sensegate/viid"), by=ADMIN)
    client = ViidClient(rig.url, CAMERA, user=OLD, password=other)
    with pytest.raises(Exception, match="403"):
        await client.register()
    await client.close()


@pytest.mark.parametrize(
    ("rig", "status"), [({"unregister_auth": "digest"}, 401), ({"unregister_auth": "session"}, 200)], indirect=["rig"]
)
async def test_who_may_take_leave_without_a_digest(rig: Rig, status: int) -> None:
    body = json.dumps({"UnRegisterObject": {"DeviceID": CAMERA}}).encode()
    assert (await rig.ask("POST", "/VIID/System/UnRegister", body, User_Identify=OLD))[0] == 401
    assert (await rig.ask("POST", "/VIID/System/UnRegister", body))[0] == status
    assert (await rig.ask("POST", "/VIID/Faces", b"{}"))[0] == (200 if status == 401 else 401)


async def test_a_subscription_is_named_by_its_path(rig: Rig) -> None:
    """DELETE and PUT of /VIID/Subscribes/ID are about that one: they are answered with its status."""
    rig.above = "127.0.0.1"
    _, tree = await rig.ask("DELETE", "/VIID/Subscribes/a", User_Identify=ABOVE)
    assert [element["Id"] for element in tree["ResponseStatusListObject"]["ResponseStatusObject"]] == ["a"]
    _, tree = await rig.ask("PUT", "/VIID/Subscribes/s", b"{}", User_Identify=ABOVE)
    assert tree["ResponseStatusObject"]["Id"] == "s"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "Faces/1", "POST, PUT"),
        ("GET", "Faces", "POST, PUT"),
        ("DELETE", "APEs/1", "GET, POST, PUT"),
    ],
)
async def test_a_method_that_is_not_taken_names_those_that_are(rig: Rig, method: str, path: str, allowed: str) -> None:
    """Each answer with 405 has Allow (RFC 9110, 15.5.6)."""
    headers = {"User-Identify": CAMERA}
    async with rig.http.request(method, f"{rig.url}/VIID/{path}", headers=headers) as response:
        assert (response.status, response.headers.get("Allow")) == (405, allowed)


async def test_leave_without_a_registration_is_challenged(rig: Rig) -> None:
    """Each answer with 401 has WWW-Authenticate (RFC 9110, 15.5.2), also to a device that is no longer registered."""
    rig.web.forget(CAMERA)
    path, body = "/VIID/System/UnRegister", json.dumps({"UnRegisterObject": {"DeviceID": CAMERA}}).encode()
    client = ViidClient(rig.url, CAMERA, password=rig.password)
    async with rig.http.post(rig.url + path, data=body, headers={"User-Identify": CAMERA}) as response:
        challenges = response.headers.getall("WWW-Authenticate")
    proof = {"User-Identify": CAMERA, "Authorization": client._proof("POST", path, challenges)}
    async with rig.http.post(rig.url + path, data=body, headers=proof) as response:
        assert response.status == 401
        assert "Digest" in response.headers.get("WWW-Authenticate", "")


async def test_wrong_passwords_of_others_lock_no_camera_out(rig: Rig) -> None:
    """Behind one address one device guesses for many names; a camera with the right password registers all the same."""
    for number in range(70):
        guesser = ViidClient(rig.url, f"4401000000132{number:07}", password="wrong")
        with pytest.raises((PermissionDenied, Unavailable)):
            await guesser.register()
        await guesser.close()
    client = ViidClient(rig.url, CAMERA, password=rig.password)
    await client.register()
    await client.close()


HALF = (
    "POST /VIID/Faces HTTP/1.1\r\nHost: x\r\nUser-Identify: {code}\r\nContent-Type: application/json\r\n"
    "Content-Length: {length}\r\n\r\n"
)


@pytest.mark.parametrize("rig", [{"requests_per_device_max": 2}], indirect=True)
async def test_half_bodies_of_one_device_are_capped(rig: Rig) -> None:
    """One request more gets 503 with Retry-After and the key; when one ends there is room again."""
    host, port = rig.url.removeprefix("http://").split(":")
    held = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    for _, writer in held:
        writer.write(HALF.format(code=CAMERA, length=100).encode() + b"{")
    await eventually(lambda: rig.web._requests._open.total() == 2)
    async with rig.http.post(f"{rig.url}/VIID/Faces", data=b"{}", headers={"User-Identify": CAMERA}) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "5"
        assert "viid.requests_per_device_max" in await response.text()
    for _, writer in held:
        writer.transport.abort()
    await eventually(lambda: not rig.web._requests._open)
    assert (await rig.ask("POST", "/VIID/Faces", b"{}"))[0] == 200


@pytest.mark.parametrize("rig", [{"bodies_total_bytes_max": 40_000}], indirect=True)
async def test_bodies_of_one_sender_fill_only_a_part_of_the_memory(rig: Rig) -> None:
    """A quarter of all bytes, at least one whole body; the others' share stays free; control: one whole body fits."""
    host, port = rig.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(HALF.format(code=CAMERA, length=10_000).encode() + b" " * 9_000)
    await eventually(lambda: rig.web._bytes_of[CAMERA] == 9_000)
    status, answer = await rig.ask("POST", "/VIID/Faces", b" " * 2_000)
    assert status == 503
    assert "viid.bodies_total_bytes_max" in str(answer)
    writer.transport.abort()
    await eventually(lambda: not rig.web._bytes_of)
    assert (await rig.ask("POST", "/VIID/Faces", b" " * 9_999))[0] == 200


@pytest.mark.parametrize("rig", [{"bodies_total_bytes_max": 40_000}], indirect=True)
async def test_a_body_counts_until_it_was_taken(rig: Rig) -> None:
    """A body counts until its commit has ended; meanwhile another one of its sender exceeds the limit."""
    rig.may_take.clear()
    first = asyncio.create_task(rig.ask("POST", "/VIID/Faces", b" " * 9_000))
    await eventually(lambda: len(rig.bodies) == 1)
    assert rig.web._bytes_of[CAMERA] == rig.web._reading == 9_000
    assert (await rig.ask("POST", "/VIID/Faces", b" " * 9_000))[0] == 503
    rig.may_take.set()
    assert (await first)[0] == 200
    assert not rig.web._bytes_of
    assert rig.web._reading == 0
    assert (await rig.ask("POST", "/VIID/Faces", b" " * 9_000))[0] == 200
