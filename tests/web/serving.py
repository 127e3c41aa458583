"""A gateway's HTTP side over stores in memory, served by its own listener on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from sensegate.authoring.survey import draft_of, samples_of, shapes
from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.record_store import RecordStore
from sensegate.authority.refusals import LastRefusal
from sensegate.authority.scope import Principal, Role, scope
from sensegate.authority.tokens import Tokens
from sensegate.bus.memory import MemoryLog
from sensegate.bus.recovered import RecoveredMessages
from sensegate.clock import Clock, SystemClock
from sensegate.config import WebConfig
from sensegate.config.people import OidcConfig, PeopleConfig
from sensegate.decode.profiles import ProfileSet
from sensegate.flow import ROUTES
from sensegate.lifecycle.profile_rows import ProfileRow
from sensegate.lifecycle.unexplained import UnexplainedMessages
from sensegate.model import Device, QualityRow
from sensegate.share.consumers import ActiveConsumers
from sensegate.share.feeds import Feeds
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.last_values import LastValues
from sensegate.share.latest import LatestReader
from sensegate.share.place_totals import DevicePlaceSource
from sensegate.share.reader import LogReader
from sensegate.share.sharing import Sharing, SharingContext, SharingPolicy, SharingStores
from sensegate.tiers.node_rows import NodeRow
from sensegate.tiers.rest_nodes import NODES
from sensegate.web.app import Web
from sensegate.web.deps import WebDependencies
from sensegate.web.drafts import UNKNOWN
from sensegate.web.latest import LATEST
from tests.support.memory_audit import MemoryAudit
from tests.support.quality import hours_of

NO_PROFILES = ProfileSet([], [])
ADMIN = Principal("test", Role.ADMIN, scope("44"))
AUDITOR = Principal("test", Role.AUDITOR, scope("44"))


class Gateway:
    """A running HTTP side with what is behind it, and a client."""

    def __init__(
        self,
        config: WebConfig,
        *,
        ready: Callable[[], list[str]] = list,
        people: PeopleConfig | None = None,
        oidc: OidcConfig | None = None,
        clock: Clock | None = None,
        secure: bool = False,
    ) -> None:
        clock = clock or SystemClock()
        self.log = MemoryLog(clock)
        self.hours = MemoryLog(clock)
        self.trail = MemoryAudit(clock, gateway="44")
        self.devices = Devices(MemoryBucket(), self.trail, clock, home="44")
        self.people = People(MemoryBucket(), self.trail, clock, people or PeopleConfig())
        self.tokens = Tokens(MemoryBucket(), self.trail, clock, present_rights=self.people.present_rights)
        self.people.on_change.append(self.tokens.person_changed)
        self.reader = LogReader(self.log, clock)
        registered = DevicePlaceSource(self.devices.places, lambda: self.devices.version)
        self.books = HourlyLedgers(self.hours, clock, source=registered)
        self.sharing = Sharing(
            SharingStores(
                self.reader,
                self.books,
                Feeds(MemoryBucket(), clock),
                MemoryBucket(),
                RecordStore(MemoryBucket(), clock),
            ),
            self.trail,
            clock,
            SharingContext(lambda name, by: self.tokens.get(name, by).scope),
            policy=SharingPolicy(assigns_codes=True),
        )
        self.values = LastValues()
        self.reader.on_rows.append(lambda rows: self.values.apply(rows.batch, rows.sequence))
        self.pushed: list[tuple[str, str, bytes, str]] = []
        self.quality: list[QualityRow] = []
        self.refused: dict[str, dict[str, int]] = {}
        self.last_refusals: dict[str, LastRefusal] = {}
        self.push: Callable[[], Awaitable[None]] | None = None
        self.web = Web(
            WebDependencies(
                config=config,
                role="centre",
                division="44",
                version="0",
                clock=clock,
                log=self.log,
                divisions=Divisions.load(),
                devices=self.devices,
                tokens=self.tokens,
                share=self.sharing,
                consumers=ActiveConsumers(clock, lambda: self.reader.end),
                hourly=self.books,
                audit=self.trail,
                ready=ready,
                ingest=self._ingest,
                profiles=lambda: [ProfileRow("acme/th10", 3, "thermometer")],
                topics=lambda device: [f"sg/{device.id}/up"],
                quality=lambda _since: hours_of(self.quality, self.devices.find),
                refused=lambda: self.refused,
                last_refusal=self.last_refusals.get,
                people=self.people,
                is_secure=secure,
                oidc=Oidc(oidc, clock) if oidc else None,
                parts={
                    LATEST: LatestReader(self.values, self.sharing),
                    NODES: lambda: [NodeRow("4401", "4401", "node", "up"), NodeRow("4403", "4403", "node", "up")],
                    UNKNOWN: UnexplainedMessages(
                        self.log,
                        RecoveredMessages(self.log),
                        shapes=lambda messages: shapes([*samples_of(messages, NO_PROFILES)]),
                        draft=lambda messages, name, shape: draft_of(
                            [*samples_of(messages, NO_PROFILES)], name, shape=shape
                        ),
                    ),
                },
            ),
            ROUTES,
        )
        self.url = ""
        self.session: aiohttp.ClientSession

    async def _ingest(self, device: Device, principal: Principal, body: bytes, content_type: str) -> None:
        if self.push:
            await self.push()
        self.pushed.append((device.id, principal.id, body, content_type))

    async def token(self, role: Role = Role.ADMIN, where: str = "44", **more: Any) -> str:
        """Return the text of a new token."""
        by = AUDITOR if role is Role.AUDITOR else ADMIN
        return (await self.tokens.create(role, scope(where), by=by, **more))[0]

    async def device(self, device_id: str, division: str = "440106", /, **more: Any) -> str:
        """Register a device; return its password."""
        return await self.devices.add(Device(device_id, division, "acme/th10", **more), by=ADMIN)

    async def ask(
        self, method: str, path: str, token: str = "", *, expect: int | None = None, **more: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Return (status, body as JSON or bytes, response); every error must be a problem document."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        url = path if path.startswith("http") else f"{self.url}{path}"
        async with self.session.request(method, url, headers=headers, **more) as response:
            raw = await response.read()
            is_json = response.content_type in {"application/json", "application/problem+json", "application/geo+json"}
            body: Any = msgspec.json.decode(raw) if raw and is_json else raw
            if response.status >= 400 and path != "/readyz":
                assert response.content_type == "application/problem+json", raw
                assert body["status"] == response.status
                assert body["instance"] == response.headers["X-Request-Id"]
            if expect is not None:
                assert response.status == expect, (method, path, response.status, body)
            return response.status, body, response


@asynccontextmanager
async def serving(config: WebConfig | None = None, **more: Any) -> AsyncIterator[Gateway]:
    """Run a gateway's HTTP side."""
    gateway = Gateway(config or WebConfig(), **more)
    await gateway.sharing.open()
    tasks = [asyncio.create_task(gateway.sharing.run())]
    gateway.url = await gateway.web.start()
    async with aiohttp.ClientSession() as gateway.session:
        yield gateway
    await gateway.web.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
