"""The one page of wiring, read top-down: what starts, the walk of a reading, what happens when a part is lost.

collect ─▶ decode ─▶ normalise ─▶ persist ══ LOG ══▶ publish (uplink)
                                             └═════▶ share ─▶ web
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from nats.aio.client import Client

from sensegate import __version__, logs, metrics, shares, sites, tiers, trails, viid
from sensegate.assets import Assets
from sensegate.authority.callout import Callout, TopicsOf
from sensegate.authority.devices import Devices, Stored
from sensegate.authority.divisions import Divisions
from sensegate.authority.expiry import expiring
from sensegate.authority.handed import Offers, Taking
from sensegate.authority.keyring import Keyring
from sensegate.authority.modes import Modes
from sensegate.authority.neighbours import Neighbours
from sensegate.authority.oidc import Oidc
from sensegate.authority.people import People
from sensegate.authority.refusals import Kind
from sensegate.authority.scope import Principal, Scope, scope
from sensegate.authority.scope import Role as Rank
from sensegate.authority.tasks import Tasks
from sensegate.authority.tokens import Tokens
from sensegate.bus import streams
from sensegate.bus.columns import Batch
from sensegate.bus.copies import Copying
from sensegate.bus.engine import Engine, Role, bracketed
from sensegate.bus.kv import Bucket
from sensegate.bus.ledger import HOUR_US
from sensegate.bus.log import JetStreamLog
from sensegate.bus.reader import Reader as StreamReader
from sensegate.bus.record import decode_commit
from sensegate.clock import Clock, SystemClock
from sensegate.collect.alert_stream import CameraSource
from sensegate.collect.besteffort import BestEffortSource
from sensegate.collect.broker import BrokerSource
from sensegate.collect.commands import Commands, OwnBroker, Way
from sensegate.collect.http import HttpSource
from sensegate.collect.intake import Intake
from sensegate.collect.mqtt import MqttSource
from sensegate.collect.tcp import TcpSource
from sensegate.config import Config, secret
from sensegate.decode.cutting import Cutting, removed_of
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import Memory
from sensegate.decode.profiles import ProfileSet, take_video
from sensegate.emergency import Emergency
from sensegate.errors import ConfigError, Fenced, Lost, Refused, StoreFull, Superseded
from sensegate.halves import Understood
from sensegate.heap import one_arena
from sensegate.life import Again, Eyes, Life, Speaker, delivered
from sensegate.model import Delivery, Device, Message, Quarantined, QuarantineReason, Span
from sensegate.moving import Mover, Place
from sensegate.normalise.book import QualityBook
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer, Limits, Pending
from sensegate.persist.duplicates import Duplicates
from sensegate.place import wgs84
from sensegate.ports import Log, Source
from sensegate.publish import membership
from sensegate.publish.egress import Egress, Guarded
from sensegate.publish.report import Report
from sensegate.pushing import Pushing
from sensegate.rotation import rotating
from sensegate.scripts import pool as scripts
from sensegate.series import Series
from sensegate.share.books import Books
from sensegate.share.reader import Reader
from sensegate.share.widening import Widenings
from sensegate.tasking import Tasking
from sensegate.video.formats import FORMATS
from sensegate.web.app import Web
from sensegate.web.deps import Deps, NodeRow, QualityRow

CLOCK_LOOK_S = 10.0
DRAIN_S, DRAIN_LOOK_S = 20.0, 0.1
LEAVE_S = 0.002
"""Some turns of the loop: nats-py flushes in a task of its own, the socket takes a few writes."""

log = structlog.get_logger("flow")

_T = TypeVar("_T")


class Addresses(msgspec.Struct, frozen=True):
    """Where a running node or centre is reached; also in ``<directory>/run.json``."""

    pid: int
    engine_pid: int
    http: str
    mqtt: str
    nats: str
    tcp: dict[str, str] = {}
    """Name of a listener -> where it listens."""
    viid: str = ""
    """Where GA/T 1400 is spoken; empty: it is not."""


class Ingest:
    """The walk of a reading from its delivery to the acknowledged commit; one life after another until cancelled."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        sources: Sequence[Source],
        *,
        eyes: Eyes,
        indicators: Indicators,
        committer: Committer,
        devices: Devices,
        commands: Commands | None = None,
        again: Again | None = None,
        assets: Assets | None = None,
        cutting: Cutting | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._sources = sources
        self._eyes = eyes
        self._memory = eyes.decoder.memory
        self._again = again
        self._cutting = cutting
        self._cameras = frozenset(f"foreign:{one.name}" for one in config.foreign if one.video)
        """Sources from which only video metadata comes."""
        self._indicators = indicators
        self._committer = committer
        self._devices = devices
        self._commands = commands
        self._assets = assets
        self.on_walk: list[Callable[[Span, Understood], None]] = []
        """Called with a span and what was understood of it, once its commit is prepared."""
        self._turns: list[Callable[[], None]] = []
        self.trouble = "starting"
        """Why nothing is committed at the moment; empty while all is well."""

    def at_border(self, turn: Callable[[], None]) -> None:
        """Have something done before the next walk, never in one: no message is understood half before, half after."""
        self._turns.append(turn)

    async def run(self) -> None:
        """Walk until cancelled; what was not committed comes again after a loss."""
        pause_s = 0.05
        while True:
            began = self._clock.monotonic()
            try:
                await self._life()
            except (Lost, Fenced, StoreFull) as why:
                self.trouble = str(why)
                metrics.RESTARTS.labels("ingest").inc()
                log.warning("ingest starts again from the last commit", cause=str(why))
            pause_s = 0.05 if self._clock.monotonic() - began > 30 else min(pause_s * 2, 2.0)
            await self._clock.sleep(pause_s)

    async def _life(self) -> None:
        positions = await self._committer.open()
        self._memory.rewind()  # what was not committed comes again, to the memory that it met before
        async with Intake(self._sources, self._config.ingest, self._clock) as intake:
            await intake.start(positions)
            self.trouble = ""
            written: asyncio.Task[None] | None = None
            try:
                while True:
                    deliveries = await intake.batch(written)
                    pending = self._walk(deliveries)
                    mark = self._memory.mark()
                    if written:
                        # The next commit is made ready while the last one is on its way; two are never on their way.
                        await written
                    written = asyncio.create_task(self._write(pending, deliveries, intake, mark), name="commit")
                    # The commit must leave the process before the next walk holds the loop, else the log idles.
                    await asyncio.sleep(LEAVE_S)
            finally:
                if written:
                    written.cancel()
                    await asyncio.gather(written, return_exceptions=True)

    def _walk(self, deliveries: Sequence[Delivery]) -> Pending:
        turns, self._turns = self._turns, []
        for turn in turns:
            turn()
        live = [delivery for delivery in deliveries if not delivery.again]
        pending = self._walk_live(live) if live else Pending([], [])
        for delivery in deliveries:
            if delivery.again and self._again:
                pending = pending.then(self._walk_again(delivery, self._again))
        return pending

    def _walk_again(self, delivery: Delivery, way: Again) -> Pending:
        """Walk messages that are on the log: revisions of what they said, nothing else of what new ones bring."""
        span = Span(delivery.messages)
        span, batch = way.meant(span, self._understand(span, way.eyes))
        if not span:
            return Pending([], [])
        if self._assets:
            self._assets.mark(batch.readings, compare=False)
        part = [delivered(delivery, span)]
        return self._committer.prepare(part, batch.fields, batch.readings, batch.rejected, span=span)

    def _walk_live(self, deliveries: Sequence[Delivery]) -> Pending:
        span = self._cut(deliveries)
        batch = self._understand(span, self._eyes)
        if self._assets:
            self._assets.mark(batch.readings)
        if taken := removed_of(span):
            batch = msgspec.structs.replace(batch, fields=msgspec.structs.replace(batch.fields, removed=taken))
        if self._commands:
            for ask in self._memory.asks():
                self._commands.ask(ask.topic, ask.payload, ask.about)
        pending = self._committer.prepare(deliveries, batch.fields, batch.readings, batch.rejected, span=span)
        self._devices.observe(batch.readings.device, batch.readings.received)
        self._indicators.count(
            self._eyes.normaliser.table,
            batch.readings,
            [*batch.fields.rejected, *batch.rejected],
            keep=pending.keep,
            received=batch.received,
        )
        for listener in self.on_walk:
            listener(span, batch)
        return pending

    def _cut(self, deliveries: Sequence[Delivery]) -> Span:
        """Return the messages with those of video metadata cut down to what may be kept: nobody sees them before."""
        span = Span(chain.from_iterable(delivery.messages for delivery in deliveries))
        if self._cutting is None:
            return span
        strict: set[int] = set()
        if self._cameras:
            ends = list(accumulate((len(delivery.messages) for delivery in deliveries), initial=0))
            for delivery, start in zip(deliveries, ends, strict=False):
                if delivery.source in self._cameras:
                    strict.update(range(start, start + len(delivery.messages)))
        decoder = self._eyes.decoder
        kept_at: dict[int, Message] = {}
        for at, route in self._cutting.places(span, decoder, strict).items():
            kept = _or_bug(partial(self._cutting.one, span[at], route, decoder))
            if isinstance(kept, Exception):
                # Neither the error's text nor the frames' values may be told: both can hold what the message did.
                where = f"{type(kept).__name__}\n{_places(kept)}"
                log.error("a format of video crashed; nothing of its message is kept", formats=route.video, where=where)
                kept = self._cutting.crashed(span[at], route, decoder, where)
            kept_at[at] = kept
        return Span(kept_at.get(at, message) for at, message in enumerate(span)) if kept_at else span

    def _understand(self, span: Span, eyes: Eyes) -> Understood:
        """Decode and normalise; a bug in either costs the one message that met it: quarantine, with the traceback."""
        decoder, normaliser = eyes.decoder, eyes.normaliser
        mark = decoder.memory.mark()

        def understood() -> Understood:
            fields, received = decoder.decode(span), span.received
            return Understood(received, fields, *normaliser.normalise(fields, received, span.best_effort))

        found = _or_bug(understood)
        if not isinstance(found, Exception):
            return found
        decoder.memory.rewind(mark)
        if len(span) > 1:
            half = len(span) // 2
            return self._understand(Span(span[:half]), eyes).then(self._understand(Span(span[half:]), eyes), half)
        log.error(
            "a decoder crashed; its message is in quarantine", topic=span[0].topic, bug=repr(found), exc_info=found
        )
        crash = Quarantined(0, QuarantineReason.CRASHED, f"{type(found).__name__}\n{_places(found)}")
        nothing = msgspec.structs.replace(decoder.decode([]), quarantined=[crash])
        return Understood(span.received, nothing, *normaliser.normalise(nothing, span.received))

    async def _write(self, pending: Pending, deliveries: Sequence[Delivery], intake: Intake, mark: int) -> None:
        await self._committer.write(pending)
        self._memory.settle(mark)
        newest = {delivery.source: delivery for delivery in deliveries if delivery.covers}
        for delivery in deliveries:
            if not delivery.covers or newest[delivery.source] is delivery:
                await delivery.ack()
        intake.settled(deliveries)


