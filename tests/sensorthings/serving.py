"""A gateway's HTTP side in memory with the SensorThings API, and a few devices that were heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.divisions import Divisions
from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Role
from sensegate.bus.columns import Batch
from sensegate.clock import SystemClock
from sensegate.sensorthings.observations import ObservationReader
from sensegate.sensorthings.rest import ROOT, SENSORTHINGS
from sensegate.sensorthings.service import SensorThings
from sensegate.sensorthings.stored import StoredEntities
from sensegate.sensorthings.structure import Structures
from sensegate.sensorthings.view import ViewParts
from sensegate.web.latest import LATEST
from tests.share.made import NOW, Place, make_batch, members
from tests.web.serving import Gateway, serving

PLACES = (
    Place("gz-air", "440106", "env", "air", 1, 113.3612, 23.1247),
    Place("gz-noise", "440103", "env", "noise", 1, 113.2300, 23.1000),
    Place("gz-cam", "440106", "police", "safety", 3, float("nan"), float("nan")),
    Place("sz-air", "440304", "env", "air", 1, 114.0579, 22.5431),
)
HOURS = 6
HOUR_US = 3_600_000_000


class Things:
    """The API of a gateway, asked by one token."""

    def __init__(self, gateway: Gateway, token: str, stored: StoredEntities, root: str = ROOT) -> None:
        self.gateway = gateway
        self.token = token
        self.stored = stored
        self.root = root

    async def ask(
        self, path: str = "", *, method: str = "GET", expect: int = 200, token: str = "", **query: Any
    ) -> Any:
        """Return the body of an answer; parameters of the query are given without `$`."""
        more = {name: query.pop(name) for name in ("json", "data", "headers") if name in query}
        text = "&".join(f"${name}={quote(str(value), safe='')}" for name, value in query.items())
        address = path if path.startswith("http") else f"{self.root}{'/' if path else ''}{path}"
        address += f"?{text}" if text else ""
        _, body, _ = await self.gateway.ask(method, address, token or self.token, expect=expect, **more)
        return body

    async def values(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """Return the entities of all pages."""
        values: list[dict[str, Any]] = []
        page = await self.ask(path, **query)
        for _ in range(1_000):
            values += page["value"]
            if "@iot.nextLink" not in page:
                return values
            page = await self.ask(page["@iot.nextLink"])
        raise AssertionError("the pages do not end")

    async def id_of(self, path: str, name: str) -> int:
        """Return the id of the entity of a name."""
        (entity,) = await self.values(path, filter=f"name eq '{name}'")
        number: int = entity["@iot.id"]
        return number

    async def datastream(self, device: str, name: str) -> int:
        """Return the id of the Datastream of a device and property."""
        condition = f"Thing/properties/device eq '{device}' and ObservedProperty/name eq '{name}'"
        (entity,) = await self.values("Datastreams", filter=condition)
        number: int = entity["@iot.id"]
        return number

    async def write(self, batch: Batch, subject: str = "readings.4401.all.1") -> None:
        """Commit readings."""
        await self.gateway.log.write(members(batch, subject=subject))
        await self.gateway.reader.catch_up()

    def under(self, token: str, root: str = ROOT) -> Things:
        """Return the API as another token sees it, or under another root."""
        return Things(self.gateway, token, self.stored, root)


def with_marks(batch: Batch, **columns: Any) -> Batch:
    """Return a batch with columns replaced, each by a value for all rows."""
    kinds = {"revision": np.uint8, "flags": np.uint32, "quality": np.uint8}
    return msgspec.structs.replace(
        batch, **{name: np.full(len(batch), value, kinds[name]) for name, value in columns.items()}
    )


@asynccontextmanager
async def things_serving(places: Sequence[Place] = PLACES) -> AsyncIterator[Things]:
    """Run the API over devices of two cities that reported every hour."""
    async with serving() as gateway:
        clock, sharing = SystemClock(), gateway.sharing
        stored = StoredEntities(RecordStore(MemoryBucket(), clock))
        await stored.open()
        masks = sharing.server.masks
        latest = gateway.web.deps.parts[LATEST]
        views = ViewParts(
            values=gateway.values,
            devices=gateway.devices,
            divisions=Divisions.load(),
            structures=Structures(gateway.values, latest, masks),
            stored=stored,
        )
        reader = ObservationReader(gateway.values, gateway.reader, masks, None)
        service = SensorThings(sharing, views, reader, top_max=10_000)
        gateway.web.deps.parts[SENSORTHINGS] = service  # type: ignore[index] # a dict of the test
        things = Things(gateway, await gateway.token(Role.SUBSCRIBER, "44"), stored)
        for hour in range(HOURS if places else 0):
            rows: list[tuple[int, str, float | str]] = []
            for place in range(len(places)):
                rows += [(place, "air_temperature", 20 + hour + place / 10), (place, "relative_humidity", 60 + hour)]
            rows += [(0, "raining", float(hour % 2)), (0, "wind_cardinal", "NW" if hour % 2 else "S")]
            await things.write(make_batch(rows, places=places, start=NOW + hour * HOUR_US))
        await asyncio.sleep(0)
        yield things
