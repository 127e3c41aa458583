"""REST: the survey of what stands where (城市部件摸查), the map of devices, and their labels."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator

import msgspec
import numpy as np
from aiohttp import web

from sensegate.authority.devices import Devices
from sensegate.authority.label import label_path
from sensegate.authority.scope import Action, Scope
from sensegate.authority.selection import DeviceFilter
from sensegate.errors import PermissionDenied
from sensegate.model import BOOL, I64, Device, DeviceState
from sensegate.web import listing, record_query
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

GAPS = ("place", "owner", "department", "domain", "asset", "name", "never_heard")
"""Fields that a component may lack in the registry."""
SLICE = 2_000
"""Components of an export that are read before other requests have their turn."""
CELLS_MAX = 24
ROWS_MAX = 1_000
LABELS_MAX = 200
_GEOJSON = "application/geo+json"
_FILTERS = (
    QueryParam("division", "restrict to a division, with all below it"),
    QueryParam("domain", "filter by class (domain)"),
    QueryParam("department", "filter by department"),
    QueryParam("state", "filter by state"),
    QueryParam("gap", f"filter by what is missing: {', '.join(GAPS)}"),
)


class SurveyRow(msgspec.Struct, frozen=True):
    """Components of one class, division and department."""

    domain: str
    """Class of the components; empty: not given."""
    division: str
    department: str
    components: int
    active: int
    silent: int
    never_heard: int
    disabled: int
    """Disabled or retired."""
    without_place: int
    without_owner: int
    without_asset: int


class ComponentRow(msgspec.Struct, frozen=True):
    """Component with the data that the registry lacks."""

    id: str
    name: str
    domain: str
    asset: str
    division: str
    place: str
    """Name of the division."""
    department: str
    owner: str
    state: str
    profile: str
    lon: float | None
    """WGS-84 degrees."""
    lat: float | None
    last_seen: str
    gaps: list[str]


class MapCell(msgspec.Struct, frozen=True):
    """Devices near one another; a single one has its id."""

    lon: float
    lat: float
    devices: int
    silent: int
    disabled: int
    id: str = ""


class LabelRow(msgspec.Struct, frozen=True):
    """The label of a device: its QR code as an SVG path of `size` by `size` units, and the texts below it."""

    id: str
    name: str
    division: str
    profile: str
    size: int
    path: str


def _scope(call: Call) -> Scope:
    """Return the part of the caller's scope that the query asks for. Raises `PermissionDenied`, `ConfigError`."""
    scope, text = call.principal.scope, call.text("division")
    if not text:
        return scope
    code = call.deps.divisions.check(text)[0]
    if scope.division.startswith(code):
        return scope
    if not code.startswith(scope.division):
        raise PermissionDenied(f"division {code} is outside your scope ({scope.division})")
    return Scope(code, scope.department)


def _gaps(device: Device, lon: float, seen: int) -> list[str]:
    missing = {
        "place": math.isnan(lon),
        "owner": not device.owner,
        "department": not device.department,
        "domain": not device.domain,
        "asset": not device.asset,
        "name": not device.name,
        "never_heard": not seen,
    }
    return [gap for gap in GAPS if missing[gap]]


def _component(call: Call, at: int) -> ComponentRow:
    devices = call.deps.devices
    device, seen = devices.record(at), devices.seen(at)
    lon, lat = float(devices.lon[at]), float(devices.lat[at])
    divisions = call.deps.divisions
    return ComponentRow(
        device.id,
        device.name,
        device.domain,
        device.asset,
        device.division,
        divisions.get(device.division).name_zh if device.division in divisions else "",
        device.department,
        device.owner,
        device.state.value,
        device.profile,
        None if math.isnan(lon) else round(lon, 6),
        None if math.isnan(lat) else round(lat, 6),
        iso(seen),
        _gaps(device, lon, seen),
    )


def _selected(call: Call) -> I64:
    """Return the indices of the components that the query selects, in order of id. Raises `BadRequest`."""
    devices, gap = call.deps.devices, call.text("gap")
    if gap and gap not in GAPS:
        raise BadRequest(f"query: gap: '{gap[:20]}' is unknown; use one of {', '.join(GAPS)}")
    state = call.text("state")
    if state and state not in set(DeviceState):
        raise BadRequest(f"query: state: '{state[:20]}' is unknown; use one of {', '.join(DeviceState)}")
    wanted = DeviceFilter(
        states=frozenset({DeviceState(state)}) if state else frozenset(),
        domain=call.text("domain"),
        department=call.text("department"),
        text=call.text("q"),
    )
    mask = devices.select(_scope(call), wanted)
    if gap:
        mask &= _lacking(devices)[gap]
    return devices.ordered(mask, after=call.text("after"))


