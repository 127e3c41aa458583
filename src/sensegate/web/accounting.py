"""REST: the ledger, the audit trail."""

from __future__ import annotations

import asyncio
import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec
import numpy as np
from aiohttp import web

from sensegate.authority.chain import AuditRecord
from sensegate.authority.scope import Action, Principal, allows
from sensegate.bus import ledger as kinds
from sensegate.bus.ledger import Ledger
from sensegate.bus.names import city_of
from sensegate.clock import HOUR_US
from sensegate.share.place_totals import UNKNOWN, Place
from sensegate.web import listing, record_query
from sensegate.web.bodies import AuditRow, LedgerReport, LedgerRow
from sensegate.web.deps import WebDependencies
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

_AUDIT_ROWS_MAX = 5_000
_AUDIT_FILTERS = ("actor", "action", "target")
_BY = ("node", "division", "device", "hour", "reason")
_COLUMNS = {
    kinds.MESSAGES: "messages",
    kinds.DECODED: "decoded",
    kinds.QUARANTINED: "quarantined",
    kinds.VALUES: "values",
    kinds.ACCEPTED: "accepted",
    kinds.DUPLICATE: "duplicates",
    kinds.SUPPRESSED: "suppressed",
    kinds.REJECTED: "rejected",
    kinds.DOWNSAMPLED: "downsampled",
    kinds.FORWARDED: "forwarded",
    kinds.WITHHELD: "withheld",
    kinds.REFUSED_BY_CENTRE: "refused_by_centre",
}
Counts = dict[str, int]
DevicePlaces = Callable[[str], tuple[str, str] | None]
"""Device id -> (division, department); None: unknown here."""


def is_balanced(totals: Counts) -> bool:
    """Return whether all messages and values are accounted for."""
    sums: Counts = defaultdict(int)
    for kind, count in totals.items():
        sums[kind.partition(".")[0]] += count
    messages = sums[kinds.MESSAGES] - sums[kinds.DECODED] - sums[kinds.QUARANTINED]
    reprocessed = sums[kinds.REDECODED] - sums[kinds.RECOVERED] - sums[kinds.REREAD] - sums[kinds.STILL_REFUSED]
    outcomes = (kinds.ACCEPTED, kinds.DUPLICATE, kinds.SUPPRESSED, kinds.REJECTED, kinds.DOWNSAMPLED)
    return messages == 0 and reprocessed == 0 and sums[kinds.VALUES] == sum(sums[kind] for kind in outcomes)


def row_of(counts: Counts, by: str = "", key: str = "") -> LedgerRow:
    """Return counts by kind as a row of the table."""
    sums: Counts = defaultdict(int)
    for kind, count in counts.items():
        if group := _COLUMNS.get(kind.partition(".")[0]):
            sums[group] += count
    row = msgspec.convert(sums, LedgerRow)
    return msgspec.structs.replace(row, **{by: key}) if by else row


def places(deps: WebDependencies) -> DevicePlaces:
    """Return a function: device id -> (division, department)."""

    def place(device: str) -> tuple[str, str] | None:
        index = deps.devices.find(device)
        return deps.devices.place(index) if index >= 0 else None

    return place


class LedgerAccess:
    """Ledgers of nodes that a caller may see."""

    def __init__(self, principal: Principal, places: DevicePlaces) -> None:
        self._principal = principal
        self._places = places
        self._known: dict[str, bool] = {}

    def may_see_node(self, node: str) -> bool:
        """Return whether the caller may see the whole ledger of a node."""
        return allows(self._principal, Action.READ_LEDGER, city_of(node))

    def may_see_device(self, name: str, node: str, recorded: tuple[str, str] = ("", "")) -> bool:
        """Return whether the caller may see a device's counts; those of unknown devices belong to the node.

        `recorded`: (division, department) in the ledger, used if the registry does not know the device.
        """
        if self.may_see_node(node):
            return True
        if name not in self._known:
            place = self._place(name, recorded)
            self._known[name] = place is not None and allows(self._principal, Action.READ_LEDGER, *place)
        return self._known[name]

    def may_see_place(self, place: Place) -> bool:
        """Return whether the caller may see the counts of a place; those of an unknown one belong to the node."""
        return place != UNKNOWN and allows(self._principal, Action.READ_LEDGER, *place)

    def _place(self, name: str, recorded: tuple[str, str]) -> tuple[str, str] | None:
        return (self._places(name) if name else None) or (recorded if recorded[0] else None)


