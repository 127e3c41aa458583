"""REST: applications for data of others, and the decisions of its owners."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import NotFound
from sensegate.web import listing
from sensegate.web.routing import API, Call, Route, iso
from sensegate.web.share_bodies import ApplicationRow, BundleRow, NewApplication, NewBundle, NewDecision

_TIMES = ("created", "deadline", "decided", "lapsed")


def row(application: Any) -> ApplicationRow:
    """Return the row of an application."""
    flat = {name: getattr(application, name) for name in ApplicationRow.__struct_fields__ if hasattr(application, name)}
    flat |= {
        name: getattr(application.asked, name)
        for name in ApplicationRow.__struct_fields__
        if name not in flat and hasattr(application.asked, name)
    }
    flat |= {"state": application.standing, **{name: iso(flat[name]) for name in _TIMES}}
    return msgspec.convert(msgspec.to_builtins(flat), ApplicationRow)


async def _list(call: Call) -> Any:
    rows = [row(application) for application in call.deps.share.access.visible(call.principal)]
    return listing.answer(call, rows, ApplicationRow, "id")


async def _get(call: Call) -> Any:
    return row(call.deps.share.access.get(call.principal, call.path("application")))


async def _apply(call: Call) -> Any:
    wanted = await call.body(NewApplication)
    if wanted.bundle:
        _demand_bundle(call, wanted.bundle)
    return row(await call.deps.share.access.apply(call.principal, msgspec.to_builtins(wanted)))


async def _decide(call: Call) -> Any:
    decision = msgspec.to_builtins(await call.body(NewDecision))
    desk, revision = call.deps.share.access, call.revision(required=False)
    return row(await desk.decide(call.principal, call.path("application"), decision, revision))


async def _withdraw(call: Call) -> Any:
    return row(await call.deps.share.access.withdraw(call.principal, call.path("application")))


# ── bundles ───────────────────────────────────────────────────────────────────────────────────────────


def _bundle(record: Any) -> BundleRow:
    flat = {name: getattr(record, name) for name in BundleRow.__struct_fields__}
    return msgspec.convert(msgspec.to_builtins(flat), BundleRow)


async def _bundles(call: Call) -> Any:
    """Return those whose feeds the caller may all see in the catalogue."""
    return listing.answer(call, [_bundle(bundle) for bundle in _seen(call)], BundleRow, "name")


def _seen(call: Call) -> list[Any]:
    share = call.deps.share
    seen = {entry.feed for entry in share.catalogue_access.visible(call.principal)}
    return [bundle for bundle in share.access.bundles.all() if {*bundle.feeds} <= seen]


def _demand_bundle(call: Call, name: str) -> None:
    """Return if the caller sees a bundle. Raises `NotFound`, the same for those of others and none."""
    if not any(bundle.name == name for bundle in _seen(call)):
        raise NotFound(f"no bundle '{name[:64]}'")


async def _make_bundle(call: Call) -> Any:
    wanted = await call.body(NewBundle)
    revision = call.revision(required=False) or 0
    seen = {entry.feed for entry in call.deps.share.catalogue_access.visible(call.principal)}
    if hidden := next((name for name in wanted.feeds if name not in seen), ""):
        raise NotFound(f"no feed '{hidden[:64]}'")
    return _bundle(await call.deps.share.access.bundles.write(call.principal, msgspec.to_builtins(wanted), revision))


async def _delete_bundle(call: Call) -> Any:
    _demand_bundle(call, call.path("bundle"))
    await call.deps.share.access.bundles.delete(call.principal, call.path("bundle"))
    return web.Response(status=204)


_TAG = "sharing"
_ONE = f"{API}/applications/{{application}}"
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/bundles",
        call=_bundles,
        what="Bundles: feeds that are applied for as one, and what of them is granted in advance.",
        tag=_TAG,
        action=Action.READ_CATALOGUE,
        query=listing.params(BundleRow),
        answer=list[BundleRow],
    ),
    Route(
        method="POST",
        path=f"{API}/bundles",
        call=_make_bundle,
        what="Make a bundle (with If-Match: replace it); a blanket grants it in advance to whom it names.",
        tag=_TAG,
        action=Action.DECIDE_GRANTS,
        body=NewBundle,
        answer=BundleRow,
        status=201,
        errors=(404, 409, 412),
    ),
    Route(
        method="DELETE",
        path=f"{API}/bundles/{{bundle}}",
        call=_delete_bundle,
        what="Forget a bundle; grants that came of it stay.",
        tag=_TAG,
        action=Action.DECIDE_GRANTS,
        status=204,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{API}/applications",
        call=_list,
        what="Applications that concern the caller: sent by his side, or for data of his level.",
        tag=_TAG,
        action=Action.READ_CATALOGUE,
        query=listing.params(ApplicationRow),
        answer=list[ApplicationRow],
    ),
    Route(
        method="POST",
        path=f"{API}/applications",
        call=_apply,
        what="Apply for feeds: what for, by which law, how long, which fields, deliveries, rate. What is shared "
        "unconditionally is granted at once.",
        tag=_TAG,
        action=Action.APPLY_GRANTS,
        body=NewApplication,
        answer=ApplicationRow,
        status=201,
        errors=(404, 409),
    ),
    Route(
        method="GET",
        path=_ONE,
        call=_get,
        what="One application.",
        tag=_TAG,
        action=Action.READ_CATALOGUE,
        answer=ApplicationRow,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/decision",
        call=_decide,
        what="Approve (with masks, quota, less than was asked) or refuse; the level that owns the data decides.",
        tag=_TAG,
        action=Action.DECIDE_GRANTS,
        body=NewDecision,
        answer=ApplicationRow,
        errors=(404, 409, 412),
    ),
    Route(
        method="POST",
        path=f"{_ONE}/withdraw",
        call=_withdraw,
        what="Take an application back that is not yet decided.",
        tag=_TAG,
        action=Action.APPLY_GRANTS,
        answer=ApplicationRow,
        errors=(404, 409),
    ),
)
