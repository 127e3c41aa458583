"""REST: devices and their credentials; ingest of telemetry by HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from functools import partial

import msgspec
import numpy as np
from aiohttp import web

from sensegate.authority import importing
from sensegate.authority.assets import Assets, SourceDeviation
from sensegate.authority.camera_codes import division_of
from sensegate.authority.importing import ImportRow, RowOutcome
from sensegate.authority.neighbours import NearbyPair, Neighbours
from sensegate.authority.scope import Action, Principal, Scope, allows, has_right
from sensegate.authority.selection import DeviceFilter
from sensegate.errors import Conflict, NotFound, Overloaded, PermissionDenied
from sensegate.model import Device, DeviceState
from sensegate.quantities.quality import flag_words, quality_word
from sensegate.share.last_values import LastBatch
from sensegate.share.records import base_name, channel_of, json_values, units_of
from sensegate.video import multipart
from sensegate.web import auth, listing, record_query
from sensegate.web.bodies import (
    CredentialRotation,
    DeviceChange,
    DeviceCredential,
    DeviceImportReport,
    DeviceImportRow,
    DeviceRefusal,
    DeviceRow,
    IngestReceipt,
    LastValueRow,
    NewDevice,
    device_row,
)
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

ASSETS = PartKey[Assets]("assets", absent="this gateway looks for no second sources")
NEIGHBOURS = PartKey[Neighbours]("neighbours", absent="this gateway looks for no duplicate devices nearby")
_NDJSON = record_query.MEDIA_TYPES["ndjson"]
_SORTED_BY = (*Device.__struct_fields__, "last_seen", "silent_since")


async def _list(call: Call) -> listing.RowPage[DeviceRow]:
    """List the devices in the caller's scope."""
    deps, scope = call.deps, call.principal.scope
    division = call.text("division")
    if division:
        code = deps.divisions.check(division)[0]
        if not code.startswith(scope.division):
            if not scope.division.startswith(code):
                raise PermissionDenied(f"division {code} is outside your scope ({scope.division})")
            code = scope.division
        scope = Scope(code, scope.department)
    devices = deps.devices
    selected = devices.select(scope, _filter_of(call))
    sort, after = listing.sort_terms(call, _SORTED_BY), call.text("after")
    limit = call.integer("limit", 1_000, deps.config.page_max)
    total = int(np.count_nonzero(selected))
    if not sort or sort[0] == ("id", False):
        indices = devices.ordered(selected, after=after)
        page = indices[:limit].tolist()
        following = devices.id(page[-1]) if len(indices) > limit else ""
    else:
        skipped = listing.rows_to_skip(after)
        indices = devices.ordered(selected, sort)[skipped:]
        page = indices[:limit].tolist()
        following = str(skipped + limit) if len(indices) > limit else ""
    return listing.RowPage([_row(call, devices.record(at)) for at in page], following, total)


def _filter_of(call: Call) -> DeviceFilter:
    """Return the filter of a list of devices. Raises `BadRequest`."""
    states = call.values("state")
    for word in states:
        _state(word.removeprefix("!"))
    wanted = frozenset(state for state in DeviceState if states and listing.matches(state.value, states))
    fields = {
        name: partial(listing.matches, values=values)
        for name in Device.__struct_fields__
        if name not in {"division", "state"} and (values := call.values(name))
    }
    return DeviceFilter(states=wanted, text=call.text("q") or call.text("text"), fields=fields)


def _state(word: str) -> DeviceState:
    try:
        return DeviceState(word)
    except ValueError:
        raise BadRequest(f"query: state: '{word[:20]}' is unknown; use one of {', '.join(DeviceState)}") from None


async def _create(call: Call) -> DeviceCredential:
    """Register a device; its password is shown only once."""
    return await register(call, await call.body(NewDevice))


async def register(call: Call, body: NewDevice) -> DeviceCredential:
    """Register a device on behalf of the caller; return its password, topics and warnings.

    Raises:
        BadRequest, ConfigError, PermissionDenied, Conflict: as `Devices.add`.
    """
    if body.division is msgspec.UNSET:
        if not (place := division_of(body.id, body.alias)):
            raise BadRequest("body: division: is missing; only the code of a camera (20 digits) contains it")
        body = msgspec.structs.replace(body, division=place)
    shadow, source = body.secondary, ""
    device = Device(**{**msgspec.structs.asdict(body), "secondary": False})
    assets = call.find_part(ASSETS)
    if assets and (source := assets.current_authority(device)):
        source = _name_of_source(call, source)
        _demand_one_source(device.asset, source, shadow=shadow)
    device = msgspec.structs.replace(device, secondary=bool(source) if shadow is None else shadow)
    password = await call.deps.devices.add(device, by=call.principal)
    credential = _credential(call, device.id, password)
    if device.secondary and source:
        warning = f"{source} is the source of {device.asset}; this device is a secondary source: compared, in no feed"
        credential = msgspec.structs.replace(credential, warnings=[warning, *credential.warnings])
    return credential


