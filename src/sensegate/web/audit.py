"""REST: the audit trail as evidence: its signed head, and the export of the whole chain."""

from __future__ import annotations

from contextlib import aclosing

from aiohttp import web

from sensegate.authority.chain import SignedHead, decode, line_of
from sensegate.authority.scope import Action, demand
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route

_CHUNK_BYTES = 65_536


def _demand_whole(call: Call) -> None:
    """Return if the caller may see the whole trail: a part of a chain proves nothing. Raises `PermissionDenied`."""
    demand(call.principal, Action.READ_AUDIT, call.deps.division)


async def _head(call: Call) -> web.Response:
    """Get the signed head of the audit trail; a copy stored elsewhere proves every record up to it."""
    _demand_whole(call)
    # Byte for byte as signed: `sensegate audit verify` checks it.
    return web.Response(body=line_of(await call.deps.audit.signed()), content_type="application/json")


async def _export(call: Call) -> web.StreamResponse:
    """Export the audit trail, a record a line and the signed head last, for `sensegate audit verify`."""
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
    buffer = bytearray()
    async with aclosing(audit.stored()) as records:
        async for raw in records:
            if decode(raw).number > head.number:
                break
            buffer += raw + b"\n"
            if len(buffer) > _CHUNK_BYTES:
                await response.write(bytes(buffer))
                buffer.clear()
    await response.write(bytes(buffer) + line_of(head) + b"\n")
    return response


ROUTES = tagged(
    "accounting",
    Route("GET", f"{API}/audit/head", _head, action=Action.READ_AUDIT, response=SignedHead, errors=(404,)),
    Route(
        "GET", f"{API}/audit/export", _export, action=Action.READ_AUDIT, media=("application/x-ndjson",), errors=(404,)
    ),
)