def _lacking(devices: Devices) -> dict[str, BOOL]:
    """Return for each of `GAPS` a mask, by index, of the devices that have it."""
    index, size = devices.index, len(devices)
    return {
        "place": np.isnan(index.lon[:size]),
        "owner": ~index.has_owner[:size],
        "department": index.department[:size] == index.departments.find(""),
        "domain": index.domain[:size] == index.domains.find(""),
        "asset": ~index.has_asset[:size],
        "name": ~index.has_name[:size],
        "never_heard": index.last_seen[:size] == 0,
    }


async def _survey(call: Call) -> listing.RowPage[SurveyRow]:
    """Count components by class (domain), division and department, with what the registry lacks of them."""
    devices, index = call.deps.devices, call.deps.devices.index
    selected = np.flatnonzero(devices.mask(_scope(call)))
    size = len(devices)
    (domain, domains), (division, divisions), (department, departments) = map(
        devices.words, ("domain", "division", "department")
    )
    shape = max(len(domains), 1), max(len(divisions), 1), max(len(departments), 1)
    key = np.ravel_multi_index((domain[selected], division[selected], department[selected]), shape)
    groups, member = np.unique(key, return_inverse=True)
    member = member.reshape(-1)
    enabled, silent = index.enabled[:size], devices.silent()
    lacking = _lacking(devices)
    masks = (
        np.ones(size, np.bool_),
        enabled & ~lacking["never_heard"] & ~silent,
        silent,
        lacking["never_heard"],
        ~enabled,
        lacking["place"],
        lacking["owner"],
        lacking["asset"],
    )
    figures = [mask[selected] for mask in masks]
    columns = [np.bincount(member, weights=figure, minlength=len(groups)).astype(int) for figure in figures]
    rows: list[SurveyRow] = []
    for place, (first, second, third) in enumerate(zip(*np.unravel_index(groups, shape), strict=True)):
        counts = [int(column[place]) for column in columns]
        rows.append(SurveyRow(domains[first], divisions[second], departments[third], *counts))
    rows.sort(key=lambda row: (row.domain, row.division, row.department))
    return listing.page_of(call, rows, SurveyRow, "domain", "division", "department")


async def _components(call: Call) -> listing.RowPage[ComponentRow] | web.StreamResponse:
    """List components with place, owner, state and gaps; as CSV or GeoJSON by `Accept`."""
    media = record_query.accepted(call, ("application/json", "text/csv", _GEOJSON))
    selected = _selected(call)
    if media != "application/json":
        return await _export(call, selected.tolist(), media)
    limit = call.integer("limit", 100, ROWS_MAX)
    rows = [_component(call, at) for at in selected[:limit].tolist()]
    return listing.RowPage(rows, rows[-1].id if len(selected) > limit else "")


async def _export(call: Call, selected: list[int], media: str) -> web.StreamResponse:
    suffix = "csv" if media == "text/csv" else "geojson"
    headers = {"Content-Disposition": f'attachment; filename="components.{suffix}"'}
    response = web.StreamResponse(headers={**headers, "Content-Type": f"{media}; charset=utf-8"})
    await response.prepare(call.request)
    write = _csv_lines if media == "text/csv" else _features
    for start in range(0, max(len(selected), 1), SLICE):
        rows = [_component(call, at) for at in selected[start : start + SLICE]]
        text = write(rows, is_first=start == 0)
        await response.write(text.encode())
    await response.write(b"" if media == "text/csv" else b"]}")
    await response.write_eof()
    return response


def _csv_lines(rows: list[ComponentRow], *, is_first: bool) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    if is_first:
        file.write("\ufeff")  # for spreadsheets, which take a CSV without it for another encoding
        writer.writerow(ComponentRow.__struct_fields__)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in ComponentRow.__struct_fields__])
    return file.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, list):
        return " ".join(value)
    # A spreadsheet would take such a text for a formula.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _features(rows: list[ComponentRow], *, is_first: bool) -> str:
    """Return components with a place as GeoJSON features; the first part opens the collection."""
    features = [
        msgspec.json.encode(
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [row.lon, row.lat]},
                "properties": {
                    name: getattr(row, name) for name in ComponentRow.__struct_fields__ if name not in {"lon", "lat"}
                },
            }
        ).decode()
        for row in rows
        if row.lon is not None
    ]
    if is_first:
        return '{"type":"FeatureCollection","features":[' + ",".join(features)
    return "".join(f",{feature}" for feature in features)


