"""Streams of cameras: opened for ever, silent ones not believed, passwords not tried often; held until committed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from sensegate.authority.egress import Egress, EgressConnector
from sensegate.bus.free_ports import free_port
from sensegate.cameras.alert_stream import CameraSource, stream_url
from sensegate.clock import FakeClock, SystemClock
from sensegate.config import IngestConfig, parse
from sensegate.config.cameras import CameraConfig
from sensegate.errors import ConfigError
from sensegate.model import Delivery
from sensegate.video.formats import FORMATS
from sensegate.video.multipart import split
from sensegate.video.pseudonyms import KeyedPseudonymiser
from tests.collect.camera import SECRET, Script, TheCamera, alert, part, sending
from tests.conftest import eventually

LOOPBACK = Egress(["127.0.0.0/8"], key="egress.cameras")
LIMITS = IngestConfig()


@contextlib.asynccontextmanager
async def camera(*scripts: Script, **more: str) -> AsyncIterator[TheCamera]:
    result = await TheCamera(*scripts, **more).start()
    try:
        yield result
    finally:
        await result.stop()


def config(camera: TheCamera, folder: Path, *, password: str = SECRET, **more: object) -> CameraConfig:
    (folder / "password").write_text(f"{password}\n", encoding="utf-8")
    first = CameraConfig(
        device="cam7", make="hikvision", url=camera.url, user="reader", password_file=str(folder / "password")
    )
    return msgspec.structs.replace(first, **more)


@contextlib.asynccontextmanager
async def source(
    *cameras: CameraConfig, clock: FakeClock | None = None, limits: IngestConfig = LIMITS, jitter: float = 0.0
) -> AsyncIterator[CameraSource]:
    """Run a source; `jitter`: the part of each wait that is waited."""
    made = CameraSource(
        cameras, limits, clock or SystemClock(), LOOPBACK, partial(EgressConnector, LOOPBACK), jitter=lambda: jitter
    )
    await made.start(None)
    reading = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await made.stop()


async def messages(made: CameraSource, count: int) -> list[bytes]:
    """Return so many payloads, each acknowledged when it came."""
    messages: list[bytes] = []
    async with asyncio.timeout(60):
        async for delivery in made.deliveries():
            messages += [message.payload for message in delivery.messages]
            await delivery.ack()
            if len(messages) >= count:
                break
    return messages


async def test_a_stream_with_digest_gives_its_alerts(tmp_path: Path) -> None:
    """401, then the answer; parts whole as sent, pictures dropped, the device as topic and principal."""
    done = asyncio.Event()
    jpeg = b"\xff\xd8\xff" + bytes(70_000) + b"\xff\xd9"
    sent = [part(alert(second=1)), part(jpeg, "image/jpeg"), part(alert("IO", second=2))]
    async with camera(sending(*sent, then=done)) as device, source(config(device, tmp_path)) as made:
        delivery: Delivery = await anext(made.deliveries())
        (first,) = delivery.messages[:1]
        assert (first.topic, first.principal, first.payload) == ("http/cam7", "cam7", alert(second=1))
        assert delivery.source == "cameras"
        await delivery.ack()
        second = delivery.messages[1].payload if len(delivery.messages) > 1 else (await messages(made, 1))[0]
        assert [(part.picture, part.content) for part in split(second)] == [(True, b""), (False, alert("IO", second=2))]
        cut = FORMATS["hikvision"].redact(second, "http/cam7", 0, KeyedPseudonymiser(b"tests" * 8))
        assert cut.removed["part.picture"] == 1  # the ledger counts it with the next alert
        assert b'"images"' not in cut.payload  # which did not bring it
        assert (device.asked, made.warnings()) == (["401", "200"], [])
        assert device.paths == ["/ISAPI/Event/notification/alertStream"]
        done.set()


@pytest.mark.parametrize("length", [-1, None, 0, 9, 1_000_000])
async def test_a_part_does_not_wait_for_the_next_one(tmp_path: Path, length: int | None) -> None:
    """Whatever length it claims: the next boundary may be minutes away."""
    done = asyncio.Event()
    async with (
        camera(sending(part(alert(), length=length), then=done)) as device,
        source(config(device, tmp_path)) as made,
    ):
        assert await messages(made, 1) == [alert()]
        done.set()


async def test_half_a_part_is_none_and_the_stream_is_opened_anew(tmp_path: Path) -> None:
    """The camera breaks off in the middle; the next connection gives whole ones. Boundaries in angle brackets too."""
    done = asyncio.Event()
    half = sending(part(alert(second=1))[:150])
    whole = sending(part(alert(second=2), token="<boundary>"), then=done)
    async with camera(half, half, whole, boundary="<boundary>") as device, source(config(device, tmp_path)) as made:
        assert await messages(made, 1) == [alert(second=2)]
        assert len(device.paths) == 3
        done.set()


async def test_a_silent_stream_is_not_believed(tmp_path: Path) -> None:
    """Nothing, or bytes that never make a part: opened anew after `idle_timeout_s`."""
    done = asyncio.Event()
    quiet = sending(part(alert(second=1)), then=done)
    drip = sending(*[b"."] * 400, each_s=0.02, then=done)
    async with camera(quiet, drip, sending(part(alert(second=2)), then=done)) as device:
        async with source(config(device, tmp_path, idle_timeout_s=0.3)) as made:
            assert await messages(made, 2) == [alert(second=1), alert(second=2)]
            assert len(device.paths) == 3
        done.set()


async def test_a_wrong_password_is_not_tried_again_and_again(tmp_path: Path) -> None:
    """Cameras lock users out: the next attempt comes after `auth_failure_wait_s`, and there is always a next one."""
    clock = FakeClock()
    async with camera(sending()) as device, source(config(device, tmp_path, password="wrong"), clock=clock) as made:
        await eventually(lambda: "password is wrong" in "".join(made.warnings()))
        tried = len(device.asked)
        assert (tried, set(device.asked)) == (2, {"401"})
        await clock.advance(299)
        assert len(device.asked) == tried
        await clock.advance(2)
        await device.answers(tried + 1)


async def test_attempts_spread_and_become_rare(tmp_path: Path) -> None:
    """A random part of a doubling time up to `backoff_max_s`; it never ends."""
    clock = FakeClock()
    waits: list[float] = []

    class Noting(FakeClock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            await asyncio.sleep(0)

    clock = Noting()
    gone = CameraConfig(device="cam7", make="dahua", url="http://127.0.0.1:9", connect_timeout_s=0.2, backoff_max_s=8)
    async with source(gone, clock=clock, jitter=0.5) as made:
        await eventually(lambda: len(waits) > 8)
        assert made.warnings() == ["camera cam7: not reachable: ClientConnectorError"]
    assert waits[:8] == [0.5, 1, 2, 4, 4, 4, 4, 4]


async def test_what_is_not_committed_holds_the_camera_back(tmp_path: Path) -> None:
    """At most `inflight_max` parts wait; they are given again when the ingest starts anew, and none is lost."""
    done = asyncio.Event()
    many = [part(alert(second=at)) for at in range(20)]
    async with camera(sending(*many, then=done)) as device:
        async with source(config(device, tmp_path, inflight_max=4)) as made:
            delivery = await anext(made.deliveries())
            await eventually(lambda: len(made._waiting) + len(made._delivered) == 4)
            await made.stop()
            await made.start(None)  # the ingest began anew: nothing was acknowledged
            del delivery
            assert await messages(made, 20) == [alert(second=at) for at in range(20)]
        done.set()


OK = b"HTTP/1.1 200 OK\r\n"
ASK = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: "


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK",
        b"RTSP/1.0 200 OK\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Content-Length: 100\r\n\r\n--b\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\n--b\r\n\r\nx",
        OK + b'Content-Type: multipart/mixed; boundary="\xff"\r\n\r\n',
        OK + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        ASK + b"Digest\r\n\r\n",
        ASK + b"Digest realm=x\r\n\r\n",
        ASK + b'Digest realm="x", nonce="", qop="auth-int"\r\n\r\n',
        ASK + b'Digest realm="x", nonce="y", qop="auth", algorithm=ROT13\r\n\r\n',
        ASK + b'Digest realm="\xff", nonce="y", opaque="\r\n\r\n',
        ASK + b"Basic realm=x\r\n\r\n",
    ],
    ids=range(18),
)
async def test_nothing_that_is_answered_ends_it(tmp_path: Path, answer: bytes) -> None:
    """Rubbish, redirects, challenges that are none: told, and tried again; not a word of it in what is told."""
    tries = asyncio.Semaphore(0)

    async def odd(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(answer)
            await writer.drain()
            writer.close()
        tries.release()

    server = await asyncio.start_server(odd, "127.0.0.1", free_port())
    (place,) = server.sockets
    config = CameraConfig(
        device="cam7",
        make="hikvision",
        url=f"http://127.0.0.1:{place.getsockname()[1]}",
        user="reader",
        password_env="PATH",
        connect_timeout_s=2,
        idle_timeout_s=0.3,
        auth_failure_wait_s=0.01,
    )
    async with server, source(config) as made:
        async with asyncio.timeout(60):
            for _ in range(3):
                await tries.acquire()
        await eventually(made.warnings)
        assert "127.0.0.1:1" not in str(made.warnings())


async def test_it_can_be_stopped_while_it_waits_for_a_commit(tmp_path: Path) -> None:
    """Also where the camera's last part has just come."""
    done = asyncio.Event()
    many = [part(alert(second=at)) for at in range(9)] + [part(alert(second=10))[:-4]]
    async with camera(sending(*many, then=done)) as device:
        made = CameraSource(
            [config(device, tmp_path, inflight_max=2)],
            LIMITS,
            SystemClock(),
            LOOPBACK,
            partial(EgressConnector, LOOPBACK),
        )
        await made.start(None)
        reading = asyncio.create_task(made.run())
        await eventually(lambda: len(made._waiting) == 2)
        done.set()
        reading.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(reading, return_exceptions=True)


