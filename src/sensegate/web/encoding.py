"""Content encoding of responses (gzip, zstd by `Accept-Encoding`) and conditional requests (RFC 9110)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable

import zstandard
from aiohttp import web

_BYTES_MIN = 1_024
"""Smaller bodies are sent as they are."""
_THREAD_BYTES = 65_536
"""Larger bodies are compressed in a thread, so that other requests are answered meanwhile."""
_COMPRESSIBLE = frozenset(
    {
        "application/geo+json",
        "application/json",
        "application/jsonl",
        "application/msgpack",
        "application/ndjson",
        "application/senml+json",
        "application/vnd.msgpack",
        "application/x-msgpack",
        "application/x-ndjson",
        "text/css",
        "text/csv",
        "text/html",
        "text/javascript",
        "text/plain",
    }
)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(body)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, 3, mtime=0)


_CODINGS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip}
"""Content coding -> its compressor, the preferred one first."""


def coding_of(accepted: str) -> str:
    """Return the content coding for an `Accept-Encoding` header; empty: none.

    Among codings of equal weight the better one is chosen.
    """
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameters = part.partition(";")
        weights[name.strip()] = _weight(parameters)
    best, weight = "", 0.0
    for coding in _CODINGS:
        wanted = weights.get(coding, weights.get("*", 0.0))
        if wanted > weight:
            best, weight = coding, wanted
    return best if weight >= weights.get("identity", 0.0) else ""


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


async def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Compress the body of a successful GET in place, if the caller accepts it and it pays.

    Other methods are left alone: their responses may hold a secret beside text of the caller, whose length would then
    tell about it. A strong `ETag` names the bytes as they are, so such a response stays unchanged too.
    """
    if not isinstance(response, web.Response) or request.method != "GET" or response.status != 200:
        return
    body = response.body
    if not isinstance(body, bytes) or len(body) < _BYTES_MIN or response.content_type not in _COMPRESSIBLE:
        return
    if response.headers.get("ETag", "W/").startswith('"') or "Content-Encoding" in response.headers:
        return
    response.headers["Vary"] = ", ".join([*response.headers.getall("Vary", []), "Accept-Encoding"])
    coding = coding_of(request.headers.get("Accept-Encoding", ""))
    if not coding:
        return
    encoder = _CODINGS[coding]
    response.body = await asyncio.to_thread(encoder, body) if len(body) > _THREAD_BYTES else encoder(body)
    response.headers["Content-Encoding"] = coding


def conditional(request: web.Request, response: web.Response) -> web.Response:
    """Return a response with the weak `ETag` of its body, or 304 where the caller has that body already."""
    assert isinstance(response.body, bytes)  # noqa: S101 - only encoded records are given
    tag = f'W/"{hashlib.blake2b(response.body, digest_size=12).hexdigest()}"'
    known = [part.strip() for part in request.headers.get("If-None-Match", "").split(",")]
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if "*" in known or tag in known or tag.removeprefix("W/") in known:
        return web.Response(status=304, headers=headers)
    response.headers.update(headers)
    return response
