"""Wiring of GA/T 1400 (VIID): the listener, the source behind it, catalogues, platforms above and below."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sensegate.authority.devices import Devices
from sensegate.authority.digests import Digests
from sensegate.authority.viid_catalogue import Catalogue
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.collect.viid import ViidSource
from sensegate.config import Config
from sensegate.errors import NotFound, Rejected
from sensegate.model import Device
from sensegate.video.form import Veil
from sensegate.video.formats.viid_answers import Answer
from sensegate.web.viid import ViidDeps, ViidWeb


def digests(config: Config) -> Digests | None:
    """Return what keeps the digests of passwords; None where VIID is not spoken. Raises `ConfigError`."""
    viid = config.viid
    if not viid.server_id:
        return None
    return Digests(Path(viid.seal_file or Path(config.directory) / "viid.key"), viid.realm)


class _NoOrders:
    async def place(self, peer: str, payload: bytes) -> Sequence[Answer]:  # noqa: ARG002
        raise Rejected("schema", "no platform above is configured")

    async def remove(self, peer: str, names: Sequence[str]) -> Sequence[Answer]:  # noqa: ARG002
        return [Answer(name, 4) for name in names]

    def listed(self, peer: str) -> bytes:  # noqa: ARG002
        return b'{"SubscribeListObject":{"SubscribeObject":[]}}'


class Viid:
    """All of it; `source` is one of the walk's."""

    def __init__(self, config: Config, clock: Clock, devices: Devices, seals: Digests, bucket: Bucket) -> None:
        self._config = config.viid
        self._clock = clock
        self._devices = devices
        self._seals = seals
        self.catalogue = Catalogue(bucket, devices, config.viid, home=config.division)
        self.url = ""

    def opened(self, config: Config, veil: Veil) -> ViidSource:
        """Return the source."""
        self.source = ViidSource(config.ingest, self._clock, veil, self._owner, self.catalogue.note)
        return self.source

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen."""
        self.web = ViidWeb(
            ViidDeps(
                config=self._config,
                clock=self._clock,
                devices=self._devices,
                digests=self._seals,
                take=self.source.take,
                orders=_NoOrders(),
                catalogue=self._given,
                alive=self._alive,
            )
        )
        self.url = await self.web.start()
        stack.push_async_callback(self.web.stop)

    def _owner(self, camera: str) -> Device | None:
        at = self._devices.find(camera)
        return self._devices.record(at) if at >= 0 and self._devices.enabled[at] else None

    def _alive(self, device: Device) -> None:
        at = self._devices.find(device.id)
        if at >= 0:
            self._devices.observe(np.array([at], np.int32), np.array([self._clock.now()], np.int64))

    def _given(self, asker: Device, kind: str, names: Sequence[str]) -> bytes:
        owner = asker.id if asker.profile else None  # a platform above has no entry here and sees all
        try:
            return self.catalogue.envelope(kind, owner, names)
        except NotFound:
            return self.catalogue.envelope(kind, "", names)
