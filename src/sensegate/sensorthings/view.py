"""View of a caller at the moment of a request: entities and links between them, without Observations.

Of a grant these are the names, places and values of the feed's records under its mask. A caller by its own scope, who
may read the registry, sees in addition what the registry says of its devices; and whatever clients wrote there.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import msgspec
import numpy as np

from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.index import STATES
from sensegate.authority.scope import Action, Principal, Scope, allows, has_right
from sensegate.model import Device
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.sensorthings.ids import entity_id
from sensegate.sensorthings.kinds import KINDS, Entity
from sensegate.sensorthings.stored import REMOVED, StoredEntities, StoredEntity, is_visible
from sensegate.sensorthings.structure import (
    SeenDatastream,
    SeenStructure,
    SeenThing,
    ShownEntities,
    Structures,
)
from sensegate.share.feeds import ALL_FEED
from sensegate.share.grants import Admission
from sensegate.share.last_values import LastValues
from sensegate.share.masks import NO_MASK, PLACE, PROFILE, snap_to_grid

GEOJSON = "application/geo+json"
_OM = "http://www.opengis.net/def/observationType/OGC-OM/2.0/"
_MEASUREMENT, _COUNT = f"{_OM}OM_Measurement", f"{_OM}OM_CountObservation"
_CATEGORY, _TRUTH = f"{_OM}OM_CategoryObservation", f"{_OM}OM_TruthObservation"
OBSERVATION_TYPES = frozenset({_MEASUREMENT, _COUNT, _CATEGORY, _TRUTH, f"{_OM}OM_Observation"})
_NO_UNIT = {"name": None, "symbol": None, "definition": None}
Position = tuple[float, float]


class ViewParts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parts of which views are made."""

    values: LastValues
    devices: Devices
    divisions: Divisions
    structures: Structures
    stored: StoredEntities


