"""REST: the operator's own layers of the map: tiles in a folder, and an overlay in GeoJSON, each with its approval."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import NotFound
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route

OVERLAY_BYTES_MAX = 16 * 1024**2
TILE_BYTES_MAX = 1024**2
_NUMBER = re.compile(r"[0-9]{1,8}")
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


class MapLayers(msgspec.Struct, frozen=True):
    """The layers below the devices; without tiles devices stand on an empty ground."""

    has_tiles: bool
    tiles_approval: str
    """Approval number (審圖號) of the tiles, printed on the map; likewise that of the overlay."""
    has_overlay: bool
    overlay_approval: str


async def _layers(call: Call) -> MapLayers:
    """Get the layers of the map: whether there are tiles and an overlay, and their approval numbers."""
    config = call.deps.config.map
    return MapLayers(
        bool(config.tiles_directory), config.tiles_approval, bool(config.overlay_file), config.overlay_approval
    )


async def _overlay(call: Call) -> web.Response:
    """Get the operator's own overlay of the map, GeoJSON in WGS-84 or CGCS2000."""
    file = call.deps.config.map.overlay_file
    if not file:
        raise NotFound("the map has no overlay; set web.map.overlay_file and overlay_approval")
    body = await asyncio.to_thread(_read, Path(file), OVERLAY_BYTES_MAX)
    if body is None:
        raise NotFound("the overlay of the map cannot be read, or is larger than 16 MiB; see web.map.overlay_file")
    return web.Response(body=body, content_type="application/geo+json")


async def _tile(call: Call) -> web.Response:
    """Return a tile; that a tile is missing says nothing secret, so none needs a token (images send none)."""
    folder = call.deps.config.map.tiles_directory
    parts = [call.path(name) for name in ("zoom", "column", "row")]
    if not folder or not all(map(_NUMBER.fullmatch, parts)):
        raise NotFound("there is no such tile")
    for suffix, media in _MEDIA.items():
        body = await asyncio.to_thread(_read, Path(folder, *parts[:2], parts[2] + suffix), TILE_BYTES_MAX)
        if body is not None:
            return web.Response(body=body, content_type=media, headers={"Cache-Control": "max-age=86400"})
    raise NotFound("there is no such tile")


def _read(file: Path, most: int) -> bytes | None:
    try:
        return file.read_bytes() if file.stat().st_size <= most else None
    except OSError:
        return None


ROUTES = tagged(
    "devices",
    Route("GET", f"{API}/map", _layers, action=Action.READ_REGISTRY),
    Route(
        "GET",
        f"{API}/map/overlay",
        _overlay,
        action=Action.READ_REGISTRY,
        media=("application/geo+json",),
        errors=(404,),
    ),
    Route(
        "GET",
        "/tiles/{zoom}/{column}/{row}",
        _tile,
        summary="Get a tile of the operator's own base map (``web.map.tiles_directory``).",
        token=False,
        media=("image/png",),
        errors=(404,),
    ),
)
