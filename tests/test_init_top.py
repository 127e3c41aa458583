"""`sensegate init` writes a configuration that starts; `sensegate top` shows what the gateway answers."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import os
import pty
import re
import signal
import ssl
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console
from typer.testing import CliRunner, Result

from sensegate.bus.free_ports import free_port
from sensegate.cli import app, top
from sensegate.config import load
from sensegate.errors import ConfigError
from sensegate.web.client import GatewayClient
from tests.conftest import eventually
from tests.live.site import PLAIN

RUNNER = CliRunner()
STARTED_S = 180.0
"""A process begins on a machine that may be busy."""
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - written into a configuration that nothing starts


def call(*arguments: str, answers: str = "") -> Result:
    return RUNNER.invoke(app, list(arguments), input=answers, catch_exceptions=False)


def test_five_answers_write_a_configuration(tmp_path: Path) -> None:
    """Role, division, folder, address and start are asked in this order; the file that is written can be loaded."""
    folder = tmp_path / "gz"
    result = call("init", answers=f"node\n4401\n{folder}\n127.0.0.1\nn\n")
    assert result.exit_code == 0, result.output
    assert len(re.findall(r" \[[^\]]+\]: ", result.output)) == 5
    loaded = load(folder / "config.yaml")
    assert (loaded.role, loaded.division, loaded.web.host, loaded.web.port) == ("node", "4401", "127.0.0.1", 18_080)
    assert loaded.directory == str(folder / "data")
    assert "http://127.0.0.1:18080/console/" in result.output
    assert not (folder / "certificates").exists()


def test_options_ask_nothing_and_a_host_brings_certificates(tmp_path: Path) -> None:
    """With a host that others reach, each listener has a certificate for it that the written CA verifies."""
    folder = tmp_path / "centre"
    options = (
        "--role",
        "centre",
        "--directory",
        str(folder),
        "--host",
        "centre.example",
        "--web-port",
        "9443",
        "--yes",
    )
    result = call("init", *options)
    assert result.exit_code == 0, result.output
    loaded = load(folder / "config.yaml")
    assert (loaded.division, loaded.web.host, loaded.web.port) == ("44", EVERY_ADDRESS, 9443)
    for tls in (loaded.web.tls, loaded.engine.tls):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert_file, tls.key_file)
    assert Path(loaded.web.tls.key_file).stat().st_mode & 0o077 == 0
    assert "https://centre.example:9443/console/" in result.output
    assert "SENSEGATE_CA_FILE=" in result.output


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--division", "9999", "division"),
        ("--division", "x", "division"),
        ("--host", "http://x", "host"),
        ("--host", EVERY_ADDRESS, "host"),
    ],
)
def test_a_wrong_answer_leaves_no_configuration(tmp_path: Path, option: str, value: str, key: str) -> None:
    """What is refused names its key, and the next attempt is not stopped by a file that is there already."""
    with pytest.raises(ConfigError) as refused:
        call("init", "--role", "node", "--directory", str(tmp_path), "--yes", option, value)
    assert refused.value.key == key
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize("code", ["44", "440000"])
def test_a_node_is_no_gateway_of_a_province(tmp_path: Path, code: str) -> None:
    """The centre could not invite it; a centre of the same code and a node of a city or below are accepted."""
    with pytest.raises(ConfigError) as refused:
        call("init", "--role", "node", "--division", code, "--directory", str(tmp_path / "node"), "--yes")
    assert str(refused.value) == (
        f"division: {code} is the province Guangdong; a node is the gateway of a city; "
        "give a city, as 4401, or --role centre for the gateway of a province"
    )
    assert not (tmp_path / "node").exists()
    for role, accepted in (("centre", code), ("node", "4401"), ("node", "440106")):
        folder = tmp_path / f"{role}-{accepted}"
        result = call("init", "--role", role, "--division", accepted, "--directory", str(folder), "--yes")
        assert result.exit_code == 0, result.output


def test_a_configuration_is_not_overwritten(tmp_path: Path) -> None:
    """The second run in a folder is refused and changes nothing."""
    assert call("init", "--role", "node", "--directory", str(tmp_path), "--yes").exit_code == 0
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        call("init", "--role", "centre", "--directory", str(tmp_path), "--yes")
    assert (tmp_path / "config.yaml").read_bytes() == before


# ── top ──────────────────────────────────────────────────────────────────────────────────────────────

ALARM = {"device": "wl-1", "node": "44", "title": "high water", "rule": "w", "severity": "critical"}
NODE = {"member": "4401", "role": "node", "state": "up", "lag_entries": 7, "devices": 3, "problems": ["clock is off"]}
DOCUMENTS: dict[str, Any] = {
    "/api/v1/me": {"gateway_role": "centre", "gateway_division": "44", "name": "lin", "scope": "44"},
    "/readyz": {"ready": True, "reasons": [], "warnings": ["disk: 90 % used"], "devices": {"active": 3, "silent": 1}},
    "/api/v1/ledger": {
        "totals": {"messages": 5, "duplicate.repeat": 2, "duplicate.replay": 1, "accepted": 9},
        "balanced": True,
        "delivered": 8,
    },
    "/api/v1/nodes": {"rows": [NODE, {**NODE, "member": "4403", "state": "silent", "problems": []}]},
    "/api/v1/alarms": {"rows": [ALARM]},
}


@pytest.fixture
async def gateway() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The answers of a gateway, which a test may change, on loopback."""
    documents = dict(DOCUMENTS)

    async def answer(request: web.Request) -> web.Response:
        document = documents.get(request.path)
        if document is None:
            return web.json_response({"title": "Forbidden", "status": 403}, status=403)
        return web.json_response(document, status=200 if document.get("ready", True) else 503)

    application = web.Application()
    application.router.add_get("/{rest:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    yield f"http://{host}:{port}", documents
    await runner.cleanup()


async def test_top_names_what_is_worst_first(gateway: tuple[str, dict[str, Any]]) -> None:
    """Silent nodes and critical alarms come before warnings; duplicates of all kinds are one figure."""
    url, _ = gateway
    result = await asyncio.to_thread(call, "top", "--json", "--url", url)
    assert result.exit_code == 0, result.output
    overview = json.loads(result.output)
    assert overview["counts"]["duplicate"] == 3
    urgent = [need["text"] for need in overview["needs"] if need["urgent"]]
    assert urgent == ["alarm, critical: wl-1: high water", "node 4403 is silent"]
    assert [need["urgent"] for need in overview["needs"]] == [True, True, False, False]


async def test_top_prints_lines_into_a_pipe(gateway: tuple[str, dict[str, Any]]) -> None:
    """A pipe gets tab-separated lines once; what the caller may not see is left out; not ready: exit code 1."""
    url, documents = gateway
    del documents["/api/v1/nodes"]
    documents["/readyz"] = {**documents["/readyz"], "ready": False, "reasons": ["store: no space"]}
    result = await asyncio.to_thread(call, "top", "--url", url)
    assert result.exit_code == 1
    rows = dict(line.split("\t", 1) for line in result.output.splitlines())
    assert rows["messages"] == "5"
    assert rows["devices_silent"] == "1"
    assert "urgent\tstore: no space" in result.output
    assert "node_" not in result.output


async def test_top_draws_the_overview(gateway: tuple[str, dict[str, Any]]) -> None:
    """The drawing holds the flow, the nodes and the needs, and fits 80 columns."""
    url, _ = gateway
    async with GatewayClient(url) as remote:
        overview = await top.read_overview(remote)
    screen = Console(width=80, record=True, file=io.StringIO())
    screen.print(top.drawn(overview, dt.datetime(2026, 12, 1, tzinfo=dt.UTC), away="refused"))
    text = screen.export_text()
    for word in ("centre 44", "balanced", "delivered", "4403", "silent", "high water", "the gateway is away: refused"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
async def test_top_is_a_live_screen_in_a_terminal(gateway: tuple[str, dict[str, Any]]) -> None:
    """In a terminal it takes the whole screen, follows the gateway, and gives the screen back at Ctrl-C."""
    url, documents = gateway
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 100))
    environment = {**os.environ, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "sensegate.cli", "top", "--every", "0.5", "--url", url]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    screen = bytearray()
    loop = asyncio.get_running_loop()
    os.set_blocking(master, False)

    def read() -> None:
        try:
            screen.extend(os.read(master, 65_536))
        except OSError:
            loop.remove_reader(master)

    loop.add_reader(master, read)
    try:
        await eventually(lambda: b"what needs you now" in screen, STARTED_S)
        assert screen.startswith(b"\x1b[?1049h"), "the other screen"
        documents["/readyz"] = {**documents["/readyz"], "warnings": ["disk: 99 % used"]}
        await eventually(lambda: b"99 % used" in screen, STARTED_S)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.wait(), STARTED_S)
        await eventually(lambda: b"\x1b[?1049l" in screen, STARTED_S)
        assert process.returncode == 0
    finally:
        loop.remove_reader(master)
        os.close(master)
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.live
async def test_what_init_writes_starts_and_top_reads_it(tmp_path: Path) -> None:
    """`init --start` runs a gateway whose console answers, and `top` reads it with the token of the first start."""
    ports = [str(port) for port in (free_port(), free_port(), free_port())]
    command = [sys.executable, "-m", "sensegate.cli", "init", "--role", "node", "--directory", str(tmp_path), "--yes"]
    command += [
        "--profiles",
        str(PLAIN),
        "--start",
        "--web-port",
        ports[0],
        "--mqtt-port",
        ports[1],
        "--engine-port",
        ports[2],
    ]
    started = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        token_file, url = tmp_path / "data" / "admin.token", f"http://127.0.0.1:{ports[0]}"

        async def is_shown() -> bool:
            if not token_file.exists():
                return False
            options = ("top", "--json", "--url", url, "--token", token_file.read_text().strip())
            result = await asyncio.to_thread(RUNNER.invoke, app, list(options))
            return result.exit_code == 0 and json.loads(result.output)["title"].startswith("node 4401")

        await eventually(is_shown, STARTED_S)
    finally:
        started.terminate()
        await started.wait()
