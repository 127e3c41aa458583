"""REST: channels by which alarms are delivered."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sensegate.alarms.channels import AlarmChannel, AlarmChannels, ChannelKind, shown_url
from sensegate.alarms.delivery import AlarmDeliveries
from sensegate.alarms.notices import Notice
from sensegate.alarms.rules import Severity
from sensegate.authority.scope import Action, demand, scope
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso


class ChannelOffice(msgspec.Struct, frozen=True, eq=False):
    """Channels with what delivers by them."""

    channels: AlarmChannels
    deliveries: AlarmDeliveries


CHANNELS = PartKey[ChannelOffice]("alarm channels", absent="this gateway delivers no alarms")


class NewAlarmChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A channel. An empty url or secret keeps that of the channel that is replaced."""

    kind: ChannelKind
    place: str = ""
    """Division, or DIVISION/DEPARTMENT; empty: the caller's scope."""
    severity: Severity = Severity.WARNING
    """Events of a lower severity are not delivered."""
    events: tuple[str, ...] = ("opened", "closed")
    """Some of ``opened``, ``acknowledged``, ``silenced``, ``closed``."""
    url: str = ""
    secret: str = ""
    """Of a webhook (16 characters or more) and of a robot of 钉钉."""
    recipients: tuple[str, ...] = ()
    """Mail addresses."""
    on_call: str = ""
    """Person on call, named in the last line of each message."""
    language: str = "zh"
    """``zh`` or ``en``."""
    enabled: bool = True


class AlarmChannelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A channel and how it delivers. Neither its secret nor the query of its address is shown."""

    name: str
    kind: ChannelKind
    place: str
    severity: Severity
    events: tuple[str, ...]
    url: str
    has_secret: bool
    recipients: tuple[str, ...]
    on_call: str
    language: str
    enabled: bool
    written_by: str
    delivered: int
    skipped: int
    """Events that were older than a day before they could be delivered."""
    failures: int
    """Attempts that failed since the last success."""
    reason: str
    last: str
    """Time of the last success."""
    revision: int


class TrialResult(msgspec.Struct, frozen=True):
    """Outcome of a trial message."""

    accepted: bool
    reason: str


def _row(call: Call, channel: AlarmChannel) -> AlarmChannelRow:
    state = call.part(CHANNELS).channels.state(channel.name)
    place = channel.place
    return AlarmChannelRow(
        name=channel.name,
        kind=channel.kind,
        place=f"{place.division}/{place.department}" if place.department else place.division,
        severity=channel.severity,
        events=channel.events,
        url=shown_url(channel),
        has_secret=bool(channel.secret),
        recipients=channel.recipients,
        on_call=channel.on_call,
        language=channel.language,
        enabled=channel.enabled,
        written_by=channel.written_by,
        delivered=state.delivered,
        skipped=state.skipped,
        failures=state.failures,
        reason=state.reason,
        last=iso(state.last) if state.last else "",
        revision=channel.revision,
    )


async def _list(call: Call) -> listing.RowPage[AlarmChannelRow]:
    """List the channels by which alarms are delivered: webhooks, robots of 企业微信 and 钉钉, mail."""
    rows = [_row(call, channel) for channel in call.part(CHANNELS).channels.visible(call.principal)]
    return listing.page_of(call, rows, AlarmChannelRow, "name")


async def _get(call: Call) -> AlarmChannelRow:
    """Get an alarm channel."""
    return _row(call, call.part(CHANNELS).channels.get(call.path("channel"), call.principal))


async def _put(call: Call) -> AlarmChannelRow:
    """Write an alarm channel; one that exists is replaced as of the revision in If-Match."""
    body = await call.body(NewAlarmChannel)
    office = call.part(CHANNELS)
    values = {name: getattr(body, name) for name in NewAlarmChannel.__struct_fields__ if name != "place"}
    place = scope(body.place) if body.place else call.principal.scope
    channel = AlarmChannel(**values, name=call.path("channel"), place=place)
    revision = call.revision(required=False) or 0
    written = await office.channels.put(
        channel, revision=revision, start=await office.deliveries.end(), by=call.principal
    )
    return _row(call, written)


async def _delete(call: Call) -> web.Response:
    """Delete an alarm channel; nothing more is delivered to it."""
    await call.part(CHANNELS).channels.delete(call.path("channel"), by=call.principal)
    return web.Response(status=204)


async def _trial(call: Call) -> TrialResult:
    """Send a trial message by an alarm channel; says whether the receiver accepted it."""
    office = call.part(CHANNELS)
    channel = office.channels.get(call.path("channel"), call.principal)
    demand(call.principal, Action.CHANGE_ALARMS, channel.place.division, channel.place.department)
    now = call.deps.clock.now()
    notice = Notice(
        id=f"trial-{now:x}",
        time=iso(now),
        event="opened",
        alarm="trial",
        rule="trial",
        kind="trial",
        severity=Severity.INFO,
        title="试发 (trial)",
        device="",
        division=channel.place.division,
        department=channel.place.department,
    )
    result = await office.deliveries.attempt(channel, [notice])
    return TrialResult(result.accepted, result.reason)


_CHANNEL = f"{API}/alarm-channels/{{channel}}"
ROUTES = tagged(
    "alarms",
    Route("GET", f"{API}/alarm-channels", _list, action=Action.READ_ALARMS, query=listing.params(AlarmChannelRow)),
    Route("GET", _CHANNEL, _get, action=Action.READ_ALARMS, errors=(404,)),
    Route("PUT", _CHANNEL, _put, action=Action.CHANGE_ALARMS, body=NewAlarmChannel, errors=(404, 409, 412)),
    Route("DELETE", _CHANNEL, _delete, action=Action.CHANGE_ALARMS, status=204, errors=(404, 409)),
    Route("POST", f"{_CHANNEL}/trial", _trial, action=Action.CHANGE_ALARMS, errors=(404,)),
)
