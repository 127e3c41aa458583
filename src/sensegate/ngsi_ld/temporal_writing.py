"""Writing of the temporal evolution of devices (clauses 5.6.11 to 5.6.16): instances of attributes are readings.

An instance that is added is a reading that is taken in; one that is changed is a revision of it; one that is deleted
is withdrawn. Nothing leaves the log. The evolution of entities that departments keep is not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sensegate.authority.devices import Devices
from sensegate.ngsi_ld.entities import AttributeInstance, AttributeKind
from sensegate.ngsi_ld.problems import ErrorType, NgsiError, bad_data
from sensegate.ngsi_ld.series import URN
from sensegate.ngsi_ld.temporal import INSTANCE
from sensegate.ngsi_ld.vocabulary import attribute_of, properties_of
from sensegate.quantities.properties import Property
from sensegate.sensorthings import bodies
from sensegate.sensorthings.ids import entity_id
from sensegate.sensorthings.ingest import NewReading
from sensegate.sensorthings.kinds import Entity
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.structure import SeenDatastream, SeenThing
from sensegate.sensorthings.view import CallerView, ObservationSource
from sensegate.sensorthings.writing import PLAIN, EntityWriter

INSTANCES_MAX = 5_000
"""Most instances of one request."""
_AHEAD_US = 86_400_000_000
_DATASET = f"{URN}Dataset:"


class TemporalTarget(msgspec.Struct, frozen=True, eq=False):
    """Entity of a device whose evolution is written."""

    name: str
    kind: str
    """Short name of its type."""
    thing: SeenThing
    profile: str
    """Profile of its device."""

    @property
    def streams(self) -> list[SeenDatastream]:
        """Series of the entity that have readings."""
        return [
            stream
            for stream in self.thing.datastreams
            if stream.numbers and attribute_of(stream.measured).type == self.kind
        ]


class TemporalWriter:
    """Writes on behalf of one caller."""

    def __init__(self, view: CallerView, writer: EntityWriter, reader: ObservationReader, devices: Devices) -> None:
        """`writer`: takes and withdraws readings, with the rights of the caller."""
        self._view = view
        self._writer = writer
        self._reader = reader
        self._devices = devices

    def find(self, name: str) -> TemporalTarget | None:
        """Return the entity of a device that is registered here and that the caller sees; None: there is none."""
        kind, _, word = name.removeprefix(URN).partition(":")
        thing = self._view.structure.by_word.get(word) if name.startswith(URN) else None
        if thing is None or not thing.device or not self._devices.is_present(thing.device):
            return None
        return TemporalTarget(name, kind, thing, self._devices.get(thing.device).profile)

    async def add(self, target: TemporalTarget, instances: Sequence[AttributeInstance]) -> None:
        """Take instances as readings; return after the commit.

        Raises:
            NgsiError: they are no readings of such a device, or some were not taken.
            PermissionDenied, Overloaded, Unavailable.
        """
        if not 0 < len(instances) <= INSTANCES_MAX:
            raise bad_data(f"body: has {len(instances)} instances; give 1 to {INSTANCES_MAX}")
        readings = [self._reading(target, instance) for instance in instances]
        ids = await self._writer.observations(self._view, [(reading, {}) for reading in readings])
        if absent := ids.count(None):
            raise bad_data(
                f"body: {absent} of {len(ids)} instances became no reading, the others are committed; "
                "GET /api/v1/quarantine tells why"
            )

    def _reading(self, target: TemporalTarget, instance: AttributeInstance) -> NewReading:
        where = f"body: {instance.name.rpartition('/')[2][:80]}"
        row = self._property(target, instance.name, where)
        if instance.observed_at is None:
            raise bad_data(f"{where}: observedAt: is missing; an instance has the time of its reading")
        if instance.kind is not AttributeKind.PROPERTY or instance.sub:
            raise bad_data(f"{where}: is no plain Property; give value and observedAt, quality follows from them")
        unit = attribute_of(row.name).unit
        if instance.unit and instance.unit != unit:
            raise bad_data(f"{where}: unitCode: '{instance.unit}' is not that of {row.name}; give values in {row.unit}")
        if target.profile != PLAIN or instance.dataset:
            raise NgsiError(
                ErrorType.OPERATION_NOT_SUPPORTED,
                f"{where}: {target.thing.device} sends its readings itself, by profile {target.profile}; "
                f"instances are taken for devices of {PLAIN}, without datasetId",
            )
        stream = self._stream(target, row)
        self._writer.demand_intake(stream, where)
        return NewReading(stream, instance.observed_at, bodies.result_of(row, instance.value, f"{where}: value"))

    def _property(self, target: TemporalTarget, attribute: str, where: str) -> Property:
        known = properties_of(target.kind)
        if attribute not in known:
            names = ", ".join(sorted(name.rpartition("/")[2] for name in known)[:20])
            remedy = f"use some of {names}" if known else "GET /ngsi-ld/v1/types lists the types"
            raise bad_data(f"{where}: no reading is an attribute of {target.kind[:60]} by this name; {remedy}")
        return known[attribute]

    def _stream(self, target: TemporalTarget, row: Property) -> SeenDatastream:
        known = self._view.structure.by_pair.get((target.thing.word, row.name))
        return known or SeenDatastream(entity_id("Datastream", target.thing.word, row.name), target.thing, row.name)

    # ── instances ─────────────────────────────────────────────────────────────────────────────────────

    async def instance(self, target: TemporalTarget, attribute: str, name: str) -> Entity:
        """Return the reading of an instance. Raises `NgsiError`."""
        number = name.removeprefix(INSTANCE)
        is_number = name.startswith(INSTANCE) and number.isascii() and number.isdigit() and len(number) < 17
        entity = await self._reader.find(self._view, int(number)) if is_number else None
        stream = entity.source.datastream if entity and isinstance(entity.source, ObservationSource) else None
        if entity is None or stream is None or stream.thing is not target.thing or not _is(stream, target, attribute):
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"the attribute has no instance '{name[:200]}' that you see")
        return entity

    async def change_instance(self, target: TemporalTarget, entity: Entity, fragment: AttributeInstance) -> None:
        """Replace the value of an instance by a revision of its reading. Raises as `add`."""
        source = entity.source
        assert isinstance(source, ObservationSource)  # noqa: S101 - as `instance` returns it
        if fragment.observed_at not in (None, source.time):
            raise bad_data("body: observedAt: identifies the reading; delete the instance and add another")
        if fragment.value is None:
            raise bad_data("body: value: is missing; give the value that holds")
        attribute = attribute_of(source.datastream.measured).attribute
        instance = msgspec.structs.replace(
            fragment,
            name=attribute,
            observed_at=source.time,
            dataset=f"{_DATASET}{source.datastream.channel}" if source.datastream.channel else "",
        )
        await self.add(target, [instance])

    async def delete_instance(self, entity: Entity) -> None:
        """Withdraw the reading of an instance. Raises `PermissionDenied`, `TimeoutError`, `Unavailable`."""
        await self._writer.delete(self._view, entity)

    async def delete_attribute(
        self, target: TemporalTarget, attribute: str, dataset: str, *, deletes_all: bool
    ) -> None:
        """Withdraw all readings of an attribute. Raises `NgsiError`, and as `delete_instance`."""
        streams = [
            stream
            for stream in target.streams
            if _is(stream, target, attribute) and (deletes_all or _dataset_of(stream) == dataset)
        ]
        if not streams:
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, "the entity has no such attribute")
        await self._withdraw(streams)

    async def delete(self, target: TemporalTarget) -> None:
        """Withdraw all readings of an entity. Raises `NgsiError`, and as `delete_instance`."""
        if not target.streams:
            raise NgsiError(ErrorType.RESOURCE_NOT_FOUND, f"entity '{target.name[:200]}' has no evolution")
        await self._withdraw(target.streams)

    async def _withdraw(self, streams: Sequence[SeenDatastream]) -> None:
        for stream in streams:
            await self._writer.withdraw(stream, 0, self._view.now + _AHEAD_US)


def _is(stream: SeenDatastream, target: TemporalTarget, attribute: str) -> bool:
    name = attribute_of(stream.measured)
    return name.type == target.kind and name.attribute == attribute


def _dataset_of(stream: SeenDatastream) -> str:
    return f"{_DATASET}{stream.channel}" if stream.channel else ""
