"""REST: the quality indicators by device and hour, a page of them cut from columns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from sensegate.authority.scope import Action, allows
from sensegate.authority.selection import DeviceFilter
from sensegate.clock import HOUR_US
from sensegate.model import BOOL, I64, QualityHour, QualityRow
from sensegate.quantities.indicator_sums import INDICATORS
from sensegate.web import listing
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route

_DECIMALS = 4
_POSITION_BITS = 24
"""More devices than these bits count are in no registry."""
_FIELDS = QualityRow.__struct_fields__


class _PageRequest(msgspec.Struct, frozen=True, eq=False):
    """Selection, order and position of a page."""

    position: I64
    """Place of each device in the order of ids, by index; -1: it is not selected."""
    filters: Mapping[str, tuple[str, ...]]
    """Field -> texts accepted."""
    sort: Sequence[tuple[str, bool]]
    """Empty: by device, the newest hour first."""
    after: tuple[int, int]
    """(position, hour) after which the page begins, in the order by device."""
    skip: int
    """Rows before the page, in another order."""
    limit: int


class _Columns(msgspec.Struct, frozen=True, eq=False):
    """Rows of several hours as columns."""

    device: I64
    hour: I64
    position: I64
    columns: Mapping[str, np.ndarray]
    """`received` and the indicators, rounded as they are shown."""

    def __len__(self) -> int:
        return len(self.device)

    def key(self, name: str) -> np.ndarray:
        """Return the column by which rows are sorted; undefined values come first."""
        if name in {"device", "hour"}:
            return self.position if name == "device" else self.hour
        column: np.ndarray = np.nan_to_num(self.columns[name], nan=-1.0)
        return column


async def _quality(call: Call) -> listing.RowPage[QualityRow]:
    """List the quality indicators by device and hour: authenticity, accuracy, continuity, completeness."""
    deps, devices = call.deps, call.deps.devices
    since = call.time("since") or deps.clock.now() - HOUR_US
    filters = {name: values for name in _FIELDS if (values := call.values(name))}
    wanted = filters.pop("device", ())
    conditions = {"id": lambda device_id: listing.matches(device_id, wanted)} if wanted else {}
    # Whoever may see the whole gateway sees the devices of other departments too.
    is_whole = allows(call.principal, Action.READ_LEDGER, deps.division)
    scope = None if is_whole else call.principal.scope
    selected = devices.select(scope, DeviceFilter(text=call.text("q"), fields=conditions))
    position = np.full(len(selected), -1, np.int64)
    order = devices.ordered(selected)
    position[order] = np.arange(len(order))
    sort, after = listing.sort_terms(call, _FIELDS), call.text("after")
    if sort == [("device", False)]:
        sort = []
    device_id, _, hour = after.partition(":")
    if after and not sort and not (hour.isdecimal() and len(hour) < 20):
        raise BadRequest(f"query: after: '{after[:80]}' is no `next` of this list; start without it")
    # The cursor's own device may be gone meanwhile: the page then begins with the next one.
    begin = len(order) - len(devices.ordered(selected, after=device_id)) - 1 if after and not sort else -1
    request = _PageRequest(
        position=position,
        filters=filters,
        sort=sort,
        after=(begin, int(hour) if begin >= 0 and devices.id(int(order[begin])) == device_id else -1),
        skip=listing.rows_to_skip(after) if sort else 0,
        limit=call.integer("limit", 1_000, deps.config.page_max),
    )
    # A day of a large city is millions of rows: they are unpacked and cut in a thread.
    rows, has_more = await asyncio.to_thread(_cut, deps.quality(since), request)
    page = [_row(devices.id(int(rows.device[row])), rows, row) for row in range(len(rows))]
    if not has_more:
        return listing.RowPage(page)
    return listing.RowPage(page, str(request.skip + request.limit) if sort else f"{page[-1].device}:{page[-1].hour}")


def _row(device_id: str, rows: _Columns, row: int) -> QualityRow:
    values = [rows.columns[name][row] for name in INDICATORS]
    shares = [None if np.isnan(value) else float(value) for value in values]
    return QualityRow(device_id, int(rows.hour[row]), int(rows.columns["received"][row]), *shares)


def _cut(hours: Iterable[QualityHour], request: _PageRequest) -> tuple[_Columns, bool]:
    """Return the rows of a page, and whether others follow."""
    rows = _joined([_selected(hour, request) for hour in hours])
    order = np.lexsort((-rows.hour, rows.position))
    for name, descends in reversed(request.sort):
        key = rows.key(name)[order]
        order = order[np.argsort(-key if descends else key, kind="stable")]
    order = order[request.skip : request.skip + request.limit + 1]
    return _taken(rows, order[: request.limit]), len(order) > request.limit


def _selected(hour: QualityHour, request: _PageRequest) -> _Columns:
    """Return the rows of an hour that a page may hold."""
    known = hour.device[: int(np.searchsorted(hour.device, len(request.position)))]
    position = request.position[known]
    begin, begin_hour = request.after
    # Of the cursor's device the hours before its own are left; a device that is gone has none left.
    is_wanted: BOOL = (position > begin) | ((position == begin) & (begin >= 0) & (hour.hour < begin_hour))
    is_wanted &= position >= 0
    rows = np.flatnonzero(is_wanted)
    if not request.sort and not request.filters and len(rows) > request.limit + 1:
        # A device has one row an hour, so that no more than these are on the page.
        rows = rows[np.argpartition(position[rows], request.limit)[: request.limit + 1]]
    elif len(request.sort) == 1 and not request.filters and len(rows) > request.skip + request.limit + 1:
        (name, descends), most = request.sort[0], request.skip + request.limit
        rows = rows[np.argpartition(_single_key(hour, position, rows, name, descends=descends), most)[: most + 1]]
    shares = {name: np.round(getattr(hour, name)[rows], _DECIMALS) for name in INDICATORS}
    columns = {"received": hour.received[rows], **shares}
    selected = _Columns(known[rows].astype(np.int64), np.full(len(rows), hour.hour), position[rows], columns)
    for name, texts in request.filters.items():
        selected = _taken(selected, np.flatnonzero(_fits(selected.hour if name == "hour" else columns[name], texts)))
        columns = dict(selected.columns)
    return selected


def _single_key(hour: QualityHour, position: I64, rows: I64, name: str, *, descends: bool) -> I64:
    """Return numbers that order rows of an hour by one column, and those that are equal in it by device."""
    if name in {"device", "hour"}:
        column = position[rows] if name == "device" else np.zeros(len(rows), np.int64)
    elif name == "received":
        column = hour.received[rows].astype(np.int64)
    else:
        column = np.round(np.nan_to_num(getattr(hour, name)[rows], nan=-1.0) * 10**_DECIMALS).astype(np.int64)
    return (-column if descends else column) * (1 << _POSITION_BITS) + position[rows]


def _fits(column: np.ndarray, texts: tuple[str, ...]) -> BOOL:
    """Return which values of a column have a text that is accepted."""
    values, place = np.unique(column, return_inverse=True)
    shown = ["None" if value != value else str(value) for value in values.tolist()]  # noqa: PLR0124 - only NaN differs
    fits: BOOL = np.array([listing.matches(text, texts) for text in shown], np.bool_)[place.reshape(-1)]
    return fits


def _taken(rows: _Columns, taken: I64) -> _Columns:
    columns = {name: column[taken] for name, column in rows.columns.items()}
    return _Columns(rows.device[taken], rows.hour[taken], rows.position[taken], columns)


def _joined(parts: list[_Columns]) -> _Columns:
    none = np.zeros(0, np.int64)
    columns = {
        name: np.concatenate([np.zeros(0), *(part.columns[name] for part in parts)])
        for name in ("received", *INDICATORS)
    }
    return _Columns(
        np.concatenate([none, *(part.device for part in parts)]),
        np.concatenate([none, *(part.hour for part in parts)]),
        np.concatenate([none, *(part.position for part in parts)]),
        columns,
    )


ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/quality",
        _quality,
        action=Action.READ_LEDGER,
        query=(
            QueryParam("since", "start time, or how far back (30m, 1h, 7d); default 1h"),
            *listing.params(QualityRow),
        ),
    ),
)
