"""REST: who changed a device or a profile, when, and what: from the audit trail, newest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sensegate.authority.chain import AuditRecord
from sensegate.authority.scope import Action, allows
from sensegate.authority.trail import Facts
from sensegate.web.profiles import name_of, releases_of
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

CHANGES_MAX = 200
_VALUE_MAX = 500
"""Most characters of a value that is shown."""


class FieldChange(msgspec.Struct, frozen=True):
    """Change of one field."""

    key: str
    before: Any
    """Null: it had no value."""
    after: Any


class ChangeRow(msgspec.Struct, frozen=True):
    """A change as the audit trail has it."""

    number: int
    """Number of the record in the trail."""
    time: str
    actor: str
    role: str
    action: str
    target: str
    fields: list[FieldChange]
    """Fields that differ; empty where the caller may not see them, or nothing but the state of something changed."""


class ChangeList(msgspec.Struct, frozen=True):
    """Changes, newest first."""

    rows: list[ChangeRow]
    since: str
    """Time of the oldest record that was looked at; empty: there is none."""
    complete: bool
    """True if the whole trail was scanned."""


def _shown(value: Any) -> Any:
    text = str(value)
    return f"{text[:_VALUE_MAX]}…" if len(text) > _VALUE_MAX else value


def _fields(before: Facts, after: Facts) -> list[FieldChange]:
    """Return the fields that differ; of a record without `before` those that have a value."""
    names = sorted({*before, *after})
    pairs = [(name, before.get(name), after.get(name)) for name in names]
    return [
        FieldChange(name, _shown(old), _shown(new))
        for name, old, new in pairs
        if old != new and not (old is None and new in ("", [], None))
    ]


def _row(record: AuditRecord, before: Facts | None, after: Facts | None) -> ChangeRow:
    return ChangeRow(
        record.number,
        iso(record.time),
        record.actor,
        record.role,
        record.action,
        record.target,
        _fields(before or {}, after or {}),
    )


async def _list(call: Call, needle: str, row_of: Callable[[AuditRecord], ChangeRow | None]) -> ChangeList:
    """Return the newest changes; `needle`: text that a record must contain to be looked at."""
    limit = call.integer("limit", 20, CHANGES_MAX)
    stored = msgspec.json.encode(needle)[1:-1]
    search = await call.deps.audit.newest(stored, lambda record: row_of(record) is not None, limit)
    rows = [row for _, record in search.records if (row := row_of(record)) is not None]
    return ChangeList(rows, iso(search.since) if search.since else "", search.before == 0)


async def _of_device(call: Call) -> ChangeList:
    """List who changed a device, when, and what, newest first."""
    device = call.deps.devices.get(call.path("device"), call.principal)

    def visible(facts: Facts | None) -> Facts:
        """Return facts, without those of a time when the device was registered out of the caller's scope."""
        division = str((facts or {}).get("division", device.division))
        department = str((facts or {}).get("department", device.department))
        return (facts or {}) if allows(call.principal, Action.READ_REGISTRY, division, department) else {}

    def row(record: AuditRecord) -> ChangeRow | None:
        if record.target != device.id or not record.action.startswith("device."):
            return None
        before, after = visible(record.before), visible(record.after)
        # A record of one side only tells a state, as that of a password: the other side is unknown, not empty.
        return _row(record, before if record.after is not None else {}, after)

    return await _list(call, device.id, row)


async def _of_profile(call: Call) -> ChangeList:
    """List who changed the versions of a profile, when, and what, newest first."""
    name = name_of(call)
    versions = {version.number for version in releases_of(call).get(name, call.principal).versions}
    is_whole = allows(call.principal, Action.READ_REGISTRY, call.deps.division)

    def row(record: AuditRecord) -> ChangeRow | None:
        profile, _, number = record.target.partition("@")
        if profile != name or not record.action.startswith("profile."):
            return None
        if not is_whole and (not number.isdecimal() or int(number) not in versions):
            return None
        # What was in force elsewhere is for those who see the whole gateway.
        return _row(record, record.before if is_whole and "in_force" in (record.after or {}) else None, record.after)

    return await _list(call, name, row)


_QUERY = (QueryParam("limit", "maximum number of rows, default 20", "integer", minimum=1, maximum=CHANGES_MAX),)
ROUTES = tagged(
    "devices",
    Route(
        "GET", f"{API}/devices/{{device}}/changes", _of_device, action=Action.READ_REGISTRY, query=_QUERY, errors=(404,)
    ),
    Route(
        "GET",
        f"{API}/profiles/{{vendor}}/{{model}}/changes",
        _of_profile,
        tag="profiles",
        action=Action.READ_REGISTRY,
        query=_QUERY,
        errors=(404,),
    ),
)
