"""Entities made of the last values of series, under the mask by which they are read.

A device is seen as a `Device` and as an observing entity of each type that its properties belong to. The entities of a
selection are kept, and those of the devices whose values changed are made again when somebody asks.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sensegate.authority.divisions import Divisions
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind, EntityRecord, Viewer
from sensegate.ngsi_ld.vocabulary import DEVICE_TYPE, UNKNOWN_TYPE, AttributeName, attribute_of, iri, properties_of
from sensegate.quantities.properties import ValueKind
from sensegate.quantities.quality import Flag, flag_words, quality_word
from sensegate.sensorthings.instants import instant_text
from sensegate.share.feeds import FeedSelection
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestReader, includes_readings
from sensegate.share.masks import DEVICE, Masks
from sensegate.share.records import base_name, channel_of, kinds_of

URN = "urn:ngsi-ld:"
_SELECTIONS_MAX = 16
"""Selections whose entities are kept."""
_STEP = 1_000
"""Series that are made into attributes at a time; other tasks run between steps."""
_WITHDRAWN = np.uint32(Flag.WITHDRAWN)
_QUALITY, _FLAGS = iri("quality"), iri("flags")
_LOCATION, _AREA, _OBSERVED = iri("location"), iri("areaServed"), iri("dateObserved")
_REPORTED, _MODEL, _CONTROLLED = iri("dateLastValueReported"), iri("refDeviceModel"), iri("controlledProperty")
_REF_DEVICE = iri("refDevice")


def entity_id(kind: str, word: str) -> str:
    """Return the id of an entity of a device."""
    return f"{URN}{kind}:{word}"


def device_of(name: str) -> str:
    """Return the device of which an id would be an entity of readings; empty: the id has another form."""
    kind, _, word = name.removeprefix(URN).partition(":")
    has_readings = name.startswith(URN) and (kind == UNKNOWN_TYPE or bool(properties_of(kind)))
    return word if has_readings else ""


class _Reading(NamedTuple):
    """A masked last value."""

    type: str
    instance: AttributeInstance
    time: int
    received: int
    division: str
    lon: float
    lat: float
    profile: str


class _Known:
    """Entities of one selection, as of a change of the last values."""

    def __init__(self) -> None:
        self.change = -1
        self.entities: dict[str, EntityRecord] = {}
        self.of_device: dict[str, list[str]] = {}
        """Id of a device -> ids of its entities."""
        self.lock = asyncio.Lock()


class SeriesEntities:
    """Entities of all series that a viewer gets."""

    def __init__(self, values: LastValues, latest: LatestReader, masks: Masks, divisions: Divisions) -> None:
        self._values = values
        self._latest = latest
        self._masks = masks
        self._divisions = divisions
        self._known: OrderedDict[FeedSelection, _Known] = OrderedDict()
        self._scopes: dict[str, tuple[str, ...]] = {}

    async def entities(self, viewer: Viewer) -> Mapping[str, EntityRecord]:
        """Return the entities of what the viewer gets of its feed, by id."""
        selection = viewer.admission.selection
        if selection is None or not includes_readings(selection):
            return {}
        known = self._known.setdefault(selection, _Known())
        self._known.move_to_end(selection)
        while len(self._known) > _SELECTIONS_MAX:
            self._known.popitem(last=False)
        async with known.lock:
            await self._refresh(known, selection)
            return dict(known.entities)

    def was_heard(self, device: str) -> bool:
        """Return whether there are readings of a device, whoever may see them."""
        return bool(self._values.device_numbers(device))

    # ── keeping ───────────────────────────────────────────────────────────────────────────────────────

    async def _refresh(self, known: _Known, selection: FeedSelection) -> None:
        """Make the entities again of devices of which a value changed."""
        values = self._values
        before, change = known.change, values.change
        if before == change:
            return
        changed = np.arange(len(values)) if before < 0 else values.changed_since(before)
        names = {values.devices[number][1] for number in np.unique(values.view().device[changed]).tolist()}
        series = self._series_of(names) if before >= 0 else changed
        readings: dict[str, list[_Reading]] = {}
        numbers = self._latest.matching_series(selection, series)
        for start in range(0, len(numbers), _STEP):
            if start:
                await asyncio.sleep(0)
            self._read(selection, numbers[start : start + _STEP], readings)
        word_of = self._masks.pseudonyms(selection.mask.key) if DEVICE in selection.mask.hash else str
        for name in names:
            word = word_of(name)
            for gone in known.of_device.pop(word, ()):
                known.entities.pop(gone, None)
            if made := self._entities_of(word, readings.get(word, ())):
                known.of_device[word] = [entity.id for entity in made]
                known.entities.update((entity.id, entity) for entity in made)
        # Only now: a request that is cancelled on the way leaves the rest to the next one.
        known.change = change

    def _series_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the numbers of the series of devices, of all their nodes."""
        numbers = [number for name in names for number in self._values.device_numbers(name)]
        return np.flatnonzero(np.isin(self._values.view().device, numbers))

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────

    def _read(self, selection: FeedSelection, numbers: NDArray[np.int64], readings: dict[str, list[_Reading]]) -> None:
        """Add masked values: the name of the device that the viewer sees -> its readings."""
        for part in self._latest.masked(selection, numbers):
            batch, origins = part.batch, part.batch.origins
            rows = part.rows[(batch.flags[part.rows] & _WITHDRAWN) == 0]
            names = [(attribute_of(base_name(name)), channel_of(name)) for name in batch.properties]
            kinds = kinds_of(batch.properties)
            divisions, profiles = origins.division.tolist(), origins.profile.tolist()
            for row, origin, variable, time, received, value, quality, flags in zip(
                rows.tolist(),
                batch.origin[rows].tolist(),
                batch.property[rows].tolist(),
                batch.time[rows].tolist(),
                batch.received[rows].tolist(),
                batch.value[rows].tolist(),
                batch.quality[rows].tolist(),
                batch.flags[rows].tolist(),
                strict=True,
            ):
                result = reading_value(kinds[variable], value, batch.text.get(row))
                if result is None:
                    continue
                name, channel = names[variable]
                instance = reading_instance_of(
                    name,
                    channel,
                    result,
                    time=time,
                    received=received,
                    quality=quality_word(quality),
                    flags=_flag_words(flags),
                )
                reading = _Reading(
                    name.type,
                    instance,
                    time,
                    received,
                    divisions[origin],
                    float(origins.lon[origin]),
                    float(origins.lat[origin]),
                    profiles[origin],
                )
                readings.setdefault(origins.device[origin], []).append(reading)

    # ── making ────────────────────────────────────────────────────────────────────────────────────────

    def _entities_of(self, word: str, readings: Iterable[_Reading]) -> list[EntityRecord]:
        """Return the entities of a device."""
        by_type: dict[str, list[_Reading]] = {}
        for reading in readings:
            by_type.setdefault(reading.type, []).append(reading)
        if not by_type:
            return []
        every = [reading for group in by_type.values() for reading in group]
        device = self._device_entity(word, by_type.pop(DEVICE_TYPE, []), every)
        return [device, *(self._observing_entity(word, kind, group) for kind, group in by_type.items())]

    def _observing_entity(self, word: str, kind: str, readings: list[_Reading]) -> EntityRecord:
        newest = max(readings, key=lambda reading: reading.time)
        return self._entity(
            entity_id(kind, word),
            kind,
            readings,
            newest,
            property_instance(_OBSERVED, {"@type": "DateTime", "@value": instant_text(newest.time)}, newest.received),
            AttributeInstance(
                name=_REF_DEVICE,
                kind=AttributeKind.RELATIONSHIP,
                value=entity_id(DEVICE_TYPE, word),
                created=newest.received,
                modified=newest.received,
            ),
        )

    def _device_entity(self, word: str, own: list[_Reading], every: list[_Reading]) -> EntityRecord:
        newest = max(every, key=lambda reading: reading.time)
        names = sorted({reading.instance.name.rpartition("/")[2] for reading in every})
        more = [
            property_instance(_REPORTED, {"@type": "DateTime", "@value": instant_text(newest.time)}, newest.received),
            property_instance(_CONTROLLED, names, newest.received),
        ]
        if newest.profile:
            model = AttributeInstance(
                name=_MODEL,
                kind=AttributeKind.RELATIONSHIP,
                value=f"{URN}DeviceModel:{newest.profile.replace('/', ':').replace('@', ':')}",
                created=newest.received,
                modified=newest.received,
            )
            more.append(model)
        return self._entity(entity_id(DEVICE_TYPE, word), DEVICE_TYPE, own, newest, *more)

    def _entity(
        self, name: str, kind: str, readings: list[_Reading], newest: _Reading, *more: AttributeInstance
    ) -> EntityRecord:
        chosen: dict[tuple[str, str], _Reading] = {}
        for reading in readings:
            key = reading.instance.name, reading.instance.dataset
            # Of a device that moved, the newer one of its series.
            if key not in chosen or chosen[key].time < reading.time:
                chosen[key] = reading
        attributes = [chosen[key].instance for key in sorted(chosen)]
        attributes += more
        if not (math.isnan(newest.lon) or math.isnan(newest.lat)):
            attributes.append(
                AttributeInstance(
                    name=_LOCATION,
                    kind=AttributeKind.GEO_PROPERTY,
                    value={"type": "Point", "coordinates": [round(newest.lon, 7), round(newest.lat, 7)]},
                    observed_at=newest.time,
                    created=newest.received,
                    modified=newest.received,
                )
            )
        if area := self._area(newest):
            attributes.append(area)
        received = [reading.received for reading in readings or (newest,)]
        return EntityRecord(
            id=name,
            types=(iri(kind),),
            attributes=tuple(attributes),
            scopes=self._scopes_of(newest.division),
            created=min(received),
            modified=max(received),
        )

    def _area(self, newest: _Reading) -> AttributeInstance | None:
        if newest.division not in self._divisions:
            return None
        division = self._divisions.get(newest.division)
        names = {"zh": division.name_zh, "en": division.name_en}
        return AttributeInstance(
            name=_AREA,
            kind=AttributeKind.LANGUAGE_PROPERTY,
            value={language: text for language, text in names.items() if text},
            created=newest.received,
            modified=newest.received,
        )

    def _scopes_of(self, code: str) -> tuple[str, ...]:
        known = self._scopes.get(code)
        if known is None:
            known = self._scopes[code] = (scope_of(code, self._divisions),) if code else ()
        return known


