"""Wiring of GA/T 1400 (VIID): the listener, the source behind it, catalogues, platforms above and below."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from sensegate.authority.devices import Devices, StoredDevice
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.config import Config, read_secret
from sensegate.config.viid import ViidSubordinateConfig, ViidSuperiorConfig
from sensegate.errors import NotFound
from sensegate.model import Device
from sensegate.ports import Log
from sensegate.video.format import Pseudonymiser
from sensegate.video.formats.viid_ids import is_device
from sensegate.viid.catalogue import Catalogue
from sensegate.viid.client import ViidClient
from sensegate.viid.listener import ViidDeps, ViidWeb
from sensegate.viid.password_digests import Digests
from sensegate.viid.rest import Above, Below, Subscription, Told, registration
from sensegate.viid.source import ViidSource
from sensegate.viid.subordinate import Subordinate
from sensegate.viid.subscriptions import Orders
from sensegate.viid.superior import Superior
from sensegate.web.routing import iso

Tasks = dict[str, Callable[[], Awaitable[None]]]


def digests(config: Config) -> Digests | None:
    """Return what keeps the digests of passwords; None where VIID is not spoken. Raises `ConfigError`."""
    viid = config.viid
    if not viid.server_id:
        return None
    return Digests(Path(viid.digest_key_file or Path(config.directory) / "viid.key"), viid.realm)


class Viid:
    """All of it; `source` is one of the walk's, `tasks` run as long as the gateway."""

    def __init__(self, config: Config, clock: Clock, devices: Devices, seals: Digests, bucket: Bucket) -> None:
        self._config = config.viid
        self._clock = clock
        self._devices = devices
        self._seals = seals
        self._bucket = bucket
        self.catalogue = Catalogue(bucket, devices, config.viid, home=config.division)
        self.superiors: list[Superior] = []
        self.subordinates: dict[str, Subordinate] = {}
        self.url = ""

    def opened(self, config: Config, veil: Pseudonymiser) -> ViidSource:
        """Return the source."""
        self.source = ViidSource(
            config.ingest, self._clock, veil, self._owner, self.catalogue.note, trusts=self._is_subordinate
        )
        return self.source

    async def start(self, stack: contextlib.AsyncExitStack, log: Log, tasks: Tasks) -> None:
        """Listen, and put on `tasks` what reaches platforms above and below."""
        await self.catalogue.load()
        self.orders = Orders(self._bucket, log, self._clock)
        await self.orders.load()
        self.web = ViidWeb(
            ViidDeps(
                config=self._config,
                clock=self._clock,
                devices=self._devices,
                digests=self._seals,
                take=self.source.take,
                orders=self.orders,
                catalogue=self._given,
                alive=self._alive,
                registered=self._registered,
                gone=self._gone,
                superior=self._is_superior,
            )
        )
        self._devices.on_change.append(self._changed)
        self.url = await self.web.start()
        stack.push_async_callback(self.web.stop)
        tasks["viid sessions"] = self.web.sweep
        for above in self._config.superiors:
            superior = self._made_above(above, log)
            self.superiors.append(superior)
            tasks[f"viid superior {above.name}"] = superior.run
        for below in self._config.subordinates:
            subordinate = self._made_below(below)
            self.subordinates[below.device] = subordinate
            tasks[f"viid subordinate {below.device}"] = subordinate.run

    def _made_above(self, above: ViidSuperiorConfig, log: Log) -> Superior:
        client = ViidClient(
            above.url,
            above.local_id or self._config.server_id,
            user=above.username,
            password=read_secret(above.password_file),
            ca_file=above.ca_file,
        )
        return Superior(
            above,
            client,
            orders=self.orders,
            log=log,
            catalogue=self.catalogue,
            clock=self._clock,
            code_of=self._code_of,
        )

    def _made_below(self, below: ViidSubordinateConfig) -> Subordinate:
        return Subordinate(
            below,
            ViidClient(below.url, self._config.server_id, ca_file=below.ca_file),
            self._bucket,
            self._clock,
            receive=self._config.address or self.url,
            adopt=partial(self._adopt, below.device),
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
            if code in self.subordinates:
                self.subordinates[code].registered()

    def _is_subordinate(self, device: Device) -> bool:
        return any(subordinate.device in {device.id, device.alias} for subordinate in self._config.subordinates)

    async def _adopt(self, code: str, payload: bytes) -> None:
        """Take the catalogue of a platform below as if it had sent it."""
        at = self._devices.find(code)
        if at >= 0 and payload:
            await self.source.take(self._devices.record(at), payload, frozenset({"APE", "Tollgate", "Lane"}))

    def _is_superior(self, code: str, address: str) -> bool:
        return any(superior.config.server_id == code and address in superior.addresses for superior in self.superiors)

    def _given(self, asker: Device, kind: str, names: Sequence[str]) -> bytes:
        """Return a catalogue: a platform above sees all, a device its own."""
        return self.catalogue.envelope(kind, asker.id if asker.profile else None, names)

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
            for superior in self.superiors
            if superior.trouble
        ]
        return above + [
            f"viid: platform below {subordinate.config.device}: {subordinate.trouble}"
            for subordinate in self.subordinates.values()
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
                for superior in self.superiors
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
                for order, place in self.orders.all()
            ],
            [_below(subordinate) for subordinate in self.subordinates.values()],
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
        found = self.subordinates.get(device)
        if found is None:
            raise NotFound(f"no platform below is called {device[:64]}; see viid.subordinates")
        return found


def _below(one: Subordinate) -> Below:
    wish = one.wish
    return Below(
        one.config.device, wish.id if wish else "", one.in_force, wish is not None and wish.cancelled, one.trouble
    )
