"""REST: devices and their credentials; telemetry that devices push."""

from __future__ import annotations

from typing import Any

import msgspec

from sensegate.authority import importing
from sensegate.authority.assets import Assets, Difference
from sensegate.authority.camera_codes import division_of
from sensegate.authority.importing import What
from sensegate.authority.neighbours import Near, Neighbours
from sensegate.authority.scope import Action, Scope, allows, may
from sensegate.errors import Conflict, NotFound, PermissionDenied
from sensegate.frames import multipart
from sensegate.model import Device, DeviceState
from sensegate.ports import Part
from sensegate.web import auth, listing
from sensegate.web.bodies import (
    Accepted,
    DeviceChange,
    DeviceCredential,
    DeviceRow,
    ImportRow,
    NewDevice,
    Rotation,
    device_row,
)
from sensegate.web.problems import BadRequest
from sensegate.web.routing import API, Call, Param, Route

ASSETS = Part[Assets]("assets", absent="this gateway looks for no second sources")
NEIGHBOURS = Part[Neighbours]("neighbours", absent="this gateway looks for no duplicate devices nearby")


async def _list(call: Call) -> Any:
    deps, scope = call.deps, call.principal.scope
    division, department = call.text("division"), call.text("department")
    if division:
        wanted = deps.divisions.check(division)[0]
        if not wanted.startswith(scope.division):
            if not scope.division.startswith(wanted):
                raise PermissionDenied(f"division {wanted} is outside your scope ({scope.division})")
            wanted = scope.division
        scope = Scope(wanted, scope.department)
    if call.text("sort") not in {"", "id"} or "id" in call.request.query:
        rows = [device_row(device) for device in deps.devices.list(scope, limit=10**9)]
        return listing.answer(call, _without_division(call, rows), DeviceRow, "id")
    states = frozenset(_state(word) for word in call.words("state"))
    limit = call.whole("limit", 1_000, deps.config.page_max)
    found = deps.devices.list(
        scope,
        states=states,
        profile=call.text("profile"),
        domain=call.text("domain"),
        department=department,
        text=call.text("q") or call.text("text"),
        after=call.text("after"),
        limit=limit + 1,
    )
    answer: dict[str, Any] = {
        "rows": [_told(call, device) for device in found[:limit]],
        "total": deps.devices.count(scope),
    }
    if len(found) > limit:
        answer["next"] = found[limit - 1].id
    return answer


def _without_division(call: Call, rows: list[DeviceRow]) -> list[DeviceRow]:
    prefix = call.text("division")
    return [row for row in rows if not prefix or row.division.startswith(prefix)]


def _state(word: str) -> DeviceState:
    try:
        return DeviceState(word)
    except ValueError:
        raise BadRequest(f"query: state: '{word[:20]}'; one of {', '.join(DeviceState)}") from None


async def _create(call: Call) -> Any:
    body = await call.body(NewDevice)
    if body.division is msgspec.UNSET:
        if not (place := division_of(body.id, body.alias)):
            raise BadRequest("body: division: is missing; only the code of a camera (20 digits) names it by itself")
        body = msgspec.structs.replace(body, division=place)
    shadow, source = body.shadow, ""
    device = Device(**{**msgspec.structs.asdict(body), "shadow": False})
    assets = call.find_part(ASSETS)
    if assets and (source := assets.before(device)):
        _demand_one_source(device.asset, source, shadow=shadow)
    device = msgspec.structs.replace(device, shadow=bool(source) if shadow is None else shadow)
    password = await call.deps.devices.add(device, by=call.principal)
    made = _credential(call, device.id, password)
    if device.shadow and source:
        what = f"{source} is the source of {device.asset}; this one is its shadow: compared with it, in no feed"
        made = msgspec.structs.replace(made, warnings=[what, *made.warnings])
    return made


def _demand_one_source(asset: str, source: str, *, shadow: bool | None) -> None:
    """Return unless a second authority is wanted. Raises `Conflict`."""
    if shadow is False:
        raise Conflict(f"{source} is the source of {asset}; make it a shadow first")


