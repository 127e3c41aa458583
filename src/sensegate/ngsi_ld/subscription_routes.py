"""HTTP: subscriptions (clauses 5.8 and 6.10 to 6.11)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import PermissionDenied
from sensegate.ngsi_ld.contexts import LD_JSON
from sensegate.ngsi_ld.parameters import CONTEXTS, JSON, address_of
from sensegate.ngsi_ld.problems import bad_data, problem_type
from sensegate.ngsi_ld.requests import MEDIA, MERGE_PATCH, context_of, json_body
from sensegate.ngsi_ld.rest import FEED_ROOT, ROOT, feed_of, viewer_of
from sensegate.ngsi_ld.subscription_registry import FORM, SubscriptionContext, SubscriptionRegistry
from sensegate.ngsi_ld.subscriptions import DELIVERY, EntitySubscription, SubscriptionDocument, read_document
from sensegate.sensorthings.instants import instant_text
from sensegate.share.sharing import FeedRequest
from sensegate.share.subscriptions import SubscriptionState
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import Call, QueryParam, Route

SUBSCRIPTIONS = PartKey[SubscriptionRegistry]("ngsi-ld subscriptions", absent="this gateway has no NGSI-LD API")
SECRET_HEADER = "Sensegate-Webhook-Secret"  # noqa: S105 - the name of a header
_LIMIT, _LIMIT_MAX = 20, 1_000


def _context_of(call: Call, document: SubscriptionDocument, body: Any) -> SubscriptionContext:
    """Return the context of a subscription: that of the body, or the one that it names for notifications."""
    context = context_of(call, body)
    if document.jsonldContext:
        return SubscriptionContext(call.part(CONTEXTS).resolve(document.jsonldContext))
    return SubscriptionContext(context, "" if isinstance(context.source, str) else address_of(call, context.source))


def _shown(call: Call, subscription: EntitySubscription) -> dict[str, Any]:
    """Return a subscription as a client sees it, with its status and counts."""
    registry = call.part(SUBSCRIPTIONS)
    counts, offset = registry.counts(subscription), registry.offset(subscription)
    expires, now = subscription.expires, call.deps.clock.now()
    status = "active" if subscription.document.isActive else "paused"
    if offset.state is not SubscriptionState.ACTIVE:
        status = "paused"
    if expires is not None and now >= expires:
        status = "expired"
    document: dict[str, Any] = {"id": subscription.id, "type": "Subscription"}
    document |= msgspec.to_builtins(subscription.document)
    document["isActive"] = subscription.document.isActive
    document["status"] = status
    notification = document["notification"]
    notification["status"] = "failed" if counts.last_failure > counts.last_success or offset.reason else "ok"
    notification["timesSent"] = counts.sent
    notification["timesFailed"] = counts.failed
    for name, time in (
        ("lastNotification", counts.last_sent),
        ("lastSuccess", counts.last_success),
        ("lastFailure", counts.last_failure),
    ):
        if time:
            notification[name] = instant_text(time)
    if "sysAttrs" in call.values("options"):
        document["createdAt"] = instant_text(subscription.created)
        document["modifiedAt"] = instant_text(subscription.modified)
    source = subscription.context
    if source is not None and LD_JSON in call.request.headers.get("Accept", ""):
        document["@context"] = source
    return document


def _answer(call: Call, body: object, headers: dict[str, str] | None = None) -> web.Response:
    media = LD_JSON if LD_JSON in call.request.headers.get("Accept", "") else JSON
    return web.Response(body=msgspec.json.encode(body), content_type=media, headers=headers)


async def _create(call: Call) -> web.Response:
    """Subscribe to entities; the secret that signs notifications is in a header of the answer."""
    principal, feed = call.principal, feed_of(call)
    viewer_of(call)
    body = await json_body(call)
    document = read_document(body)
    context = _context_of(call, document, body)
    if not call.deps.tokens.is_valid(principal):
        raise PermissionDenied("a subscription belongs to a token and ends with it; create it with a token")
    # Raises if the caller may not have the feed pushed, and fixes the start: what arrives from now on.
    request = FeedRequest(feed, "", call.deps.clock.now())
    pages = await call.deps.share.open_pages(lambda: principal, request, form=FORM, delivery=DELIVERY)
    registry = call.part(SUBSCRIPTIONS)
    subscription = await registry.create(principal, feed, document, context, after=str(pages.cursor))
    root = FEED_ROOT.format(feed=feed) if "feed" in call.request.match_info else ROOT
    location = f"{root}/subscriptions/{subscription.id}"
    return web.Response(status=201, headers={"Location": location, SECRET_HEADER: f"whsec_{subscription.secret}"})


async def _list(call: Call) -> web.Response:
    """List the subscriptions of the caller and of tokens that it may see."""
    viewer_of(call)
    limit = call.integer("limit", _LIMIT, _LIMIT_MAX)
    offset = call.text("offset", "0")
    if not (offset.isascii() and offset.isdigit()):
        raise bad_data(f"query: offset: '{offset[:20]}' is not a number; give a whole number")
    rows = call.part(SUBSCRIPTIONS).visible(call.principal, feed_of(call))
    rows.sort(key=lambda subscription: subscription.id)
    shown = [_shown(call, subscription) for subscription in rows[int(offset[:9]) :][:limit]]
    headers = {"NGSILD-Results-Count": str(len(rows))} if call.text("count") == "true" else {}
    return _answer(call, shown, headers)


def _target(call: Call) -> EntitySubscription:
    viewer_of(call)
    return call.part(SUBSCRIPTIONS).get(call.principal, feed_of(call), call.path("subscription"))


async def _get(call: Call) -> web.Response:
    """Get a subscription with its status and counts."""
    return _answer(call, _shown(call, _target(call)))


async def _change(call: Call) -> web.Response:
    """Change a subscription; isActive pauses and resumes it at its committed offset."""
    subscription = _target(call)
    body = await json_body(call, (*MEDIA, MERGE_PATCH))
    if not isinstance(body, dict):
        raise bad_data("body: is not a JSON object; give the members that change")
    if body.get("id", subscription.id) != subscription.id:
        raise bad_data("body: id: is not that of the path; leave it out")
    before = msgspec.to_builtins(subscription.document)
    merged = {**before, "type": "Subscription", **body, "id": subscription.id}
    if isinstance(body.get("notification"), dict):
        merged["notification"] = {**before["notification"], **body["notification"]}
    merged = {name: value for name, value in merged.items() if value is not None}
    document = read_document(merged)
    names_context = "@context" in body or "Link" in call.request.headers or document.jsonldContext
    if names_context:
        context = _context_of(call, document, body)
    else:
        terms = call.part(CONTEXTS).resolve(subscription.context)
        context = SubscriptionContext(terms, subscription.context_url)
    await call.part(SUBSCRIPTIONS).change(call.principal, subscription, document, context)
    return web.Response(status=204)


async def _delete(call: Call) -> web.Response:
    """Delete a subscription."""
    await call.part(SUBSCRIPTIONS).delete(call.principal, _target(call))
    return web.Response(status=204)


def _routes(root: str) -> tuple[Route, ...]:
    path = f"{root}/subscriptions"
    shared: dict[str, Any] = {"action": Action.READ_READINGS, "problem_type": problem_type}
    options = QueryParam("options", "sysAttrs: with the times of creation and change")
    return tagged(
        "ngsi-ld",
        Route("POST", path, _create, raw=JSON, status=201, errors=(404, 409, 415, 422), **shared),
        Route(
            "GET",
            path,
            _list,
            query=(
                QueryParam("limit", f"most subscriptions, default {_LIMIT}", "integer", minimum=1, maximum=_LIMIT_MAX),
                QueryParam("offset", "how many are passed over", "integer", minimum=0, maximum=10**7),
                QueryParam("count", "true: with the number of all in NGSILD-Results-Count", "boolean"),
                options,
            ),
            media=(JSON, LD_JSON),
            errors=(404,),
            **shared,
        ),
        Route(
            "GET", f"{path}/{{subscription}}", _get, query=(options,), media=(JSON, LD_JSON), errors=(404,), **shared
        ),
        Route(
            "PATCH", f"{path}/{{subscription}}", _change, raw=JSON, status=204, errors=(404, 409, 415, 422), **shared
        ),
        Route("DELETE", f"{path}/{{subscription}}", _delete, status=204, errors=(404, 409), **shared),
    )


SUBSCRIPTION_ROUTES = (*_routes(ROOT), *_routes(FEED_ROOT))