def _or_bug(work: Callable[[], _T]) -> _T | Exception:
    """Return what `work` gives, or the error that a bug in it raised: it costs one message and not the walk."""
    try:
        return work()
    except (Lost, StoreFull):
        raise  # no bug: the walk starts again from the last commit
    except Exception as bug:  # noqa: BLE001 - the caller tells it
        return bug


def _places(bug: Exception) -> str:
    """Return the last places in our code that an error came through."""
    return "".join(traceback.format_tb(bug.__traceback__)[-3:])


class Gateway:
    """All parts of one node or centre, built in the order in which they need each other."""

    def __init__(self, config: Config, clock: Clock, engine: Engine, seat: sites.Seat | None = None) -> None:
        self.config = config
        self.clock = clock
        self.engine = engine
        self.seat = seat
        self._buckets: dict[str, Bucket] = {}
        self._log_first = 1
        self._restore: membership.Kept | None = None
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}
        """Name -> what runs until cancelled."""
        self.not_taken: Callable[[], list[str]] = list
        """What the centre does not take of our catalogue."""

    @classmethod
    async def build(
        cls,
        config: Config,
        clock: Clock,
        engine: Engine,
        stack: contextlib.AsyncExitStack,
        *,
        joined: membership.Kept | None = None,
        fresh: bool = False,
        seat: sites.Seat | None = None,
    ) -> Gateway:
        """Open the foundations, then the stages; what must be closed is put on `stack`.

        Args:
            config: the configuration.
            clock: the time.
            engine: started.
            stack: closes all.
            joined: a node's way to the centre that it has joined.
            fresh: its store is empty.
            seat: of a centre with another one beside it: its right to be active.
        """
        self = cls(config, clock, engine, seat)
        if joined and fresh:
            self._log_first, self._restore = joined.first, joined
        await self.foundations(stack)
        await self.downwards()
        await self.intake(stack)
        await self.tiers()
        await self.sharing(stack)
        if seat:
            seat.buckets(self._buckets)
        return self

    async def callers(self) -> None:
        """Open the accounts of programs and people."""
        config, clock = self.config, self.clock
        self.tokens = Tokens(await self._bucket("tokens"), self.audit, clock)
        await self.tokens.load()
        self.tasks["tokens"] = self.tokens.watch
        file = Path(config.directory) / "admin.token"
        given = file.read_text(encoding="ascii").strip() if file.exists() else ""
        if first := await self.tokens.bootstrap(scope(config.division), given=given):
            _keep(file, first.encode())
        self.people = People(await self._bucket("people"), self.audit, clock, config.people)
        await self.people.load()
        self.tasks["people"] = self.people.watch
        self.oidc = Oidc(config.oidc, clock) if config.oidc.issuer else None

    async def foundations(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the log, the registries, the audit trail and the answers to the broker."""
        config, clock, engine = self.config, self.clock, self.engine
        one_arena()
        self.bus = await engine.connect(Role.GATEWAY, name="gateway")
        stack.push_async_callback(self.bus.close)
        await streams.ensure_streams(self.bus, config.store, audit_ttl_h=config.audit.ttl_h, log_first=self._log_first)
        self.log = JetStreamLog(self.bus, room=engine.has_room)
        await self.log.open()
        self.seen: Log = self.log
        """As far as it may be delivered."""
        self.copied = {name: await self._bucket(name) for name in tiers.COPIED} if config.role == "node" else {}
        if self._restore:
            await tiers.restore(config, clock, self._restore, self.copied)
        await shares.settle(config, await self._bucket("sharing"))
        # Written last: a start that did not come so far begins anew.
        _keep(Path(config.directory) / membership.LIFE, self.log.epoch.encode())
        self.hours = JetStreamLog(self.bus, stream=streams.LEDGER, room=engine.has_room)
        await self.hours.open()
        self.audit = trails.opened(self.bus, clock, config)
        self.divisions = Divisions.load()
        self.life = Life(config, clock, self.log, self.audit)
        await self.life.open(self._bucket, stack)
        self.profiles, self.releases = self.life.profiles, self.life.releases
        self.tasks |= self.life.tasks
        self.devices = Devices(
            await self._bucket("devices"),
            self.audit,
            clock,
            home=config.division,
            divisions=self.divisions,
            to_wgs84=wgs84,
            profiles=lambda: frozenset(self.profiles.set.ids),
            interval_of=self.life.interval_of,
            digest=(lambda _device, _secret: b"") if (seals := viid.digests(config)) is None else seals.seal,
        )
        await self.devices.load()
        self.viid = None
        if seals is not None:
            self.viid = viid.Viid(config, clock, self.devices, seals, await self._bucket("viid"))
        self.tasks["devices"] = self.devices.watch
        self.certificates = expiring(config, clock)
        await self.callers()
        self.topics_of = self._guarded(self.life.topics_of(self.devices))
        self.callout = Callout(
            engine,
            self.devices,
            clock,
            trail=self.audit,
            topics_of=self.topics_of,
            is_camera=self._is_camera,
        )
        self.life.renew(self.callout)
        self.above: tiers.Above | None = None
        self.below: tiers.Below | None = None
        if config.role == "centre":
            self.below = tiers.Below(config, clock, engine, self.log, self.audit)
            await self.below.open(self._bucket, self.callout, self.divisions, self.devices)
        keys = Path(config.video.keys_file or Path(config.directory) / "video.keys")
        self.keyring = Keyring(
            keys,
            clock,
            days=config.video.plate_key_days,
            basis=config.video.basis,
            known=lambda name: self.devices.find(name) >= 0,
        )
        self.tasks["keyring"] = self.keyring.run
        await trails.bases(self.audit, config)

    async def _bucket(self, name: str) -> Bucket:
        made = await Bucket.open(self.bus, name, bytes_max=self.config.store.registry_bytes)
        self._buckets[name] = made
        return made

    async def downwards(self) -> None:
        """Open what is told to devices: tasks, and the mode orders that give many at once."""
        clock = self.clock
        tasks = Tasks(await self._bucket("tasks"), self.audit, clock)
        await tasks.load()
        self.tasks["tasks"] = tasks.watch
        speaker = Speaker(lambda: self.profiles.set, self.devices)
        self.modes = Modes(await self._bucket("modes"), self.audit, clock)
        await self.modes.load()
        self.tasks["modes"] = self.modes.watch
        self.tasking = Tasking(tasks, self.devices, speaker, clock, topics=lambda device: self.topics_of(device)[0])
        self.emergency = Emergency(self.modes, self.tasking, self.devices, clock)
        self.tasks |= {"tasking": self.tasking.run, "emergency": self.emergency.run}

    async def intake(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the walk; the broker's store keeps what devices send from before the first of them may connect."""
        config, clock = self.config, self.clock
        intake = await self.engine.connect(Role.INTAKE, name="intake")
        stack.push_async_callback(intake.close)
        await streams.ensure_intake(intake, config.store)
        broker = BrokerSource(intake, config.ingest, clock)
        await broker.prepare()
        self._arrivals = partial(_arrivals, intake, broker.name)
        await self.callout.start()
        stack.push_async_callback(self.callout.stop)
        self.http = HttpSource(config.ingest, clock)
        qos0 = await self.engine.connect(Role.INTAKE, name="intake qos 0")
        stack.push_async_callback(qos0.close)
        best_effort = BestEffortSource(qos0, self.profiles.set.topics_at_qos0(), config.ingest, clock)
        self.profiles.on_change.append(lambda now, _: best_effort.hear(now.topics_at_qos0()))
        sources: list[Source] = [broker, self.http, best_effort]
        foreign = [MqttSource(one, config.ingest, clock) for one in config.foreign]
        sources += foreign
        sources += [*await self._listen(stack), *self._fetch()]
        series = Series()
        stack.callback(scripts.close)
        scripts.warm()
        decoder = Decoder(self.profiles.set, self.devices, config.ingest, Memory(undoable=True))
        ways: list[Way] = [OwnBroker(intake), *foreign]
        commands = Commands(ways, clock)
        for ask in decoder.greetings(clock.now()):
            commands.ask(ask.topic, ask.payload, ask.about)
        self.tasks["commands"] = commands.run
        self.tasking.ways = ways
        normaliser = Normaliser(self.profiles.set.specs, series=series, clock=clock, time=config.time)
        self.clocks = normaliser.clocks
        self.tasks["clock"] = self._watch_clock
        self.indicators = Indicators(series)
        self.committer = Committer(
            self.log,
            Duplicates(
                Path(config.directory) / "duplicates",
                clock=clock,
                horizon_h=config.duplicates.horizon_h,
                checkpoint_s=config.duplicates.checkpoint_s,
                device_id=self.devices.id,
            ),
            self.devices.index,
            self.profiles.set.specs,
            clock,
            division=config.division,
            partition=config.ingest.partition,
            alone=config.role == "node",
            limits=Limits(
                raw_ttl_h=config.store.raw_ttl_h,
                readings_ttl_h=config.store.readings_ttl_h,
                observations_ttl_h=config.store.observations_ttl_h,
                quarantine_ttl_h=config.store.quarantine_ttl_h,
                ledger_ttl_h=config.store.readings_ttl_h,
            ),
        )

        eyes = Eyes(decoder, normaliser)
        again = self.life.again(self.committer, series, decoder.memory)
        sources.append(again.source)

        def turn(profiles: ProfileSet, changed: Sequence[str]) -> None:
            with metrics.PROFILE_CHANGE_SECONDS.time():
                other = self.devices.of_profiles(changed)
                eyes.use(profiles, other)
                again.use(profiles, other)
                self.committer.adopt(profiles.specs)
                self.indicators.forget_rates()

        def changed(profiles: ProfileSet, names: list[str]) -> None:
            self.ingest.at_border(partial(turn, profiles, names))

        self.profiles.on_change.append(changed)
        self.ingest = Ingest(
            config,
            clock,
            sources,
            eyes=eyes,
            indicators=self.indicators,
            committer=self.committer,
            devices=self.devices,
            commands=commands,
            again=again,
            assets=self._sources(),
            cutting=Cutting(
                FORMATS, self.keyring, bytes_max=max(config.engine.max_payload_bytes, config.web.body_bytes_max)
            ),
        )
        self.ingest.on_walk.append(partial(self.life.study, eyes))
        self.ingest.on_walk.append(lambda _, batch: self.tasking.walked(eyes.normaliser.table.specs, batch.readings))
        self.tasks["ingest"] = self.ingest.run

    def _sources(self) -> Assets:
        """Open what looks for things built twice and for second sources."""
        purposes = shares.purposes(lambda: self.profiles.set)
        self.assets = Assets(self.devices, purposes)
        self.neighbours = Neighbours(self.devices, purposes, near_m=self.config.sharing.near_m)
        return self.assets

    async def _listen(self, stack: contextlib.AsyncExitStack) -> Sequence[Source]:
        """Open the ports for national protocols; that of GA/T 1400 is opened with the HTTP side."""
        config = self.config
        self.tcp_urls: dict[str, str] = {}
        listeners: list[TcpSource] = []
        for one in config.listen.tcp:
            listener = TcpSource(
                one, config.ingest, self.clock, self.devices, zone=config.time.zone, refused=self._turn_away
            )
            if listener.name in self.tcp_urls:
                raise ConfigError(f"'{listener.name}' occurs twice", key="listen.tcp", remedy="give each its own name")
            self.tcp_urls[listener.name] = await listener.open()
            stack.push_async_callback(listener.close)
            listeners.append(listener)

        def changed(at: int, _before: Stored | None, after: Stored | None) -> None:
            if after is None or not self.devices.enabled[at]:
                for listener in listeners:
                    listener.expel(self.devices.id(at))

        if listeners:
            self.devices.on_change.append(changed)
        return listeners if self.viid is None else [*listeners, self.viid.opened(config, self.keyring)]

    def _fetch(self) -> list[CameraSource]:
        """Open the alarm streams of the cameras that the configuration names."""
        self.cameras: CameraSource | None = None
        if not self.config.cameras:
            return []
        way = Egress(self.config.egress.cameras, key="egress.cameras")
        self.cameras = CameraSource(
            self.config.cameras,
            self.config.ingest,
            self.clock,
            way,
            partial(Guarded, way),
            known=lambda device: self.devices.find(device) >= 0,
        )
        self.tasks["cameras"] = self.cameras.run
        return [self.cameras]

    def _turn_away(self, name: str, why: str, address: str) -> None:
        self.callout.refusals.add(name, Kind.CONNECT, why, address=address)

    async def tiers(self) -> None:
        """Tie this gateway to the other tier: a node to its centre, a centre to its nodes."""
        config, clock = self.config, self.clock
        if config.role == "node":
            self.above = tiers.Above(config, clock, self.log, self._report, self.emergency.shed)
            self.above.taking = Taking(
                self.releases, self.releases.contents, self.audit, self.above.ask, centre=config.division[:2]
            )
            copying = Copying(self.bus, self.copied, self.above.ask, clock, life=self.log.epoch)
            self.above.extras["copy of the registries"] = copying.run
            self.above.mover = self._mover(self.above.ask)
            self.tasks |= self.above.tasks
        if self.below:
            offers = Offers(
                self.releases,
                lambda: self.profiles.set.ids,
                home=config.division,
                standard=config.standard_vendors,
            )
            self.profiles.on_change.append(lambda _now, _names: offers.forget())
            self.below.offers = offers
            if self.seat:
                self.seen = self.seat.hold(self.log)
                self.below.returns.see(self.seen)
                self.below.answers |= self.seat.answers
                self.tasks["seat"] = self.seat.run
            await self.below.start(self.bus)
            self.tasks |= self.below.tasks
            self.tasks["moves here"] = partial(self.below.move, self._mover(self.below.ask))

    def _mover(self, ask: Callable[[str, bytes], Awaitable[bytes]]) -> Mover:
        """Return our part in the moves of devices; `ask`: the centre that orders them."""
        config = self.config

        def remember(batches: Sequence[Batch]) -> None:
            def turn() -> None:
                for batch in batches:
                    self.committer.remember(batch)

            self.ingest.at_border(turn)

        place = Place(
            config.division,
            config.ingest.partition,
            (config.duplicates.horizon_h + 2) * HOUR_US,
            config.store.readings_ttl_h,
        )
        return Mover(
            self.devices,
            self.log,
            self.clock,
            place,
            ask=ask,
            close=self.callout.close,
            drained=self._drained,
            remember=remember,
            by=Principal("centre", Rank.PROVINCE_OPERATOR, Scope(config.division[:2]), name="ordered at the centre"),
        )

    async def _drained(self) -> None:
        """Return when all that has come by MQTT until now is committed. Raises `Lost` where that takes long."""
        source, newest = await self._arrivals()
        for _ in range(round(DRAIN_S / DRAIN_LOOK_S)):
            position = self.committer.position(source)
            if newest <= (position.sequence if position else 0):
                return
            await self.clock.sleep(DRAIN_LOOK_S)
        raise Lost("what came is not committed yet; tried again")

    async def _report(self) -> Report:
        counts, devices = dict(self.committer.totals), len(self.devices.index)
        return tiers.report_of(self.clock.now(), counts, devices, [*self.troubles(), *self.warnings()])

    async def _watch_clock(self) -> None:
        """Compare our clock with the engine's, the centre's and the devices'; while it is off, time judges nothing."""
        limit_s = self.config.time.own_clock_off_s
        off = False
        while True:
            await self.clock.sleep(CLOCK_LOOK_S)
            ours = await self.log.last(f"commit.{self.config.division}-{self.config.ingest.partition}")
            seen = [] if ours is None else [(ours.time - decode_commit(ours.payload).committed_at) / 1e6]
            up = self.above.up if self.above else None
            if up and (centre_s := up.clock_offset_s) is not None:
                seen.append(centre_s)
            elif not self.config.engine.url and (devices_s := self.clocks.offset(self.clock.now())) is not None:
                # Alone with an engine on our own clock, only the devices can tell.
                seen.append(devices_s)
            now_off = any(abs(offset_s) > limit_s for offset_s in seen)
            if now_off != off:
                log.error("own clock is off" if now_off else "own clock is right again", offsets_s=seen)
            off = self.clocks.own_clock_off = now_off

    async def sharing(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the feeds and the HTTP side over the log."""
        config, clock = self.config, self.clock
        self.reader = Reader(self.seen, clock, readings_ttl_h=config.store.readings_ttl_h)
        self.share = shares.made(
            config,
            clock,
            self.audit,
            self.tokens,
            reader=self.reader,
            books=Books(self.hours, clock, ttl_h=config.store.ledger_ttl_h),
            feeds=await self._bucket("feeds"),
            usage=await self._bucket("usage"),
            sharing=await self._bucket("sharing"),
            measured=shares.measures(self.devices, self._quality_rows, clock),
        )
        if self.above:
            upward = self.share.join_up(
                self.above.ask, config.division, shares.measures(self.devices, self._quality_rows, clock)
            )
            self.above.extras["catalogue"] = upward.run
            self.not_taken = upward.troubles
        if self.below:
            downward = self.share.join_down()
            self.below.answers |= downward.answers
            self.tasks["catalogue of nodes"] = partial(downward.run, self.below.gone)
            self.reader.on_begin.append(self.below.returns.begin)
            self.reader.on_rows.append(self.below.returns.note)
        await self.share.open()
        self.emergency.widen = Widenings(self.share.grants, self.share.feeds, clock)
        stack.push_async_callback(self.share.close)
        self.tasks["share"] = self.share.run
        self.pushing = Pushing(config, clock, self.share, self.tokens, self.audit)
        await self.pushing.open(await self._bucket("lines"), await self._bucket("sharing"), stack)
        await self.pushing.open_broker(self.engine, self.callout, stack)
        self.tasks |= self.pushing.tasks
        self.hourly = trails.hours(self.audit, clock, config, self.share.usage)
        self.tasks["audit"] = self.hourly.run
        self.quality = QualityBook(self.indicators, clock)
        self.tasks["quality"] = self.quality.run
        self.web = Web(
            Deps(
                config=config.web,
                role=config.role,
                division=config.division,
                version=__version__,
                clock=clock,
                log=self.log,
                divisions=self.divisions,
                devices=self.devices,
                tokens=self.tokens,
                share=self.share,
                books=self.share.books,
                audit=self.audit,
                ready=self.troubles,
                warnings=self.warnings,
                ingest=self._push,
                profiles=self.life.rows,
                releases=self.releases,
                in_force=self.life.rollout.in_force,
                outcomes=self.life.trials.outcomes,
                studies=self.life.studies,
                jobs=self.life.jobs,
                redecodes=self.life.redecodes,
                redecoding=self.life.redecoding,
                tasking=self.tasking,
                modes=self.modes,
                returns=self.below or self.above,
                unknown=self.life.unknown,
                topics=lambda device: self.topics_of(device)[0],
                nodes=self.nodes,
                members=self.below.members if self.below else None,
                join=self.below.join if self.below else None,
                gaps=self.below.gaps if self.below else None,
                moves=self.below.moves if self.below else None,
                gateways=self.below.gateways if self.below else list,
                quality=self._quality_rows,
                clock_lag=self._clock_lag,
                refused=self._refused,
                neighbours=self.neighbours,
                assets=self.assets,
                viid=self.viid,
                hooks=self.pushing.hooks,
                people=self.people,
                oidc=self.oidc,
                secure=bool(config.web.tls.cert_file) or config.oidc.redirect_url.startswith("https://"),
                roll=self.pushing.roll,
            )
        )
        self.http_url = await self.web.start()
        self.tasks["certificates"] = rotating(config, (self.web.renew, self.engine.renew), clock).run
        stack.push_async_callback(self.web.stop)
        if self.viid is not None:
            await self.viid.start(stack, self.log, self.tasks)

    def troubles(self) -> list[str]:
        """Return why readings are not taken or given as they should be; empty when all is well."""
        found = [f"intake: {self.ingest.trouble}"] if self.ingest.trouble else []
        if self.committer.held:
            found.append(f"log: full, devices are held back until there is room: {self.committer.held}")
        if not self.bus.is_connected:
            found.append("engine: not connected; connecting again")
        if self.clocks.own_clock_off:
            found.append("clock: off; readings are marked, none is judged by time. Set the clock (NTP)")
        return found

    def warnings(self) -> list[str]:
        """Return what keeps some messages from becoming readings while all else goes on."""
        found = [*self.profiles.troubles(), *scripts.shared().troubles()]
        found += [*self.hourly.troubles(), *self.certificates.troubles(), *self.not_taken()]
        if self.cameras:
            found += self.cameras.troubles()
        if self.viid:
            found += self.viid.troubles()
        if self.above and self.above.taking:
            found += self.above.taking.troubles()
        if self.profiles.set.video and not self.engine.sealed:
            consequence = "" if self.config.engine.encryption == "off" else ": they may not publish by MQTT"
            remedy = "; set engine.encryption: convert (embedded), or on where you have encrypted a server of your own"
            found.append(
                f"engine: a profile takes cameras, the store is not known to be encrypted{consequence}{remedy}"
            )
        return found

    def _is_camera(self, device: Device) -> bool:
        return self.profiles.set.of_cameras(device.profile.partition("@")[0])

    def _guarded(self, topics_of: TopicsOf) -> TopicsOf:
        """Return the topics of devices; of cameras none while the broker would store in clear what they send."""

        def topics(device: Device) -> tuple[list[str], list[str]]:
            publish, subscribe = topics_of(device)
            in_clear = not self.engine.sealed and self.config.engine.encryption != "off" and self._is_camera(device)
            return ([] if in_clear else publish), subscribe

        return topics

    async def _push(self, device: Device, _caller: Principal, body: bytes, content_type: str) -> None:
        await self.http.push(device.id, body, content_type)

    def nodes(self) -> list[NodeRow]:
        """Return the nodes that this gateway knows, itself first."""
        totals, said = (self.above.totals(), self.above.said()) if self.above else ({}, "")
        return [tiers.own_row(self.config, totals, said), *(self.below.rows() if self.below else ())]

    def _clock_lag(self, device: str) -> float | None:
        at = self.devices.find(device)
        return self.clocks.lag_of(at) if at >= 0 else None

    def _refused(self) -> dict[str, dict[str, int]]:
        return {
            name: {kind.value: count for kind, count in counts.items()}
            for name, counts in self.callout.refusals.by_device().items()
        }

    def _quality_rows(self, since: int) -> list[QualityRow]:
        return [
            QualityRow(
                self.devices.id(one.device),
                one.hour,
                one.received,
                one.authenticity,
                one.accuracy,
                one.continuity,
                one.completeness,
            )
            for one in self.quality.since(since)
        ]


async def run(config: Config, *, clock: Clock | None = None, ready: Callable[[Addresses], None] | None = None) -> None:
    """Run one node or centre until cancelled, which ends its engine too; `ready` is told once it is up.

    A centre with another one beside it stands by until it is to be active, and again when it is not any more.
    """
    clock = clock or SystemClock()
    logs.configure(config.log_level, config.log_format)
    _told_secrets(config)
    Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - nothing else runs yet
    while True:
        seat = await sites.seat(config, clock) if config.peer.url else None
        try:
            await _run(config, clock, ready, seat)
        except* Superseded as why:
            log.warning("not active any more", why=str(why.exceptions[0]))


def _told_secrets(config: Config) -> None:
    """Read the files that are needed, some of them late: what is missing is said before anything starts."""
    passwords = [one.password_file for one in config.foreign]
    passwords += [one.password_file for one in config.viid.superiors]
    for file in (config.uplink.url and config.uplink.secret_file, *passwords):
        if file:
            secret(file)


async def _run(
    config: Config, clock: Clock, ready: Callable[[Addresses], None] | None, seat: sites.Seat | None
) -> None:
    directory = Path(config.directory)
    # A dump would hold what stands in memory: messages before they are cut, keys. The engine inherits it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    async with contextlib.AsyncExitStack() as stack:
        fresh = not membership.life(directory)
        joined = await tiers.begin(config, clock)
        engine = Engine.of(config, clock, personal=take_video(config.profiles))
        info = await engine.start()
        stack.push_async_callback(engine.stop)
        gateway = await Gateway.build(config, clock, engine, stack, joined=joined, fresh=fresh, seat=seat)
        addresses = Addresses(
            pid=os.getpid(),
            engine_pid=info.pid,
            http=gateway.http_url,
            mqtt=f"mqtt://{bracketed(info.mqtt_host)}:{info.mqtt_port}",
            nats=info.urls[0],
            tcp=gateway.tcp_urls,
            viid=gateway.viid.url if gateway.viid else "",
        )
        _keep(directory / "run.json", msgspec.json.encode(addresses))
        log.info("up", role=config.role, division=config.division, http=addresses.http, mqtt=addresses.mqtt)
        # The registry and the profiles live as long as the process: the collector need not walk them again and again.
        gc.collect()
        gc.freeze()
        if ready:
            ready(addresses)
        async with asyncio.TaskGroup() as group:
            for name, work in gateway.tasks.items():
                group.create_task(_supervised(name, work, clock), name=name)
            group.create_task(_follow(engine, directory / "run.json", addresses), name="engine restarts")


async def _arrivals(intake: Client, source: str) -> tuple[str, int]:
    """Return the name of the broker's source and the newest sequence in its store."""
    status = await StreamReader(intake, streams.INTAKE).status()
    return source, status.state.last_seq


async def _supervised(name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Start a part again whenever its connection was lost; any other error is a bug and ends the process."""
    while True:
        try:
            await work()
        except* (Lost, Fenced, Refused) as why:
            metrics.RESTARTS.labels(name).inc()
            log.warning("started again", part=name, cause=str(why.exceptions[0]))
        await clock.sleep(0.5)


async def _follow(engine: Engine, path: Path, addresses: Addresses) -> None:
    """Keep the server's process id in ``run.json`` true."""
    while True:
        await engine.restarted.wait()
        engine.restarted.clear()
        _keep(path, msgspec.json.encode(msgspec.structs.replace(addresses, engine_pid=engine.info.pid)))


def _keep(path: Path, content: bytes) -> None:
    """Write a file that only we may read, whole or not at all."""
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    fresh.replace(path)