def _credential(call: Call, device_id: str, password: str) -> DeviceCredential:
    device = call.deps.devices.get(device_id, call.principal)
    username = device.gateways[0] if device.gateways else device.id
    neighbours = call.find_part(NEIGHBOURS)
    near = neighbours.of(device.id, call.principal) if neighbours else []
    return DeviceCredential(
        device.id,
        username,
        password,
        list(call.deps.topics(device)),
        device_row(device),
        [_warning(neighbour) for neighbour in near],
    )


def _warning(near: Near) -> str:
    whose = f"{near.other} of {near.other_owner}" if near.other else f"a device of another owner in {near.division}"
    return f"{whose} stands {near.metres:g} m away and has the same ({near.same}): apply for its data instead?"


async def _shadows(call: Call) -> Any:
    assets, devices, caller = call.find_part(ASSETS), call.deps.devices, call.principal
    rows = []
    for row in assets.differences() if assets else ():
        places = [devices.record(devices.find(name)) for name in (row.authority, row.shadow)]
        if all(allows(caller, Action.READ_REGISTRY, place.division, place.department) for place in places):
            rows.append(row)
    return listing.answer(call, rows, Difference, "shadow")


async def _duplicates(call: Call) -> Any:
    neighbours, caller = call.find_part(NEIGHBOURS), call.principal
    rows = [] if neighbours is None else neighbours.all(caller.scope, caller)
    return listing.answer(call, rows, Near, "device")


async def _get(call: Call) -> Any:
    return _told(call, call.deps.devices.get(call.path("device"), call.principal))


def _told(call: Call, device: Device) -> DeviceRow:
    return msgspec.structs.replace(device_row(device), clock_lag_s=call.deps.clock_lag(device.id))


async def _change(call: Call) -> Any:
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
    if wanted.get("shadow") is False and (assets := call.find_part(ASSETS)):
        asset = wanted.get("asset", present.asset)
        if source := assets.before(msgspec.structs.replace(present, asset=asset)):
            _demand_one_source(asset, source, shadow=False)
    if wanted:
        present = await devices.change(msgspec.structs.replace(present, **wanted), revision=revision, by=by)
    if state == "disabled":
        present = await devices.disable(name, by=by)
    elif state == "registered":
        present = await devices.enable(name, by=by)
    return device_row(present)


async def _rotate(call: Call) -> Any:
    name = call.path("device")
    password = await call.deps.devices.rotate(name, by=call.principal, grace_s=(await call.body(Rotation)).grace_s)
    return _credential(call, name, password)


async def _disable(call: Call) -> Any:
    return device_row(await call.deps.devices.disable(call.path("device"), by=call.principal))


async def _enable(call: Call) -> Any:
    return device_row(await call.deps.devices.enable(call.path("device"), by=call.principal))


async def _retire(call: Call) -> Any:
    revision = call.revision(required=False)
    present = call.deps.devices.get(call.path("device"), call.principal)
    if revision is not None and present.revision != revision:
        raise Conflict(f"device {present.id} is at revision {present.revision}, not {revision}; read it again")
    return device_row(await call.deps.devices.retire(present.id, by=call.principal))


async def _import(call: Call) -> Any:
    flags = {name: _flag(call, name) for name in ("dry_run", "update")}
    report = await importing.import_csv(
        call.deps.devices, await call.raw(), by=call.principal, dry_run=flags["dry_run"], update=flags["update"]
    )
    rows = [
        ImportRow(row.line, row.id, row.what, row.reason if row.what is What.REFUSED else "", row.remedy, row.password)
        for row in report.rows
    ]
    return {"rows": rows, "dry_run": report.dry_run}


