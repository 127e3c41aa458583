"""Answers: entities as JSON with their links and what is expanded, data arrays, CSV, GeoJSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from sensegate.errors import TooMuch
from sensegate.sensorthings.kinds import ID_NAMES, KINDS, Entity, EntityKind
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.pages import EntityPage, EntityRange, Pager, PageToken, source_of, streams_of, token_text
from sensegate.sensorthings.structure import SeenDatastream, SeenThing
from sensegate.sensorthings.syntax import ExpandedLink, QueryOptions
from sensegate.sensorthings.view import CallerView, ObservationSource
from sensegate.share.records import csv_cell
from sensegate.web.problems import BadRequest

ENTITIES_MAX = 100_000
"""Most entities of one answer, expanded ones included."""
_APART_MAX = 8
"""Most Datastreams of which the Observations are read one after another; with more, they are read together."""
_OBSERVATION = KINDS["Observation"]
Document = dict[str, Any]


class DocumentBuilder:
    """Makes the documents of one request."""

    def __init__(self, view: CallerView, reader: ObservationReader, pager: Pager, base: str) -> None:
        """`base`: URL of the service root."""
        self._view = view
        self._reader = reader
        self._pager = pager
        self.base = base
        self.observations = 0
        """Observations in the answer so far."""
        self._entities = 0

    def link_of(self, entity: Entity) -> str:
        """Return the address of an entity."""
        return f"{self.base}/{entity.kind.plural}({entity.id})"

    # ── documents ─────────────────────────────────────────────────────────────────────────────────────

    async def documents(self, entities: Sequence[Entity], options: QueryOptions) -> list[Document]:
        """Return entities as JSON, with what is expanded. Raises `BadRequest`, `TooMuch`, `Unavailable`."""
        self._entities += len(entities)
        if self._entities > ENTITIES_MAX:
            raise TooMuch(f"the answer has more than {ENTITIES_MAX} entities; give $top, also of what is expanded")
        if not entities:
            return []
        kind = entities[0].kind
        check_names(kind, options)
        if kind is _OBSERVATION:
            self.observations += len(entities)
        expanded = {link.name for link in options.expand}
        links = [(f"{name}@iot.navigationLink", f"/{name}") for name in kind.links if name not in expanded]
        if options.select:
            documents = [self._chosen(entity, options.select) for entity in entities]
        else:
            documents = [self._document(entity, links) for entity in entities]
        for link in options.expand:
            await self._expand(entities, documents, link)
        return documents

    def _chosen(self, entity: Entity, names: Sequence[str]) -> Document:
        """Return the properties and links of an entity that `$select` names."""
        address, document = self.link_of(entity), Document()
        for name in names:
            if name in ID_NAMES:
                document["@iot.id"] = entity.id
            elif name in entity.kind.links:
                document[f"{name}@iot.navigationLink"] = f"{address}/{name}"
            elif name in entity.values:
                document[name] = entity.values[name]
        return document

    def _document(self, entity: Entity, links: Sequence[tuple[str, str]]) -> Document:
        """Return all of an entity; `links`: (key, end of the address) of those that are not expanded."""
        address = self.link_of(entity)
        document = {"@iot.id": entity.id, "@iot.selfLink": address, **entity.values}
        for key, end in links:
            document[key] = address + end
        return document

    async def _expand(self, parents: Sequence[Entity], documents: list[Document], expanded: ExpandedLink) -> None:
        link, options = parents[0].kind.links[expanded.name], expanded.options
        target = KINDS[link.target]
        check_names(target, options)
        if link.target == "Observation":
            pages = await self._observation_pages(parents, options)
        elif not link.is_many:
            pages = [EntityPage(self._view.follow(parent, link.name)[:1]) for parent in parents]
        else:
            pages = [
                await self._pager.page(EntityRange(target, self._view.linked(parent, link.name)), options)
                for parent in parents
            ]
        children = await self.documents([entity for page in pages for entity in page.entities], options)
        place, query = 0, _query(options)
        for parent, document, page in zip(parents, documents, pages, strict=True):
            mine = children[place : place + len(page.entities)]
            place += len(page.entities)
            self._place(parent, document, (expanded.name, query), page, mine)

    def _place(
        self,
        parent: Entity,
        document: Document,
        link: tuple[str, str],
        page: EntityPage,
        children: list[Document],
    ) -> None:
        """Put the entities of a link (name, query of its next page) into the document of the parent."""
        name, query = link
        if not parent.kind.links[name].is_many:
            document[name] = children[0] if children else None
            return
        if page.count is not None:
            document[f"{name}@iot.count"] = page.count
        document[name] = children
        if page.token:
            document[f"{name}@iot.nextLink"] = f"{self.link_of(parent)}/{name}?{query}$skiptoken={page.token}"

    async def _observation_pages(self, parents: Sequence[Entity], options: QueryOptions) -> list[EntityPage]:
        """Return a page of Observations of each parent."""
        ranges = []
        for parent in parents:
            streams, feature = streams_of(self._view, parent)
            ranges.append(EntityRange(_OBSERVATION, streams=streams, feature=feature))
        if options.top == 1 and _is_newest_first(options):
            return self._latest_pages(ranges)
        if len(parents) <= _APART_MAX:
            return [await self._pager.page(entry, options) for entry in ranges]
        return await self._pager.pages_together(ranges, options)

    def _latest_pages(self, ranges: Sequence[EntityRange]) -> list[EntityPage]:
        """Return the last Observation of each range, from memory, in one go."""
        streams = {stream.id: stream for entry in ranges for stream in entry.streams}
        latest = self._reader.latest(self._view, list(streams.values()))
        pages = []
        for entry in ranges:
            matched = [latest[stream.id] for stream in entry.streams if stream.id in latest]
            if entry.feature:
                matched = [entity for entity in matched if entry.feature == source_of(entity).feature]
            if not matched:
                pages.append(EntityPage([]))
                continue
            newest = matched[0]
            if len(matched) > 1:
                newest = max(matched, key=lambda entity: (source_of(entity).time, entity.id))
            pages.append(EntityPage([newest], token_text(PageToken(newest.id, [(3, source_of(newest).time)]))))
        return pages

    # ── other forms ───────────────────────────────────────────────────────────────────────────────────

    def data_arrays(self, entities: Sequence[Entity], options: QueryOptions) -> list[Document]:
        """Return Observations as data arrays, a group for each Datastream."""
        names = [("id" if name in ID_NAMES else name) for name in options.select]
        components = names or ["id", "phenomenonTime", "resultTime", "result", "resultQuality", "parameters"]
        self.observations += len(entities)
        groups: dict[int, list[list[object]]] = {}
        for entity in entities:
            row = [entity.id if name == "id" else entity.values.get(name) for name in components]
            groups.setdefault(source_of(entity).datastream.id, []).append(row)
        return [
            {
                "Datastream@iot.navigationLink": f"{self.base}/Datastreams({number})",
                "components": components,
                "dataArray@iot.count": len(rows),
                "dataArray": rows,
            }
            for number, rows in groups.items()
        ]

    def features(self, entities: Sequence[Entity], documents: Sequence[Document]) -> Document:
        """Return entities as a GeoJSON collection of features."""
        features = []
        for entity, document in zip(entities, documents, strict=True):
            properties = {name: value for name, value in document.items() if name not in {"location", "feature"}}
            features.append(
                {
                    "type": "Feature",
                    "id": entity.id,
                    "geometry": self._geometry(entity),
                    "properties": properties,
                }
            )
        return {"type": "FeatureCollection", "features": features}

    def _geometry(self, entity: Entity) -> object:
        value = entity.values.get("location") or entity.values.get("feature") or entity.values.get("observedArea")
        if value is None:
            source = entity.source
            thing = source.datastream.thing if isinstance(source, ObservationSource) else source
            thing = thing.thing if isinstance(thing, SeenDatastream) else thing
            if isinstance(thing, SeenThing):
                position = self._view.position_of(thing)
                value = None if position is None else {"type": "Point", "coordinates": list(position)}
        if isinstance(value, dict) and value.get("type") == "Feature":
            return value.get("geometry")
        return value


def table_of(kind: EntityKind, documents: Sequence[Document], options: QueryOptions) -> bytes:
    """Return documents as CSV: a column for each property; those of expanded single entities are ``link/name``."""
    columns: dict[str, None] = dict.fromkeys(["id", *kind.fields] if not options.select else [])
    rows: list[dict[str, str]] = []
    for name in options.select:
        if name not in kind.links:
            columns["id" if name in ID_NAMES else name] = None
    for document in documents:
        cells: dict[str, str] = {}
        for name, value in _flat(document, ""):
            columns.setdefault(name)
            cells[name] = _cell(value)
        rows.append(cells)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[cells.get(name, "") for name in columns] for cells in rows])
    return text.getvalue().encode()


def _flat(document: Document, prefix: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in document.items():
        if name == "@iot.id":
            pairs.append((f"{prefix}id", value))
        elif name in _LINKS and isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}/")
        elif "@iot." not in name:
            pairs.append((f"{prefix}{name}", value))
    return pairs


_LINKS = frozenset(name for kind in KINDS.values() for name in kind.links)


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            # Quoted by the writer of the table; here only what a spreadsheet would take for a formula.
            return f"'{value}" if csv_cell(value).strip('"').startswith("'") and not value.startswith("'") else value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return msgspec.json.encode(value).decode()


def check_names(kind: EntityKind, options: QueryOptions) -> None:
    """Return if `$select` and `$expand` name properties and links of a type. Raises `BadRequest`."""
    for name in options.select:
        if name not in kind.fields and name not in kind.links and name not in ID_NAMES and name != "@iot.selfLink":
            known = ", ".join(["id", *kind.fields, *kind.links])
            raise BadRequest(f"query: $select: {kind.name} has no '{name[:40]}'; use some of {known}")
    for link in options.expand:
        if link.name not in kind.links:
            raise BadRequest(
                f"query: $expand: {kind.name} has no link '{link.name[:40]}'; use some of {', '.join(kind.links)}"
            )
        check_names(KINDS[kind.links[link.name].target], link.options)


def _is_newest_first(options: QueryOptions) -> bool:
    """Return whether options order by time, the newest first, and do nothing else."""
    order = dict(options.texts).get("orderby", "").split()
    is_newest = not order or (order[0] == "phenomenonTime" and [word.lower() for word in order[1:]] == ["desc"])
    return is_newest and not (options.filter or options.skip or options.count)


def _query(options: QueryOptions) -> str:
    """Return the query of the next page of an expanded link, without its position."""
    kept = [(name, text) for name, text in options.texts if name != "skip"]
    return "".join(f"${name}={quote(text, safe='')}&" for name, text in kept)
