"""REST: webhooks, and who reads what at this moment."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from sensegate.authority.scope import Action, may
from sensegate.errors import PermissionDenied
from sensegate.ports import Part
from sensegate.share.sharing import FeedRequest
from sensegate.share.webhooks import Webhook, Webhooks
from sensegate.web import listing
from sensegate.web.bodies import Body, FeedName
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Route

FORMS = ("json", "ndjson", "csv", "msgpack", "senml")


class NewWebhook(Body, frozen=True):
    """A webhook to be made; it begins after a cursor, at a time of arrival, or with the oldest that is kept."""

    feed: FeedName
    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2_000)]
    """Where letters are posted to: https, unless the configuration names the host (`egress.allow`)."""
    form: Literal["json", "ndjson", "csv", "msgpack", "senml"] = "json"
    algorithm: Literal["hmac-sha256", "hmac-sm3"] = "hmac-sha256"
    batch: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    """Most records of one letter."""
    after: str = ""
    since: str = ""
    """ISO 8601."""


class ResumeWebhook(Body, frozen=True):
    """Where to go on; without a cursor from where it stood."""

    after: str = ""


class WebhookRow(msgspec.Struct, frozen=True):
    """A webhook and where it stands."""

    id: str
    feed: str
    subscriber: str
    url: str
    algorithm: str
    form: str
    batch: int
    created: int
    state: str
    """``on``; ``paused``: resume it; ``ended``: the receiver answered 410; ``gone``: say where to go on."""
    why: str
    cursor: str
    """After the last record that was taken."""


class MadeWebhook(msgspec.Struct, frozen=True):
    """A new webhook and the secret by which its letters are signed, which is shown only here."""

    id: str
    secret: str
    webhook: WebhookRow


class SubscriberRow(msgspec.Struct, frozen=True):
    """One who reads at this moment: an open stream or socket, or a line that sends."""

    id: str
    subscriber: str
    feed: str
    delivery: str
    state: str
    lag_entries: int
    lag_s: float
    records: int
    failures: int
    since: int
    last: int
    cursor: str
    grant: str
    why: str


WEBHOOKS = Part[Webhooks]("webhooks", absent="this gateway sends no webhooks")


def _hooks(call: Call) -> Webhooks:
    return call.part(WEBHOOKS)


def _row(hooks: Webhooks, hook: Webhook) -> WebhookRow:
    mark = hooks.offset(hook.id)
    return WebhookRow(
        hook.id,
        hook.feed,
        hook.subscriber,
        hook.url,
        hook.algorithm,
        hook.form,
        hook.batch,
        hook.created,
        str(mark.state),
        mark.reason,
        mark.after,
    )


async def _list(call: Call) -> Any:
    hooks = _hooks(call)
    return listing.answer(call, [_row(hooks, hook) for hook in hooks.visible(call.principal)], WebhookRow, "id")


async def _get(call: Call) -> Any:
    hooks = _hooks(call)
    return _row(hooks, hooks.get(call.principal, call.path("webhook")))


async def _create(call: Call) -> Any:
    hooks = _hooks(call)
    wanted = await call.body(NewWebhook)
    if wanted.after and wanted.since:
        raise BadRequest("body: give after or since, not both")
    since = call.moment(wanted.since, "body: since") if wanted.since else None
    principal = call.principal
    if not call.deps.tokens.good(principal):
        raise PermissionDenied("a webhook belongs to a token and ends with it; make it with one")
    # Who may not read it by webhook in this form hears so now, and where it begins is fixed.
    request = FeedRequest(wanted.feed, wanted.after, since)
    pages = await call.deps.share.open_pages(lambda: principal, request, form=wanted.form, delivery="webhook")
    made, secret = await hooks.create(principal, wanted, after=str(pages.place))
    return MadeWebhook(made.id, secret, _row(hooks, made))


async def _delete(call: Call) -> Any:
    await _hooks(call).delete(call.principal, call.path("webhook"))
    return web.Response(status=204)


async def _pause(call: Call) -> Any:
    hooks = _hooks(call)
    return _row(hooks, await hooks.pause(call.principal, call.path("webhook")))


async def _resume(call: Call) -> Any:
    hooks = _hooks(call)
    wanted = await call.body(ResumeWebhook)
    found = hooks.get(call.principal, call.path("webhook"))
    after = ""
    if wanted.after:
        still = call.principal
        request = FeedRequest(found.feed, wanted.after)
        owner = call.deps.tokens.of(found.subscriber) if found.subscriber != still.id else still
        pages = await call.deps.share.open_pages(lambda: owner, request, form=found.form, delivery="webhook")
        after = str(pages.place)
    return _row(hooks, await hooks.resume(call.principal, found.id, after=after))


async def _subscribers(call: Call) -> Any:
    principal, tokens = call.principal, call.deps.tokens
    seen = {token.id for token in tokens.list(principal, limit=1_000_000)}
    everyone = principal.scope.department == "" and call.deps.division.startswith(principal.scope.division)
    whole = everyone and may(principal, Action.READ_LEDGER)
    rows = [
        msgspec.convert(row, SubscriberRow, from_attributes=True)
        for row in call.deps.roll.rows()
        if whole or row.subscriber in seen or row.subscriber == principal.id
    ]
    return listing.answer(call, rows, SubscriberRow, "id")


_READ = Action.READ_READINGS
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/webhooks",
        call=_list,
        what="Webhooks of the caller and of tokens that it may see.",
        tag="webhooks",
        action=_READ,
        query=listing.params(WebhookRow),
        answer=list[WebhookRow],
    ),
    Route(
        method="POST",
        path=f"{API}/webhooks",
        call=_create,
        what="Have a feed posted to an address; the secret of its signatures is shown only here.",
        tag="webhooks",
        action=_READ,
        body=NewWebhook,
        answer=MadeWebhook,
        status=201,
        errors=(404, 410),
    ),
    Route(
        method="GET",
        path=f"{API}/webhooks/{{webhook}}",
        call=_get,
        what="One webhook and where it stands.",
        tag="webhooks",
        action=_READ,
        answer=WebhookRow,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=f"{API}/webhooks/{{webhook}}",
        call=_delete,
        what="Remove a webhook.",
        tag="webhooks",
        action=_READ,
        status=204,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/webhooks/{{webhook}}/pause",
        call=_pause,
        what="Send nothing until it is resumed.",
        tag="webhooks",
        action=_READ,
        answer=WebhookRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/webhooks/{{webhook}}/resume",
        call=_resume,
        what="Go on from where it stood, or after a cursor.",
        tag="webhooks",
        action=_READ,
        body=ResumeWebhook,
        answer=WebhookRow,
        errors=(404, 409, 410),
    ),
    Route(
        method="GET",
        path=f"{API}/subscribers",
        call=_subscribers,
        what="Who reads at this moment, by every delivery: state, how far behind, what was taken.",
        tag="webhooks",
        action=_READ,
        query=listing.params(SubscriberRow),
        answer=list[SubscriberRow],
    ),
)
