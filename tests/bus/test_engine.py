"""The engine's life: started, adopted, restarted, ended; reachable only where the configuration says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sensegate.bus import connect, process, streams
from sensegate.bus.engine import Engine, EngineInfo, Role
from sensegate.bus.log import JetStreamLog
from sensegate.bus.ports import free_port
from sensegate.config import EngineConfig, StoreConfig, TlsConfig
from sensegate.errors import EngineError, Lost, Refused
from sensegate.model import Member
from tests.bus.devices import MqttDevice, until

GATEWAY = """
import asyncio, sys
from pathlib import Path
import msgspec
from sensegate.bus.engine import Engine
from sensegate.config import EngineConfig, StoreConfig

async def main():
    engine = Engine(EngineConfig(), StoreConfig(), Path(sys.argv[1]), name="4401")
    print(msgspec.json.encode(await engine.start()).decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Gateway:
    """A gateway in a process of its own, to be killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._child = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    async def started(self) -> EngineInfo:
        """Return what it says of its engine."""
        import msgspec

        assert self._child.stdout is not None
        line = await asyncio.to_thread(self._child.stdout.readline)
        return msgspec.json.decode(line, type=EngineInfo)

    def kill(self) -> None:
        """`kill -9`."""
        self._child.kill()
        self._child.wait()
        assert self._child.stdout is not None
        self._child.stdout.close()


@pytest.fixture
async def killed(tmp_path: Path) -> AsyncIterator[EngineInfo]:
    """The engine of a gateway that was killed; its server is ended after the test, whatever became of it."""
    gateway = Gateway(tmp_path)
    info = await gateway.started()
    gateway.kill()
    yield info
    found = process.find(tmp_path / "engine")
    if found is not None:
        await found.end()
        found.release()


def engine_in(directory: Path, config: EngineConfig | None = None, store: StoreConfig | None = None) -> Engine:
    """An engine with the settings of `GATEWAY`, or others."""
    return Engine(config or EngineConfig(), store or StoreConfig(), directory, name="4401")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def listening(pid: int) -> set[tuple[str, int]]:
    """What a process listens on, as `ss` sees it."""
    tool = shutil.which("ss")
    if not tool:
        pytest.skip("ss is not installed")
    lines = subprocess.run([tool, "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    places = [line.split()[3].rsplit(":", 1) for line in lines if f"pid={pid}," in line]
    return {(host, int(port)) for host, port in places}


# ── start and stop ───────────────────────────────────────────────────────────────────────────────────


async def test_an_orderly_stop_leaves_nothing(tmp_path: Path) -> None:
    """No process, no listener, no lock; only the store and what the next start needs."""
    engine = engine_in(tmp_path)
    info = await engine.start()
    assert alive(info.pid)
    await engine.stop()
    assert not alive(info.pid)
    assert process.find(tmp_path / "engine") is None
    for port in (info.port, info.mqtt_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    os.close(process.lock(tmp_path / "engine" / "store.lock", "still locked"))
    os.close(process.lock(tmp_path / "engine" / "gateway.lock", "still locked"))


async def test_nothing_listens_beyond_the_configuration(engine: Engine) -> None:
    """Client and MQTT port on the configured addresses; no monitoring, route, leaf or WebSocket port."""
    assert listening(engine.info.pid) == {("127.0.0.1", engine.info.port), ("127.0.0.1", engine.info.mqtt_port)}
    assert engine.info.port < 32_768
    assert engine.info.mqtt_port < 32_768


async def test_files_with_secrets_are_ours_alone(engine: Engine, tmp_path: Path) -> None:
    """Configuration and kept secrets are 0600, the directory 0700; the log shows no password."""
    directory = tmp_path / "engine"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in (directory / "engine.json", *directory.glob("nats-*.conf")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for role in Role:
        assert engine.credential(role).password not in (directory / "nats.log").read_text()


async def test_ports_and_secrets_are_kept(tmp_path: Path) -> None:
    """The next start listens where the last did and knows the same users, so that devices and nodes find it again."""
    first = engine_in(tmp_path)
    before = await first.start()
    issuer = first.issuer
    await first.stop()
    second = engine_in(tmp_path)
    after = await second.start()
    assert (after.port, after.mqtt_port, second.issuer) == (before.port, before.mqtt_port, issuer)
    assert second.credential(Role.GATEWAY) == first.credential(Role.GATEWAY)
    await second.stop()


async def test_a_chosen_port_that_was_taken_meanwhile_is_chosen_anew(tmp_path: Path) -> None:
    """A port of ours is a choice, not a promise; a configured one is a promise and fails."""
    first = engine_in(tmp_path)
    before = await first.start()
    await first.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", before.mqtt_port))
        taken.listen()
        async with engine_in(tmp_path) as second:
            assert second.info.mqtt_port != before.mqtt_port
            assert second.info.port == before.port
        fixed = engine_in(tmp_path, EngineConfig(mqtt_port=before.mqtt_port))
        with pytest.raises(EngineError, match="address already in use"):
            await fixed.start()
        assert process.find(tmp_path / "engine") is None


async def test_damaged_kept_secrets_are_said_and_not_made_anew(tmp_path: Path) -> None:
    """New secrets would lock out every node; a person has to look."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "engine.json").write_text("{")
    with pytest.raises(EngineError, match=r"engine\.json"):
        await engine_in(tmp_path).start()


@pytest.mark.parametrize("version", ["2.14.4", "2.10.27", "2.9.0-beta", "unknown"])
def test_an_old_server_is_refused(version: str) -> None:
    """Before 2.14.5 atomic batches or MQTT fixes are missing."""
    with pytest.raises(EngineError, match=r"2\.14\.5"):
        process.check_version(version)


@pytest.mark.parametrize("version", ["2.14.5", "2.15.1", "3.0.0", "2.16.0-RC.1"])
def test_a_new_server_is_taken(version: str) -> None:
    """Negative control of the version check."""
    process.check_version(version)


# ── never two on one store ───────────────────────────────────────────────────────────────────────────


async def test_a_second_gateway_is_refused(engine: Engine, tmp_path: Path) -> None:
    """While one gateway has the directory, another start fails and disturbs nothing."""
    second = Engine(EngineConfig(), StoreConfig(), tmp_path, name="4401")
    with pytest.raises(EngineError, match="another gateway"):
        await second.start()
    assert alive(engine.info.pid)
    await (await engine.connect(Role.GATEWAY)).close()


async def test_a_second_server_is_refused_even_when_the_first_is_not_found(
    killed: EngineInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself holds the lock of its store, so no confusion of process ids starts a second one."""
    monkeypatch.setattr(process, "find", lambda _: None)
    with pytest.raises(EngineError, match="another nats-server is on this store"):
        await engine_in(tmp_path).start()
    assert alive(killed.pid)
    monkeypatch.undo()


# ── a killed gateway ─────────────────────────────────────────────────────────────────────────────────


async def test_a_killed_gateway_leaves_its_server_and_devices_and_the_next_adopts_them(tmp_path: Path) -> None:
    """`kill -9` of the gateway: devices stay connected and are PUBACKed; the next start takes the same process."""
    gateway = Gateway(tmp_path)
    before = await gateway.started()
    probe = engine_in(tmp_path)
    probe._info = before
    async with MqttDevice(probe) as device:
        gateway.kill()
        assert await device.published("a/b", b"1")
        async with engine_in(tmp_path) as engine:
            assert engine.info.adopted
            assert engine.info.pid == before.pid
            assert await device.published("a/b", b"2")
            assert device.disconnects == 0
            assert [one.mqtt_client for one in await engine.connections("SUB")] == ["device-1"]
    assert not alive(before.pid)


async def test_an_adopted_server_is_watched_too(killed: EngineInfo, tmp_path: Path) -> None:
    """It is no child of ours, and is started again all the same when it dies."""
    async with engine_in(tmp_path) as engine:
        assert engine.info.adopted
        os.kill(killed.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await engine.restarted.wait()
        assert engine.info.pid != killed.pid
        assert not engine.info.adopted


async def test_a_changed_configuration_means_an_orderly_restart(killed: EngineInfo, tmp_path: Path) -> None:
    """The server left behind runs with other settings: it is ended in order, the new one keeps ports and store."""
    async with engine_in(tmp_path, EngineConfig(max_payload_bytes=2 * 1024**2)) as engine:
        assert not engine.info.adopted
        assert engine.info.pid != killed.pid
        assert engine.info.max_payload == 2 * 1024**2
        assert engine.info.port == killed.port
        assert not alive(killed.pid)
    assert "Server Exiting" in (tmp_path / "engine" / "nats.log").read_text()


async def test_a_hung_server_is_replaced(killed: EngineInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was stopped does not answer: it is ended and another one started."""
    monkeypatch.setattr("sensegate.bus.engine._ADOPT_S", 0.3)
    os.kill(killed.pid, signal.SIGSTOP)
    async with engine_in(tmp_path) as engine:
        assert not engine.info.adopted
        assert not alive(killed.pid)


# ── a killed server ──────────────────────────────────────────────────────────────────────────────────


async def test_a_killed_server_is_started_again_with_everything_it_had(engine: Engine, log: JetStreamLog) -> None:
    """Same ports, same store; connections come back by themselves; what was written is there."""
    before = engine.info
    assert await log.write([Member("raw.a", b"1"), Member("commit.a", b"c", rollup=True)]) == 2
    for _ in range(2):
        engine.restarted.clear()
        os.kill(engine.info.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await engine.restarted.wait()
    assert engine.info.pid != before.pid
    assert (engine.info.port, engine.info.mqtt_port) == (before.port, before.mqtt_port)
    assert await written(log, Member("commit.a", b"d", rollup=True, expect=2)) == 3
    assert [entry.payload for entry in await log.fetch(0)] == [b"1", b"d"]


async def written(log: JetStreamLog, member: Member) -> int:
    """Write until the connection is back."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Lost):
                return await log.write([member])
            await asyncio.sleep(0.02)


async def test_a_server_that_cannot_start_is_tried_again_with_growing_pauses(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back-off doubles up to the configured most, and the server comes back when it can."""
    pauses: list[float] = []
    real = engine._clock.sleep

    async def sleep(seconds: float) -> None:
        task = asyncio.current_task()
        if seconds >= 0.1 and task is not None and task.get_name() == "engine watch":
            pauses.append(seconds)
            await asyncio.sleep(0)
        else:
            await real(seconds)

    monkeypatch.setattr(engine._clock, "sleep", sleep)
    monkeypatch.setattr(process, "binary", lambda: "/nowhere/nats-server")
    os.kill(engine.info.pid, signal.SIGKILL)
    await until(lambda: len(pauses) > 9)
    assert pauses[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    monkeypatch.undo()
    async with asyncio.timeout(20):
        await engine.restarted.wait()
    await (await engine.connect(Role.GATEWAY)).close()


# ── users ────────────────────────────────────────────────────────────────────────────────────────────


async def test_accounts_are_kept_apart(engine: Engine, gateway: Client) -> None:
    """A message in one account is seen in no other."""
    intake = await engine.connect(Role.INTAKE)
    seen = await intake.subscribe(">")
    await gateway.publish("sg.secret", b"x")
    await gateway.flush()
    await intake.flush()
    assert seen.pending_msgs == 0
    await intake.close()


@pytest.mark.parametrize(("user", "password"), [("gateway", "wrong"), ("nobody", "x"), ("", "")])
async def test_wrong_credentials_are_refused(engine: Engine, user: str, password: str) -> None:
    """At once, not after endless attempts."""
    callout = await engine.connect(Role.CALLOUT)

    async def refuse(message: Msg) -> None:
        await message.respond(b"no")

    await callout.subscribe("$SYS.REQ.USER.AUTH", cb=refuse)
    with pytest.raises(Refused):
        await connect.connect(engine.info.urls[0], user, password, timeout_s=5.0)
    await callout.close()


async def test_internal_users_are_refused_over_mqtt(engine: Engine) -> None:
    """Even with its password no internal user but FEEDS speaks MQTT."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    codes: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="x", protocol=mqtt.MQTTv311)
    client.on_connect = lambda _c, _u, _f, code, _p: codes.append(code.value)
    credential = engine.credential(Role.INTAKE)
    client.username_pw_set(credential.user, credential.password)
    await asyncio.to_thread(client.connect, engine.info.mqtt_host, engine.info.mqtt_port)
    client.loop_start()
    await until(lambda: codes)
    await asyncio.to_thread(client.loop_stop)
    client.disconnect()
    assert codes[0] != 0


async def test_kick_closes_the_connections_of_a_client(engine: Engine) -> None:
    """By MQTT client id or by user, within two seconds; others stay."""
    async with MqttDevice(engine, "device-1") as one, MqttDevice(engine, "device-2") as other:
        assert await engine.kick("SUB", "device-1") == 1
        await until(lambda: one.disconnects, 2.0)
        assert other.disconnects == 0
        assert await engine.kick("SUB", "nobody") == 0
        assert await engine.kick("SUB", user="feeds") >= 1
        await until(lambda: other.disconnects, 2.0)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    """A self-signed certificate for a name that is not the address."""
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return TlsConfig(cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))


async def test_with_certificates_both_listeners_speak_tls_alone(tmp_path: Path, tls: TlsConfig) -> None:
    """Our own connections trust exactly our certificate; devices connect over TLS; plain text gets nowhere."""
    async with engine_in(tmp_path, EngineConfig(tls=tls)) as engine:
        assert engine.info.urls[0].startswith("tls://")
        client = await engine.connect(Role.GATEWAY)
        assert client._transport is not None
        await streams.ensure_streams(client, StoreConfig())
        await client.close()
        async with MqttDevice(engine, ca_file=tls.cert_file) as device:
            assert await device.published("a/b", b"1")
        reader, writer = await asyncio.open_connection(engine.info.mqtt_host, engine.info.mqtt_port)
        writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01x")
        async with asyncio.timeout(10):
            answer = await reader.read(64)
        assert not answer.startswith(b"\x20")  # no CONNACK
        writer.close()


# ── an external server ───────────────────────────────────────────────────────────────────────────────


async def test_an_external_server_is_used_and_left_alone(engine: Engine, tmp_path: Path) -> None:
    """By URL, with the users of a file; `stop` does not end it."""
    config = EngineConfig(url=engine.info.urls[0], credentials_file=str(tmp_path / "engine" / "engine.json"))
    outside = Engine(config, StoreConfig(), tmp_path / "other", name="4401")
    info = await outside.start()
    assert info.pid == 0
    assert info.server_id == engine.info.server_id
    client = await outside.connect(Role.GATEWAY)
    await client.close()
    await outside.stop()
    assert alive(engine.info.pid)


async def test_an_external_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """With its address and what was wrong."""
    port = free_port()
    (tmp_path / "users.json").write_text(json.dumps({"port": 0, "mqtt_port": 0, "passwords": {}, "issuer_seed": ""}))
    config = EngineConfig(url=f"nats://127.0.0.1:{port}", credentials_file=str(tmp_path / "users.json"))
    with pytest.raises(EngineError, match=str(port)):
        await Engine(config, StoreConfig(), tmp_path, name="4401").start()
