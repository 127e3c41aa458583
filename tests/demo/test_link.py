from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sensegate.demo.link import FaultyLink


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def link(echo: int) -> AsyncIterator[FaultyLink]:
    """A link to the echo server."""
    link = FaultyLink("127.0.0.1", echo)
    await link.start()
    yield link
    await link.stop()


async def ask(link: FaultyLink) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), 30) == b"hello"
    return reader, writer


async def test_a_whole_link_forwards_and_counts(link: FaultyLink) -> None:
    """Bytes go both ways and are counted at the socket."""
    _, writer = await ask(link)
    assert (link.bytes_up, link.bytes_down) == (5, 5)
    writer.close()


async def test_a_cut_resets_and_refuses_until_mended(link: FaultyLink) -> None:
    """Open connections end at once, new ones too, until `restore`."""
    reader, writer = await ask(link)
    await link.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.readexactly(1), 30)
    writer.close()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ask(link)
    assert not link.is_up
    link.restore()
    _, writer = await ask(link)
    writer.close()


async def test_a_stall_moves_nothing_and_loses_nothing(link: FaultyLink) -> None:
    """A stalled link keeps the connection and delivers after `restore`."""
    reader, writer = await ask(link)
    link.stall()
    writer.write(b"again")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readexactly(5), 0.2)
    link.restore()
    assert await asyncio.wait_for(reader.readexactly(5), 30) == b"again"
    writer.close()
