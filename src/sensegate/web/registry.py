"""REST: what is known and rarely changes: divisions, properties, profiles; tokens; the caller itself."""

from __future__ import annotations

import math
from typing import Any

from sensegate.authority.scope import Action, Scope, may
from sensegate.authority.tokens import Token
from sensegate.errors import NotFound
from sensegate.lifecycle.profile_rows import ProfileRow
from sensegate.quantities.properties import CODES, PROPERTIES
from sensegate.web import listing
from sensegate.web.bodies import CodeRow, DivisionRow, MadeToken, Me, NewToken, PropertyRow, TokenRow, Usage
from sensegate.web.routing import API, Call, Route, iso


async def _me(call: Call) -> Any:
    caller, deps = call.principal, call.deps
    return Me(
        caller.id,
        caller.name,
        caller.role,
        caller.scope.division,
        caller.scope.department,
        deps.role,
        deps.division,
        deps.version,
    )


async def _divisions(call: Call) -> Any:
    rows = [
        DivisionRow(row.code, row.full, row.name_zh, row.name_en, row.level, row.parent, row.as_of)
        for row in call.deps.divisions.within(call.principal.scope.division)
    ]
    return listing.answer(call, rows, DivisionRow, "code")


async def _division(call: Call) -> Any:
    row = call.deps.divisions.get(call.path("code"))
    if not row.code.startswith(call.principal.scope.division):
        raise NotFound(f"no division {row.code} in your scope")
    return DivisionRow(row.code, row.full, row.name_zh, row.name_en, row.level, row.parent, row.as_of)


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


async def _properties(call: Call) -> Any:
    return listing.answer(call, _PROPERTIES, PropertyRow, "name")


async def _property(call: Call) -> Any:
    index = PROPERTIES.find(call.path("name"))
    if index < 0:
        near = PROPERTIES.nearest(call.path("name"))
        raise NotFound(f"no property '{call.path('name')[:64]}'" + (f"; did you mean '{near}'?" if near else ""))
    return _PROPERTIES[index]


async def _profiles(call: Call) -> Any:
    return listing.answer(call, call.deps.profiles(), ProfileRow, "id")


async def _profile(call: Call) -> Any:
    name = f"{call.path('vendor')}/{call.path('model')}"
    for row in call.deps.profiles():
        if row.id == name:
            return row
    raise NotFound(f"no profile '{name[:80]}'; GET {API}/profiles lists them")


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────


def _row(token: Token) -> TokenRow:
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
    )


async def _tokens(call: Call) -> Any:
    rows = [_row(token) for token in call.deps.tokens.list(call.principal, limit=1_000_000)]
    return listing.answer(call, rows, TokenRow, "id")


async def _token(call: Call) -> Any:
    return _row(call.deps.tokens.get(call.path("token"), call.principal))


async def _make_token(call: Call) -> Any:
    wanted = await call.body(NewToken)
    scope = Scope(call.deps.divisions.check(wanted.scope)[0], wanted.department)
    text, token = await call.deps.tokens.create(
        wanted.role, scope, by=call.principal, life_s=wanted.expires_s, feeds=tuple(wanted.feeds), name=wanted.name
    )
    return MadeToken(text, token.id, token.role, scope.division, scope.department, iso(token.expires))


async def _revoke(call: Call) -> Any:
    return _row(await call.deps.tokens.revoke(call.path("token"), by=call.principal))


async def _usage(call: Call) -> Any:
    tokens = call.deps.tokens
    seen = {token.id for token in tokens.list(call.principal, limit=1_000_000)}
    everyone = call.principal.scope.department == "" and call.deps.division.startswith(call.principal.scope.division)
    whole = everyone and may(call.principal, Action.READ_LEDGER)
    rows = [
        Usage(row.token, row.feed, row.delivery, row.requests, row.records, row.bytes, row.last, row.unsettled)
        for row in call.deps.share.usage()
        if whole or row.token in seen or row.token == call.principal.id
    ]
    return listing.answer(call, rows, Usage, "token")


_READ = Action.READ_REGISTRY
ROUTES = (
    Route(method="GET", path=f"{API}/me", call=_me, what="Whom the token proves.", tag="tokens", answer=Me),
    Route(
        method="GET",
        path=f"{API}/divisions",
        call=_divisions,
        what="Administrative divisions in the caller's scope.",
        tag="registry",
        action=_READ,
        query=listing.params(DivisionRow),
        answer=list[DivisionRow],
    ),
    Route(
        method="GET",
        path=f"{API}/divisions/{{code}}",
        call=_division,
        what="One division.",
        tag="registry",
        action=_READ,
        answer=DivisionRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/properties",
        call=_properties,
        what="The property table.",
        tag="registry",
        query=listing.params(PropertyRow),
        answer=list[PropertyRow],
    ),
    Route(
        method="GET",
        path=f"{API}/properties/{{name}}",
        call=_property,
        what="One property.",
        tag="registry",
        answer=PropertyRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/profiles",
        call=_profiles,
        what="Device profiles in force.",
        tag="registry",
        action=_READ,
        query=listing.params(ProfileRow),
        answer=list[ProfileRow],
    ),
    Route(
        method="GET",
        path=f"{API}/profiles/{{vendor}}/{{model}}",
        call=_profile,
        what="One profile.",
        tag="registry",
        action=_READ,
        answer=ProfileRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/tokens",
        call=_tokens,
        what="Tokens in the caller's scope; never their secrets.",
        tag="tokens",
        action=Action.CHANGE_TOKENS,
        query=listing.params(TokenRow),
        answer=list[TokenRow],
    ),
    Route(
        method="POST",
        path=f"{API}/tokens",
        call=_make_token,
        what="Make a token, shown this once; never wider or higher than the caller's own.",
        tag="tokens",
        action=Action.CHANGE_TOKENS,
        body=NewToken,
        answer=MadeToken,
        status=201,
    ),
    Route(
        method="GET",
        path=f"{API}/tokens/{{token}}",
        call=_token,
        what="One token.",
        tag="tokens",
        answer=TokenRow,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{API}/tokens/{{token}}",
        call=_revoke,
        what="Revoke a token; its open streams end within 2 s.",
        tag="tokens",
        answer=TokenRow,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=f"{API}/usage",
        call=_usage,
        what="What each token received of each feed.",
        tag="tokens",
        query=listing.params(Usage),
        answer=list[Usage],
    ),
)