class CallerView:
    """Entities that one caller sees; for one request."""

    def __init__(
        self, parts: ViewParts, principal: Principal, admission: Admission, structure: SeenStructure, now: int
    ) -> None:
        self.now = now
        self.principal = principal
        self.admission = admission
        self._parts = parts
        self.mask = admission.selection.mask if admission.selection else NO_MASK
        self.is_own = is_own(principal, admission)
        """True if the caller reads all of its own scope, so that entities of clients are shown."""
        self.reads_registry = self.is_own and has_right(principal, Action.READ_REGISTRY)
        self.structure = structure
        self.observations: dict[int, list[Entity]] | None = None
        """Datastream -> its Observations, where a filter needs them."""
        self._devices: dict[str, Device | None] = {}
        """Device -> its requested registry data."""

    # ── stored entities ───────────────────────────────────────────────────────────────────────────────

    def stored(self, kind: str, number: int) -> StoredEntity | None:
        """Return a stored entity that the caller may see; None: there is none."""
        entity = self._parts.stored.find(kind, number) if self.is_own else None
        return entity if entity is not None and is_visible(entity, self.principal.scope) else None

    @property
    def has_extras(self) -> bool:
        """Return whether clients wrote more of Observations than their results."""
        return self.is_own and bool(self._parts.stored.extras)

    def extras_of(self, stream: SeenDatastream) -> Mapping[int, dict[str, object]]:
        """Return what clients wrote of Observations beside their results: phenomenon time -> properties."""
        return self._parts.stored.extras.get(stream.id, {}) if self.is_own else {}

    def _all_stored(self, kind: str) -> list[StoredEntity]:
        if not self.is_own:
            return []
        return [entity for entity in self._parts.stored.of_kind(kind) if is_visible(entity, self.principal.scope)]

    def stored_of(self, thing: SeenThing, kind: str) -> list[StoredEntity]:
        """Return the stored entities of a kind that belong to a Thing, by id."""
        if not self.is_own or not thing.device:
            return []
        mine = self._parts.stored.of_device(thing.device, kind)
        return [entity for entity in mine if is_visible(entity, self.principal.scope)]

    # ── sets ──────────────────────────────────────────────────────────────────────────────────────────

    def ids(self, kind: str) -> Sequence[int]:  # noqa: PLR0911 - one for each entity type
        """Return the ids of all entities of a type, ascending."""
        structure = self.structure
        match kind:
            case "Thing":
                return structure.thing_ids
            case "Datastream":
                return structure.datastream_ids
            case "Location":
                placed = self._placed()
                return sorted([*placed, *(entity.id for entity in self._all_stored(kind))])
            case "FeatureOfInterest":
                return sorted([*structure.features, *(entity.id for entity in self._all_stored(kind))])
            case "Sensor":
                return sorted({*self._profiles, *(entity.id for entity in self._all_stored(kind))})
            case "ObservedProperty":
                own = _PROPERTY_OF if self.is_own else self._observed
                return sorted({*own, *(entity.id for entity in self._all_stored(kind))})
            case _:
                return sorted(entity.id for entity in self._all_stored(kind))

    def entities(self, kind: str, ids: Iterable[int]) -> list[Entity]:
        """Return the entities of a type by id, without those that do not exist."""
        structure, number = self.structure, list(ids)
        match kind:
            case "Thing":
                return self._things([structure.things[at] for at in number if at in structure.things])
            case "Datastream":
                return self._datastreams([structure.datastreams[at] for at in number if at in structure.datastreams])
            case "Location" | "FeatureOfInterest":
                return self._places(kind, number)
            case "Sensor":
                return [sensor for at in number if (sensor := self._sensor(at)) is not None]
            case "ObservedProperty":
                return [matched for at in number if (matched := self._observed_property(at)) is not None]
            case _:
                stored = [entity for at in number if (entity := self.stored(kind, at)) is not None]
                return [_entity_of(entity) for entity in stored]

    def find(self, kind: str, number: int) -> Entity | None:
        """Return an entity; None: there is none that the caller sees."""
        return next(iter(self.entities(kind, [number])), None)

    # ── links ─────────────────────────────────────────────────────────────────────────────────────────

    def follow(self, entity: Entity, link: str) -> Sequence[Entity]:
        """Return the entities to which a link leads."""
        if link == "Observations":
            return self._observations_of(entity)
        target = entity.kind.links[link].target
        return self.entities(target, self.linked(entity, link))

    def linked(self, entity: Entity, link: str) -> Sequence[int]:  # noqa: PLR0911 - one for each link
        """Return the ids to which a link leads, ascending; not for Observations."""
        source = entity.source
        match entity.kind.name, link:
            case "Thing", "Datastreams":
                assert isinstance(source, SeenThing)  # noqa: S101 - things are made of it
                return [stream.id for stream in source.datastreams]
            case "Thing", "Locations":
                assert isinstance(source, SeenThing)  # noqa: S101 - as above
                return self.locations_of(source)
            case "Thing", "HistoricalLocations":
                assert isinstance(source, SeenThing)  # noqa: S101 - as above
                return [past.id for past in self.stored_of(source, "HistoricalLocation")]
            case "Datastream", _:
                assert isinstance(source, SeenDatastream)  # noqa: S101 - as above
                return self._of_datastream(source, link)
            case "Location", "Things":
                return sorted(thing.id for thing in self._things_at(entity))
            case "Location", "HistoricalLocations":
                past = self._all_stored("HistoricalLocation")
                return sorted(other.id for other in past if entity.id in other.links.get("Locations", ()))
            case "HistoricalLocation", _:
                assert isinstance(source, StoredEntity)  # noqa: S101 - as above
                if link == "Locations":
                    return sorted(source.links.get("Locations", ()))
                thing = self.structure.by_word.get(source.device)
                return [thing.id] if thing else []
            case (("Sensor" | "ObservedProperty"), "Datastreams"):
                return [
                    stream.id
                    for stream in map(self.structure.datastreams.__getitem__, self.structure.datastream_ids)
                    if self._of_datastream(stream, entity.kind.name)[0] == entity.id
                ]
            case "Observation", _:
                links = source if isinstance(source, ObservationSource) else None
                if links is None:
                    return []
                return [links.datastream.id if link == "Datastream" else links.feature]
        return []

    def _observations_of(self, entity: Entity) -> Sequence[Entity]:
        known = self.observations or {}
        source = entity.source
        if isinstance(source, SeenDatastream):
            return known.get(source.id, ())
        streams = source.datastreams if isinstance(source, SeenThing) else self.structure.datastreams.values()
        rows = [row for stream in streams for row in known.get(stream.id, ())]
        return [row for row in rows if isinstance(row.source, ObservationSource) and row.source.feature == entity.id]

    def _of_datastream(self, stream: SeenDatastream, link: str) -> Sequence[int]:
        if link == "Thing":
            return [stream.thing.id]
        stored = self.stored("Datastream", stream.id)
        if stored is not None and link in stored.links:
            chosen = [number for number in stored.links[link] if self.stored(link, number) is not None]
            if chosen:
                return chosen
        if link == "ObservedProperty":
            return [property_id(stream.measured)]
        return [sensor_id(self._profile_of(stream))]

    # ── things and places ─────────────────────────────────────────────────────────────────────────────

    def _things(self, things: Sequence[SeenThing]) -> list[Entity]:
        return [Entity(_THING, thing.id, self._thing_values(thing), thing) for thing in things]

    def _thing_values(self, thing: SeenThing) -> dict[str, object]:
        device = self._device_of(thing)
        properties: dict[str, object] = {"device": thing.word}
        name = thing.word
        if device is not None:
            name = device.name or device.id
            facts = {"department": device.department, "domain": device.domain, "asset": device.asset}
            properties |= {"division": device.division, "profile": device.profile, "state": device.state.value}
            properties |= {key: value for key, value in facts.items() if value}
            division = device.division
        else:
            division = self._division_of(thing)
            properties["division"] = division
        divisions = self._parts.divisions
        place = divisions.get(division).name_zh if division in divisions else division
        values: dict[str, object] = {
            "name": name,
            "description": f"device in {place}",
            "properties": properties,
        }
        stored = self.stored("Thing", thing.id)
        return values if stored is None else _overlaid(values, stored.values)

    def _device_of(self, thing: SeenThing) -> Device | None:
        """Return the registry data of a Thing; None: nothing that the caller may read."""
        if thing.device in self._devices:
            return self._devices[thing.device]
        devices = self._parts.devices
        at = devices.find(thing.device) if self.reads_registry and thing.device else -1
        device = devices.record(at) if at >= 0 else None
        if device and not allows(self.principal, Action.READ_REGISTRY, device.division, device.department):
            device = None
        self._devices[thing.device] = device
        return device

    def _division_of(self, thing: SeenThing) -> str:
        number = self._newest(thing)
        if number < 0:
            return ""
        code: str = self._parts.values.words("division")[self._parts.values.view().division[number]]
        return code[: self.mask.division_digits] if self.mask.division_digits else code

    def _newest(self, thing: SeenThing) -> int:
        """Return the series of a Thing that was heard last; -1: none was."""
        received = self._parts.values.view().received
        numbers = [number for stream in thing.datastreams for number in stream.numbers]
        return max(numbers, key=received.__getitem__) if numbers else -1

    def position_of(self, thing: SeenThing) -> Position | None:
        """Return the position of a Thing under the mask; None: it is unknown or hidden."""
        if PLACE in self.mask.drop:
            return None
        if self._device_of(thing) is not None:
            devices = self._parts.devices
            at = devices.find(thing.device)
            lon, lat = float(devices.lon[at]), float(devices.lat[at])
        elif (number := self._newest(thing)) >= 0:
            view = self._parts.values.view()
            lon, lat = float(view.lon[number]), float(view.lat[number])
        else:
            return None
        if self.mask.grid_m:
            snapped = snap_to_grid(np.array([lon]), np.array([lat]), self.mask.grid_m)
            lon, lat = float(snapped[0][0]), float(snapped[1][0])
        return None if math.isnan(lon) or math.isnan(lat) else (round(lon, 7), round(lat, 7))

    def _placed(self) -> list[int]:
        """Return the ids of the Locations that follow from positions."""
        if PLACE in self.mask.drop:
            return []
        devices, reads_registry = self._parts.devices, self.reads_registry
        lon, has_stored = self._parts.values.view().lon, self.is_own and any(self._all_stored("Thing"))
        placed = []
        for number, thing in self.structure.locations.items():
            at = devices.find(thing.device) if reads_registry and thing.device else -1
            newest = self._newest(thing) if at < 0 else -1
            place = devices.lon[at] if at >= 0 else lon[newest] if newest >= 0 else math.nan
            if not math.isnan(place) and not (has_stored and self.stored_locations(thing)):
                placed.append(number)
        return placed

    def stored_locations(self, thing: SeenThing) -> list[StoredEntity]:
        """Return the Locations that a client gave to a Thing."""
        stored = self.stored("Thing", thing.id)
        numbers = stored.links.get("Locations", ()) if stored else ()
        return [place for number in numbers if (place := self.stored("Location", number)) is not None]

    def locations_of(self, thing: SeenThing) -> list[int]:
        """Return the ids of the Locations of a Thing."""
        if stored := self.stored_locations(thing):
            return sorted(place.id for place in stored)
        return [thing.location_id] if self.position_of(thing) is not None else []

    def _things_at(self, location: Entity) -> list[SeenThing]:
        if isinstance(location.source, SeenThing):
            return [location.source]
        return [
            self.structure.things[thing.id]
            for thing in self._all_stored("Thing")
            if location.id in thing.links.get("Locations", ()) and thing.id in self.structure.things
        ]

    def _places(self, kind: str, ids: Iterable[int]) -> list[Entity]:
        derived = self.structure.locations if kind == "Location" else self.structure.features
        places: list[Entity] = []
        for number in ids:
            stored = self.stored(kind, number)
            thing = derived.get(number)
            if stored is not None:
                places.append(_entity_of(stored))
            elif thing is not None:
                position = self.position_of(thing)
                if kind == "FeatureOfInterest" or (position is not None and not self.stored_locations(thing)):
                    places.append(Entity(KINDS[kind], number, self._place_values(kind, thing, position), thing))
        return places

    def _place_values(self, kind: str, thing: SeenThing, position: Position | None) -> dict[str, object]:
        point = None if position is None else {"type": "Point", "coordinates": list(position)}
        named: dict[str, object] = {"name": f"place of {thing.word}", "encodingType": GEOJSON}
        if kind == "Location":
            return {**named, "description": "position of the device, WGS-84", "location": point}
        if point is None and (stored := self.stored_locations(thing)):
            point = stored[0].values.get("location")
        division = self._division_of(thing)
        return {
            **named,
            "description": "where the device observes, WGS-84" if point else f"division {division}",
            "feature": point or {"type": "Feature", "geometry": None, "properties": {"division": division}},
        }

    # ── datastreams, sensors, properties ──────────────────────────────────────────────────────────────

    def _datastreams(self, streams: Sequence[SeenDatastream]) -> list[Entity]:
        return [Entity(_DATASTREAM, stream.id, self._datastream_values(stream), stream) for stream in streams]

    def _datastream_values(self, stream: SeenDatastream) -> dict[str, object]:
        index = PROPERTIES.find(stream.measured)
        values: dict[str, object]
        if index < 0:
            values = {
                "name": stream.name,
                "description": f"{stream.name} of {stream.thing.word}",
                "observationType": f"{_OM}OM_Observation",
                "unitOfMeasurement": _NO_UNIT,
            }
        else:
            values = {**_described(stream.measured)}
            if stream.channel:
                values["name"] = stream.name
                values["properties"] = {"channel": stream.channel}
            values["description"] = f"{values['description']} of {stream.thing.word}"
        stored = self.stored("Datastream", stream.id)
        return values if stored is None else _overlaid(values, stored.values)

    def _profile_of(self, stream: SeenDatastream) -> str:
        if PROFILE in self.mask.drop:
            return ""
        if not stream.numbers:
            devices = self._parts.devices
            at = devices.find(stream.thing.device) if stream.thing.device else -1
            return devices.record(at).profile if at >= 0 and self.reads_registry else ""
        values = self._parts.values
        profile: str = values.words("profile")[values.view().profile[stream.numbers[-1]]]
        return profile

    @cached_property
    def _profiles(self) -> dict[int, str]:
        """Return the profiles of all Datastreams by the ids of their Sensors."""
        profiles = {self._profile_of(stream) for stream in self.structure.datastreams.values()}
        return {sensor_id(profile): profile for profile in profiles}

    def _sensor(self, number: int) -> Entity | None:
        if (stored := self.stored("Sensor", number)) is not None:
            return _entity_of(stored)
        profile = self._profiles.get(number)
        if profile is None:
            return None
        values: dict[str, object] = {
            "name": profile or "not shown",
            "description": f"device profile {profile}" if profile else "the profile of the device is not shown",
            "encodingType": "application/json",
            "metadata": f"/api/v1/profiles/{profile.partition('@')[0]}" if profile else "",
        }
        return Entity(KINDS["Sensor"], number, values, profile)

    @cached_property
    def _observed(self) -> dict[int, str]:
        """Return the properties of all Datastreams by the ids of their ObservedProperties."""
        names = {stream.measured for stream in self.structure.datastreams.values()}
        return {property_id(name): name for name in names}

    def _observed_property(self, number: int) -> Entity | None:
        if (stored := self.stored("ObservedProperty", number)) is not None:
            return _entity_of(stored)
        name = _PROPERTY_OF.get(number) if self.is_own else None
        name = name or self._observed.get(number)
        if name is None:
            return None
        index = PROPERTIES.find(name)
        row = PROPERTIES[index] if index >= 0 else Property(name, ValueKind.STRING, "", "", name, name)
        values: dict[str, object] = {
            "name": name,
            "definition": definition_of(name),
            "description": row.label_en,
            "properties": {"domain": row.domain, "label_zh": row.label_zh, "label_en": row.label_en},
        }
        return Entity(KINDS["ObservedProperty"], number, values, name)


