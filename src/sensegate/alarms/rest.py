"""REST: alarms, and the rules that raise them."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
from aiohttp import web

from sensegate.alarms.operations import AlarmOperations
from sensegate.alarms.records import Alarm
from sensegate.alarms.rules import AlarmKind, AlarmRule, AlarmRuleTerms, Severity
from sensegate.authority.scope import Action, Scope, scope
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

ALARMS = PartKey[AlarmOperations]("alarms", absent="this gateway raises no alarms")


class NewAlarmRule(AlarmRuleTerms, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rule; what does not belong to its kind is left out. Values are in the property's unit."""

    place: str = ""
    """Division, or DIVISION/DEPARTMENT; empty: the caller's scope."""


class AlarmRuleRow(NewAlarmRule, frozen=True, kw_only=True):
    """A rule, of an operator, a profile (``vendor/model:name``) or the gateway (``gateway:name``)."""

    name: str
    written_by: str
    revision: int


class AlarmRow(msgspec.Struct, frozen=True):
    """An alarm."""

    id: str
    rule: str
    kind: AlarmKind
    severity: Severity
    title: str
    state: str
    """``open``, ``acknowledged`` or ``closed``."""
    node: str
    device: str
    """Empty: the gateway itself."""
    property: str
    channel: str
    value: float | str | None
    division: str
    department: str
    opened: str
    changed: str
    closed: str
    acknowledged_by: str
    acknowledged: str
    """Time of the acknowledgement; empty: none, or it is not known."""
    note: str
    silenced_until: str
    reason: str


class AlarmNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Note with which an alarm is acknowledged."""

    note: Annotated[str, msgspec.Meta(max_length=500)] = ""


class AlarmSilence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Time for which an alarm is silenced."""

    seconds: Annotated[float, msgspec.Meta(ge=0, le=2_592_000)]
    """0 ends a silence."""
    note: Annotated[str, msgspec.Meta(max_length=500)] = ""


def _row(alarm: Alarm) -> AlarmRow:
    property_, _, channel = alarm.key.property.partition("#")
    value = alarm.value
    return AlarmRow(
        alarm.id,
        alarm.key.rule,
        alarm.kind,
        alarm.severity,
        alarm.title,
        alarm.state,
        alarm.key.node,
        alarm.key.device,
        property_,
        channel,
        None if isinstance(value, float) and not math.isfinite(value) else value,
        alarm.subject.division,
        alarm.subject.department,
        iso(alarm.opened),
        iso(alarm.changed),
        iso(alarm.closed),
        alarm.acknowledged_by,
        iso(alarm.acknowledged),
        alarm.note,
        iso(alarm.silenced_until),
        alarm.reason,
    )


def _rule_row(rule: AlarmRule) -> AlarmRuleRow:
    place = f"{rule.place.division}/{rule.place.department}" if rule.place.department else rule.place.division
    values = {name: getattr(rule, name) for name in AlarmRuleTerms.__struct_fields__}
    return AlarmRuleRow(**values, place=place, name=rule.name, written_by=rule.written_by, revision=rule.revision)


async def _list(call: Call) -> listing.RowPage[AlarmRow]:
    """List alarms, open and closed; filter by state, severity, device; sort=-opened gives the newest first."""
    return listing.page_of(call, map(_row, call.part(ALARMS).list(call.principal)), AlarmRow, "id")


async def _get(call: Call) -> AlarmRow:
    """Get an alarm."""
    return _row(call.part(ALARMS).get(call.path("alarm"), call.principal))


async def _acknowledge(call: Call) -> AlarmRow:
    """Acknowledge an open alarm."""
    body = await call.body(AlarmNote)
    return _row(await call.part(ALARMS).acknowledge(call.path("alarm"), note=body.note, by=call.principal))


async def _silence(call: Call) -> AlarmRow:
    """Silence an alarm for a time, also where it opens anew."""
    body = await call.body(AlarmSilence)
    operations = call.part(ALARMS)
    return _row(await operations.silence(call.path("alarm"), seconds=body.seconds, note=body.note, by=call.principal))


async def _rules(call: Call) -> listing.RowPage[AlarmRuleRow]:
    """List alarm rules of operators, of profiles and of the gateway."""
    return listing.page_of(call, map(_rule_row, call.part(ALARMS).rules.visible(call.principal)), AlarmRuleRow, "name")


async def _rule(call: Call) -> AlarmRuleRow:
    """Get an alarm rule."""
    return _rule_row(call.part(ALARMS).rules.get(call.path("rule"), call.principal))


async def _put_rule(call: Call) -> AlarmRuleRow:
    """Write an alarm rule; one that exists is replaced as of the revision in If-Match."""
    body = await call.body(NewAlarmRule)
    place: Scope = scope(body.place) if body.place else call.principal.scope
    values = {name: getattr(body, name) for name in AlarmRuleTerms.__struct_fields__}
    rule = AlarmRule(**values, place=place, name=call.path("rule"))
    revision = call.revision(required=False) or 0
    return _rule_row(await call.part(ALARMS).rules.put(rule, revision=revision, by=call.principal))


async def _delete_rule(call: Call) -> web.Response:
    """Delete an operator's alarm rule; its alarms close."""
    await call.part(ALARMS).rules.delete(call.path("rule"), by=call.principal)
    return web.Response(status=204)


_ALARM, _RULE = f"{API}/alarms/{{alarm}}", f"{API}/alarm-rules/{{rule}}"
ROUTES = tagged(
    "alarms",
    Route("GET", f"{API}/alarms", _list, action=Action.READ_ALARMS, query=(*listing.params(AlarmRow), listing.WITHIN)),
    Route("GET", _ALARM, _get, action=Action.READ_ALARMS, errors=(404,)),
    Route(
        "POST", f"{_ALARM}/acknowledge", _acknowledge, action=Action.CHANGE_ALARMS, body=AlarmNote, errors=(404, 409)
    ),
    Route("POST", f"{_ALARM}/silence", _silence, action=Action.CHANGE_ALARMS, body=AlarmSilence, errors=(404, 409)),
    Route("GET", f"{API}/alarm-rules", _rules, action=Action.READ_ALARMS, query=listing.params(AlarmRuleRow)),
    Route("GET", _RULE, _rule, action=Action.READ_ALARMS, errors=(404,)),
    Route("PUT", _RULE, _put_rule, action=Action.CHANGE_ALARMS, body=NewAlarmRule, errors=(404, 409, 412)),
    Route("DELETE", _RULE, _delete_rule, action=Action.CHANGE_ALARMS, status=204, errors=(404, 409)),
)