def scope_of(code: str, divisions: Divisions) -> str:
    """Return the scope of a division with those above it: ``/44/4401/440106``."""
    path = [code]
    while path[0] in divisions and (parent := divisions.get(path[0]).parent):
        path.insert(0, parent)
    return "/" + "/".join(path)


def property_instance(name: str, value: object, time: int) -> AttributeInstance:
    """Return a property that follows from readings and is none itself."""
    return AttributeInstance(name=name, kind=AttributeKind.PROPERTY, value=value, created=time, modified=time)


def reading_value(kind: ValueKind, value: float, text: str | None) -> object:
    """Return the JSON value of a reading; None: it has none."""
    if text is not None:
        return text
    if math.isnan(value):
        return None
    return bool(value) if kind is ValueKind.BOOLEAN else value


def reading_instance_of(
    name: AttributeName,
    channel: str,
    value: object,
    *,
    time: int,
    received: int,
    quality: str,
    flags: tuple[str, ...],
) -> AttributeInstance:
    """Return a reading as an instance of its attribute; each further channel is a data set of its own."""
    return AttributeInstance(
        name=name.attribute,
        kind=AttributeKind.PROPERTY,
        value=value,
        dataset=f"{URN}Dataset:{channel}" if channel else "",
        observed_at=time,
        unit=name.unit,
        created=received,
        modified=received,
        sub=_quality_instances(quality, flags),
        readings=1,
    )


@lru_cache(maxsize=4_096)
def _quality_instances(quality: str, flags: tuple[str, ...]) -> tuple[AttributeInstance, ...]:
    sub = AttributeInstance(name=_QUALITY, kind=AttributeKind.PROPERTY, value=quality)
    if not flags:
        return (sub,)
    return sub, AttributeInstance(name=_FLAGS, kind=AttributeKind.PROPERTY, value=list(flags))


@lru_cache(maxsize=4_096)
def _flag_words(flags: int) -> tuple[str, ...]:
    return tuple(flag_words(flags))
