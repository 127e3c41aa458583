"""Headers of compressed responses."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sensegate.web.encoding import compress


async def test_what_else_a_response_varies_by_stays() -> None:
    """A cache that knew of the coding alone would show one person's page to another."""
    response = web.Response(text="x" * 2_000, headers={"Vary": "Cookie, Accept-Language"})
    await compress(make_mocked_request("GET", "/", headers={"Accept-Encoding": "gzip"}), response)
    assert response.headers["Vary"] == "Cookie, Accept-Language, Accept-Encoding"