def is_own(principal: Principal, admission: Admission) -> bool:
    """Return whether a caller reads all of its own scope, and not by a grant or a feed."""
    return admission.grant is None and not principal.feeds and admission.feed.name == ALL_FEED.name


class CallerViews:
    """Opens views."""

    def __init__(self, parts: ViewParts) -> None:
        self.parts = parts
        self._shown: dict[tuple[Scope, bool, bool], tuple[tuple[int, int], ShownEntities]] = {}

    async def open(self, principal: Principal, admission: Admission, now: int) -> CallerView:
        """Return a caller's view by an admission."""
        own = is_own(principal, admission)
        sees_registry = own and has_right(principal, Action.READ_REGISTRY)
        shown = self._shown_to(principal.scope, sees_registry=sees_registry, own=own)
        structure = await self.parts.structures.of(admission.selection, f"{own}{sees_registry}", shown)
        return CallerView(self.parts, principal, admission, structure, now)

    def _shown_to(self, scope: Scope, *, sees_registry: bool, own: bool) -> ShownEntities:
        """Return a caller's view beside readings; the same object while nothing changes."""
        devices, stored = self.parts.devices, self.parts.stored
        key, version = (scope, sees_registry, own), (devices.version, stored.version)
        known = self._shown.get(key)
        if known is not None and known[0] == version:
            return known[1]
        size, ids = len(devices), devices.index.ids
        retired = (devices.index.state[:size] == _RETIRED) & devices.mask()
        registered = devices.mask(scope) & ~retired if sees_registry else np.zeros(size, np.bool_)
        shown = ShownEntities(
            frozenset(ids[at] for at in np.flatnonzero(registered).tolist()),
            frozenset(
                (entity.device, entity.measured)
                for entity in (stored.of_kind("Datastream") if own else ())
                if is_visible(entity, scope)
            ),
            frozenset(ids[at] for at in np.flatnonzero(retired).tolist()),
            frozenset(entity.id for entity in stored.of_kind(REMOVED)) if own else frozenset(),
        )
        if known is not None and known[1] == shown:
            shown = known[1]
        if len(self._shown) >= _SHOWN_MAX:
            self._shown.clear()
        self._shown[key] = version, shown
        return shown