# ── map ──────────────────────────────────────────────────────────────────────────────────────────────


def _degrees(call: Call, name: str, default: float) -> float:
    text = call.text(name)
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if not -180 <= value <= 180:
        raise BadRequest(f"query: {name}: '{text[:20]}' is not in degrees; give -180 to 180")
    return value


async def _map(call: Call) -> list[MapCell]:
    """Return the devices of a rectangle in at most `CELLS_MAX` by `CELLS_MAX` cells."""
    devices, index = call.deps.devices, call.deps.devices.index
    west, east = _degrees(call, "west", -180), _degrees(call, "east", 180)
    south, north = _degrees(call, "south", -90), _degrees(call, "north", 90)
    size = len(devices)
    lon, lat = devices.lon[:size], devices.lat[:size]
    mask = devices.mask(_scope(call), domain=call.text("domain"))
    mask &= (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    at = np.flatnonzero(mask)
    if not len(at) or east <= west or north <= south:
        return []
    column = np.minimum(((lon[at] - west) / (east - west) * CELLS_MAX).astype(np.int64), CELLS_MAX - 1)
    row = np.minimum(((lat[at] - south) / (north - south) * CELLS_MAX).astype(np.int64), CELLS_MAX - 1)
    cell, member = np.unique(row * CELLS_MAX + column, return_inverse=True)
    count = np.bincount(member)
    silent = np.bincount(member, weights=devices.silent()[at])
    disabled = np.bincount(member, weights=~index.enabled[:size][at])
    mean_lon = np.bincount(member, weights=lon[at]) / count
    mean_lat = np.bincount(member, weights=lat[at]) / count
    single = np.zeros(len(cell), np.int64)
    single[member] = at
    return [
        MapCell(
            round(float(mean_lon[place]), 6),
            round(float(mean_lat[place]), 6),
            int(count[place]),
            int(silent[place]),
            int(disabled[place]),
            devices.id(int(single[place])) if count[place] == 1 else "",
        )
        for place in range(len(cell))
    ]


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────


async def _labels(call: Call) -> listing.RowPage[LabelRow]:
    """Get labels of devices with QR codes, for printing."""
    limit = call.integer("limit", 60, LABELS_MAX)
    chosen = call.deps.devices.list(
        _scope(call),
        DeviceFilter(profile=call.text("profile"), domain=call.text("domain"), text=call.text("q")),
        after=call.text("after"),
        limit=limit + 1,
    )
    rows = list(_label_rows(chosen[:limit]))
    return listing.RowPage(rows, chosen[limit - 1].id if len(chosen) > limit else "")


def _label_rows(devices: list[Device]) -> Iterator[LabelRow]:
    for device in devices:
        size, path = label_path(device)
        yield LabelRow(device.id, device.name, device.division, device.profile, size, path)


ROUTES = tagged(
    "devices",
    Route("GET", f"{API}/survey", _survey, action=Action.READ_REGISTRY, query=(*listing.params(SurveyRow),)),
    Route(
        "GET",
        f"{API}/survey/components",
        _components,
        action=Action.READ_REGISTRY,
        query=(
            QueryParam("limit", "maximum number of rows, default 100", "integer", minimum=1, maximum=ROWS_MAX),
            QueryParam("after", "id after which to continue"),
            QueryParam("q", "text contained in id, alias, name, asset or owner"),
            *_FILTERS,
        ),
        media=("application/json", "text/csv", _GEOJSON),
        errors=(406,),
    ),
    Route(
        "GET",
        f"{API}/map/devices",
        _map,
        summary="Get the devices of a rectangle, in cells; a single one with its id.",
        action=Action.READ_REGISTRY,
        query=(
            *(QueryParam(name, "edge of the rectangle, WGS-84 degrees") for name in ("west", "south", "east", "north")),
            QueryParam("division", "restrict to a division, with all below it"),
            QueryParam("domain", "filter by domain"),
        ),
    ),
    Route(
        "GET",
        f"{API}/device-labels",
        _labels,
        action=Action.READ_REGISTRY,
        query=(
            QueryParam("limit", "maximum number of labels, default 60", "integer", minimum=1, maximum=LABELS_MAX),
            QueryParam("after", "id after which to continue"),
            QueryParam("q", "text contained in id, alias or name"),
            QueryParam("profile", "filter by profile"),
            QueryParam("domain", "filter by domain"),
            QueryParam("division", "restrict to a division, with all below it"),
        ),
    ),
)
