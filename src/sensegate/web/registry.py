"""REST: reference data (divisions, properties, profiles), tokens, and the caller."""

from __future__ import annotations

import math

from sensegate.authority.scope import Action, Scope, has_right
from sensegate.authority.tokens import Token, Tokens
from sensegate.errors import NotFound
from sensegate.lifecycle.profile_rows import ProfileRow
from sensegate.quantities.properties import CODES, PROPERTIES
from sensegate.web import listing
from sensegate.web.bodies import (
    CallerInfo,
    CodeRow,
    CreatedToken,
    DivisionRow,
    NewToken,
    PropertyRow,
    TokenRow,
    UsageRow,
)
from sensegate.web.consumers import knows_subscriber
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso


async def _me(call: Call) -> CallerInfo:
    """Get the principal of the caller."""
    caller, deps = call.principal, call.deps
    return CallerInfo(
        caller.id,
        caller.name,
        caller.role,
        caller.scope.division,
        caller.scope.department,
        deps.role,
        deps.division,
        deps.version,
        [str(action) for action in Action if has_right(caller, action)],
    )


async def _divisions(call: Call) -> listing.RowPage[DivisionRow]:
    """List the administrative divisions."""
    rows = [
        DivisionRow(row.code, row.full, row.name_zh, row.name_en, row.level, row.parent, row.as_of)
        for row in call.deps.divisions.within(_PROVINCE)
    ]
    return listing.page_of(call, rows, DivisionRow, "code")


async def _division(call: Call) -> DivisionRow:
    """Get a division."""
    row = call.deps.divisions.get(call.path("code"))
    return DivisionRow(row.code, row.full, row.name_zh, row.name_en, row.level, row.parent, row.as_of)


_PROVINCE = "44"


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None


_PROPERTIES = [
    PropertyRow(
        row.name,
        row.kind,
        row.unit,
        row.domain,
        row.label_zh,
        row.label_en,
        _bound(row.low),
        _bound(row.high),
        row.resolution,
        _bound(row.step),
        row.usual_low or None,
        _bound(row.usual_high),
        row.counter,
        [CodeRow(code.code, code.label_zh, code.label_en) for code in CODES.get(row.codes, {}).values()],
    )
    for row in PROPERTIES.rows
]


async def _properties(call: Call) -> listing.RowPage[PropertyRow]:
    """List the properties of the property table."""
    return listing.page_of(call, _PROPERTIES, PropertyRow, "name")


async def _property(call: Call) -> PropertyRow:
    """Get a property."""
    if problem := unknown_property(call.path("name")):
        raise NotFound(problem)
    return _PROPERTIES[PROPERTIES.find(call.path("name"))]


def unknown_property(name: str) -> str:
    """Return that there is no property of a name, with the nearest one; empty: there is one."""
    if PROPERTIES.find(name) >= 0:
        return ""
    near = PROPERTIES.nearest(name)
    return f"there is no property '{name[:64]}'" + (f"; did you mean '{near}'?" if near else "")


def _visible_profiles(call: Call) -> list[ProfileRow]:
    """Return the profiles in force; without the right to read the registry only what a reader of records needs."""
    rows = call.deps.profiles()
    if has_right(call.principal, Action.READ_REGISTRY):
        return list(rows)
    return [
        ProfileRow(row.id, row.version, row.title, properties=row.properties, format=row.format, title_zh=row.title_zh)
        for row in rows
        if row.version
    ]


async def _profiles(call: Call) -> listing.RowPage[ProfileRow]:
    """List the device profiles in force; topics and problems only to readers of the registry."""
    return listing.page_of(call, _visible_profiles(call), ProfileRow, "id")


async def _profile(call: Call) -> ProfileRow:
    """Get a device profile."""
    name = f"{call.path('vendor')}/{call.path('model')}"
    for row in _visible_profiles(call):
        if row.id == name:
            return row
    raise NotFound(f"there is no profile '{name[:80]}'; GET {API}/profiles lists them")


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────


def _row(token: Token, tokens: Tokens) -> TokenRow:
    return TokenRow(
        token.id,
        token.role,
        token.scope.division,
        token.scope.department,
        list(token.feeds),
        iso(token.expires),
        token.name,
        iso(token.created),
        token.created_by,
        iso(token.revoked),
        tokens.suspension(token),
    )


async def _tokens(call: Call) -> listing.RowPage[TokenRow]:
    """List the tokens in the caller's scope, without their secrets."""
    rows = [_row(token, call.deps.tokens) for token in call.deps.tokens.list(call.principal, limit=1_000_000)]
    return listing.page_of(call, rows, TokenRow, "id")


async def _token(call: Call) -> TokenRow:
    """Get a token."""
    return _row(call.deps.tokens.get(call.path("token"), call.principal), call.deps.tokens)


async def _make_token(call: Call) -> CreatedToken:
    """Create a token, shown only once; its rights, scope and feeds are among the caller's."""
    wanted = await call.body(NewToken)
    scope = Scope(call.deps.divisions.check(wanted.scope)[0], wanted.department)
    text, token = await call.deps.tokens.create(
        wanted.role, scope, by=call.principal, lifetime_s=wanted.expires_s, feeds=tuple(wanted.feeds), name=wanted.name
    )
    return CreatedToken(text, token.id, token.role, scope.division, scope.department, iso(token.expires))


async def _revoke(call: Call) -> TokenRow:
    """Revoke a token; its open streams end within 2 s."""
    return _row(await call.deps.tokens.revoke(call.path("token"), by=call.principal), call.deps.tokens)


async def _usage(call: Call) -> listing.RowPage[UsageRow]:
    """List the usage by token and feed."""
    knows = knows_subscriber(call)
    rows = [
        UsageRow(
            row.token,
            row.feed,
            row.delivery,
            row.requests,
            row.records,
            row.bytes,
            row.last,
            row.unsettled,
            row.scanned,
        )
        for row in call.deps.share.usage()
        if knows(row.token)
    ]
    return listing.page_of(call, rows, UsageRow, "token", "feed", "delivery")


ROUTES = (
    *tagged(
        "tokens",
        Route("GET", f"{API}/me", _me),
        Route(
            "GET",
            f"{API}/tokens",
            _tokens,
            action=Action.CHANGE_TOKENS,
            or_action=Action.CHANGE_AUDITORS,
            query=listing.params(TokenRow),
        ),
        Route(
            "POST",
            f"{API}/tokens",
            _make_token,
            action=Action.CHANGE_TOKENS,
            or_action=Action.CHANGE_AUDITORS,
            body=NewToken,
            status=201,
        ),
        Route("GET", f"{API}/tokens/{{token}}", _token, errors=(404,)),
        Route("DELETE", f"{API}/tokens/{{token}}", _revoke, errors=(404, 409)),
        Route("GET", f"{API}/usage", _usage, query=listing.params(UsageRow)),
    ),
    *tagged(
        "registry",
        Route("GET", f"{API}/divisions", _divisions, conditional=True, query=listing.params(DivisionRow)),
        Route("GET", f"{API}/divisions/{{code}}", _division, errors=(404,)),
        Route("GET", f"{API}/properties", _properties, conditional=True, query=listing.params(PropertyRow)),
        Route("GET", f"{API}/properties/{{name}}", _property, errors=(404,)),
        Route("GET", f"{API}/profiles", _profiles, conditional=True, query=listing.params(ProfileRow)),
        Route("GET", f"{API}/profiles/{{vendor}}/{{model}}", _profile, errors=(404,)),
    ),
)
