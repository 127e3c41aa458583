"""A gateway's HTTP side in memory with the NGSI-LD API, and a few devices that were heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.divisions import Divisions
from sensegate.authority.egress import Egress
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Role
from sensegate.authority.trail import MemoryTrail
from sensegate.bus.columns import Batch
from sensegate.clock import SystemClock
from sensegate.ngsi_ld.context_sources import SOURCES
from sensegate.ngsi_ld.entities import EntitySource
from sensegate.ngsi_ld.entity_routes import ENTITY_STORE, EntityStore
from sensegate.ngsi_ld.hosted_contexts import HOSTED, HostedContexts
from sensegate.ngsi_ld.parameters import CONTEXTS
from sensegate.ngsi_ld.rest import FEED_ROOT, NGSI_LD, ROOT
from sensegate.ngsi_ld.retrieval import EntityRetrieval
from sensegate.ngsi_ld.series import SeriesEntities
from sensegate.ngsi_ld.source_registry import SourceRegistry
from sensegate.ngsi_ld.stored_entities import EntityRegistry
from sensegate.ngsi_ld.temporal import TemporalReader
from sensegate.ngsi_ld.temporal_rest import TEMPORAL
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.service import SensorThings
from sensegate.sensorthings.stored import StoredEntities
from sensegate.sensorthings.structure import Structures
from sensegate.sensorthings.view import ViewParts
from sensegate.share.masks import Mask
from sensegate.web.latest import LATEST
from sensegate.web.parts import PartKey
from tests.share.made import NOW, Place, grant_record, make_batch, members
from tests.web.serving import Gateway, serving

PLACES = (
    Place("gz-air", "440106", "env", "air", 1, 113.3612, 23.1247),
    Place("gz-noise", "440103", "env", "noise", 1, 113.2300, 23.1000),
    Place("gz-cam", "440106", "police", "safety", 3, float("nan"), float("nan")),
    Place("sz-air", "440304", "env", "air", 1, 114.0579, 22.5431),
)
ROWS: tuple[tuple[int, str, float | str], ...] = (
    (0, "pm2_5", 35.5),
    (0, "pm10", 60.0),
    (0, "air_temperature", 21.5),
    (0, "air_temperature#2", 22.5),
    (0, "relative_humidity", 61.0),
    (0, "battery_level", 88.0),
    (0, "raining", 1.0),
    (0, "wind_cardinal", "NW"),
    (1, "sound_level_leq", 55.0),
    (2, "vehicle_count", 12.0),
    (3, "pm2_5", 12.5),
    (3, "air_temperature", 25.0),
)


class Entities:
    """The API of a gateway, asked by one token."""

    def __init__(self, gateway: Gateway, token: str, root: str = ROOT) -> None:
        self.gateway = gateway
        self.token = token
        self.root = root

    async def reply(
        self, path: str, *, method: str = "GET", expect: int = 200, token: str = "", **query: Any
    ) -> tuple[Any, aiohttp.ClientResponse]:
        """Return the body and the response of a request; `from_` stands for a parameter `from`."""
        more = {name: query.pop(name) for name in ("json", "data", "headers") if name in query}
        address = path if path.startswith(("http", "/")) else f"{self.root}/{path}"
        if query:
            address += f"?{urlencode(query)}"
        _, body, response = await self.gateway.ask(method, address, token or self.token, expect=expect, **more)
        if response.content_type == "application/ld+json":
            body = msgspec.json.decode(body)
        return body, response

    async def ask(self, path: str, **more: Any) -> Any:
        """Return the body of an answer."""
        return (await self.reply(path, **more))[0]

    async def ids(self, **query: Any) -> list[str]:
        """Return the ids of the entities that match, without their common beginning."""
        answer = await self.ask("entities", **{"limit": 1_000, **query})
        return [entity["id"].removeprefix("urn:ngsi-ld:") for entity in answer]

    async def write(self, batch: Batch, subject: str = "readings.4401.all.1") -> None:
        """Commit readings."""
        await self.gateway.log.write(members(batch, subject=subject))
        await self.gateway.reader.catch_up()

    def under(self, token: str, root: str = ROOT) -> Entities:
        """Return the API as another token sees it, or under another root."""
        return Entities(self.gateway, token, root)


@asynccontextmanager
async def entities_serving(
    rows: Sequence[tuple[int, str, float | str]] = ROWS, sources: Sequence[EntitySource] = ()
) -> AsyncIterator[Entities]:
    """Run the API over devices of two cities."""
    async with serving() as gateway:
        latest = gateway.web.deps.parts[LATEST]
        series = SeriesEntities(gateway.values, latest, gateway.sharing.server.masks, Divisions.load())
        store = RecordStore(MemoryBucket(), gateway.web.deps.clock)
        stored, contexts = EntityRegistry(store), HostedContexts(store, MemoryTrail(), gateway.web.deps.clock)
        parts: dict[PartKey[Any], Any] = gateway.web.deps.parts  # type: ignore[assignment] # a dict of the test
        parts[NGSI_LD] = EntityRetrieval(gateway.sharing, (series, stored, *sources))
        parts[CONTEXTS], parts[HOSTED] = contexts.resolver, contexts
        parts[ENTITY_STORE] = EntityStore(stored, series)
        clock, trail = gateway.web.deps.clock, gateway.trail
        parts[SOURCES] = SourceRegistry(store, trail, clock, Egress(("public",)).check)
        observations = ObservationReader(gateway.values, gateway.reader, gateway.sharing.server.masks, None)
        things = StoredEntities(RecordStore(MemoryBucket(), SystemClock()))
        await things.open()
        masks = gateway.sharing.server.masks
        views = ViewParts(
            values=gateway.values,
            devices=gateway.devices,
            divisions=Divisions.load(),
            structures=Structures(gateway.values, latest, masks),
            stored=things,
        )
        service = SensorThings(gateway.sharing, views, observations, top_max=10_000)
        parts[TEMPORAL] = TemporalReader(service)
        entities = Entities(gateway, await gateway.token(Role.SUBSCRIBER, "44"))
        if rows:
            await entities.write(make_batch(rows, places=PLACES, start=NOW))
        yield entities


async def granted(entities: Entities, mask: Mask, feed: str = "all", **more: object) -> Entities:
    """Return the API as a subscriber of another city sees it by a grant with a mask."""
    gateway = entities.gateway
    token = await gateway.token(Role.SUBSCRIBER, "4407")
    wanted = {"id": f"g{len(gateway.sharing.grants.records):016x}", "feed": feed, "subscriber": token.split("_")[1]}
    grant = grant_record({**wanted, "expires": 2 * NOW, "mask": mask, **more})
    await gateway.sharing.grants.records.put(grant.id, grant, expected=0)
    return entities.under(token, FEED_ROOT.format(feed=feed))
