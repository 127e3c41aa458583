"""REST: grants, their usage, and signed usage statements."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.share.grants import Grant
from sensegate.share.usage_statements import UsageStatement
from sensegate.web import applications, listing
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso
from sensegate.web.share_bodies import (
    ApplicationRow,
    GrantChange,
    GrantRow,
    GrantUsage,
    GrantUsageReport,
    Renewal,
)


def _row(call: Call, grant: Grant) -> GrantRow:
    return GrantRow(
        id=grant.id,
        state=grant.state(call.deps.clock.now()),
        feed=grant.feed,
        subscriber=grant.subscriber,
        applicant=grant.applicant,
        level=grant.level,
        department=grant.department,
        purpose=grant.purpose,
        application=grant.application,
        starts=iso(grant.starts),
        expires=iso(grant.expires),
        deliveries=grant.deliveries,
        forms=grant.forms,
        mask=grant.mask,
        rate=grant.rate,
        volume=grant.volume,
        used=call.deps.share.used(grant.id),
        divisions=grant.divisions,
        properties=grant.properties,
        grade_max=grant.grade_max,
        created=iso(grant.created),
        created_by=grant.created_by,
        revoked=iso(grant.revoked),
        reason=grant.reason,
        revision=grant.revision,
    )


async def _list(call: Call) -> listing.RowPage[GrantRow]:
    """List the grants from the caller's scope or for data of its level."""
    rows = [_row(call, grant) for grant in call.deps.share.access.grants(call.principal)]
    return listing.page_of(call, rows, GrantRow, "id")


async def _get(call: Call) -> GrantRow:
    """Get a grant with its terms and its usage this month."""
    return _row(call, call.deps.share.access.grant(call.principal, call.path("grant")))


async def _change(call: Call) -> GrantRow:
    """Change the terms (owner), or transfer the grant to another token (applicant); in force within 2 s."""
    revision = call.revision() or 0
    changes = {
        key: msgspec.to_builtins(value)
        for key, value in msgspec.structs.asdict(await call.body(GrantChange)).items()
        if value is not msgspec.UNSET
    }
    if (days := changes.pop("days", None)) is not None:
        changes["expires"] = call.deps.clock.now() + round(days * 86_400e6)
    access, name = call.deps.share.access, call.path("grant")
    changed = msgspec.convert({**msgspec.to_builtins(access.grant(call.principal, name)), **changes}, Grant)
    return _row(call, await access.change(call.principal, name, changed, revision))


async def _revoke(call: Call) -> GrantRow:
    """Revoke a grant (owner), or give it back (subscriber); its deliveries end within 2 s."""
    revision = call.revision(required=False)
    return _row(
        call, await call.deps.share.access.revoke(call.principal, call.path("grant"), call.text("reason"), revision)
    )


async def _renew(call: Call) -> ApplicationRow:
    """Apply to extend a grant on the same terms; the owner decides as on any application."""
    wanted = await call.body(Renewal)
    access = call.deps.share.access
    return applications.row(
        await access.renew(
            call.principal, call.path("grant"), days=wanted.days, purpose=wanted.purpose, legal_basis=wanted.legal_basis
        )
    )


async def _usage(call: Call) -> GrantUsageReport:
    """Get the usage of a grant in a month, by delivery."""
    share, name = call.deps.share, call.path("grant")
    month = call.text("month") or share.month()
    rows = [
        GrantUsage(
            row.delivery,
            row.month,
            row.requests,
            row.records,
            row.bytes,
            iso(row.last),
            row.token,
            row.unsettled,
            row.scanned,
        )
        for row in share.grant_usage(call.principal, name, month)
    ]
    return GrantUsageReport(rows, month, sum(row.records for row in rows))


async def _statement(call: Call) -> web.Response:
    """Get the signed usage statement of a month (as 2026-01); `complete` once the month is over."""
    line = call.deps.share.statement(call.principal, call.path("grant"), call.path("month"))
    # Byte for byte as signed.
    return web.Response(body=line, content_type="application/json")


_GRANT = f"{API}/grants/{{grant}}"
_READ = Action.READ_CATALOGUE
ROUTES = tagged(
    "sharing",
    Route("GET", f"{API}/grants", _list, action=_READ, query=listing.params(GrantRow)),
    Route("GET", _GRANT, _get, action=_READ, errors=(404,)),
    Route("PATCH", _GRANT, _change, action=Action.APPLY_GRANTS, body=GrantChange, errors=(404, 412, 428)),
    Route(
        "DELETE",
        _GRANT,
        _revoke,
        action=Action.APPLY_GRANTS,
        query=(QueryParam("reason", "reason, which the subscriber sees"),),
        errors=(404, 409, 412),
    ),
    Route("POST", f"{_GRANT}/renew", _renew, action=Action.APPLY_GRANTS, body=Renewal, status=201, errors=(404, 409)),
    Route(
        "GET",
        f"{_GRANT}/usage",
        _usage,
        action=_READ,
        query=(QueryParam("month", "month of Beijing time, as 2026-01; default: the current one"),),
        errors=(404,),
    ),
    Route("GET", f"{_GRANT}/statements/{{month}}", _statement, action=_READ, response=UsageStatement, errors=(404,)),
)
