"""Every link by TLS, with certificates that `sensegate tls init` made: curl, openssl and paho on the other side."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from msgspec.structs import replace
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from typer.testing import CliRunner

from sensegate.authority.certificates import fingerprint
from sensegate.authority.slots import node_slots
from sensegate.bus import external, process
from sensegate.bus.engine import Engine
from sensegate.bus.free_ports import free_port
from sensegate.cli import app
from sensegate.clock import SystemClock
from sensegate.config import (
    Config,
    EngineConfig,
    ListenConfig,
    MqttConfig,
    NodeUserConfig,
    TlsConfig,
    UplinkConfig,
    WebConfig,
)
from sensegate.config.people import OidcConfig, OidcRule
from sensegate.config.sites import CentreConfig, PeerConfig
from sensegate.errors import ConfigError, EngineError, PermissionDenied, Untrusted
from sensegate.failover import active
from sensegate.failover.terms import CentreState, Term, decode_state, encode
from sensegate.tiers import membership, route
from sensegate.tiers.link import CentreLink, NodeLinks
from tests.conftest import eventually
from tests.live.site import Site, config_of, reading, running
from tests.web.provider import providing

pytestmark = pytest.mark.live


class Lab:
    """Files of `sensegate tls init`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = str(directory / "ca.pem")

    def pair(self, name: str) -> tuple[str, str]:
        """Return certificate and key."""
        return str(self.directory / f"{name}.pem"), str(self.directory / f"{name}.key")

    def tls(self, *, ask: bool = False) -> TlsConfig:
        """Return what a listener shows; `ask`: it asks its clients for theirs."""
        cert, key = self.pair("server")
        return TlsConfig(cert, key, self.ca if ask else "")

    def context(self, name: str = "") -> ssl.SSLContext:
        """Return what a client trusts, and shows."""
        made = ssl.create_default_context(cafile=self.ca)
        if name:
            made.load_cert_chain(*self.pair(name))
        return made