def tally(parts: Iterable[tuple[str, list[Callable[[], Ledger]]]], access: LedgerAccess) -> dict[str, Counts]:
    """Return device -> counts by kind of what the caller may see; `parts` are nodes with what reads their hours."""
    groups: dict[str, Counts] = defaultdict(lambda: defaultdict(int))
    for node, readers in parts:
        ledger = Ledger()
        for read in readers:
            ledger.merge(read())
        devices, _, kinds = ledger.names()
        kind, device, count = ledger.cells()
        sums = np.bincount(device * len(kinds) + kind, weights=count, minlength=len(devices) * len(kinds))
        rows = sums.astype(np.int64).reshape(len(devices), len(kinds)).tolist()
        for name, row in zip(devices, rows, strict=True):
            if any(row) and access.may_see_device(name, node, ledger.place_of(name)):
                _add(groups[name], {word: count for word, count in zip(kinds, row, strict=True) if count})
    return groups


async def _ledger(call: Call) -> LedgerReport | web.Response:
    """Get the ledger: counts of whole hours, which must balance."""
    by = call.text("by", "node")
    if by not in _BY:
        raise BadRequest(f"query: by: '{by[:20]}' is unknown; use one of {', '.join(_BY)}")
    media = record_query.accepted(call, ("application/json", "text/csv"))
    report = await _report(call, by, *_hours(call))
    if media == "text/csv":
        return web.Response(
            text=_csv(report.rows, by),
            content_type="text/csv",
            charset="utf-8",
            headers={"Content-Disposition": 'attachment; filename="ledger.csv"', "X-Balanced": str(report.balanced)},
        )
    return report


def _hours(call: Call) -> tuple[int, int | None]:
    """Return the first hour of a report, and the one before which it ends; None: it does not end."""
    begin, end = record_query.instant(call, "from"), record_query.instant(call, "to")
    if begin is not None and call.text("since"):
        raise BadRequest("query: from and since are both given; give one of them")
    if begin is None:
        begin = call.time("since") or call.deps.clock.now() - HOUR_US
    if end is not None and end <= begin:
        raise BadRequest("query: to: is not after from; give a later time")
    return begin // HOUR_US, None if end is None else -(-end // HOUR_US)


def _csv(rows: Iterable[LedgerRow], by: str) -> str:
    """Return the rows of a report as CSV."""
    file = io.StringIO(newline="")
    columns = [by, "count"] if by == "reason" else [by, *_COLUMNS.values(), *(["refused"] if by == "device" else [])]
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        key, *counts = (str(getattr(row, column)) for column in columns)
        # A device may bear a name that a spreadsheet would take for a formula.
        writer.writerow([f"'{key}" if key.startswith(("=", "+", "-", "@")) else key, *counts])
    return file.getvalue()


async def _report(call: Call, by: str, first: int, end: int | None) -> LedgerReport:
    deps = call.deps
    wanted = call.values("node")
    nodes = [node for node in deps.hourly.nodes(first, end) if not wanted or node in wanted]
    access = LedgerAccess(call.principal, places(deps))
    if by == "device":
        hours = {node: deps.hourly.hours(node, first, end) for node in nodes}
        parts = [(node, [deps.hourly.reader_of(node, hour) for hour in hours[node]]) for node in nodes]
        groups = await asyncio.to_thread(tally, parts, access)
    else:
        groups = defaultdict(lambda: defaultdict(int))
        for node in nodes:
            await _add_node(call, groups, by, node, (first, end))
    totals: Counts = defaultdict(int)
    for counts in groups.values():
        _add(totals, counts)
    refused = {name: counts for name, counts in deps.refused().items() if access.may_see_device(name, deps.division)}
    if by == "device":
        groups.update({name: {} for name in refused if name not in groups})
    rows = [row_of(counts, by, key) for key, counts in sorted(groups.items())]
    if by == "device":
        rows = [msgspec.structs.replace(row, refused=sum(refused.get(row.device, {}).values())) for row in rows]
    if by == "reason":
        rows = [LedgerRow(reason=kind, count=count) for kind, count in sorted(totals.items())]
    limit = call.integer("limit", deps.config.page_max, deps.config.page_max)
    return LedgerReport(
        rows[:limit],
        dict(sorted(totals.items())),
        is_balanced(totals),
        _delivered(call),
        _sum_counts(refused.values()),
        iso(first * HOUR_US),
        deps.role,
        deps.division,
    )


