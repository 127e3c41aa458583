"""REST: grants, what they delivered, and receipts of it."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.share.grants import Grant
from sensegate.web import applications, listing
from sensegate.web.routing import API, Call, Param, Route, iso
from sensegate.web.share_bodies import (
    ApplicationRow,
    GrantChange,
    GrantRow,
    GrantUsage,
    ReceiptAnswer,
    Renewal,
)

_TIMES = ("starts", "expires", "created", "revoked")


def _row(call: Call, grant: Any) -> GrantRow:
    flat = {name: getattr(grant, name) for name in GrantRow.__struct_fields__ if name not in {"state", "used"}}
    flat |= {name: iso(flat[name]) for name in _TIMES}
    flat |= {"state": grant.state(call.deps.clock.now()), "used": call.deps.share.used(grant.id)}
    return msgspec.convert(msgspec.to_builtins(flat), GrantRow)


async def _list(call: Call) -> Any:
    rows = [_row(call, grant) for grant in call.deps.share.access.grants(call.principal)]
    return listing.answer(call, rows, GrantRow, "id")


async def _get(call: Call) -> Any:
    return _row(call, call.deps.share.access.grant(call.principal, call.path("grant")))


async def _change(call: Call) -> Any:
    revision = call.revision() or 0
    changes = {
        key: msgspec.to_builtins(value)
        for key, value in msgspec.structs.asdict(await call.body(GrantChange)).items()
        if value is not msgspec.UNSET
    }
    if (days := changes.pop("days", None)) is not None:
        changes["expires"] = call.deps.clock.now() + round(days * 86_400e6)
    desk, name = call.deps.share.access, call.path("grant")
    whole = msgspec.convert({**msgspec.to_builtins(desk.grant(call.principal, name)), **changes}, Grant)
    return _row(call, await desk.change(call.principal, name, whole, revision))


async def _revoke(call: Call) -> Any:
    revision = call.revision(required=False)
    return _row(
        call, await call.deps.share.access.revoke(call.principal, call.path("grant"), call.text("reason"), revision)
    )


async def _renew(call: Call) -> Any:
    wish = await call.body(Renewal)
    desk = call.deps.share.access
    return applications.row(
        await desk.renew(
            call.principal, call.path("grant"), days=wish.days, purpose=wish.purpose, legal_basis=wish.legal_basis
        )
    )


async def _usage(call: Call) -> Any:
    share, name = call.deps.share, call.path("grant")
    month = call.text("month") or share.month()
    rows = [
        GrantUsage(
            row.delivery, row.month, row.requests, row.records, row.bytes, iso(row.last), row.token, row.unsettled
        )
        for row in share.grant_usage(call.principal, name, month)
    ]
    return {"rows": rows, "month": month, "records": sum(row.records for row in rows)}


async def _receipt(call: Call) -> Any:
    line = call.deps.share.statement(call.principal, call.path("grant"), call.path("month"))
    # As it was signed, byte for byte.
    return web.Response(body=line, content_type="application/json")


_TAG = "sharing"
_ONE = f"{API}/grants/{{grant}}"
_READ = Action.READ_CATALOGUE
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/grants",
        call=_list,
        what="Grants that concern the caller: his own, those of his side, those of data of his level.",
        tag=_TAG,
        action=_READ,
        query=listing.params(GrantRow),
        answer=list[GrantRow],
    ),
    Route(
        method="GET",
        path=_ONE,
        call=_get,
        what="One grant with its terms and what it used this month.",
        tag=_TAG,
        action=_READ,
        answer=GrantRow,
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=_ONE,
        call=_change,
        what="Change the terms (owner), or hand it to another of one's tokens (applicant); in force within 2 s.",
        tag=_TAG,
        action=Action.APPLY_GRANTS,
        body=GrantChange,
        answer=GrantRow,
        errors=(404, 412, 428),
    ),
    Route(
        method="DELETE",
        path=_ONE,
        call=_revoke,
        what="Take a grant back (owner), or give it back (subscriber); every delivery ends within 2 s.",
        tag=_TAG,
        action=Action.APPLY_GRANTS,
        query=(Param("reason", "why; the subscriber is told"),),
        answer=GrantRow,
        errors=(404, 409, 412),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/renew",
        call=_renew,
        what="Apply for more time with the same terms; the owner decides as on any application.",
        tag=_TAG,
        action=Action.APPLY_GRANTS,
        body=Renewal,
        answer=ApplicationRow,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=f"{_ONE}/usage",
        call=_usage,
        what="What the grant delivered in a month, by delivery.",
        tag=_TAG,
        action=_READ,
        query=(Param("month", "of Beijing time, as 2026-01; default: this one"),),
        answer=list[GrantUsage],
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_ONE}/receipts/{{month}}",
        call=_receipt,
        what="The signed receipt of a month (as 2026-01); `whole` once the month is over.",
        tag=_TAG,
        action=_READ,
        answer=ReceiptAnswer,
        errors=(404,),
    ),
)