def _flag(call: Call, name: str) -> bool:
    text = call.text(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise BadRequest(f"query: {name}: true or false")
    return text in {"true", "1"}


async def _ingest(call: Call) -> Any:
    name, ingest = call.path("device"), call.deps.ingest
    if ingest is None:
        raise NotFound("this gateway takes no telemetry by HTTP")
    if "Authorization" in call.request.headers and _is_token(call):
        call.identify()
        if not may(call.principal, Action.INGEST):
            raise PermissionDenied(f"role {call.principal.role} may not ingest; use the device's own credential")
        device, principal = call.deps.devices.get(name, call.principal), call.principal
    else:
        device, principal = auth.device(call.request, name, call.deps, call.guesses)
    media = call.request.headers.get("Content-Type", "application/json")
    pictures = media.lower().startswith(multipart.MULTIPART)
    await ingest(device, principal, await (call.without_pictures() if pictures else call.raw()), media)
    return Accepted()


def _is_token(call: Call) -> bool:
    return call.request.headers["Authorization"].lower().startswith("bearer sg_")


_CHANGE = Action.CHANGE_DEVICES
ROUTES = (
    Route(
        method="GET",
        path=f"{API}/devices",
        call=_list,
        what="Devices in the caller's scope.",
        tag="devices",
        action=Action.READ_REGISTRY,
        query=(*listing.params(DeviceRow), Param("text", "the same as q")),
        answer=list[DeviceRow],
    ),
    Route(
        method="POST",
        path=f"{API}/devices",
        call=_create,
        what="Register a device; its password is shown this once.",
        tag="devices",
        action=_CHANGE,
        body=NewDevice,
        answer=DeviceCredential,
        status=201,
        errors=(409, 413, 415),
    ),
    Route(
        method="POST",
        path=f"{API}/devices/import",
        call=_import,
        what="Register many devices from CSV; a report for each row.",
        tag="devices",
        action=_CHANGE,
        query=(
            Param("dry_run", "only say what would happen", "boolean"),
            Param("update", "change entries that differ", "boolean"),
        ),
        raw="text/csv",
        answer=list[ImportRow],
        errors=(413,),
    ),
    Route(
        method="GET",
        path=f"{API}/devices/shadows",
        call=_shadows,
        what="How second sources of assets compare with their authorities.",
        tag="devices",
        action=Action.READ_LEDGER,
        query=listing.params(Difference),
        answer=list[Difference],
    ),
    Route(
        method="GET",
        path=f"{API}/devices/duplicates",
        call=_duplicates,
        what="Pairs of devices of two owners that measure the same within some metres (`sharing.near_m`).",
        tag="devices",
        action=Action.READ_REGISTRY,
        query=listing.params(Near),
        answer=list[Near],
    ),
    Route(
        method="GET",
        path=f"{API}/devices/{{device}}",
        call=_get,
        what="One device.",
        tag="devices",
        action=Action.READ_REGISTRY,
        answer=DeviceRow,
        errors=(404,),
    ),
    Route(
        method="PATCH",
        path=f"{API}/devices/{{device}}",
        call=_change,
        what="Change a device of the revision in If-Match.",
        tag="devices",
        action=_CHANGE,
        body=DeviceChange,
        answer=DeviceRow,
        errors=(404, 412, 428),
    ),
    Route(
        method="DELETE",
        path=f"{API}/devices/{{device}}",
        call=_retire,
        what="Retire a device for good; its history stays.",
        tag="devices",
        action=_CHANGE,
        answer=DeviceRow,
        errors=(404, 412),
    ),
    Route(
        method="POST",
        path=f"{API}/devices/{{device}}/rotate",
        call=_rotate,
        what="Make a new password, shown this once.",
        tag="devices",
        action=_CHANGE,
        body=Rotation,
        answer=DeviceCredential,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/devices/{{device}}/disable",
        call=_disable,
        what="Shut a device out; open connections are closed within 2 s.",
        tag="devices",
        action=_CHANGE,
        answer=DeviceRow,
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{API}/devices/{{device}}/enable",
        call=_enable,
        what="Let a disabled device in again.",
        tag="devices",
        action=_CHANGE,
        answer=DeviceRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{API}/ingest/{{device}}",
        call=_ingest,
        what="Telemetry of one device; answered after the commit. Authorized by the device's own credential.",
        tag="ingest",
        token=False,
        raw="application/json",
        answer=Accepted,
        status=202,
        errors=(404, 413, 415, 422),
    ),
    Route(
        method="POST",
        path="/onvif/{device}",
        call=_ingest,
        what="One document of ONVIF metadata (tt:MetadataStream) of a camera; else as telemetry by HTTP.",
        tag="ingest",
        token=False,
        raw="application/xml",
        answer=Accepted,
        status=202,
        errors=(404, 413, 415, 422),
    ),
)
