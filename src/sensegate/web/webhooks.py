"""REST: webhooks and active consumers."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action
from sensegate.errors import PermissionDenied
from sensegate.share.consumers import ConsumerStatistics
from sensegate.share.sharing import FeedRequest
from sensegate.share.webhooks import NewWebhook, Webhook, Webhooks
from sensegate.web import listing
from sensegate.web.bodies import Body
from sensegate.web.consumers import visible_consumers
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route


class ResumeWebhook(Body, frozen=True):
    """Request to resume after a cursor; without one, at the committed offset."""

    after: str = ""


class WebhookRow(msgspec.Struct, frozen=True):
    """Webhook with its state and committed offset."""

    id: str
    feed: str
    subscriber: str
    url: str
    algorithm: str
    form: str
    batch: int
    created: int
    state: str
    """``active``; ``paused``: resume it; ``ended``: the receiver returned 410; ``gone``: resume after a cursor."""
    reason: str
    cursor: str
    """Cursor after the last accepted record."""


class CreatedWebhook(msgspec.Struct, frozen=True):
    """New webhook with the secret that signs its deliveries, which is shown only here."""

    id: str
    secret: str
    webhook: WebhookRow


WEBHOOKS = PartKey[Webhooks]("webhooks", absent="this gateway sends no webhooks")


def _webhooks(call: Call) -> Webhooks:
    return call.part(WEBHOOKS)


def _row(webhooks: Webhooks, webhook: Webhook) -> WebhookRow:
    offset = webhooks.offset(webhook.id)
    return WebhookRow(
        webhook.id,
        webhook.feed,
        webhook.subscriber,
        webhook.url,
        webhook.algorithm,
        webhook.form,
        webhook.batch,
        webhook.created,
        str(offset.state),
        offset.reason,
        offset.after,
    )


async def _list(call: Call) -> listing.RowPage[WebhookRow]:
    """List the webhooks of the caller and of tokens that it may see."""
    webhooks = _webhooks(call)
    rows = [_row(webhooks, webhook) for webhook in webhooks.visible(call.principal)]
    return listing.page_of(call, rows, WebhookRow, "id")


async def _get(call: Call) -> WebhookRow:
    """Get a webhook with its committed offset."""
    webhooks = _webhooks(call)
    return _row(webhooks, webhooks.get(call.principal, call.path("webhook")))


async def _create(call: Call) -> CreatedWebhook:
    """Create a webhook; the secret of its signatures is shown only once."""
    webhooks = _webhooks(call)
    wanted = await call.body(NewWebhook)
    if wanted.after and wanted.since:
        raise BadRequest("body: after and since are both given; give one of them")
    since = call.parse_time(wanted.since, "body: since") if wanted.since else None
    principal = call.principal
    if not call.deps.tokens.is_valid(principal):
        raise PermissionDenied("a webhook belongs to a token and ends with it; create it with a token")
    # Raises if the caller may not read the feed by webhook in this form, and fixes the start.
    request = FeedRequest(wanted.feed, wanted.after, since)
    pages = await call.deps.share.open_pages(lambda: principal, request, form=wanted.form, delivery="webhook")
    made, secret = await webhooks.create(principal, wanted, after=str(pages.cursor))
    return CreatedWebhook(made.id, secret, _row(webhooks, made))


async def _delete(call: Call) -> web.Response:
    """Delete a webhook."""
    await _webhooks(call).delete(call.principal, call.path("webhook"))
    return web.Response(status=204)


async def _pause(call: Call) -> WebhookRow:
    """Pause a webhook until it is resumed."""
    webhooks = _webhooks(call)
    return _row(webhooks, await webhooks.pause(call.principal, call.path("webhook")))


async def _resume(call: Call) -> WebhookRow:
    """Resume a webhook at its committed offset, or after a cursor."""
    webhooks = _webhooks(call)
    wanted = await call.body(ResumeWebhook)
    webhook = webhooks.get(call.principal, call.path("webhook"))
    after = ""
    if wanted.after:
        still = call.principal
        request = FeedRequest(webhook.feed, wanted.after)
        owner = call.deps.tokens.principal(webhook.subscriber) if webhook.subscriber != still.id else still
        pages = await call.deps.share.open_pages(lambda: owner, request, form=webhook.form, delivery="webhook")
        after = str(pages.cursor)
    return _row(webhooks, await webhooks.resume(call.principal, webhook.id, after=after))


async def _subscribers(call: Call) -> listing.RowPage[ConsumerStatistics]:
    """List the active consumers of all deliveries: state, lag, delivered records."""
    return listing.page_of(call, visible_consumers(call), ConsumerStatistics, "id")


_READ = Action.READ_READINGS
ROUTES = tagged(
    "webhooks",
    Route("GET", f"{API}/webhooks", _list, action=_READ, query=listing.params(WebhookRow)),
    Route("POST", f"{API}/webhooks", _create, action=_READ, body=NewWebhook, status=201, errors=(404, 410)),
    Route("GET", f"{API}/webhooks/{{webhook}}", _get, action=_READ, errors=(404,)),
    Route("DELETE", f"{API}/webhooks/{{webhook}}", _delete, action=_READ, status=204, errors=(404, 409)),
    Route("POST", f"{API}/webhooks/{{webhook}}/pause", _pause, action=_READ, errors=(404, 409)),
    Route(
        "POST", f"{API}/webhooks/{{webhook}}/resume", _resume, action=_READ, body=ResumeWebhook, errors=(404, 409, 410)
    ),
    Route("GET", f"{API}/subscribers", _subscribers, action=_READ, query=listing.params(ConsumerStatistics)),
)