def _name_of_source(call: Call, source: str) -> str:
    """Return the id of the source of an asset, as far as the caller may know it."""
    devices = call.deps.devices
    device = devices.record(devices.find(source))
    visible = allows(call.principal, Action.READ_REGISTRY, device.division, device.department)
    return source if visible else "a device outside your scope"


def _demand_one_source(asset: str, source: str, *, shadow: bool | None) -> None:
    """Return if the asset does not get a second source. Raises `Conflict`."""
    if shadow is False:
        raise Conflict(f"{source} is the source of {asset}; make it a secondary source first")


def _credential(call: Call, device_id: str, password: str) -> DeviceCredential:
    device = call.deps.devices.get(device_id, call.principal)
    username = device.gateways[0] if device.gateways else device.id
    neighbours = call.find_part(NEIGHBOURS)
    near = neighbours.near(device.id, call.principal) if neighbours else []
    return DeviceCredential(
        device.id,
        username,
        password,
        list(call.deps.topics(device)),
        device_row(device),
        [*_entry_warnings(call, device), *map(_warning, near)],
        broker=call.deps.broker(),
        client_id=username,
        example=call.deps.example(device),
    )


def _entry_warnings(call: Call, device: Device) -> list[str]:
    findings = call.deps.devices.examine(device, call.principal)
    warned = [finding for finding in findings if finding.warning and finding.key == "alias"]
    return [f"{finding.key}: {finding.problem}; {finding.remedy}" for finding in warned]


def _warning(near: NearbyPair) -> str:
    whose = f"{near.other} of {near.other_owner}" if near.other else f"a device of another owner in {near.division}"
    return f"{whose} is {near.metres:g} m away and measures the same ({near.same}): you may apply for its data instead"


async def _secondary_sources(call: Call) -> listing.RowPage[SourceDeviation]:
    """Compare secondary sources of assets with their sources."""
    assets, devices, caller = call.find_part(ASSETS), call.deps.devices, call.principal
    rows = []
    for row in assets.deviations() if assets else ():
        places = [devices.record(devices.find(name)) for name in (row.authority, row.secondary)]
        if all(allows(caller, Action.READ_REGISTRY, place.division, place.department) for place in places):
            rows.append(row)
    return listing.page_of(call, rows, SourceDeviation, "secondary", "asset", "property", "authority")


async def _duplicates(call: Call) -> listing.RowPage[NearbyPair]:
    """List nearby pairs of devices of two owners that measure the same (`sharing.duplicate_distance_m`)."""
    neighbours, caller = call.find_part(NEIGHBOURS), call.principal
    rows = [] if neighbours is None else neighbours.all(caller.scope, caller)
    # Two others of a device have no name where the caller may not see them.
    key = ("device", "metres", "other", "same", "division", "owner", "other_owner")
    return listing.page_of(call, rows, NearbyPair, *key)


async def _get(call: Call) -> DeviceRow:
    """Get a device."""
    return _row(call, call.deps.devices.get(call.path("device"), call.principal))


def _row(call: Call, device: Device) -> DeviceRow:
    devices = call.deps.devices
    at = devices.find(device.id)
    seen, silent = devices.seen(at), devices.silent_since(at)
    return msgspec.structs.replace(
        device_row(device),
        clock_lag_s=call.deps.clock_lag(device.id),
        last_seen=iso(seen) if seen else None,
        silent_since=iso(silent) if silent else None,
        last_refused=_refusal_of(call, device.id),
    )


def _refusal_of(call: Call, device: str) -> DeviceRefusal | None:
    last = call.deps.last_refusal(device)
    if last is None:
        return None
    return DeviceRefusal(iso(last.time), last.operation, last.detail, last.address, last.count)


async def _latest(call: Call) -> listing.RowPage[LastValueRow]:
    """List the last value of each property of a device."""
    device = call.deps.devices.get(call.path("device"), call.principal)
    rows = [row for part in call.deps.last_values(device.id) for row in _last_value_rows(part)]
    return listing.page_of(call, rows, LastValueRow, "id")


