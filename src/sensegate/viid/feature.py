"""Feature GA/T 1400 (VIID): listener, source, catalogue, superior and subordinate platforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from sensegate.authority.device_table import StoredDevice
from sensegate.authority.devices import Devices
from sensegate.bus.contract import Log
from sensegate.bus.kv import KvBucket
from sensegate.clock import Clock
from sensegate.config import Config, read_secret
from sensegate.config.viid import ViidSubordinateConfig, ViidSuperiorConfig
from sensegate.errors import NotFound
from sensegate.feature import Feature, FeatureSpec, Parts, Place, Task
from sensegate.model import Device
from sensegate.video.format import Pseudonymiser
from sensegate.video.formats.viid_ids import is_device
from sensegate.viid import rest
from sensegate.viid.catalogue import ViidCatalogue
from sensegate.viid.client import ViidClient
from sensegate.viid.listener import ViidDeps, ViidListener
from sensegate.viid.password_digests import PasswordDigests
from sensegate.viid.rest import VIID, SubordinateStatus, SuperiorStatus, SuperiorSubscription, ViidStatus, registration
from sensegate.viid.source import ViidSource
from sensegate.viid.subordinate import ViidSubordinate
from sensegate.viid.subscriptions import ViidSubscriptions
from sensegate.viid.superior import SuperiorRecords, ViidSuperior
from sensegate.web.parts import PartKey
from sensegate.web.routing import iso

PSEUDONYMISER = PartKey[Pseudonymiser]("pseudonymiser", absent="this gateway keeps no video metadata")
"""Pseudonymises plates and other identifiers of persons."""


def password_digests(config: Config) -> PasswordDigests | None:
    """Return the encryption of password digests; None if VIID is off. Raises `ConfigError`."""
    viid = config.viid
    if not viid.server_id:
        return None
    return PasswordDigests(Path(viid.digest_key_file or Path(config.directory) / "viid.key"), viid.realm)


def digest_of(config: Config) -> Callable[[Device, str], bytes]:
    """Return a function (device, password) -> encrypted digest, which is empty if VIID is off."""
    digests = password_digests(config)
    return digests.seal if digests else lambda _device, _password: b""


class ViidStores(msgspec.Struct, frozen=True, eq=False):
    """The stores of the platform."""

    bucket: KvBucket
    log: Log
    devices: Devices
    catalogue: ViidCatalogue
    orders: ViidSubscriptions


class ViidPlatform:
    """This gateway as a GA/T 1400 platform: listener, source, superior and subordinate platforms."""

    def __init__(
        self, config: Config, clock: Clock, stores: ViidStores, digests: PasswordDigests, pseudonymiser: Pseudonymiser
    ) -> None:
        self._config = config.viid
        self._clock = clock
        self._stores = stores
        self._devices = stores.devices
        self._catalogue = stores.catalogue
        self._orders = stores.orders
        self.source = ViidSource(
            config.ingest, clock, pseudonymiser, self._owner, stores.catalogue.take, trusts=self._is_subordinate
        )
        self.web = ViidListener(
            ViidDeps(
                config=self._config,
                web=config.web,
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
        """URL of the listener, once `start` has returned."""
        self._superiors = [self._open_superior(settings) for settings in self._config.superiors]
        self._subordinates = {
            settings.device: self._open_subordinate(settings) for settings in self._config.subordinates
        }
        stores.devices.on_change.append(self._changed)

    async def start(self) -> str:
        """Start listening; return the URL. Raises `ConfigError`."""
        self.url = await self.web.start()
        return self.url

    @property
    def tasks(self) -> dict[str, Task]:
        """Tasks that run as long as the gateway, by name."""
        tasks = {"viid sessions": Task(self.web.sweep, Place.FRONT)}
        for superior in self._superiors:
            tasks[f"viid superior {superior.config.name}"] = Task(superior.run, Place.HELPER)
        for device, subordinate in self._subordinates.items():
            tasks[f"viid subordinate {device}"] = Task(subordinate.run, Place.HELPER)
        return tasks

    def _open_superior(self, settings: ViidSuperiorConfig) -> ViidSuperior:
        client = ViidClient(
            settings.url,
            settings.local_id or self._config.server_id,
            user=settings.username,
            password=read_secret(settings.password_file),
            ca_file=settings.ca_file,
        )
        return ViidSuperior(
            settings,
            client,
            records=SuperiorRecords(self._orders, self._stores.log, self._catalogue),
            clock=self._clock,
            code_of=self._code_of,
        )

    def _open_subordinate(self, settings: ViidSubordinateConfig) -> ViidSubordinate:
        return ViidSubordinate(
            settings,
            ViidClient(settings.url, self._config.server_id, ca_file=settings.ca_file),
            self._stores.bucket,
            self._clock,
            receive=lambda: self._config.address or self.url,
            adopt=partial(self._adopt, settings.device),
        )

    # ── callbacks of the listener ──────────────────────────────────────────────────────────────────────

    def _owner(self, camera: str) -> Device | None:
        at = self._devices.find(camera)
        return self._devices.record(at) if at >= 0 and self._devices.enabled[at] else None

    def _alive(self, device: Device) -> None:
        at = self._devices.find(device.id)
        if at >= 0:
            self._devices.observe(np.array([at], np.int32), np.array([self._clock.now()], np.int64))

    def _changed(self, at: int, before: StoredDevice | None, after: StoredDevice | None) -> None:
        """End the registration of a device that was disabled, or whose password changed without a grace period."""
        old_digest = before.credentials.digest if before else b""
        valid_digests = () if after is None else (after.credentials.digest, after.credentials.previous_digest)
        if after is None or not self._devices.enabled[at] or (old_digest and old_digest not in valid_digests):
            self.web.forget(self._devices.id(at))

    def _gone(self, device: str) -> None:
        at = self._devices.find(device)
        if self._config.publish_online and at >= 0 and self._devices.enabled[at]:
            self.source.report_state(self._devices.record(at), online=False)

    def _registered(self, device: Device) -> None:
        if self._config.publish_online:
            self.source.report_state(device, online=True)
        for code in (device.id, device.alias):
            if code in self._subordinates:
                self._subordinates[code].registered()

    def _is_subordinate(self, device: Device) -> bool:
        return any(subordinate.device in {device.id, device.alias} for subordinate in self._config.subordinates)

    async def _adopt(self, code: str, payload: bytes) -> None:
        """Process the catalogue of a subordinate platform as if it had sent it."""
        at = self._devices.find(code)
        if at >= 0 and payload:
            await self.source.take(self._devices.record(at), payload, frozenset({"APE", "Tollgate", "Lane"}))

    def _is_superior(self, code: str, address: str) -> bool:
        return any(superior.config.server_id == code and address in superior.addresses for superior in self._superiors)

    def _given(self, asker: Device, kind: str, names: Sequence[str]) -> bytes:
        """Return the catalogue: a superior platform sees all, a device its own entries."""
        return self._catalogue.envelope(kind, asker.id if asker.profile else None, names)

    def _code_of(self, device: str, camera: str) -> str:
        if is_device(camera) or is_device(device):
            return camera if is_device(camera) else device
        try:
            alias = self._devices.get(device).alias
        except NotFound:
            return ""
        return alias if is_device(alias) else ""

    def warnings(self) -> list[str]:
        """Return a warning for each platform that is not connected."""
        superiors = [
            f"viid: superior platform '{superior.config.name}': {superior.problem}"
            for superior in self._superiors
            if superior.problem
        ]
        return superiors + [
            f"viid: subordinate platform {subordinate.config.device}: {subordinate.problem}"
            for subordinate in self._subordinates.values()
            if subordinate.problem
        ]

    # ── control ─────────────────────────────────────────────────────────────────────────────────────

    def status(self) -> ViidStatus:
        """Return the state of registrations, platforms and subscriptions."""
        return ViidStatus(
            self._config.server_id,
            [registration(session, session.device) for session in self.web.sessions.all(self._clock.monotonic())],
            [
                SuperiorStatus(superior.config.name, superior.config.server_id, superior.registered, superior.problem)
                for superior in self._superiors
            ],
            [
                SuperiorSubscription(
                    order.peer,
                    order.id,
                    list(order.kinds),
                    list(order.resources),
                    order.status,
                    iso(order.end) if order.end < 2**61 else "",
                    offset.objects if offset else 0,
                    offset.notices if offset else 0,
                )
                for order, offset in self._orders.all()
            ],
            [_subordinate_status(subordinate) for subordinate in self._subordinates.values()],
        )

    async def cancel(self, device: str) -> SubordinateStatus:
        """Cancel the subscription at a subordinate platform. Raises `NotFound`."""
        await self._subordinate(device).cancel()
        return _subordinate_status(self._subordinate(device))

    async def renew(self, device: str) -> SubordinateStatus:
        """Renew the subscription at a subordinate platform. Raises `NotFound`."""
        await self._subordinate(device).renew()
        return _subordinate_status(self._subordinate(device))

    def _subordinate(self, device: str) -> ViidSubordinate:
        subordinate = self._subordinates.get(device)
        if subordinate is None:
            raise NotFound(f"there is no subordinate platform {device[:64]}; see viid.subordinates")
        return subordinate


def _subordinate_status(subordinate: ViidSubordinate) -> SubordinateStatus:
    desired = subordinate.desired
    return SubordinateStatus(
        subordinate.config.device,
        desired.id if desired else "",
        subordinate.in_force,
        desired is not None and desired.cancelled,
        subordinate.problem,
    )


async def _open(parts: Parts) -> Feature | None:
    core = parts.core
    digests = password_digests(core.config)
    pseudonymiser = parts.find(PSEUDONYMISER)
    if digests is None or pseudonymiser is None:
        return None
    bucket, devices = await core.bucket("viid"), parts.lifecycle.devices
    catalogue = ViidCatalogue(bucket, devices, core.config.viid, home=core.config.division)
    await catalogue.load()
    orders = ViidSubscriptions(bucket, core.log, core.clock)
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
        warnings=platform.warnings,
    )


FEATURE = FeatureSpec(
    name="viid",
    title="GA/T 1400 (VIID): cameras and platforms",
    config=("viid",),
    buckets=("viid",),
    routes=tuple(rest.ROUTES),
    commands=(),
    open=_open,
)
