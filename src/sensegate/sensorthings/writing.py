"""Writing of entities: acts on the registry and on stored entities, authorised and audited like any other.

A Thing is a device registration, of the plain layout unless it names another profile. A Datastream is a series of a
device; an ObservedProperty names a standard property. Everything of a body is checked before the first act; an act
that fails later leaves those before it, as the error says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from sensegate.authority.scope import Action, Principal, demand
from sensegate.authority.trail import Trail
from sensegate.quantities.properties import PROPERTIES, Property
from sensegate.sensorthings import bodies
from sensegate.sensorthings.bodies import Body
from sensegate.sensorthings.geometry import from_json
from sensegate.sensorthings.ids import entity_id
from sensegate.sensorthings.ingest import NewReading, ObservationIntake, Push
from sensegate.sensorthings.instants import instant_text, parse_span
from sensegate.sensorthings.kinds import KINDS, Entity, EntityKind
from sensegate.sensorthings.observations import FEATURE
from sensegate.sensorthings.stored import EXTRAS, REMOVED, StoredEntity
from sensegate.sensorthings.structure import SeenDatastream, SeenThing
from sensegate.sensorthings.view import CallerView, CallerViews, ObservationSource
from sensegate.web.bodies import NewDevice
from sensegate.web.problems import BadRequest

PLAIN = "sensegate/plain"
"""Profile of devices whose Observations come by this interface."""
_EXTRA_FIELDS = ("resultTime", "resultQuality", "validTime", "parameters")
_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class WriteActs(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Acts outside of SensorThings that a request may carry out on behalf of its caller."""

    register: Callable[[NewDevice], Awaitable[object]]
    withdraw: Callable[[str, str, int, int], Awaitable[None]]
    """(device, property#channel, begin, end): withdraws readings; returns once they are."""
    push: Push


