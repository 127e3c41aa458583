"""The temporal evolution of entities: their readings in a period, from the history and the log, and aggregates of them.

Readings are found by the reader of Observations, which merges revisions and masks first. By the time of arrival they
are looked for among all of their series, since late ones may be of any earlier time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from sensegate.errors import TooMuch
from sensegate.ngsi_ld.entities import AttributeInstance, EntityRecord, Viewer
from sensegate.ngsi_ld.instants import parse_date_time
from sensegate.ngsi_ld.representation import Document, EntityForm, EntityRenderer, Projection, Rendering
from sensegate.ngsi_ld.series import URN, reading_instance_of
from sensegate.ngsi_ld.vocabulary import attribute_of
from sensegate.ngsi_ld.windows import METHODS, AggregateCell, Period, TimeProperty, Value, WindowLength, windowed
from sensegate.sensorthings.instants import Span, instant_text
from sensegate.sensorthings.kinds import Entity
from sensegate.sensorthings.observations import ArrivalSpan
from sensegate.sensorthings.service import SensorThings
from sensegate.sensorthings.structure import SeenDatastream
from sensegate.sensorthings.view import ObservationSource

INSTANCES_MAX = 20_000
"""Most readings of one answer."""
AGGREGATED_MAX = 200_000
"""Most readings that one answer aggregates."""
INSTANCE = f"{URN}Instance:"
"""Prefix of the ids of instances; the id of the reading follows."""
_AHEAD_US = 86_400_000_000
"""Clocks of devices may be so far ahead of the arrival of their readings."""
_STEP = 2_000
"""Readings that are made into instances at a time; other tasks run between steps."""
_NARROWER = "give a shorter period, fewer attrs or entities, lastN, or options=aggregatedValues"


class TemporalForm(msgspec.Struct, frozen=True, kw_only=True):
    """Selection of the readings of the period, and their form."""

    period: Period = Period()
    time_property: TimeProperty = TimeProperty.OBSERVED
    """Time to which the period, `last` and windows refer."""
    last: int = 0
    """Most readings of each attribute, the last ones; 0: all."""
    as_values: bool = False
    """Values with their times only."""
    methods: tuple[str, ...] = ()
    """Aggregation methods; empty: readings."""
    duration: WindowLength = WindowLength()


class TemporalDocument(msgspec.Struct, frozen=True):
    """Temporal representation of an entity."""

    document: Document
    count: int
    """Readings, or aggregates, in it."""


class TemporalReader:
    """Reads the evolution of entities."""

    def __init__(self, observations: SensorThings) -> None:
        self._observations = observations

    async def evolution(
        self,
        viewer: Viewer,
        entities: Sequence[EntityRecord],
        rendering: Rendering,
        shown: Projection,
        form: TemporalForm,
    ) -> list[TemporalDocument]:
        """Return the temporal representation of each entity; its attributes are those that are shown.

        Raises:
            TooMuch: they have more readings than an answer may have.
            Unavailable: the log or the history does not answer.
        """
        series = await self._series(viewer, entities)
        instances_by_stream = await self._instances(viewer, [stream for streams in series for stream in streams], form)
        renderer = EntityRenderer(rendering, shown)
        documents = []
        for entity, streams in zip(entities, series, strict=True):
            instances = [instance for stream in streams for instance in instances_by_stream.get(stream.id, ())]
            by_name: dict[str, dict[str, list[AttributeInstance]]] = {}
            for instance in instances:
                by_name.setdefault(instance.name, {}).setdefault(instance.dataset, []).append(instance)
            documents.append(self._document(entity, by_name, renderer, rendering, form))
        return documents

    async def _series(self, viewer: Viewer, entities: Sequence[EntityRecord]) -> list[list[SeenDatastream]]:
        """Return the series of the attributes that each entity shows."""
        view = await self._observations.views.open(viewer.principal, viewer.admission, viewer.now)
        series = []
        for entity in entities:
            kind, _, word = entity.id.removeprefix(URN).partition(":")
            names = {instance.name for instance in entity.attributes if instance.readings}
            thing = view.structure.by_word.get(word)
            streams = thing.datastreams if thing is not None else []
            series.append(
                [
                    stream
                    for stream in streams
                    if (name := attribute_of(stream.measured)).type == kind and name.attribute in names
                ]
            )
        return series

    async def _instances(
        self, viewer: Viewer, streams: Sequence[SeenDatastream], form: TemporalForm
    ) -> dict[int, list[AttributeInstance]]:
        """Return the readings of series, in order of time: id of the series -> instances."""
        if not streams:
            return {}
        most = AGGREGATED_MAX if form.methods else INSTANCES_MAX
        begin, end = Span.ALL
        period = Span(
            begin if form.period.begin is None else form.period.begin,
            end if form.period.end is None else form.period.end,
        )
        by_arrival = form.time_property is not TimeProperty.OBSERVED
        span, arrival = period, None
        if by_arrival:
            # Late readings may be of any earlier time.
            span = Span(begin, min(period.end + _AHEAD_US, end))
            arrival = ArrivalSpan(period.begin, period.end, of_first=form.time_property is TimeProperty.CREATED)
        view = await self._observations.views.open(viewer.principal, viewer.admission, viewer.now)
        last = 0 if by_arrival else form.last
        wanted = min(most + 1, last * len(streams)) if last else most + 1
        read = await self._observations.reader.read(view, streams, span, wanted, descending=True, arrival=arrival)
        instances: dict[int, list[AttributeInstance]] = {}
        is_full = False
        for start in range(0, read.size, _STEP):
            if start:
                await asyncio.sleep(0)
            stop = min(start + _STEP, read.size)
            for row, first in zip(read.rows.entities(start, stop), read.rows.arrivals(start, stop), strict=True):
                source = row.source
                assert isinstance(source, ObservationSource)  # noqa: S101 - as the reader makes them
                kept = instances.setdefault(source.datastream.id, [])
                if not last or len(kept) < last:
                    kept.append(_instance_of(row, source, first))
            is_full = bool(last) and all(len(instances.get(stream.id, ())) >= last for stream in streams)
            if is_full or sum(map(len, instances.values())) > most:
                break
        if sum(map(len, instances.values())) > most or not (read.is_complete or is_full):
            raise TooMuch(f"the entities have more than {most} readings; {_NARROWER}")
        if not by_arrival:
            return {stream: kept[::-1] for stream, kept in instances.items()}
        ordered = {
            stream: sorted(kept, key=lambda instance: (time_of(instance, form.time_property), instance.observed_at))
            for stream, kept in instances.items()
        }
        return {stream: kept[-form.last :] if form.last else kept for stream, kept in ordered.items()}

    # ── documents ─────────────────────────────────────────────────────────────────────────────────────

    def _document(
        self,
        entity: EntityRecord,
        by_name: dict[str, dict[str, list[AttributeInstance]]],
        renderer: EntityRenderer,
        rendering: Rendering,
        form: TemporalForm,
    ) -> TemporalDocument:
        document = renderer.document(msgspec.structs.replace(entity, attributes=()))
        count = 0
        for name in sorted(by_name, key=rendering.terms.compact):
            # The default instance comes first.
            datasets = dict(sorted(by_name[name].items()))
            key = rendering.terms.compact(name)
            if form.methods:
                parts = [_aggregated(instances, form) for instances in datasets.values()]
                count += sum(len(cells) for part in parts for cells in part.values() if isinstance(cells, list))
                document[key] = parts[0] if len(parts) == 1 else parts
                continue
            count += sum(map(len, datasets.values()))
            if form.as_values or rendering.form is EntityForm.SIMPLIFIED:
                values = [_valued(instances, form) for instances in datasets.values()]
                document[key] = values[0] if len(values) == 1 else values
            else:
                document[key] = [renderer.instance(instance) for group in datasets.values() for instance in group]
        return TemporalDocument(document, count)


def _instance_of(row: Entity, source: ObservationSource, first: int) -> AttributeInstance:
    """Return a reading as an instance of its attribute; `first`: arrival of its first revision."""
    stream, values = source.datastream, row.values
    quality = values["resultQuality"]
    assert isinstance(quality, dict)  # noqa: S101 - as the reader of Observations makes it
    instance = reading_instance_of(
        attribute_of(stream.measured),
        stream.channel,
        values["result"],
        time=source.time,
        received=parse_date_time(str(values["resultTime"])) or source.time,
        quality=str(quality["quality"]),
        flags=tuple(quality["flags"]),
    )
    return msgspec.structs.replace(instance, created=first, instance_id=f"{INSTANCE}{row.id}")


def time_of(instance: AttributeInstance, time_property: TimeProperty) -> int:
    """Return the time of an instance to which a query refers, µs UTC."""
    times = {
        TimeProperty.OBSERVED: instance.observed_at,
        TimeProperty.CREATED: instance.created,
        TimeProperty.MODIFIED: instance.modified,
    }
    return times[time_property] or 0


def _valued(instances: Sequence[AttributeInstance], form: TemporalForm) -> Document:
    """Return values with their times."""
    document: Document = {"type": instances[0].kind.value}
    if instances[0].dataset:
        document["datasetId"] = instances[0].dataset
    document["values"] = [
        [instance.value, instant_text(time_of(instance, form.time_property))] for instance in instances
    ]
    return document


def _aggregated(instances: Sequence[AttributeInstance], form: TemporalForm) -> Document:
    """Return the aggregates of an attribute by window."""
    measured = [(time_of(instance, form.time_property), instance.value) for instance in instances]
    times = [time for time, value in measured if isinstance(value, (bool, float, int, str))]
    values: list[Value] = [value for _, value in measured if isinstance(value, (bool, float, int, str))]
    document: Document = {"type": instances[0].kind.value}
    if instances[0].dataset:
        document["datasetId"] = instances[0].dataset
    begin = form.period.begin if form.period.begin is not None else times[0]
    end = form.period.end if form.period.end is not None else times[-1] + 1
    groups = windowed(times, values, form.duration.windows(begin, max(end, begin + 1)))
    for method in form.methods:
        cells = [(window, METHODS[method](part)) for window, part in groups]
        document[method] = [
            AggregateCell(value, instant_text(window[0]), instant_text(window[1]))
            for window, value in cells
            if value is not None
        ]
    return document


def has_evolution(documents: Iterable[TemporalDocument]) -> list[TemporalDocument]:
    """Return those that have anything in the period."""
    return [document for document in documents if document.count]