def init(directory: Path, *words: str) -> Lab:
    """Run the command."""
    result = CliRunner().invoke(app, ["tls", "init", str(directory), *words])
    assert result.exit_code == 0, result.output
    return Lab(directory)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    words = ("--node", "4401", "--device", "d-1", "--device", "d-2", "--client", "ops")
    return init(tmp_path_factory.mktemp("lab") / "tls", *words)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Another authority, with the same names."""
    return init(tmp_path_factory.mktemp("other") / "tls", "--node", "4401", "--device", "d-1", "--client", "ops")


async def run(*words: str) -> tuple[int, str]:
    """Run a program; return its exit code and all that it said."""
    made = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(made.communicate(), 60)
    return made.returncode or 0, out.decode(errors="replace")


async def curl(url: str, *words: str) -> tuple[int, str]:
    return await run("curl", "-sS", "-i", "--max-time", "10", *words, url)


def test_the_files_are_private_and_added_to(tmp_path: Path) -> None:
    """Keys 0600; a second run keeps what is there and adds; openssl finds the chain good."""
    lab = init(tmp_path / "tls")
    before = (lab.directory / "server.pem").read_bytes()
    repeated = init(tmp_path / "tls", "--device", "d-9")
    assert (lab.directory / "server.pem").read_bytes() == before
    assert {file.stat().st_mode & 0o077 for file in lab.directory.glob("*.key")} == {0}
    assert (repeated.directory / "device-d-9.pem").exists()
    result = CliRunner().invoke(app, ["tls", "pin", str(lab.directory / "server.pem")])
    assert result.output.strip() == fingerprint(lab.directory / "server.pem")


async def test_openssl_verifies_what_was_made(lab: Lab) -> None:
    """For their purposes, and no other."""
    for name, purpose, good in (
        ("server", "sslserver", True),
        ("device-d-1", "sslclient", True),
        ("device-d-1", "sslserver", False),
        ("node-4401", "sslclient", True),
    ):
        code, result = await run("openssl", "verify", "-CAfile", lab.ca, "-purpose", purpose, lab.pair(name)[0])
        assert (code == 0) is good, (name, purpose, result)


# ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_http_by_tls_on_several_planes(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """IPv4 and IPv6 with one port; another authority, plain HTTP and TLS 1.1 are refused; the command line goes in."""
    web = WebConfig(host="127.0.0.1", additional_hosts=("::1",), tls=lab.tls())
    async with running(replace(config_of(tmp_path / "node"), web=web)) as site:
        place = urlsplit(site.addresses.http)
        assert place.scheme == "https"
        for host in ("127.0.0.1", "[::1]", "localhost"):
            code, output = await curl(f"https://{host}:{place.port}/healthz", "--cacert", lab.ca)
            assert (code, "200 OK" in output) == (0, True), output
            assert "Strict-Transport-Security" in output
        code, output = await curl(f"{site.addresses.http}/healthz", "--cacert", other.ca)
        assert (code, "certificate" in output) == (60, True), output
        code, _ = await curl(f"http://127.0.0.1:{place.port}/healthz")
        assert code != 0
        for version, good in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            code, output = await run(
                "openssl", "s_client", "-connect", place.netloc, version, "-cipher", "ALL@SECLEVEL=0", "-CAfile", lab.ca
            )
            assert ("Verify return code: 0 (ok)" in output and code == 0) is good, (version, output)
        environment = {"SENSEGATE_URL": site.addresses.http, "SENSEGATE_TOKEN": site.admin}
        for more, exit_code in (({"SENSEGATE_CA_FILE": lab.ca}, 0), ({"SENSEGATE_CA_FILE": other.ca}, 1)):
            result = await asyncio.to_thread(CliRunner().invoke, app, ["device", "list"], env={**environment, **more})
            assert result.exit_code == exit_code, result.output


CBC = "AES128-SHA:AES256-SHA256:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256"
AEAD = "ECDHE+AESGCM:ECDHE+CHACHA20"


async def test_no_listener_takes_suites_with_cbc(lab: Lab, tmp_path: Path) -> None:
    """By TLS 1.2 at the HTTP and MQTT listeners; control: the same client is let in with AES-GCM and ChaCha20."""
    config = replace(config_of(tmp_path / "node"), web=WebConfig(tls=lab.tls()), engine=EngineConfig(tls=lab.tls()))
    async with running(config) as site:
        for url in (site.addresses.http, site.addresses.mqtt):
            for suites, good in ((CBC, False), (AEAD, True)):
                target = urlsplit(url).netloc
                code, result = await run(
                    "openssl",
                    "s_client",
                    "-connect",
                    target,
                    "-tls1_2",
                    "-cipher",
                    f"{suites}:@SECLEVEL=0",
                    "-CAfile",
                    lab.ca,
                )
                assert (code == 0 and "Verify return code: 0 (ok)" in result) is good, (url, suites, result)


async def test_http_asks_for_certificates(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """mTLS: without one and with one of another authority nothing is answered; beside it the token still counts."""
    web = WebConfig(tls=lab.tls(ask=True))
    async with running(replace(config_of(tmp_path / "node"), web=web)) as site:
        url = f"{site.addresses.http}/api/v1/me"
        bearer = ("-H", f"Authorization: Bearer {site.admin}", "--cacert", lab.ca)
        cert, key = lab.pair("client-ops")
        code, output = await curl(url, *bearer, "--cert", cert, "--key", key)
        assert (code, "200 OK" in output) == (0, True), output
        code, output = await curl(url, "--cacert", lab.ca, "--cert", cert, "--key", key)
        assert "401 Unauthorized" in output
        code, output = await curl(url, *bearer)
        assert code != 0, output
        cert, key = other.pair("client-ops")
        code, output = await curl(url, *bearer, "--cert", cert, "--key", key)
        assert code != 0, output


def test_beyond_loopback_there_is_no_plain_http(tmp_path: Path) -> None:
    """Also not by a second plane."""

    async def start() -> None:
        web = WebConfig(additional_hosts=("0.0.0.0",))  # noqa: S104 - it is refused
        async with running(replace(config_of(tmp_path / "node"), web=web)):
            pass

    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 is not loopback"):
        asyncio.run(start())


# ── devices ───────────────────────────────────────────────────────────────────────────────────────────


async def mqtt(site: Site, lab: Lab, device: Any, show: tuple[str, str] | None, payload: str = "") -> int | str:
    """Connect as a device, publish; return the CONNACK's code, or why there was none."""
    place = urlsplit(site.addresses.mqtt)
    queue: asyncio.Queue[int | str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    client = Client(CallbackAPIVersion.VERSION2, client_id=device.id, reconnect_on_failure=False)
    client.username_pw_set(device.id, device.password)
    client.tls_set(lab.ca, *(show or (None, None)))

    def note(event: int | str) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, event)

    client.on_connect = lambda _c, _u, _f, reason, _p: note(reason.value)
    client.on_disconnect = lambda _c, _u, _f, _r, _p: note("closed")
    try:
        await asyncio.to_thread(client.connect, place.hostname or "", place.port or 0)
        client.loop_start()
        code = await asyncio.wait_for(queue.get(), 60)
        if code == 0 and payload:
            await asyncio.to_thread(client.publish(device.topics[0], payload, 1).wait_for_publish, 5)
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
    return code


