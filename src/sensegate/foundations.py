"""Wiring of what carries the stages: the log, who and what exists, who may come in. Opened before any of them.

engine ─▶ log ─▶ trail ─▶ profiles ─▶ devices ─▶ cameras ─▶ programs and people ─▶ the answers to the broker
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from sensegate.authority import audit_opening
from sensegate.authority.callout import Callout
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.expiry import certificate_expiry
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.scope import scope
from sensegate.authority.set_aside import SetAside
from sensegate.authority.tokens import Tokens
from sensegate.bus import streams, timelines
from sensegate.bus.engine import Engine, User
from sensegate.bus.kv import Bucket
from sensegate.bus.log import JetStreamLog
from sensegate.bus.malloc import one_arena
from sensegate.bus.process import write_private
from sensegate.cameras.feature import Cameras
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.lifecycle.lifecycle import ProfileLifecycle
from sensegate.quantities.coordinates import wgs84
from sensegate.share import wiring
from sensegate.tiers import membership, restored_registries, route
from sensegate.tiers.centre_side import Below
from sensegate.viid import feature

log = structlog.get_logger("start")


class Foundations:
    """Of one node or centre; `tasks` run as long as it."""

    def __init__(self, config: Config, clock: Clock, engine: Engine) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}
        """Name -> what runs until cancelled."""
        self.buckets: dict[str, Bucket] = {}

    @classmethod
    async def open(
        cls,
        config: Config,
        clock: Clock,
        engine: Engine,
        stack: contextlib.AsyncExitStack,
        *,
        joined: membership.StoredLink | None = None,
    ) -> Foundations:
        """Open them in the order in which they need each other; what must be closed is put on `stack`.

        Args:
            config: the configuration.
            clock: the time.
            engine: started.
            stack: closes all.
            joined: of a node in a new store: the way to the centre, which has what it is to begin with.
        """
        self = cls(config, clock, engine)
        one_arena()
        await self._log(stack, joined)
        await self._profiles(stack)
        await self._devices()
        await self._callers()
        await self._door()
        await audit_opening.record_legal_bases(self.audit, config)
        return self

    async def bucket(self, name: str) -> Bucket:
        """Return a registry's store. Raises `Unavailable`."""
        made = await Bucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)
        self.buckets[name] = made
        return made

    async def _log(self, stack: contextlib.AsyncExitStack, joined: membership.StoredLink | None) -> None:
        """Open the log; a node in a new store first takes over what its centre has of it."""
        config, engine = self.config, self.engine
        self.bus = await engine.connect(User.GATEWAY, name="gateway")
        stack.push_async_callback(self.bus.close)
        first = joined.log_first if joined else 1
        life = membership.read_log_epoch(Path(config.directory))
        if life:
            engine.inventory.expect(User.GATEWAY.account, streams.LOG)
        if not joined and (life or config.uplink.secret_file):
            # Where it is made anew, as a node that does not join or with its directory kept, nobody tells it where.
            first = streams.first_again(self.clock.now())
        await streams.ensure_streams(self.bus, config.store, audit_ttl_h=config.audit.ttl_h, log_first=first)
        self.log = JetStreamLog(self.bus, room=engine.has_room)
        await self.log.open(Path(config.directory))
        # Before nodes or devices are let in: nobody has written since the server began.
        await timelines.begin(self.log, self.clock.now())
        self.copied = {name: await self.bucket(name) for name in route.COPIED_BUCKETS} if config.role == "node" else {}
        if joined:
            await route.restore(config, self.clock, joined, self.copied)
        self.restores = await restored_registries.settle(config, self.clock, self.copied, self.log.epoch)
        await wiring.prepare_secrets(config, await self.bucket("sharing"))
        # Written last: a start that did not come so far begins anew.
        write_private(Path(config.directory) / membership.LOG_EPOCH_FILE, self.log.epoch)
        self.hours = JetStreamLog(self.bus, stream=streams.LEDGER, room=engine.has_room)
        await self.hours.open()

    async def _profiles(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the trail, on which all that follows writes, and the profiles."""
        self.audit = await audit_opening.open_audit(self.bus, self.clock, self.config, self.bucket)
        await audit_opening.record_accepted_losses(self.audit, self.config, self.engine.inventory)
        await audit_opening.record_restores(self.audit, self.config)
        self.divisions = Divisions.load()
        self.set_aside = SetAside(
            await self.bucket("set_aside"),
            self.audit,
            self.clock,
            self.log,
            home=self.config.division,
            directory=Path(self.config.directory),
        )
        await self.set_aside.load()
        self.tasks["set aside"] = self.set_aside.watch
        self.life = ProfileLifecycle(self.config, self.clock, self.log, self.audit)
        await self.life.open(self.bucket, stack)
        self.profiles, self.releases = self.life.profiles, self.life.releases
        self.tasks |= self.life.tasks

    async def _devices(self) -> None:
        """Open the registry of devices, and what cameras have beside it."""
        config, clock = self.config, self.clock
        seals = feature.digests(config)
        self.devices = Devices(
            await self.bucket("devices"),
            self.audit,
            clock,
            home=config.division,
            divisions=self.divisions,
            to_wgs84=wgs84,
            profiles=lambda: frozenset(self.profiles.set.ids),
            interval_of=self.life.interval_of,
            digest=(lambda _device, _secret: b"") if seals is None else seals.seal,
        )
        await self.devices.load()
        self.tasks["devices"] = self.devices.watch
        self.viid = None
        if seals is not None:
            self.viid = feature.Viid(config, clock, self.devices, seals, await self.bucket("viid"))
        self.cameras = Cameras(config, clock, self.engine, self.devices, lambda: self.profiles.set)
        self.certificates = certificate_expiry(config, clock)

    async def _callers(self) -> None:
        """Open the accounts of programs and people."""
        config, clock = self.config, self.clock
        self.tokens = Tokens(await self.bucket("tokens"), self.audit, clock)
        await self.tokens.load()
        self.tasks["tokens"] = self.tokens.watch
        self.tasks["ended tokens"] = partial(self.tokens.sweep, config.sharing.retention_days)
        file = Path(config.directory) / "admin.token"
        given = file.read_text(encoding="ascii").strip() if file.exists() else ""
        if first := await self.tokens.bootstrap(scope(config.division), given=given):
            write_private(file, first)
            log.info("an administrator's token was made; make others with it, then remove the file", file=str(file))
        self.people = People(await self.bucket("people"), self.audit, clock, config.people)
        await self.people.load()
        self.tasks["people"] = self.people.watch
        self.oidc = Oidc(config.oidc, clock) if config.oidc.issuer else None

    async def _door(self) -> None:
        """Open what answers the broker who may come in: devices and, at a centre, nodes."""
        config, clock = self.config, self.clock
        self.topics_of = self.cameras.guarded(self.life.topics_of(self.devices))
        self.callout = Callout(
            self.engine,
            self.devices,
            clock,
            trail=self.audit,
            topics_of=self.topics_of,
            is_camera=self.cameras.includes,
        )
        self.life.renew(self.callout)
        self.below: Below | None = None
        if config.role == "centre":
            self.below = Below(config, clock, self.engine, self.log, self.audit)
            await self.below.open(self.bucket, self.callout, self.divisions, self.devices)
