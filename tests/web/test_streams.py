"""A block of records that many subscribers get is not copied for each of them by the HTTP library."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from typing import Any, cast

import pytest
from aiohttp import http_writer
from aiohttp.base_protocol import BaseProtocol

from sensegate.web import listener

BLOCK = b"data: {}\n\n" * 1_000


class Pieces(asyncio.Transport):
    """Notes the objects that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Any] = []

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.pieces.append(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.pieces += list_of_data


async def pieces_of(block: bytes) -> list[Any]:
    """Return what the writer of a response without a length gives its transport for a block."""
    protocol = BaseProtocol(asyncio.get_running_loop())
    transport = Pieces()
    protocol.transport = cast("asyncio.Transport", transport)
    writer = http_writer.StreamWriter(protocol, asyncio.get_running_loop())
    writer.enable_chunking()
    await writer.write(block, drain=False)
    assert b"".join(transport.pieces) == b"%x\r\n%b\r\n" % (len(block), block)
    return transport.pieces


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 9), reason="the writelines of asyncio fails there")
async def test_a_block_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport gets the block itself, with the marks of its chunk beside it."""
    monkeypatch.setattr(http_writer, "SKIP_WRITELINES", http_writer.SKIP_WRITELINES)  # put back afterwards
    listener.send_chunks_in_pieces()
    assert any(piece is BLOCK for piece in await pieces_of(BLOCK))


async def test_as_shipped_the_library_would_copy_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: where it does not trust `writelines`, it joins block and marks for each subscriber."""
    monkeypatch.setattr(http_writer, "SKIP_WRITELINES", True)
    assert not any(piece is BLOCK for piece in await pieces_of(BLOCK))