_SHOWN_MAX = 256
"""Scopes of which it is known what they show."""


class ObservationSource(msgspec.Struct, frozen=True, eq=False):
    """Datastream and feature to which an Observation belongs."""

    datastream: SeenDatastream
    feature: int
    """Id of its FeatureOfInterest."""
    time: int
    """Phenomenon time, µs UTC."""


_THING, _DATASTREAM = KINDS["Thing"], KINDS["Datastream"]
_RETIRED = next(place for place, state in enumerate(STATES) if state == "retired")


def _entity_of(stored: StoredEntity) -> Entity:
    return Entity(KINDS[stored.kind], stored.id, dict(stored.values), stored)


def _overlaid(values: dict[str, object], written: dict[str, object]) -> dict[str, object]:
    """Return derived values with those that a client wrote; its `properties` stand beside the derived ones."""
    merged = {**values, **written}
    derived, own = values.get("properties"), written.get("properties")
    if isinstance(derived, dict) and isinstance(own, dict):
        merged["properties"] = {**derived, **own}
    return merged


def property_id(name: str) -> int:
    """Return the id of the ObservedProperty of a standard property."""
    return entity_id("ObservedProperty", name)


def sensor_id(profile: str) -> int:
    """Return the id of the Sensor of a device profile, ``vendor/model@version``."""
    return entity_id("Sensor", profile)