async def test_dahua_events_and_heartbeats(tmp_path: Path) -> None:
    done = asyncio.Event()
    event = b'Code=VideoMotion;action=Start;index=0;data={\n "UTC": 1768449600\n}'
    stream = [part(event, "text/plain", token="myboundary"), part(b"Heartbeat", "text/plain", token="myboundary")]
    async with camera(sending(*stream, then=done), boundary="myboundary") as device:
        async with source(config(device, tmp_path, make="dahua")) as made:
            assert await messages(made, 2) == [event, b"Heartbeat"]
            assert device.paths == ["/cgi-bin/eventManager.cgi?action=attach&codes=%5BAll%5D&heartbeat=5"]
        done.set()


def test_where_may_be_connected_to(tmp_path: Path) -> None:
    """Only what `egress.cameras` names; the error names the key of the camera and the remedy."""
    config = CameraConfig(device="cam7", make="hikvision", url="http://10.1.2.3")
    assert stream_url(config) == "http://10.1.2.3/ISAPI/Event/notification/alertStream"
    assert stream_url(msgspec.structs.replace(config, url="http://10.1.2.3/x?y=1")) == "http://10.1.2.3/x?y=1"
    connector = partial(EgressConnector, LOOPBACK)
    with pytest.raises(ConfigError, match=r"cameras\[0\].url: 10.1.2.3 is not allowed; .*egress.cameras"):
        CameraSource([config], LIMITS, FakeClock(), LOOPBACK, connector)
    here = msgspec.structs.replace(config, url="http://127.0.0.1")
    with pytest.raises(ConfigError, match="'cam7' is listed twice"):
        CameraSource([here, here], LIMITS, FakeClock(), LOOPBACK, connector)
    nobody = msgspec.structs.replace(here, user="x", password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"cameras\[0\]"):
        CameraSource([nobody], LIMITS, FakeClock(), LOOPBACK, connector)


