"""A platform as its client sees it: answers of any size, however they arrive."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sensegate.viid import client as module
from sensegate.viid.client import ViidClient


@pytest.mark.parametrize("bytes_max", [8 * 1024**2, 500_000])
async def test_an_answer_is_read_to_its_end(bytes_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of a megabyte arrives in pieces, and is whole; a longer one than the limit is cut there."""
    monkeypatch.setattr(module, "RESPONSE_BYTES_MAX", bytes_max)

    async def serve(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1_000_000)

    app = web.Application()
    app.router.add_get("/VIID/APEs", serve)
    async with TestServer(app) as server:
        client = ViidClient(str(server.make_url("")), "44010000005030000001")
        try:
            assert len(await client.get("/VIID/APEs")) == min(1_000_000, bytes_max)
        finally:
            await client.close()
