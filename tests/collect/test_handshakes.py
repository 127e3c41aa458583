"""Paced TLS handshakes: all that come at once get theirs, silent connections keep nobody waiting."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import cast

import pytest

from sensegate.authority.certificates import LaboratoryCA
from sensegate.bus.trust import server_context
from sensegate.collect import handshakes
from sensegate.collect.handshakes import PacedListener, listening_socket

HOST = "127.0.0.1"


class Greeter(asyncio.Protocol):
    """Greets whoever has connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"hello")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a server's certificate."""
    directory = tmp_path_factory.mktemp("tls")
    LaboratoryCA(directory, dt.datetime.now(dt.UTC)).issue("server", "server", usage="server", hosts=(HOST,))
    return directory


def listener_of(certificates: Path) -> tuple[PacedListener, int]:
    """Return a listener and its port."""
    listening = listening_socket(HOST, 0, 128)
    cert, key = str(certificates / "server.pem"), str(certificates / "server.key")
    context = server_context("test", cert_file=cert, key_file=key)
    return PacedListener(listening, context, Greeter), int(listening.getsockname()[1])


async def greeted(port: int, certificates: Path) -> bytes:
    """Connect by TLS; return the greeting."""
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    greeting = await reader.read(5)
    writer.close()
    return greeting


async def test_a_crowd_is_served_past_silent_connections(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two places, and twenty connections that say nothing, thirty clients all get their handshake.

    Control: were a place taken at the acceptance, the silent ones would have them all.
    """
    monkeypatch.setattr(handshakes, "HANDSHAKES_MAX", 2)
    listener, port = listener_of(certificates)
    silent = [await asyncio.open_connection(HOST, port) for _ in range(20)]
    async with asyncio.timeout(handshakes.SILENT_S):
        greetings = await asyncio.gather(*(greeted(port, certificates) for _ in range(30)))
    assert greetings == [b"hello"] * 30
    listener.close()
    for _, writer in silent:
        writer.close()


async def test_a_silent_connection_is_closed(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is no TLS ends without an answer; the next client is served."""
    monkeypatch.setattr(handshakes, "SILENT_S", 0.1)
    listener, port = listener_of(certificates)
    reader, writer = await asyncio.open_connection(HOST, port)
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00")
    async with asyncio.timeout(30):
        await reader.read()
    writer.close()
    assert await greeted(port, certificates) == b"hello"
    listener.close()