@pytest.mark.parametrize(("let_out", "message"), [("10.0.0.0/8", "not reachable"), ("localhost", "")])
async def test_a_name_is_followed_only_to_what_is_let_out(tmp_path: Path, let_out: str, message: str) -> None:
    done = asyncio.Event()
    async with camera(sending(part(alert()), then=done)) as device:
        there = config(device, tmp_path, url=device.url.replace("127.0.0.1", "localhost"))
        connector = partial(EgressConnector, Egress([let_out]))
        made = CameraSource([there], LIMITS, SystemClock(), Egress(["localhost"]), connector, jitter=lambda: 0)
        await made.start(None)
        task = asyncio.create_task(made.run())
        await eventually(lambda: made.warnings() == [] if not message else message in "".join(made.warnings()))
        done.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_certificate_of_its_own_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    """Nothing is said to a camera that shows another one."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=camera", "-keyout", str(key), "-out", str(cert)]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    await asyncio.to_thread(subprocess.run, [*make, *subject], check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()
    done = asyncio.Event()
    result = await TheCamera(sending(part(alert()), then=done)).start(tls)
    try:
        async with source(config(result, tmp_path, pin_sha256=pin)) as made:
            assert await messages(made, 1) == [alert()]
        outcome = len(result.asked)
        for wrong in ("0" * 64, ""):
            async with source(config(result, tmp_path, pin_sha256=wrong)) as made:
                output = made.warnings
                await eventually(lambda: "not reachable" in "".join(output()))  # noqa: B023 - waited for within the loop
        assert len(result.asked) == outcome
    finally:
        done.set()
        await result.stop()


def test_a_camera_that_is_not_registered_is_told() -> None:
    config = CameraConfig(device="cam7", make="hikvision", url="http://127.0.0.1:9")
    made = CameraSource(
        [config], LIMITS, FakeClock(), LOOPBACK, partial(EgressConnector, LOOPBACK), known=lambda _: False
    )
    assert made.warnings() == [
        "camera cam7: not registered, its messages go to quarantine; sensegate device add",
        "camera cam7: not open yet",
    ]


def test_the_configuration_refuses_what_cannot_work() -> None:
    head = "role: node\ndivision: '4401'\ndirectory: x\ncameras:\n"
    good = "  - {device: cam7, make: hikvision, url: 'http://10.1.2.3', user: reader, password_env: CAM7}\n"
    assert parse(head + good).cameras[0].idle_timeout_s == 60
    for bad, message in (
        ("  - {device: cam7, make: hikvision, url: 'rtsp://10.1.2.3'}\n", "does not begin with http"),
        ("  - {device: cam7, make: hikvision, url: 'http://a:b@10.1.2.3'}\n", "holds a user or password"),
        ("  - {device: cam7, make: acme, url: 'http://10.1.2.3'}\n", "acme"),
        ("  - {device: cam7, make: dahua, url: 'http://10.1.2.3', idle_timeout_s: 0}\n", "idle_timeout_s"),
        ("  - {device: cam7, make: dahua, url: 'https://10.1.2.3', pin_sha256: ab}\n", "64 hex digits"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(head + bad)
