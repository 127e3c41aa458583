"""Feature: GA/T 1400 (VIID): the listener, the source behind it, catalogues, platforms above and below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from sensegate.authority.devices import Devices, StoredDevice
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.config import Config, read_secret
from sensegate.config.viid import ViidSubordinateConfig, ViidSuperiorConfig
from sensegate.errors import NotFound
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.model import Device
from sensegate.ports import Log, PartKey
from sensegate.video.format import Pseudonymiser
from sensegate.video.formats.viid_ids import is_device
from sensegate.viid import rest
from sensegate.viid.catalogue import Catalogue
from sensegate.viid.client import ViidClient
from sensegate.viid.listener import ViidDeps, ViidWeb
from sensegate.viid.password_digests import Digests
from sensegate.viid.rest import VIID, Above, Below, Subscription, Told, registration
from sensegate.viid.source import ViidSource
from sensegate.viid.subordinate import Subordinate
from sensegate.viid.subscriptions import Orders
from sensegate.viid.superior import Superior
from sensegate.web.routing import iso

PSEUDONYMISER = PartKey[Pseudonymiser]("pseudonymiser", absent="this gateway keeps no video metadata")
"""Hides plates and other identifiers of persons."""


def password_digests(config: Config) -> Digests | None:
    """Return what seals the digests of passwords; None where VIID is not configured. Raises `ConfigError`."""
    viid = config.viid
    if not viid.server_id:
        return None
    return Digests(Path(viid.digest_key_file or Path(config.directory) / "viid.key"), viid.realm)


def digest_of(config: Config) -> Callable[[Device, str], bytes]:
    """Return a function: (device, password) -> digest that is kept of it; empty where VIID is not configured."""
    digests = password_digests(config)
    return digests.seal if digests else lambda _device, _password: b""


class ViidStores(msgspec.Struct, frozen=True, eq=False):
    """Where the platform reads and writes."""

    bucket: Bucket
    log: Log
    devices: Devices
    catalogue: Catalogue
    orders: Orders


class ViidPlatform:
    """This gateway as a platform of GA/T 1400: its listener, its source, platforms above and below."""

    def __init__(
        self, config: Config, clock: Clock, stores: ViidStores, digests: Digests, pseudonymiser: Pseudonymiser
    ) -> None:
        self._config = config.viid
        self._clock = clock
        self._stores = stores
        self._devices = stores.devices
        self._catalogue = stores.catalogue
        self._orders = stores.orders
        self.source = ViidSource(
            config.ingest, clock, pseudonymiser, self._owner, stores.catalogue.note, trusts=self._is_subordinate
        )
        self.web = ViidWeb(
            ViidDeps(
                config=self._config,
                clock=clock,
                devices=stores.devices,
                digests=digests,
                take=self.source.take,
                orders=stores.orders,
                catalogue=self._given,
                alive=self._alive,
                registered=self._registered,
                gone=self._gone,
                superior=self._is_superior,
            )
        )
        self.url = ""
        """Where it listens, once `start` has returned."""
        self._superiors = [self._open_superior(settings) for settings in self._config.superiors]
        self._subordinates = {
            settings.device: self._open_subordinate(settings) for settings in self._config.subordinates
        }
        stores.devices.on_change.append(self._changed)

    async def start(self) -> str:
        """Listen; return the URL. Raises `ConfigError`."""
        self.url = await self.web.start()
        return self.url

    @property
    def tasks(self) -> dict[str, Task]:
        """Name -> task that runs as long as the gateway."""
        tasks = {"viid sessions": Task(self.web.sweep, Place.FRONT)}
        for superior in self._superiors:
            tasks[f"viid superior {superior.config.name}"] = Task(superior.run, Place.HELPER)
        for device, subordinate in self._subordinates.items():
            tasks[f"viid subordinate {device}"] = Task(subordinate.run, Place.HELPER)
        return tasks

    def _open_superior(self, settings: ViidSuperiorConfig) -> Superior:
        client = ViidClient(
            settings.url,
            settings.local_id or self._config.server_id,
            user=settings.username,
            password=read_secret(settings.password_file),
            ca_file=settings.ca_file,
        )
        return Superior(
            settings,
            client,
            orders=self._orders,
            log=self._stores.log,
            catalogue=self._catalogue,
            clock=self._clock,
            code_of=self._code_of,
        )

    def _open_subordinate(self, settings: ViidSubordinateConfig) -> Subordinate:
        return Subordinate(
            settings,
            ViidClient(settings.url, self._config.server_id, ca_file=settings.ca_file),
            self._stores.bucket,
            self._clock,
            receive=lambda: self._config.address or self.url,
            adopt=partial(self._adopt, settings.device),
        )

    # ── what the listener asks ───────────────────────────────────────────────────────────────────────

    def _owner(self, camera: str) -> Device | None:
        at = self._devices.find(camera)
        return self._devices.record(at) if at >= 0 and self._devices.enabled[at] else None

    def _alive(self, device: Device) -> None:
        at = self._devices.find(device.id)
        if at >= 0:
            self._devices.observe(np.array([at], np.int32), np.array([self._clock.now()], np.int64))

    def _changed(self, at: int, before: StoredDevice | None, after: StoredDevice | None) -> None:
        """End the registration of a device that was disabled, or whose password in force is another without grace."""
        known = before.credentials.digest if before else b""
        kept = () if after is None else (after.credentials.digest, after.credentials.previous_digest)
        if after is None or not self._devices.enabled[at] or (known and known not in kept):
            self.web.forget(self._devices.id(at))

    def _gone(self, device: str) -> None:
        at = self._devices.find(device)
        if self._config.publish_online and at >= 0 and self._devices.enabled[at]:
            self.source.state(self._devices.record(at), online=False)

    def _registered(self, device: Device) -> None:
        if self._config.publish_online:
            self.source.state(device, online=True)
        for code in (device.id, device.alias):
            if code in self._subordinates:
                self._subordinates[code].registered()

    def _is_subordinate(self, device: Device) -> bool:
        return any(subordinate.device in {device.id, device.alias} for subordinate in self._config.subordinates)

    async def _adopt(self, code: str, payload: bytes) -> None:
        """Take the catalogue of a platform below as if it had sent it."""
        at = self._devices.find(code)
        if at >= 0 and payload:
            await self.source.take(self._devices.record(at), payload, frozenset({"APE", "Tollgate", "Lane"}))

    def _is_superior(self, code: str, address: str) -> bool:
        return any(superior.config.server_id == code and address in superior.addresses for superior in self._superiors)

    def _given(self, asker: Device, kind: str, names: Sequence[str]) -> bytes:
        """Return a catalogue: a platform above sees all, a device its own."""
        return self._catalogue.envelope(kind, asker.id if asker.profile else None, names)

    def _code_of(self, device: str, camera: str) -> str:
        if is_device(camera) or is_device(device):
            return camera if is_device(camera) else device
        try:
            alias = self._devices.get(device).alias
        except NotFound:
            return ""
        return alias if is_device(alias) else ""

    def troubles(self) -> list[str]:
        """Return what keeps objects from going up or coming from below, a sentence each."""
        above = [
            f"viid: platform above '{superior.config.name}': {superior.trouble}"
            for superior in self._superiors
            if superior.trouble
        ]
        return above + [
            f"viid: platform below {subordinate.config.device}: {subordinate.trouble}"
            for subordinate in self._subordinates.values()
            if subordinate.trouble
        ]

    # ── what people ask ──────────────────────────────────────────────────────────────────────────────

    def told(self) -> Told:
        """Return the state of everything."""
        return Told(
            self._config.server_id,
            [registration(session, session.device) for session in self.web.sessions.all(self._clock.monotonic())],
            [
                Above(superior.config.name, superior.config.server_id, superior.registered, superior.trouble)
                for superior in self._superiors
            ],
            [
                Subscription(
                    order.peer,
                    order.id,
                    list(order.kinds),
                    list(order.resources),
                    order.status,
                    iso(order.end) if order.end < 2**61 else "",
                    place.objects if place else 0,
                    place.notices if place else 0,
                )
                for order, place in self._orders.all()
            ],
            [_below(subordinate) for subordinate in self._subordinates.values()],
        )

    async def cancel(self, device: str) -> Below:
        """Cancel our subscription at a platform below. Raises `NotFound`."""
        await self._subordinate(device).cancel()
        return _below(self._subordinate(device))

    async def renew(self, device: str) -> Below:
        """Subscribe there again. Raises `NotFound`."""
        await self._subordinate(device).renew()
        return _below(self._subordinate(device))

    def _subordinate(self, device: str) -> Subordinate:
        found = self._subordinates.get(device)
        if found is None:
            raise NotFound(f"no platform below is called {device[:64]}; see viid.subordinates")
        return found


def _below(one: Subordinate) -> Below:
    wish = one.wish
    return Below(
        one.config.device, wish.id if wish else "", one.in_force, wish is not None and wish.cancelled, one.trouble
    )


async def _open(parts: Parts) -> Feature | None:
    core = parts.core
    digests = password_digests(core.config)
    pseudonymiser = parts.find(PSEUDONYMISER)
    if digests is None or pseudonymiser is None:
        return None
    bucket, devices = await core.bucket("viid"), parts.lifecycle.devices
    catalogue = Catalogue(bucket, devices, core.config.viid, home=core.config.division)
    await catalogue.load()
    orders = Orders(bucket, core.log, core.clock)
    await orders.load()
    stores = ViidStores(bucket, core.log, devices, catalogue, orders)
    platform = ViidPlatform(core.config, core.clock, stores, digests, pseudonymiser)
    url = await platform.start()
    parts.stack.push_async_callback(platform.web.stop)
    return Feature(
        tasks=platform.tasks,
        sources=(platform.source,),
        parts={VIID: platform},
        addresses={"viid": url},
        warnings=platform.troubles,
    )


FEATURE = FeatureSpec(
    name="viid",
    title="GA/T 1400 (VIID): cameras and platforms that speak it",
    config=("viid",),
    buckets=("viid",),
    routes=tuple(rest.ROUTES),
    commands=(),
    open=_open,
)
