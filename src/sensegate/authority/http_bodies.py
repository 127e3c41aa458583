"""Bodies of the answers of other servers, read with a limit."""

from __future__ import annotations

import aiohttp


async def read_body(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """Return a body to its end; of a longer one, its first `bytes_max` bytes."""
    body = bytearray()
    # A single `read` returns what has arrived so far.
    while len(body) < bytes_max and (piece := await content.read(bytes_max - len(body))):
        body += piece
    return bytes(body)
