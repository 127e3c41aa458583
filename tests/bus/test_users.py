"""Users and accounts, TLS, and a server that is not ours."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nats.aio.client import Client
from nats.aio.msg import Msg
from paho.mqtt.enums import CallbackAPIVersion

from sensegate.bus import connect, streams
from sensegate.bus.engine import Connection, Engine, User
from sensegate.bus.free_ports import free_port
from sensegate.config import EngineConfig, StoreConfig, TlsConfig
from sensegate.errors import ConfigError, EngineError, PermissionDenied, Unavailable
from tests.bus.devices import MqttDevice, alive, engine_in, until
from tests.conftest import eventually

# ── users ────────────────────────────────────────────────────────────────────────────────────────────


async def test_accounts_are_kept_apart(engine: Engine, gateway: Client) -> None:
    """A message in one account is seen in no other."""
    intake = await engine.connect(User.INTAKE)
    result = await intake.subscribe(">")
    await gateway.publish("sg.secret", b"x")
    await gateway.flush()
    await intake.flush()
    assert result.pending_msgs == 0
    await intake.close()


@pytest.mark.parametrize(("user", "password"), [("gateway", "wrong"), ("nobody", "x"), ("", "")])
async def test_wrong_credentials_are_refused(engine: Engine, user: str, password: str) -> None:
    """At once, not after endless attempts."""
    callout = await engine.connect(User.CALLOUT)

    async def refuse(message: Msg) -> None:
        await message.respond(b"no")

    await callout.subscribe("$SYS.REQ.USER.AUTH", cb=refuse)
    with pytest.raises(PermissionDenied):
        await connect.connect(engine.info.urls[0], connect.Login(user, password), link_options=connect.LinkOptions(5.0))
    await callout.close()


async def test_internal_users_are_refused_over_mqtt(engine: Engine) -> None:
    """Even with its password no internal user but FEEDS speaks MQTT."""
    codes: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="x", protocol=mqtt.MQTTv311)
    client.on_connect = lambda _c, _u, _f, code, _p: codes.append(code.value)
    credential = engine.credential(User.INTAKE)
    client.username_pw_set(credential.user, credential.password)
    await asyncio.to_thread(client.connect, engine.info.mqtt_host, engine.info.mqtt_port)
    client.loop_start()
    await until(lambda: codes)
    await asyncio.to_thread(client.loop_stop)
    client.disconnect()
    assert codes[0] != 0


async def test_kick_closes_the_connections_of_a_client(engine: Engine) -> None:
    """By MQTT client id or by user, within two seconds; others stay."""
    async with MqttDevice(engine, "device-1") as phone, MqttDevice(engine, "device-2") as other:
        assert await engine.kick("SUB", "device-1") == 1
        await until(lambda: phone.disconnects, 2.0)
        assert other.disconnects == 0
        assert await engine.kick("SUB", "nobody") == 0
        assert await engine.kick("SUB", user="feeds") >= 1
        await until(lambda: other.disconnects, 2.0)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tls(tmp_path: Path) -> TlsConfig:
    """A self-signed certificate for a name that is not the address."""
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


@pytest.mark.live
async def test_with_certificates_both_listeners_speak_tls_alone(tmp_path: Path, tls: TlsConfig) -> None:
    """Our own connections trust exactly our certificate; beyond loopback MQTT behind the front is by TLS alone too."""
    async with engine_in(tmp_path, EngineConfig(mqtt_host="0.0.0.0", tls=tls)) as engine:  # noqa: S104 - a machine of others
        assert engine.info.urls[0].startswith("tls://")
        client = await engine.connect(User.GATEWAY)
        assert client._transport is not None
        await streams.ensure_streams(client, StoreConfig())
        await client.close()
        async with MqttDevice(engine, ca_file=tls.cert_file) as device:
            assert await device.published("a/b", b"1")
        reader, writer = await asyncio.open_connection(engine.info.mqtt_host, engine.info.mqtt_port)
        writer.write(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x0a\x00\x01x")
        async with asyncio.timeout(60):
            answer = await reader.read(64)
        assert not answer.startswith(b"\x20")  # no CONNACK
        writer.close()


@pytest.mark.parametrize("key", ["host", "mqtt_host"])
async def test_beyond_loopback_only_with_tls(tmp_path: Path, key: str) -> None:
    """Passwords do not travel in the open: it does not start, and leaves nothing."""
    config = msgspec.convert({key: "0.0.0.0"}, EngineConfig)  # noqa: S104 - it is refused
    with pytest.raises(ConfigError, match=f"engine.{key}"):
        await Engine(config, StoreConfig(), tmp_path, name="4401").start()
    assert not list(tmp_path.iterdir())


# ── an external server ───────────────────────────────────────────────────────────────────────────────


async def test_an_external_server_is_used_and_left_alone(engine: Engine, tmp_path: Path) -> None:
    """By URL, with the users of a file; `stop` does not end it."""
    config = EngineConfig(url=engine.info.urls[0], credentials_file=str(tmp_path / "engine" / "engine.json"))
    outside = Engine(config, StoreConfig(), tmp_path / "other", name="4401")
    info = await outside.start()
    assert info.pid == 0
    assert info.server_id == engine.info.server_id
    client = await outside.connect(User.GATEWAY)
    await client.close()
    await outside.stop()
    assert alive(engine.info.pid)


async def test_an_external_server_that_was_started_again_is_asked_under_its_new_name(
    engine: Engine, tmp_path: Path
) -> None:
    """Connections are seen and closed after its restart too; of a cluster, one server that answers is enough."""
    dead = f"nats://127.0.0.1:{free_port()}"
    config = EngineConfig(
        url=f"{dead},{engine.info.urls[0]}", credentials_file=str(tmp_path / "engine" / "engine.json")
    )
    outside = Engine(config, StoreConfig(), tmp_path / "other", name="4401")
    await outside.start()
    try:
        assert await outside.connections("SG") == []
        engine.restarted.clear()
        os.kill(engine.info.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            await engine.restarted.wait()
        client = await outside.connect(User.FEEDS)
        result = await eventually(lambda: _connections(outside), 30)
        await outside.close_connection(result[0].cid)
        await client.close()
    finally:
        await outside.stop()


async def _connections(outside: Engine) -> list[Connection]:
    try:
        return await outside.connections("SUB")
    except Unavailable:
        return []


async def test_an_external_server_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """With its address and what was wrong."""
    port = free_port()
    (tmp_path / "users.json").write_text(json.dumps({"port": 0, "mqtt_port": 0, "passwords": {}, "issuer_seed": ""}))
    config = EngineConfig(url=f"nats://127.0.0.1:{port}", credentials_file=str(tmp_path / "users.json"))
    with pytest.raises(EngineError, match=str(port)):
        await Engine(config, StoreConfig(), tmp_path, name="4401").start()