async def test_devices_show_certificates(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """Beside the password: none, one of another authority, and that of another device are refused."""
    engine = EngineConfig(tls=lab.tls(ask=True))
    async with running(replace(config_of(tmp_path / "node"), engine=engine)) as site:
        first, second = await site.device("d-1"), await site.device("d-2")
        assert await mqtt(site, lab, first, lab.pair("device-d-1"), reading(21.5)) == 0
        rows = await eventually(site.records)
        assert [row["device"] for row in rows] == ["d-1"]
        assert await mqtt(site, lab, first, None) != 0
        assert await mqtt(site, lab, first, other.pair("device-d-1")) != 0
        place = urlsplit(site.addresses.mqtt).netloc
        for authority, good in ((lab, True), (other, False)):
            words = ("-connect", place, "-CAfile", authority.ca, "-verify_return_error")
            _, result = await run("openssl", "s_client", *words)
            assert ("Verify return code: 0 (ok)" in result) is good, result
        assert await mqtt(site, lab, second, lab.pair("device-d-1")) != 0, "the certificate of another device"
        assert await mqtt(site, lab, second, lab.pair("client-ops")) == 0, "one that names no device is good for any"


# ── links ─────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def linked(lab: Lab, tmp_path: Path, **other_uplink: Any) -> AsyncIterator[tuple[Site, Site]]:
    """Run a centre that asks links for certificates, and a node."""
    file = tmp_path / "secret"
    file.write_text("secret of the link", encoding="ascii")
    port = free_port()
    engine = EngineConfig(port=port, tls=lab.tls(), link_ca_file=lab.ca)
    centre = replace(config_of(tmp_path / "centre", "44"), engine=engine, nodes=(NodeUserConfig("4401", str(file)),))
    cert, key = lab.pair("node-4401")
    good: dict[str, Any] = {
        "url": f"tls://127.0.0.1:{port}",
        "secret_file": str(file),
        "ca_file": lab.ca,
        "pin_sha256": (fingerprint(Path(lab.pair("server")[0])),),
        "cert_file": cert,
        "key_file": key,
    }
    uplink = UplinkConfig(**{**good, **other_uplink})
    async with (
        running(centre) as above,
        running(replace(config_of(tmp_path / "node"), uplink=uplink)) as below,
    ):
        yield above, below


async def said_of(site: Site) -> str:
    """Return what a node says of its way to the centre."""
    rows = (await site.ask("GET", "/api/v1/nodes")).body["rows"]
    detail: str = rows[0]["detail"]
    return detail


@pytest.mark.parametrize("trusted", ["authority and pin", "pin alone", "authority alone", "one of two pins"])
async def test_a_node_links_by_mutual_tls(lab: Lab, tmp_path: Path, trusted: str) -> None:
    """A reading of the node arrives at the centre."""
    pin = fingerprint(Path(lab.pair("server")[0]))
    how: dict[str, dict[str, Any]] = {
        "authority and pin": {},
        "pin alone": {"ca_file": ""},
        "authority alone": {"pin_sha256": ()},
        "one of two pins": {"pin_sha256": ("0" * 64, ":".join(pin[at : at + 2] for at in range(0, 64, 2)).upper())},
    }
    async with linked(lab, tmp_path, **how[trusted]) as (centre, node):
        device = await node.device("d-1")
        await node.push(device, reading(21.5))
        rows = await eventually(lambda: centre.records(device="d-1"), 30)
        assert [row["value"] for row in rows] == [21.5]
        assert await said_of(node) == "centre connected"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another certificate than the pinned": ({"pin_sha256": ("0" * 64,)}, "none of the pinned fingerprints"),
    "another certificate, no authority": ({"pin_sha256": ("0" * 64,), "ca_file": ""}, "none of the pinned"),
    "another authority": ({"ca_file": "other"}, "self-signed certificate"),
    "no certificate of its own": ({"cert_file": "", "key_file": ""}, "certificate required"),
    "a certificate of another authority": ({"cert_file": "other", "key_file": "other"}, "unknown ca"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_link_is_refused_and_said(lab: Lab, other: Lab, tmp_path: Path, wrong: str) -> None:
    """Nothing is forwarded, the secret is not sent, and the node says what is wrong; devices go on."""
    given, words = WRONG[wrong]
    cert, key = other.pair("node-4401")
    files = {"ca_file": other.ca, "cert_file": cert, "key_file": key}
    uplink = {name: files[name] if value == "other" else value for name, value in given.items()}
    async with linked(lab, tmp_path, **uplink) as (centre, node):

        async def is_warned() -> bool:
            return words in await said_of(node)

        device = await node.device("d-1")
        assert (await node.push(device, reading(21.5))).status == 202
        await eventually(is_warned, 30)
        assert await centre.records() == []


async def test_two_centres_and_their_nodes_by_mutual_tls(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """The other centre is reached, and by a node the second of its centres; whatever is wrong is refused before it."""
    file = tmp_path / "secret"
    file.write_text("secret-of-both-0123456789", encoding="ascii")
    port, (cert, key), pin = free_port(), lab.pair("node-4401"), fingerprint(Path(lab.pair("server")[0]))
    peer = PeerConfig(f"tls://127.0.0.1:{port}", str(file), lab.ca, pin_sha256=(pin,), cert_file=cert, key_file=key)
    config = replace(
        config_of(tmp_path / "centre", "44"),
        engine=EngineConfig(port=port, tls=lab.tls(), link_ca_file=lab.ca),
        nodes=(NodeUserConfig("4401", str(file)),),
        peer=peer,
    )

    async def lease(division: str, _plea: bytes) -> bytes:
        return encode(CentreState(active=True, term=len(division)))

    async with Engine.of(config, slots=node_slots(config)) as engine:
        links = NodeLinks(engine.connect_slot, SystemClock())
        links.answers["lease"] = lease
        links.assign({"44": "44", "4401": "4401"})
        answering = asyncio.create_task(links.run())
        await eventually(lambda: len(links.connected) == 2)
        for good in (peer, replace(peer, ca_file=""), replace(peer, pin_sha256=())):
            state = await active.peer_state(replace(config, peer=good), Term())
            assert state == CentreState(active=True, term=2), good
        for wrong in (
            {"pin_sha256": ("0" * 64,)},
            {"ca_file": other.ca},
            {"ca_file": "", "pin_sha256": ()},
            {"cert_file": other.pair("node-4401")[0], "key_file": other.pair("node-4401")[1]},
        ):
            with pytest.raises(Untrusted):
                await active.connect_peer(replace(config, peer=replace(peer, **wrong)))
        second = CentreConfig(peer.url, lab.ca, (pin,))
        first = route.CentreRoute("4401", "4401", "nats://away:1", "secret-of-both-0123456789", None)
        for there, trusted in ((second, True), (replace(second, pin_sha256=("0" * 64,)), False)):
            uplink = UplinkConfig(url=first.url, other_centres=(there,), cert_file=cert, key_file=key)
            try:
                link = await route.connect_to_centre(route.route_of_turn(first, uplink, 1))
                answer = await CentreLink(link, slot="4401", member="4401").ask("lease")
                assert CentreState(active=True, term=4) == decode_state(answer)
                await link.close()
            except Untrusted:
                assert not trusted
            else:
                assert trusted
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def test_pins_need_tls(tmp_path: Path) -> None:
    """A pinned centre by nats:// would be no pinned centre."""
    (tmp_path / "secret").write_text("x", encoding="ascii")
    uplink = UplinkConfig(url="nats://127.0.0.1:9", secret_file=str(tmp_path / "secret"), pin_sha256=("0" * 64,))
    with pytest.raises(BaseExceptionGroup) as why:
        async with running(replace(config_of(tmp_path / "node"), uplink=uplink)) as site:
            await site.task
    assert why.group_contains(ConfigError, match="not a tls:// address")


async def test_a_node_joins_by_code_over_tls(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """The code names the centre's certificate; the link trusts the one that is told, and shows the node's own."""
    centre = replace(
        config_of(tmp_path / "centre", "44"),
        web=WebConfig(tls=lab.tls()),
        engine=EngineConfig(tls=lab.tls(), link_ca_file=lab.ca),
    )
    cert, key = lab.pair("node-4401")
    async with running(centre) as above:
        connector = aiohttp.TCPConnector(ssl=lab.context())
        async with aiohttp.ClientSession(connector=connector) as above.session:
            invited = await above.ask("POST", "/api/v1/nodes", json={"division": "4401"})
            assert invited.status == 201, invited.body
            code = invited.body["code"]
            with pytest.raises(PermissionDenied, match="another certificate"):
                await membership.join(tmp_path / "x", code[:-64] + "0" * 64, above.addresses.http)
            (tmp_path / "code").write_text(code, encoding="ascii")
            uplink = UplinkConfig(
                centre_url=above.addresses.http, join_code_file=str(tmp_path / "code"), cert_file=cert, key_file=key
            )
            async with running(replace(config_of(tmp_path / "node"), uplink=uplink)) as node:
                device = await node.device("d-1")
                await node.push(device, reading(21.5))
                rows = await eventually(lambda: above.records(device="d-1"), 30)
                assert [row["value"] for row in rows] == [21.5]


async def test_a_provider_of_identities_with_a_private_authority(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """`oidc.ca_file`: with another authority it is not spoken to."""
    async with providing(tls=server_context(lab)) as provider:
        for authority, status in ((lab, 303), (other, 503)):
            oidc = OidcConfig(
                issuer=provider.issuer,
                client_id="sensegate",
                redirect_url="https://gateway.example/api/v1/session/oidc/callback",
                ca_file=authority.ca,
                rules=(OidcRule("groups", "city", "city_operator", scope="4401"),),
            )
            async with running(replace(config_of(tmp_path / str(status)), oidc=oidc)) as site:
                answer = await site.ask("GET", "/api/v1/session/oidc", "", allow_redirects=False)
                assert answer.status == status


def server_context(lab: Lab) -> ssl.SSLContext:
    """Return what a server shows."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(*lab.pair("server"))
    return made


# ── a server of others ────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def served(config: Config, directory: Path, lab: Lab) -> AsyncIterator[Config]:
    """Run a nats-server on the files that `sensegate engine` writes, with TLS that asks for certificates."""
    ports = EngineConfig(port=free_port(), mqtt_port=free_port(), tls=lab.tls(), link_ca_file=lab.ca)
    (written,), users = external.write(replace(config, engine=ports), directory, slots=node_slots(config))
    server = await asyncio.create_subprocess_exec(process.binary(), "-c", written)
    cert, key = lab.pair("server")
    entered = EngineConfig(
        url=f"tls://127.0.0.1:{ports.port}",
        credentials_file=str(users),
        mqtt_port=ports.mqtt_port,
        ca_file=lab.ca,
        tls=TlsConfig(cert, key),
    )

    async def answers() -> bool:
        with contextlib.suppress(OSError, EOFError):
            await process.read_server_info("127.0.0.1", ports.port)
            return True
        return False

    try:
        await eventually(answers)
        yield msgspec.structs.replace(config, engine=entered)
    finally:
        server.terminate()
        await server.wait()


async def test_a_server_of_others_with_a_private_authority(lab: Lab, other: Lab, tmp_path: Path) -> None:
    """Entered with the right authority and our certificate; with another authority the error says so."""
    async with served(config_of(tmp_path / "gateway"), tmp_path / "server", lab) as config:
        async with running(config) as site:
            device = await site.device("d-1")
            assert (await site.push(device, reading(21.5))).status == 202
            assert [row["value"] for row in await eventually(site.records)] == [21.5]
        for wrong, message in (
            ({"ca_file": other.ca}, "self-signed certificate"),
            ({"tls": TlsConfig()}, "certificate"),
        ):
            with pytest.raises(EngineError, match=message):
                async with running(replace(config, engine=replace(config.engine, **wrong))):
                    pass


# ── replaced while it runs ──


async def shown(url: str, lab: Lab) -> str:
    """Return the fingerprint of the certificate that a listener shows."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        if place.scheme == "tls":
            assert (await reader.readline()).startswith(b"INFO ")
        context = lab.context("client-ops")
        context.check_hostname = False
        await writer.start_tls(context)
        raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return hashlib.sha256(raw).hexdigest()
    finally:
        writer.transport.abort()


async def test_certificates_are_replaced_without_a_restart(tmp_path: Path) -> None:
    """On all three listeners; devices come back by themselves, nothing is lost; our own connections trust both."""
    words = ("--client", "ops", "--device", "d-1")
    lab = init(tmp_path / "tls", *words)
    config = replace(
        config_of(tmp_path / "node"),
        web=WebConfig(tls=lab.tls()),
        engine=EngineConfig(tls=lab.tls(ask=True), link_ca_file=lab.ca),
    )
    async with running(config) as site:
        connector = aiohttp.TCPConnector(ssl=lab.context())
        async with aiohttp.ClientSession(connector=connector) as site.session:
            urls = (site.addresses.http, site.addresses.mqtt, site.addresses.nats)
            device = await site.device("d-1")
            before = fingerprint(lab.directory / "server.pem")
            assert {await shown(url, lab) for url in urls} == {before}
            async with speaking(site, lab, device) as client:
                await eventually(client.publish(device.topics[0], reading(1), 1).is_published)
                for file in lab.pair("server"):
                    Path(file).unlink()
                init(tmp_path / "tls", *words)
                after = fingerprint(lab.directory / "server.pem")
                assert after != before

                async def renewed() -> bool:
                    return {await shown(url, lab) for url in urls} == {after}

                await eventually(renewed, 30, every_s=0.5)
                await eventually(lambda: _sent(client, device, reading(2, "2026-01-01T00:01:00Z")), 30)
            os.kill(site.addresses.engine_pid, signal.SIGKILL)

            async def stored() -> bool:
                pushed = await site.push(device, reading(3, "2026-01-01T00:02:00Z"))
                values = {row["value"] for row in await site.records()} if pushed.status == 202 else set()
                return values == {1, 2, 3}  # several times each: they are too old to be judged

            await eventually(stored, 30, every_s=0.5)


async def _sent(client: Client, device: Any, payload: str) -> bool:
    """Publish; return whether the PUBACK came."""
    with contextlib.suppress(RuntimeError):
        sent = client.publish(device.topics[0], payload, 1)
        await asyncio.to_thread(sent.wait_for_publish, 1)
        return sent.is_published()
    return False


@contextlib.asynccontextmanager
async def speaking(site: Site, lab: Lab, device: Any) -> AsyncIterator[Client]:
    """Connect a device that stays."""
    place = urlsplit(site.addresses.mqtt)
    client = Client(CallbackAPIVersion.VERSION2, client_id=device.id, clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.username_pw_set(device.id, device.password)
    client.tls_set(lab.ca, *lab.pair("device-d-1"))
    await asyncio.to_thread(client.connect, place.hostname or "", place.port or 0)
    client.loop_start()
    try:
        await eventually(client.is_connected)
        yield client
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)


# ── IPv6 ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_listener_by_ipv6(lab: Lab, tmp_path: Path) -> None:
    """HTTP, MQTT and the engine on ::1."""
    config = replace(
        config_of(tmp_path / "node"),
        web=WebConfig(host="::1", tls=lab.tls()),
        engine=EngineConfig(host="::1", tls=lab.tls()),
        listen=ListenConfig(mqtt=MqttConfig(host="::1", processes=0)),
    )
    async with running(config) as site:
        assert {urlsplit(url).hostname for url in (site.addresses.http, site.addresses.mqtt, site.addresses.nats)} == {
            "::1"
        }
        code, output = await curl(f"{site.addresses.http}/healthz", "--cacert", lab.ca)
        assert (code, "200 OK" in output) == (0, True), output
        connector = aiohttp.TCPConnector(ssl=lab.context())
        async with aiohttp.ClientSession(connector=connector) as site.session:
            device = await site.device("d-1")
            assert await mqtt(site, lab, device, None, reading(21.5)) == 0
            assert [row["value"] for row in await eventually(site.records)] == [21.5]