def _last_value_rows(part: LastBatch) -> Iterator[LastValueRow]:
    batch = part.batch
    values = json_values(batch, np.arange(len(batch)), batch.property.tolist())
    units = units_of(batch.properties)
    for row, value in enumerate(values):
        name = batch.properties[batch.property[row]]
        yield LastValueRow(
            batch.record_id(row),
            base_name(name),
            channel_of(name),
            msgspec.json.decode(value),
            units[batch.property[row]],
            iso(int(batch.time[row])),
            iso(int(batch.received[row])),
            quality_word(int(batch.quality[row])),
            flag_words(int(batch.flags[row])),
            int(batch.revision[row]),
        )


async def _change(call: Call) -> DeviceRow:
    """Change a device of the revision in If-Match."""
    devices, name, by = call.deps.devices, call.path("device"), call.principal
    revision = call.revision() or 0
    wanted = {
        key: value
        for key, value in msgspec.structs.asdict(await call.body(DeviceChange)).items()
        if value is not msgspec.UNSET
    }
    present = devices.get(name, by)
    if present.revision != revision:
        raise Conflict(f"device {name} is at revision {present.revision}, not {revision}; read it again")
    state = wanted.pop("state", None)
    if wanted.get("secondary") is False and (assets := call.find_part(ASSETS)):
        asset = wanted.get("asset", present.asset)
        if source := assets.current_authority(msgspec.structs.replace(present, asset=asset)):
            _demand_one_source(asset, _name_of_source(call, source), shadow=False)
    if wanted:
        present = await devices.change(msgspec.structs.replace(present, **wanted), revision=revision, by=by)
    if state == "disabled":
        present = await devices.disable(name, by=by)
    elif state == "registered":
        present = await devices.enable(name, by=by)
    return device_row(present)


async def _rotate(call: Call) -> DeviceCredential:
    """Replace the password of a device; the new one is shown only once."""
    name = call.path("device")
    password = await call.deps.devices.rotate(
        name, by=call.principal, grace_s=(await call.body(CredentialRotation)).grace_s
    )
    return _credential(call, name, password)


async def _disable(call: Call) -> DeviceRow:
    """Disable a device; open connections are closed within 2 s."""
    return device_row(await call.deps.devices.disable(call.path("device"), by=call.principal))


async def _enable(call: Call) -> DeviceRow:
    """Enable a disabled device."""
    return device_row(await call.deps.devices.enable(call.path("device"), by=call.principal))


async def _retire(call: Call) -> DeviceRow:
    """Retire a device permanently; its data stays."""
    revision = call.revision(required=False)
    present = call.deps.devices.get(call.path("device"), call.principal)
    if revision is not None and present.revision != revision:
        raise Conflict(f"device {present.id} is at revision {present.revision}, not {revision}; read it again")
    return device_row(await call.deps.devices.retire(present.id, by=call.principal))


async def _import(call: Call) -> DeviceImportReport | web.StreamResponse:
    """Register devices from CSV (up to 64 MiB); each row is reported, as NDJSON while the import runs."""
    dry_run, update = _flag(call, "dry_run"), _flag(call, "update")
    media = record_query.accepted(call, ("application/json", _NDJSON))
    lock = call.deps.devices.importing
    is_large = (call.request.content_length or importing.FILE_BYTES_MAX) > call.deps.config.body_bytes_max
    if is_large and lock.locked():
        raise Overloaded("another large file is being imported; wait for its end, then send this one again")
    async with lock if is_large else contextlib.nullcontext():
        raw = await call.raw_body(bytes_max=importing.FILE_BYTES_MAX if is_large else 0)
        parts = importing.import_in_parts(call.deps.devices, raw, by=call.principal, dry_run=dry_run, update=update)
        if media == _NDJSON:
            return await _send_report(call, parts)
        rows = sorted([_import_row(row) async for part in parts for row in part], key=lambda row: row.line)
        return DeviceImportReport(rows, dry_run)


async def _send_report(call: Call, parts: AsyncIterator[list[ImportRow]]) -> web.StreamResponse:
    """Send the report line by line, as the rows are written: passwords that were sent are not lost with the rest."""
    response = web.StreamResponse(headers={"Content-Type": _NDJSON})
    await response.prepare(call.request)
    async for part in parts:
        await response.write(b"".join(msgspec.json.encode(_import_row(row)) + b"\n" for row in part))
    await response.write_eof()
    return response