class EntityWriter:
    """Writes on behalf of one caller."""

    def __init__(
        self, views: CallerViews, trail: Trail, intake: ObservationIntake, principal: Principal, acts: WriteActs
    ) -> None:
        self._views = views
        self._parts = views.parts
        self._trail = trail
        self._intake = intake
        self._principal = principal
        self._acts = acts

    # ── creating ──────────────────────────────────────────────────────────────────────────────────────

    async def create(self, view: CallerView, kind: EntityKind, body: object, parent: Entity | None) -> int:
        """Create an entity with those inside it; return its id.

        Args:
            view: what the caller sees.
            kind: its type.
            body: as decoded.
            parent: the entity at whose link it is created.

        Raises:
            BadRequest, ConfigError, Conflict, PermissionDenied, Overloaded, Unavailable.
        """
        checked = bodies.checked(kind, body)
        if parent is not None:
            link = next((link for link in kind.links.values() if link.target == parent.kind.name), None)
            if link is None:
                raise BadRequest(f"path: a {parent.kind.name} has no {kind.plural} of its own")
            checked[link.name] = [{"@iot.id": parent.id}]
        return await self._created(view, kind.name, checked, "body")

    async def _created(  # noqa: PLR0911 - one for each entity type
        self, view: CallerView, kind: str, body: Body, where: str
    ) -> int:
        match kind:
            case "Thing":
                return await self._thing(view, body, where)
            case "Datastream":
                return await self._datastream(view, body, where)
            case "Observation":
                return (await self.observations(view, [self.reading(view, body, where)]))[0] or 0
            case "HistoricalLocation":
                return await self._historical_location(view, body, where)
            case "Location":
                number = await self._plain(kind, body)
                for thing in [self._thing_of(view, entry, where) for entry in body.get("Things", ())]:
                    await self._move(view, thing, [number])
                return number
            case "ObservedProperty":
                row = bodies.property_of(body, where)
                return await self._plain(kind, body, measured=row.name)
        return await self._plain(kind, body)

    async def _plain(self, kind: str, body: Body, measured: str = "") -> int:
        """Create an entity that exists by its record alone."""
        scope = self._principal.scope
        demand(self._principal, Action.CHANGE_DEVICES, scope.division, scope.department)
        entity = StoredEntity(
            kind=kind,
            id=entity_id(kind, secrets.token_hex(16)),
            values=_values(KINDS[kind], body),
            measured=measured,
            division=scope.division,
            department=scope.department,
        )
        await self._put(entity, "create")
        return entity.id

    async def _put(self, entity: StoredEntity, act: str) -> StoredEntity:
        target = f"{entity.kind}({entity.id})"
        await self._trail.record(self._principal, f"sensorthings.{act}", target, after=dict(entity.values))
        return await self._parts.stored.put(entity)

    async def _linked(self, view: CallerView, kind: str, entries: Sequence[Body], where: str) -> list[int]:
        """Return the ids at a link: of entities that exist, and of those that are created for it."""
        ids = []
        for entry in entries:
            number = entry.get("@iot.id")
            if number is None:
                ids.append(await self._created(view, kind, entry, where))
            elif view.find(kind, number) is None:
                raise BadRequest(f"{where}: there is no {KINDS[kind].plural}({number}) that you see")
            else:
                ids.append(number)
        return ids

    # ── things ────────────────────────────────────────────────────────────────────────────────────────

    async def _thing(self, view: CallerView, body: Body, where: str) -> int:
        properties = dict(body.get("properties") or {})
        profile = str(properties.pop("profile", PLAIN))
        scope = self._principal.scope
        division = str(properties.pop("division", scope.division))
        department = str(properties.pop("department", scope.department))
        device = str(properties.pop("device", "")) or self._free_name(body["name"])
        demand(self._principal, Action.CHANGE_DEVICES, division, department)
        for stream in body.get("Datastreams", ()):
            self._check_datastream(view, stream, f"{where}: Datastreams")
        places = body.get("Locations", ())
        position = self._position_of(view, places)
        registered = {"id": device, "profile": profile, "division": division, "department": department}
        named = {"name": str(body["name"])[:128], "lon": position[0], "lat": position[1]}
        await self._acts.register(msgspec.convert({**registered, **named}, NewDevice))
        number = entity_id("Thing", device)
        locations = await self._linked(view, "Location", places, f"{where}: Locations")
        stale = self._parts.stored.find("Thing", number)
        await self._put(
            StoredEntity(
                kind="Thing",
                id=number,
                values={**_values(KINDS["Thing"], body), "properties": properties},
                device=device,
                links={"Locations": tuple(locations)},
                division=division,
                department=department,
                revision=stale.revision if stale else 0,
            ),
            "create",
        )
        if locations:
            await self._remember(device, division, department, locations, instant_text(view.now))
        for past in body.get("HistoricalLocations", ()):
            await self._historical_location(view, {**past, "Thing": [{"@iot.id": number}]}, where)
        for stream in body.get("Datastreams", ()):
            await self._datastream((await self._refreshed(view)), {**stream, "Thing": [{"@iot.id": number}]}, where)
        return number

    async def _refreshed(self, view: CallerView) -> CallerView:
        """Return the view with what was just written."""
        return await self._views.open(self._principal, view.admission, view.now)

    def _free_name(self, name: object) -> str:
        base = _NAME.sub("-", str(name).lower()).strip("-")[:40] or "thing"
        return base if not self._parts.devices.is_present(base) else f"{base}-{secrets.token_hex(4)}"

    def _position_of(self, view: CallerView, places: Sequence[Body]) -> tuple[float | None, float | None]:
        """Return the position of the first of some Locations that is a point; (None, None): none is."""
        for entry in places:
            value = entry.get("location")
            if (number := entry.get("@iot.id")) is not None:
                location = view.find("Location", number)
                value = location.values.get("location") if location else None
            shape = from_json(value)
            if shape is not None and shape.shape.geom_type == "Point" and not shape.shape.is_empty:
                return float(shape.shape.x), float(shape.shape.y)
        return None, None

    def _thing_of(self, view: CallerView, entry: Body, where: str) -> SeenThing:
        thing = view.structure.things.get(entry.get("@iot.id", 0))
        if thing is None or not self._parts.devices.is_present(thing.device):
            raise BadRequest(f"{where}: there is no such Thing that is registered here")
        return thing

    async def _move(self, view: CallerView, thing: SeenThing, locations: Sequence[int]) -> None:
        """Give a Thing other Locations, and keep a HistoricalLocation of them."""
        devices = self._parts.devices
        device = devices.get(thing.device, self._principal)
        lon, lat = self._position_of((await self._refreshed(view)), [{"@iot.id": number} for number in locations])
        if lon is not None and (lon, lat) != (device.lon, device.lat):
            placed = msgspec.structs.replace(device, lon=lon, lat=lat)
            device = await devices.change(placed, revision=device.revision, by=self._principal)
        else:
            demand(self._principal, Action.CHANGE_DEVICES, device.division, device.department)
        stored = self._overlay(view, thing)
        await self._put(msgspec.structs.replace(stored, links={"Locations": tuple(locations)}), "move")
        await self._remember(device.id, device.division, device.department, locations, instant_text(view.now))

    def _overlay(self, view: CallerView, thing: SeenThing) -> StoredEntity:
        """Return the record of a Thing, a new one where there is none."""
        stored = view.stored("Thing", thing.id)
        if stored is not None:
            return stored
        device = self._parts.devices.get(thing.device, self._principal)
        return StoredEntity(
            kind="Thing",
            id=thing.id,
            values={},
            device=device.id,
            division=device.division,
            department=device.department,
        )

    async def _remember(
        self, device: str, division: str, department: str, locations: Sequence[int], moment: str
    ) -> int:
        """Create a HistoricalLocation."""
        entity = StoredEntity(
            kind="HistoricalLocation",
            id=entity_id("HistoricalLocation", secrets.token_hex(16)),
            values={"time": moment},
            device=device,
            links={"Locations": tuple(locations)},
            division=division,
            department=department,
        )
        await self._put(entity, "create")
        return entity.id

    async def _historical_location(self, view: CallerView, body: Body, where: str) -> int:
        view = await self._refreshed(view)
        if not body.get("Thing") or not body.get("Locations"):
            raise BadRequest(f"{where}: a HistoricalLocation has a Thing and Locations; give both")
        thing = self._thing_of(view, body["Thing"][0], f"{where}: Thing")
        device = self._parts.devices.get(thing.device, self._principal)
        demand(self._principal, Action.CHANGE_DEVICES, device.division, device.department)
        locations = await self._linked(view, "Location", body["Locations"], f"{where}: Locations")
        span = parse_span(body["time"])
        moment = span.begin if span else view.now
        others = [parse_span(past.values["time"]) for past in view.stored_of(thing, "HistoricalLocation")]
        if all(other is None or other.begin < moment for other in others) and moment <= view.now:
            stored = self._overlay(view, thing)
            await self._put(msgspec.structs.replace(stored, links={"Locations": tuple(locations)}), "move")
        return await self._remember(device.id, device.division, device.department, locations, body["time"])

    # ── datastreams ───────────────────────────────────────────────────────────────────────────────────

    def _check_datastream(self, view: CallerView, body: Body, where: str) -> Property:
        """Return the property of a Datastream, whose other members are right too. Raises `BadRequest`."""
        for name in ("Sensor", "ObservedProperty"):
            if not body.get(name):
                raise BadRequest(f"{where}: {name}: is missing; link it by @iot.id, or insert it")
        row = self._property_at(view, body["ObservedProperty"][0], f"{where}: ObservedProperty")
        if isinstance(body.get("unitOfMeasurement"), dict):
            bodies.check_unit(row, body["unitOfMeasurement"], f"{where}: unitOfMeasurement")
        for entry in body.get("Observations", ()):
            bodies.result_of(row, entry.get("result"), f"{where}: Observations: result")
        return row

    def _property_at(self, view: CallerView, entry: Body, where: str) -> Property:
        number = entry.get("@iot.id")
        if number is None:
            return bodies.property_of(entry, where)
        entity = view.find("ObservedProperty", number)
        if entity is None:
            raise BadRequest(f"{where}: there is no ObservedProperties({number})")
        source = entity.source
        return PROPERTIES.by_name(source.measured if isinstance(source, StoredEntity) else str(source))

    async def _datastream(self, view: CallerView, body: Body, where: str) -> int:
        row = self._check_datastream(view, body, where)
        if not body.get("Thing"):
            raise BadRequest(f"{where}: Thing: is missing; link it by @iot.id, or insert it")
        things = await self._linked(view, "Thing", body["Thing"], f"{where}: Thing")
        view = await self._refreshed(view)
        thing = self._thing_of(view, {"@iot.id": things[0]}, f"{where}: Thing")
        device = self._parts.devices.get(thing.device, self._principal)
        demand(self._principal, Action.CHANGE_DEVICES, device.division, device.department)
        number = entity_id("Datastream", thing.word, row.name)
        if number in view.structure.datastreams:
            raise BadRequest(f"{where}: {thing.word} has Datastreams({number}) of {row.name}; PATCH it", status=409)
        sensors = await self._linked(view, "Sensor", body["Sensor"], f"{where}: Sensor")
        observed = await self._linked(view, "ObservedProperty", body["ObservedProperty"], f"{where}: ObservedProperty")
        if (removed := self._parts.stored.find(REMOVED, number)) is not None:
            await self._parts.stored.delete(removed)
        await self._put(
            StoredEntity(
                kind="Datastream",
                id=number,
                values=_values(KINDS["Datastream"], body),
                device=device.id,
                measured=row.name,
                links={"Sensor": tuple(sensors), "ObservedProperty": tuple(observed)},
                division=device.division,
                department=device.department,
            ),
            "create",
        )
        if inner := body.get("Observations"):
            view = await self._refreshed(view)
            own = [{**entry, "Datastream": [{"@iot.id": number}]} for entry in inner]
            await self.observations(view, [self.reading(view, entry, where) for entry in own])
        return number

    # ── Observations ──────────────────────────────────────────────────────────────────────────────────

    def reading(self, view: CallerView, body: Body, where: str) -> tuple[NewReading, Body]:
        """Return the reading of a checked Observation, and what it has beside its result. Raises `BadRequest`."""
        links = body.get("Datastream") or [{}]
        number = links[0].get("@iot.id")
        stream = view.structure.datastreams.get(number) if number is not None else None
        if stream is None:
            raise BadRequest(f"{where}: Datastream: is missing, or is none that you see; give its @iot.id")
        self.demand_intake(stream, where)
        row = PROPERTIES.by_name(stream.measured)
        result = bodies.result_of(row, body["result"], f"{where}: result")
        extras = {name: body[name] for name in _EXTRA_FIELDS if body.get(name) is not None}
        text = body.get("phenomenonTime")
        span = parse_span(text) if text else None
        if span is not None and not span.is_instant:
            extras["phenomenonTime"] = text
        moment = span.begin if span else view.now // 1_000 * 1_000
        if FEATURE in body:
            extras[FEATURE] = body[FEATURE][0]
        return NewReading(stream, moment, result), extras

    def demand_intake(self, stream: SeenDatastream, where: str) -> None:
        """Return if the caller may send Observations of a Datastream. Raises `PermissionDenied`, `BadRequest`."""
        devices = self._parts.devices
        if not stream.thing.device or not devices.is_present(stream.thing.device):
            raise BadRequest(f"{where}: {stream.thing.word} is not registered here; send to its node", status=409)
        device = devices.get(stream.thing.device)
        demand(self._principal, Action.INGEST, device.division, device.department)
        if device.profile != PLAIN or stream.channel:
            raise BadRequest(
                f"{where}: {device.id} sends its readings itself, by profile {device.profile}; "
                f"Observations are taken for devices of {PLAIN}",
                status=409,
            )

    async def observations(self, view: CallerView, new: Sequence[tuple[NewReading, Body]]) -> list[int | None]:
        """Take Observations; return the id of each after the commit. Raises `BadRequest` if none was taken."""
        for reading, extras in new:
            if FEATURE in extras:
                entries = [extras[FEATURE]]
                (extras[FEATURE],) = await self._linked(view, FEATURE, entries, f"body: {FEATURE}")
                if extras[FEATURE] == reading.stream.thing.feature_id:
                    del extras[FEATURE]
        ids = await self._intake.take(view, [reading for reading, _ in new], self._acts.push)
        if all(number is None for number in ids):
            raise BadRequest("body: no Observation became a reading; GET /api/v1/quarantine tells why", status=422)
        by_stream: dict[int, dict[str, Any]] = {}
        streams = {reading.stream.id: reading.stream for reading, _ in new}
        for reading, extras in new:
            if extras:
                by_stream.setdefault(reading.stream.id, {})[str(reading.time)] = extras
        for number, values in by_stream.items():
            device = self._parts.devices.get(streams[number].thing.device)
            await self._put(
                StoredEntity(
                    kind=EXTRAS,
                    id=entity_id(EXTRAS, secrets.token_hex(16)),
                    values=values,
                    device=device.id,
                    links={"Datastream": (number,)},
                    division=device.division,
                    department=device.department,
                ),
                "create",
            )
        return ids

    # ── changing ──────────────────────────────────────────────────────────────────────────────────────

    async def change(self, view: CallerView, entity: Entity, body: object, *, replaces: bool) -> None:
        """Change properties and links of an entity. Raises as `create`.

        Args:
            view: what the caller sees.
            entity: the entity.
            body: its members that change, or (`replaces`) all of its properties.
            replaces: whether properties that are left out are removed.
        """
        kind = entity.kind
        checked = bodies.checked(kind, body, partial=not replaces)
        if any("@iot.id" not in entry for name in kind.links for entry in checked.get(name, ())):
            raise BadRequest("body: an update creates no other entity; create it first, and link it by @iot.id")
        if kind.name == "Observation":
            await self._change_observation(view, entity, checked)
            return
        stored = self._record_of(view, entity)
        demand(self._principal, Action.CHANGE_DEVICES, stored.division, stored.department)
        values = _values(kind, checked) if replaces else {**stored.values, **_values(kind, checked)}
        if kind.name in {"Thing", "Datastream"} and not replaces:
            values = {name: value for name, value in values.items() if value is not None}
        changed = msgspec.structs.replace(stored, values=values)
        if kind.name == "ObservedProperty" and isinstance(entity.source, StoredEntity):
            row = bodies.property_of({**entity.values, **values}, "body")
            if row.name != entity.source.measured and self._streams_at(view, entity):
                raise BadRequest("body: the property has Datastreams; create another ObservedProperty", status=409)
            changed = msgspec.structs.replace(changed, measured=row.name)
        if kind.name == "Datastream":
            changed = await self._relinked(view, entity, changed, checked)
        before, after = dict(entity.values), dict(values)
        target = f"{kind.name}({entity.id})"
        await self._trail.record(self._principal, "sensorthings.change", target, before=before, after=after)
        await self._parts.stored.put(changed)
        if kind.name == "Thing" and isinstance(entity.source, SeenThing):
            await self._changed_thing(view, entity.source, checked)
        if kind.name == "Location" and "location" in checked:
            for thing in [view.structure.things.get(number) for number in view.linked(entity, "Things")]:
                if thing is not None:
                    await self._move(
                        (await self._refreshed(view)), thing, (await self._refreshed(view)).locations_of(thing)
                    )
        if kind.name == "Location" and "Things" in checked:
            for entry in checked["Things"]:
                await self._move(
                    (await self._refreshed(view)), self._thing_of(view, entry, "body: Things"), [entity.id]
                )

    def _record_of(self, view: CallerView, entity: Entity) -> StoredEntity:
        """Return the record of an entity that may be changed. Raises `BadRequest`."""
        source = entity.source
        if isinstance(source, StoredEntity):
            return source
        if isinstance(source, SeenThing) and entity.kind.name == "Thing":
            return self._overlay(view, self._thing_of(view, {"@iot.id": source.id}, "path"))
        if isinstance(source, SeenDatastream):
            stored = view.stored("Datastream", source.id)
            if stored is not None:
                return stored
            thing = self._thing_of(view, {"@iot.id": source.thing.id}, "path")
            device = self._parts.devices.get(thing.device, self._principal)
            return StoredEntity(
                kind="Datastream",
                id=source.id,
                values={},
                device=device.id,
                measured=source.name,
                division=device.division,
                department=device.department,
            )
        derived = {"Sensor": "the profile of devices", "ObservedProperty": "the property table"}
        origin = derived.get(entity.kind.name, "the position of a device")
        raise BadRequest(f"path: this {entity.kind.name} follows from {origin}; change that instead", status=409)

    async def _changed_thing(self, view: CallerView, thing: SeenThing, body: Body) -> None:
        devices = self._parts.devices
        if "name" in body:
            device = devices.get(thing.device, self._principal)
            named = msgspec.structs.replace(device, name=str(body["name"])[:128])
            await devices.change(named, revision=device.revision, by=self._principal)
        if "Locations" in body:
            locations = await self._linked(view, "Location", body["Locations"], "body: Locations")
            await self._move((await self._refreshed(view)), thing, locations)

    async def _relinked(self, view: CallerView, entity: Entity, record: StoredEntity, body: Body) -> StoredEntity:
        links = dict(record.links)
        if "Thing" in body and body["Thing"][0]["@iot.id"] != view.linked(entity, "Thing")[0]:
            raise BadRequest(
                "body: Thing: a series stays with its device; create a Datastream of the other", status=409
            )
        if "ObservedProperty" in body:
            row = self._property_at(view, body["ObservedProperty"][0], "body: ObservedProperty")
            if row.name != record.measured.partition("#")[0]:
                raise BadRequest(f"body: ObservedProperty: the series is of {record.measured}", status=409)
        for name in ("Sensor", "ObservedProperty"):
            if name in body:
                links[name] = tuple(await self._linked(view, name, body[name], f"body: {name}"))
        if isinstance(body.get("unitOfMeasurement"), dict):
            row = PROPERTIES.by_name(record.measured.partition("#")[0])
            bodies.check_unit(row, body["unitOfMeasurement"], "body: unitOfMeasurement")
        return msgspec.structs.replace(record, links=links)

    async def _change_observation(self, view: CallerView, entity: Entity, body: Body) -> None:
        source = entity.source
        assert isinstance(source, ObservationSource)  # noqa: S101 - Observations are made with it
        for name, present in (("phenomenonTime", entity.values["phenomenonTime"]),):
            if name in body and parse_span(body[name]) != parse_span(str(present)):
                raise BadRequest(f"body: {name}: identifies the reading; delete it and create another", status=409)
        if "Datastream" in body and body["Datastream"][0]["@iot.id"] != source.datastream.id:
            raise BadRequest("body: Datastream: a reading stays with its series; create another", status=409)
        known = dict(view.extras_of(source.datastream).get(source.time, {}))
        extras = {**known, **{name: body[name] for name in _EXTRA_FIELDS if name in body}}
        if FEATURE in body:
            extras[FEATURE] = body[FEATURE][0]
        elif FEATURE in extras:
            extras[FEATURE] = {"@iot.id": extras[FEATURE]}
        self.demand_intake(source.datastream, "path")
        row = PROPERTIES.by_name(source.datastream.measured)
        result = bodies.result_of(row, body.get("result", entity.values["result"]), "body: result")
        await self.observations(view, [(NewReading(source.datastream, source.time, result), extras)])

    def _streams_at(self, view: CallerView, entity: Entity) -> list[SeenDatastream]:
        """Return the Datastreams of a Sensor or an ObservedProperty."""
        return [view.structure.datastreams[number] for number in view.linked(entity, "Datastreams")]

    # ── deleting ──────────────────────────────────────────────────────────────────────────────────────

    async def delete(self, view: CallerView, entity: Entity) -> None:
        """Delete an entity and what belongs to it. Raises as `create`."""
        source, stored = entity.source, self._parts.stored
        match entity.kind.name:
            case "Observation":
                assert isinstance(source, ObservationSource)  # noqa: S101 - Observations are made with it
                await self.withdraw(source.datastream, source.time, source.time + 1)
            case "Datastream":
                assert isinstance(source, SeenDatastream)  # noqa: S101 - Datastreams are made of it
                await self._delete_datastream(view, source)
            case "Thing":
                assert isinstance(source, SeenThing)  # noqa: S101 - Things are made of it
                thing = self._thing_of(view, {"@iot.id": source.id}, "path")
                await self._parts.devices.retire(thing.device, by=self._principal)
                for kind in ("Datastream", "HistoricalLocation", "Thing", EXTRAS):
                    for record in stored.of_device(thing.device, kind):
                        await self._delete_record(record)
            case _:
                record = self._record_of(view, entity)
                demand(self._principal, Action.CHANGE_DEVICES, record.division, record.department)
                await self._delete_linked(view, entity)
                await self._delete_record(record)

    async def _delete_record(self, record: StoredEntity) -> None:
        target = f"{record.kind}({record.id})"
        await self._trail.record(self._principal, "sensorthings.delete", target, before=dict(record.values))
        await self._parts.stored.delete(record)

    async def _delete_linked(self, view: CallerView, entity: Entity) -> None:
        """Delete what cannot be without an entity."""
        match entity.kind.name:
            case "Sensor" | "ObservedProperty":
                for stream in self._streams_at(view, entity):
                    await self._delete_datastream(view, stream)
            case "Location":
                for past in view.entities("HistoricalLocation", view.linked(entity, "HistoricalLocations")):
                    if isinstance(past.source, StoredEntity):
                        await self._delete_record(past.source)
                for number in view.linked(entity, "Things"):
                    record = view.stored("Thing", number)
                    if record is not None:
                        left = tuple(other for other in record.links.get("Locations", ()) if other != entity.id)
                        await self._put(msgspec.structs.replace(record, links={"Locations": left}), "move")
            case "FeatureOfInterest":
                for stream in view.structure.datastreams.values():
                    for moment, extras in list(view.extras_of(stream).items()):
                        if extras.get(FEATURE) == entity.id:
                            await self.withdraw(stream, moment, moment + 1)

    async def _delete_datastream(self, view: CallerView, stream: SeenDatastream) -> None:
        thing = self._thing_of(view, {"@iot.id": stream.thing.id}, "path")
        device = self._parts.devices.get(thing.device, self._principal)
        demand(self._principal, Action.CHANGE_DEVICES, device.division, device.department)
        if stream.numbers:
            await self.withdraw(stream, 0, view.now + 86_400_000_000)
        record = view.stored("Datastream", stream.id)
        if record is not None:
            await self._delete_record(record)
        await self._put(
            StoredEntity(
                kind=REMOVED,
                id=stream.id,
                values={"name": stream.name},
                device=device.id,
                division=device.division,
                department=device.department,
            ),
            "delete",
        )

    async def withdraw(self, stream: SeenDatastream, begin: int, end: int) -> None:
        """Withdraw the readings of a series in a period; return once they are. Raises as `create`, `TimeoutError`."""
        device = stream.thing.device
        if not device or not self._parts.devices.is_present(device):
            raise BadRequest(f"path: {stream.thing.word} is not registered here; withdraw at its node", status=409)
        # `name#`: that of the sensor without a channel, where others of the device have one.
        await self._acts.withdraw(device, f"{stream.measured}#{stream.channel}", begin, end)


def _values(kind: EntityKind, body: Body) -> Body:
    """Return the properties of a body, without links."""
    return {name: value for name, value in body.items() if name in kind.fields}