def definition_of(name: str) -> str:
    """Return the URI that defines a standard property."""
    return f"https://sensegate.org/def/property/{name}"


_PROPERTY_OF: dict[int, str] = {property_id(name): name for name in PROPERTIES.names}


def _described(name: str) -> dict[str, object]:
    known = _DESCRIBED.get(name)
    if known is None:
        row = PROPERTIES.by_name(name)
        known = _DESCRIBED[name] = {
            "name": name,
            "description": row.label_en,
            "observationType": observation_type(row),
            "unitOfMeasurement": unit_of(row),
        }
    return known


_DESCRIBED: dict[str, dict[str, object]] = {}


def observation_type(row: Property) -> str:
    """Return the observation type of the standard for a property."""
    match row.kind:
        case ValueKind.BOOLEAN:
            return _TRUTH
        case ValueKind.STRING:
            return _CATEGORY
    return _COUNT if row.counter and row.unit == "1" else _MEASUREMENT


def unit_of(row: Property) -> dict[str, object]:
    """Return the unit of measurement of a property, by its UCUM code."""
    if not row.unit:
        return dict(_NO_UNIT)
    return {"name": row.unit, "symbol": row.unit, "definition": f"http://unitsofmeasure.org/ucum.html#{row.unit}"}


def page_of(ids: Sequence[int], after: int | None) -> Sequence[int]:
    """Return the ids after an id, of ascending ids."""
    return ids if after is None else ids[bisect.bisect_right(ids, after) :]