async def _add_node(call: Call, groups: dict[str, Counts], by: str, node: str, span: tuple[int, int | None]) -> None:
    """Add the counts of a node that the caller may see to their groups; `span`: hours as of `_hours`."""
    deps, access = call.deps, LedgerAccess(call.principal, places(call.deps))
    is_whole = access.may_see_node(node)
    if is_whole and by != "division":
        for hour, counts in deps.hourly.totals(node, *span).items():
            _add(groups[_key(by, node, hour, UNKNOWN)], counts)
        return
    for hour, counts_by_place in (await deps.hourly.places.of(node, *span)).items():
        for place, sums in counts_by_place.items():
            if is_whole or access.may_see_place(place):
                _add(groups[_key(by, node, hour, place)], sums)


def _key(by: str, node: str, hour: int, place: Place) -> str:
    if by == "division":
        return place[0] or city_of(node)
    return iso(hour * HOUR_US) if by == "hour" else node


def _add(totals: Counts, counts: Mapping[str, int]) -> None:
    for kind, count in counts.items():
        totals[kind] += count


def _sum_counts(parts: Iterable[Mapping[str, int]]) -> Counts:
    total: Counts = defaultdict(int)
    for part in parts:
        for kind, count in part.items():
            total[str(kind)] += count
    return dict(sorted(total.items()))


def _delivered(call: Call) -> int:
    tokens = {token.id for token in call.deps.tokens.list(call.principal, limit=1_000_000)}
    whole = allows(call.principal, Action.READ_LEDGER, call.deps.division)
    own = call.principal.id
    return sum(row.records for row in call.deps.share.usage() if whole or row.token in tokens or row.token == own)


async def _audit(call: Call) -> listing.RowPage[AuditRow]:
    """List the records of the audit trail, oldest first, or by `newest` newest first."""
    if not allows(call.principal, Action.READ_AUDIT, call.deps.division):
        return listing.RowPage([])
    after = call.integer("after", 1, 2**53) if call.text("after") else 0
    limit = call.integer("limit", 500, _AUDIT_ROWS_MAX)
    if call.text("newest") == "true":
        wanted = {name: call.text(name) for name in _AUDIT_FILTERS}

        def match(record: AuditRecord) -> bool:
            return all(text in getattr(record, name) for name, text in wanted.items())

        stored = msgspec.json.encode(max(wanted.values(), key=len))[1:-1]
        search = await call.deps.audit.newest(stored, match, limit, before=after)
        rows = [_audit_row(sequence, record) for sequence, record in search.records]
        return listing.RowPage(rows, str(search.before) if search.before else "")
    if any(call.text(name) for name in _AUDIT_FILTERS):
        raise BadRequest("query: newest: is missing; filters of the trail search from its end, so give newest=true")
    rows = [_audit_row(sequence, record) for sequence, record in await call.deps.audit.read(after, limit=limit)]
    return listing.RowPage(rows, str(rows[-1].entry) if len(rows) == limit else "")


def _audit_row(sequence: int, record: AuditRecord) -> AuditRow:
    return AuditRow(
        sequence,
        record.number,
        iso(record.time),
        record.actor,
        record.role,
        record.action,
        record.target,
        record.before,
        record.after,
    )


_SINCE = QueryParam("since", "start time, or how far back (30m, 1h, 7d); default 1h")
_FROM = (
    QueryParam("after", "`next` of the previous page"),
    QueryParam("limit", "maximum number of rows, default 500", "integer", minimum=1, maximum=_AUDIT_ROWS_MAX),
)
ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/ledger",
        _ledger,
        action=Action.READ_LEDGER,
        query=(
            _SINCE,
            QueryParam("from", "as since, with a zone"),
            QueryParam("to", "time at which to end; whole hours are counted"),
            QueryParam("by", f"group rows by one of {', '.join(_BY)}"),
            QueryParam("node", "filter by node"),
            QueryParam("limit", "maximum number of rows", "integer", minimum=1, maximum_setting="page_max"),
        ),
        media=("application/json", "text/csv"),
        errors=(406,),
    ),
    Route(
        "GET",
        f"{API}/audit",
        _audit,
        action=Action.READ_AUDIT,
        query=(
            *_FROM,
            QueryParam("newest", "newest first; at most 20,000 records are searched, `next` goes on", "boolean"),
            *(QueryParam(name, f"with newest: part of the {name}") for name in _AUDIT_FILTERS),
        ),
    ),
)
