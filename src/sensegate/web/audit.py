"""REST: the audit trail as evidence: a signed head, and the whole chain as it is stored with its head behind it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.chain import decode, line_of
from sensegate.authority.scope import Action, demand
from sensegate.web.routing import API, Call, Route

_PIECE = 65_536


class HeadRow(msgspec.Struct, frozen=True):
    """The end of the audit trail with the gateway's signature (Ed25519); keep it where the gateway cannot reach."""

    kind: str
    gateway: str
    first: int
    """Number of the oldest record that is kept."""
    number: int
    hash: str
    algorithm: str
    time: int
    """µs UTC."""
    key: str
    """Public key, base64."""
    signature: str


def _demand_whole(call: Call) -> None:
    """Return if the caller may see all of this gateway's trail: a part of a chain proves nothing.

    Raises `PermissionDenied`.
    """
    demand(call.principal, Action.READ_AUDIT, call.deps.division)


async def _head(call: Call) -> Any:
    _demand_whole(call)
    # As it is written, byte for byte: that is what `sensegate audit verify` takes.
    return web.Response(body=line_of(await call.deps.audit.signed()), content_type="application/json")


async def _export(call: Call) -> Any:
    _demand_whole(call)
    audit = call.deps.audit
    await audit.record(call.principal, "audit.export", call.deps.division)
    head = await audit.signed()
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/x-ndjson",
            "Content-Disposition": f'attachment; filename="audit-{head.gateway}-{head.number}.ndjson"',
        }
    )
    await response.prepare(call.request)
    part = bytearray()
    async with aclosing(audit.stored()) as records:
        async for raw in records:
            if decode(raw).number > head.number:
                break
            part += raw + b"\n"
            if len(part) > _PIECE:
                await response.write(bytes(part))
                part.clear()
    await response.write(bytes(part) + line_of(head) + b"\n")
    return response


ROUTES = (
    Route(
        method="GET",
        path=f"{API}/audit/head",
        handler=_head,
        summary="The end of the audit trail, signed; a copy kept elsewhere proves every record up to it.",
        tag="books",
        action=Action.READ_AUDIT,
        response=HeadRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/audit/export",
        handler=_export,
        summary="The whole audit trail as stored, a record a line, its signed head last; for `sensegate audit verify`.",
        tag="books",
        action=Action.READ_AUDIT,
        media=("application/x-ndjson",),
        errors=(404,),
    ),
)
