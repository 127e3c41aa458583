"""REST: applications for access, decisions on them, and bundles."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import NotFound
from sensegate.share.applications import Application, Decision, RequestedAccess
from sensegate.share.bundles import Bundle
from sensegate.web import listing
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso
from sensegate.web.share_bodies import ApplicationRow, BundleRow, NewApplication, NewBundle, NewDecision


def row(application: Application) -> ApplicationRow:
    """Return the row of an application."""
    requested = application.requested
    return ApplicationRow(
        id=application.id,
        state=application.effective_state,
        feeds=requested.feeds,
        purpose=requested.purpose,
        legal_basis=requested.legal_basis,
        days=requested.days,
        subscriber=application.subscriber,
        applicant=application.applicant,
        by=application.by,
        properties=requested.properties,
        divisions=requested.divisions,
        deliveries=requested.deliveries,
        forms=requested.forms,
        rate=requested.rate,
        volume=requested.volume,
        contact=requested.contact,
        renews=requested.renews,
        bundle=requested.bundle,
        level=application.level,
        owner=application.owner,
        department=application.department,
        created=iso(application.created),
        deadline=iso(application.deadline),
        escalated=application.escalated,
        decided=iso(application.decided),
        decided_by=application.decided_by,
        lapsed=iso(application.lapsed),
        reason=application.reason,
        grants=application.grants,
        revision=application.revision,
    )


async def _list(call: Call) -> listing.RowPage[ApplicationRow]:
    """List applications from the caller's scope or for data of its level."""
    rows = [row(application) for application in call.deps.share.access.visible(call.principal)]
    return listing.page_of(call, rows, ApplicationRow, "id")


async def _get(call: Call) -> ApplicationRow:
    """Get an application."""
    return row(call.deps.share.access.get(call.principal, call.path("application")))


async def _apply(call: Call) -> ApplicationRow:
    wanted = await call.body(NewApplication)
    if wanted.bundle:
        _demand_bundle(call, wanted.bundle)
    return row(
        await call.deps.share.access.apply(
            call.principal, msgspec.convert(wanted, RequestedAccess, from_attributes=True)
        )
    )


async def _decide(call: Call) -> ApplicationRow:
    """Approve (with a mask, a quota, narrower terms) or refuse; the level that owns the data decides."""
    decision = msgspec.convert(await call.body(NewDecision), Decision, from_attributes=True)
    access, revision = call.deps.share.access, call.revision(required=False)
    return row(await access.decide(call.principal, call.path("application"), decision, revision))


async def _withdraw(call: Call) -> ApplicationRow:
    """Withdraw a pending application."""
    return row(await call.deps.share.access.withdraw(call.principal, call.path("application")))


# ── bundles ───────────────────────────────────────────────────────────────────────────────────────────


def _bundle_row(bundle: Bundle) -> BundleRow:
    return BundleRow(
        name=bundle.name,
        feeds=bundle.feeds,
        title=bundle.title,
        title_en=bundle.title_en,
        pre_approvals=bundle.pre_approvals,
        by=bundle.by,
        revision=bundle.revision,
    )


async def _bundles(call: Call) -> listing.RowPage[BundleRow]:
    """Return the bundles whose feeds the caller may all see in the catalogue."""
    return listing.page_of(call, [_bundle_row(bundle) for bundle in _visible_bundles(call)], BundleRow, "name")


def _visible_bundles(call: Call) -> list[Bundle]:
    share = call.deps.share
    visible = {entry.feed for entry in share.catalogue_access.visible(call.principal)}
    return [bundle for bundle in share.access.bundles.all() if {*bundle.feeds} <= visible]


def _demand_bundle(call: Call, name: str) -> None:
    """Return if the caller may see a bundle. Raises `NotFound`, whether it is hidden or does not exist."""
    if not any(bundle.name == name for bundle in _visible_bundles(call)):
        raise NotFound(f"there is no bundle '{name[:64]}'")


async def _make_bundle(call: Call) -> BundleRow:
    """Create a bundle (with If-Match: replace it); its pre-approvals grant it at once."""
    wanted = await call.body(NewBundle)
    revision = call.revision(required=False) or 0
    visible = {entry.feed for entry in call.deps.share.catalogue_access.visible(call.principal)}
    if hidden := next((name for name in wanted.feeds if name not in visible), ""):
        raise NotFound(f"there is no feed '{hidden[:64]}'")
    bundle = msgspec.convert(wanted, Bundle, from_attributes=True)
    return _bundle_row(await call.deps.share.access.bundles.write(call.principal, bundle, revision))


async def _delete_bundle(call: Call) -> web.Response:
    """Delete a bundle; its grants stay in force."""
    _demand_bundle(call, call.path("bundle"))
    await call.deps.share.access.bundles.delete(call.principal, call.path("bundle"))
    return web.Response(status=204)


_APPLICATION = f"{API}/applications/{{application}}"
ROUTES = tagged(
    "sharing",
    Route(
        "GET",
        f"{API}/bundles",
        _bundles,
        summary="List bundles: feeds that are applied for together, and their pre-approvals.",
        action=Action.READ_CATALOGUE,
        query=listing.params(BundleRow),
    ),
    Route(
        "POST",
        f"{API}/bundles",
        _make_bundle,
        action=Action.DECIDE_GRANTS,
        body=NewBundle,
        status=201,
        errors=(404, 409, 412),
    ),
    Route(
        "DELETE", f"{API}/bundles/{{bundle}}", _delete_bundle, action=Action.DECIDE_GRANTS, status=204, errors=(404,)
    ),
    Route("GET", f"{API}/applications", _list, action=Action.READ_CATALOGUE, query=listing.params(ApplicationRow)),
    Route(
        "POST",
        f"{API}/applications",
        _apply,
        summary="Apply for access to feeds: purpose, legal basis, duration, properties, deliveries, quota. Feeds "
        "that are shared unconditionally are granted at once.",
        action=Action.APPLY_GRANTS,
        body=NewApplication,
        status=201,
        errors=(404, 409),
    ),
    Route("GET", _APPLICATION, _get, action=Action.READ_CATALOGUE, errors=(404,)),
    Route(
        "POST",
        f"{_APPLICATION}/decision",
        _decide,
        action=Action.DECIDE_GRANTS,
        body=NewDecision,
        errors=(404, 409, 412),
    ),
    Route("POST", f"{_APPLICATION}/withdraw", _withdraw, action=Action.APPLY_GRANTS, errors=(404, 409)),
)