def _import_row(row: ImportRow) -> DeviceImportRow:
    problem = row.reason if row.outcome is RowOutcome.REFUSED else ""
    return DeviceImportRow(row.line, row.id, row.outcome, problem, row.remedy, row.password)


def _flag(call: Call, name: str) -> bool:
    text = call.text(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadRequest(f"query: {name}: '{text[:20]}' is not a boolean; use true or false")
    return text in {"true", "1"}


async def _ingest(call: Call) -> IngestReceipt:
    name, ingest = call.path("device"), call.deps.ingest
    if ingest is None:
        raise NotFound("this gateway does not ingest telemetry by HTTP")
    device, principal = ingest_device(call, name)
    media = call.request.headers.get("Content-Type", "application/json")
    pictures = media.lower().startswith(multipart.MULTIPART)
    with call.quota.held(principal.id):
        await ingest(device, principal, await (call.multipart_without_images() if pictures else call.raw_body()), media)
    return IngestReceipt()


def ingest_device(call: Call, name: str) -> tuple[Device, Principal]:
    """Return the device for which a caller may ingest, with the caller: the device, its gateway, or an operator.

    Raises:
        PermissionDenied, NotFound, Overloaded.
    """
    scheme, _, credential = call.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in {"bearer", "token"} and credential.strip().startswith("sg_"):
        call.identify()
        if not has_right(call.principal, Action.INGEST):
            raise PermissionDenied(f"role {call.principal.role} may not ingest; use the device's own credential")
        return call.deps.devices.get(name, call.principal), call.principal
    return auth.device_of(call.request, name, call.deps, call.auth_failures)


_CHANGE = Action.CHANGE_DEVICES
ROUTES = tagged(
    "devices",
    Route(
        "GET",
        f"{API}/devices",
        _list,
        action=Action.READ_REGISTRY,
        query=(*listing.params(Device), QueryParam("text", "the same as q")),
    ),
    Route("POST", f"{API}/devices", _create, action=_CHANGE, body=NewDevice, status=201, errors=(409, 413, 415)),
    Route(
        "POST",
        f"{API}/devices/import",
        _import,
        action=_CHANGE,
        query=(
            QueryParam("dry_run", "report the outcome without changes", "boolean"),
            QueryParam("update", "change registered devices that differ", "boolean"),
        ),
        raw="text/csv",
        media=("application/json", _NDJSON),
        errors=(406, 413),
    ),
    Route(
        "GET",
        f"{API}/devices/secondary-sources",
        _secondary_sources,
        action=Action.READ_LEDGER,
        query=listing.params(SourceDeviation),
    ),
    Route(
        "GET", f"{API}/devices/duplicates", _duplicates, action=Action.READ_REGISTRY, query=listing.params(NearbyPair)
    ),
    Route("GET", f"{API}/devices/{{device}}", _get, action=Action.READ_REGISTRY, errors=(404,)),
    Route(
        "GET",
        f"{API}/devices/{{device}}/latest",
        _latest,
        action=Action.READ_READINGS,
        query=listing.params(LastValueRow),
        errors=(404,),
    ),
    Route("PATCH", f"{API}/devices/{{device}}", _change, action=_CHANGE, body=DeviceChange, errors=(404, 412, 428)),
    Route("DELETE", f"{API}/devices/{{device}}", _retire, action=_CHANGE, errors=(404, 412)),
    Route("POST", f"{API}/devices/{{device}}/rotate", _rotate, action=_CHANGE, body=CredentialRotation, errors=(404,)),
    Route("POST", f"{API}/devices/{{device}}/disable", _disable, action=_CHANGE, errors=(404,)),
    Route("POST", f"{API}/devices/{{device}}/enable", _enable, action=_CHANGE, errors=(404, 409)),
    Route(
        "POST",
        f"{API}/ingest/{{device}}",
        _ingest,
        tag="ingest",
        summary="Ingest telemetry of a device; responds after the commit. Authorized by the credential of the device.",
        token=False,
        raw="application/json",
        status=202,
        errors=(404, 413, 415, 422),
    ),
    Route(
        "POST",
        "/onvif/{device}",
        _ingest,
        tag="ingest",
        summary="Ingest ONVIF metadata (tt:MetadataStream) of a camera; otherwise like telemetry by HTTP.",
        token=False,
        raw="application/xml",
        status=202,
        errors=(404, 413, 415, 422),
    ),
)
