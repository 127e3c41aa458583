"""The one page of wiring, read top-down: what starts, in the order of the flow, and what happens when a part is lost.

collect ─▶ decode ─▶ normalise ─▶ persist ══ LOG ══▶ publish (uplink)        the walk itself: `walk.py`
                                             └═════▶ share ─▶ web

`foundations.py` opens what carries the stages. Each side has a page of its own: `sources.py` (every way in), `life.py`
(profiles), `cameras.py`, `viid.py`, `above.py` (a node's centre), `below.py` (a centre's nodes), `shares.py` and
`pushing.py` (feeds), `trails.py` (audit), `showing.py` (what HTTP shows); around them `sites.py` (two centres).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog

from sensegate import logs, metrics
from sensegate.authority import audit_opening
from sensegate.authority.assets import Assets
from sensegate.authority.neighbours import Neighbours
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.bus import descriptors
from sensegate.bus.addresses import Addresses, follow
from sensegate.bus.engine import Engine
from sensegate.bus.ledger import HOUR_US
from sensegate.clock import Clock, SystemClock
from sensegate.collect.commands import DownlinkQueue
from sensegate.config import Config, read_secret
from sensegate.control.capabilities import TaskingCapabilities
from sensegate.control.commands import CommandDispatcher
from sensegate.control.emergency_grants import EmergencyGrants
from sensegate.control.mode_executor import ModeOrderExecutor
from sensegate.control.modes import ModeRegistry
from sensegate.control.tasks import TaskQueue
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profiles import any_video_profile
from sensegate.decode.purposes import purposes
from sensegate.errors import Fenced, PermissionDenied, StoreFull, Superseded, Unavailable
from sensegate.failover import standby
from sensegate.foundations import Foundations
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.own_clock import OwnClock
from sensegate.ingest.pipeline import IngestPipeline, PipelineStages
from sensegate.ingest.sources import Sources
from sensegate.normalise.book import IndicatorStore
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.normalise.series import SeriesIndex
from sensegate.persist.commit import Committer, Limits
from sensegate.persist.duplicates import Duplicates
from sensegate.persist.scrub import Scrub, scrubbed
from sensegate.persist.scrubber import Scrubber
from sensegate.ports import Log
from sensegate.scripts import pool as scripts
from sensegate.share import wiring
from sensegate.share.floors import GradeFloors
from sensegate.share.hourly_ledgers import HourlyLedgers
from sensegate.share.pushing import PushDelivery
from sensegate.share.reader import LogReader
from sensegate.showing import shown, troubles, warnings
from sensegate.tiers import membership, route
from sensegate.tiers.centre_side import Below
from sensegate.tiers.config_distribution import ConfigPublisher, ConfigReceiver
from sensegate.tiers.device_moves import DeviceMover, LogIdentity
from sensegate.tiers.node_side import Above
from sensegate.tiers.registry_copies import RegistryUploader
from sensegate.tiers.report import NodeReport, report_of
from sensegate.web.app import Web
from sensegate.web.certificates import certificate_reload

_log = structlog.get_logger("flow")


async def run(config: Config, *, clock: Clock | None = None, ready: Callable[[Addresses], None] | None = None) -> None:
    """Run one node or centre until cancelled, which ends its engine too; `ready` is told once it is up.

    A centre with another one beside it stands by until it is to be active, and again when it is not any more.
    """
    clock = clock or SystemClock()
    logs.configure(config.log_level, config.log_format)
    config = descriptors.fitted(config, descriptors.raise_limit())
    _told_secrets(config)
    Path(config.directory).mkdir(parents=True, exist_ok=True, mode=0o700)  # noqa: ASYNC240 - nothing else runs yet
    while True:
        seat = await standby.seat(config, clock) if config.peer.url else None
        try:
            await _run(config, clock, ready, seat)
        except* Superseded as why:
            _log.warning("not active any more", why=str(why.exceptions[0]))


def _told_secrets(config: Config) -> None:
    """Read the files that are needed, some of them late: what is missing is said before anything starts."""
    passwords = [one.password_file for one in config.external_brokers]
    passwords += [one.password_file for one in config.viid.superiors]
    for file in (config.uplink.url and config.uplink.secret_file, *passwords):
        if file:
            read_secret(file)


async def _run(
    config: Config, clock: Clock, ready: Callable[[Addresses], None] | None, seat: standby.Seat | None
) -> None:
    directory = Path(config.directory)
    # A dump would hold what stands in memory: messages before they are cut, keys. The engine inherits it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    async with contextlib.AsyncExitStack() as stack:
        fresh = not membership.read_log_epoch(directory)
        joined = await route.begin(config, clock)
        engine = Engine.of(config, clock, personal=any_video_profile(config.profile_folders))
        await engine.start()
        stack.push_async_callback(engine.stop)
        foundations = await Foundations.open(config, clock, engine, stack, joined=joined if fresh else None)
        gateway = await Gateway.build(foundations, stack, seat=seat)
        where = Addresses.of(
            engine, gateway.http_url, gateway.sources.tcp_urls, gateway.viid.url if gateway.viid else ""
        )
        where.keep(directory)
        _log.info("up", role=config.role, division=config.division, http=where.http, mqtt=where.mqtt)
        # The registry and the profiles live as long as the process: the collector need not walk them again and again.
        gc.collect()
        gc.freeze()
        if ready:
            ready(where)
        async with asyncio.TaskGroup() as group:
            for name, work in gateway.tasks.items():
                group.create_task(_supervised(name, work, clock), name=name)
            group.create_task(follow(where, engine, directory), name="engine restarts")
            group.create_task(engine.watched(), name="engine")


async def _supervised(name: str, work: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Start a part again whenever its connection was lost or a store has no room for it.

    Any other error is a bug and ends the process.
    """
    while True:
        try:
            await work()
        except* (Unavailable, Fenced, PermissionDenied, StoreFull) as why:
            metrics.RESTARTS.labels(name).inc()
            _log.warning("started again", part=name, cause=str(why.exceptions[0]))
        await clock.sleep(0.5)


class Gateway:
    """All parts of one node or centre: the foundations, then what a reading meets, in its order."""

    def __init__(self, foundations: Foundations, seat: standby.Seat | None = None) -> None:
        self.foundations = foundations
        self.config, self.clock, self.engine = foundations.config, foundations.clock, foundations.engine
        self.bus, self.log, self.audit = foundations.bus, foundations.log, foundations.audit
        self.profiles, self.devices = foundations.profiles, foundations.devices
        self.callout, self.viid = foundations.callout, foundations.viid
        self.tasks = foundations.tasks
        """Name -> what runs until cancelled."""
        self.seat = seat
        self.seen: Log = self.log
        """As far as it may be delivered."""
        self.above: Above | None = None
        self.below = foundations.below
        self.not_taken: Callable[[], list[str]] = list
        """What the centre does not take of our catalogue."""

    @classmethod
    async def build(
        cls, foundations: Foundations, stack: contextlib.AsyncExitStack, *, seat: standby.Seat | None = None
    ) -> Gateway:
        """Open the stages over the foundations; what must be closed is put on `stack`.

        `seat`: of a centre with another one beside it, its right to be active.
        """
        self = cls(foundations, seat)
        await self.open_control()
        await self.open_pipeline(stack)
        await self.publish()
        await self.sharing(stack)
        await self.serve(stack)
        if seat:
            await seat.opened(foundations.buckets, foundations.audit, foundations.hours)
        return self

    async def open_control(self) -> None:
        """Open what is told to devices: tasks, and the mode orders that give many at once."""
        base, clock = self.foundations, self.clock
        tasks = TaskQueue(await base.bucket("tasks"), self.audit, clock)
        await tasks.load()
        self.modes = ModeRegistry(await base.bucket("modes"), self.audit, clock)
        await self.modes.load()
        speaker = TaskingCapabilities(lambda: self.profiles.set, self.devices)
        self.dispatcher = CommandDispatcher(
            tasks, self.devices, speaker, clock, topics=lambda device: base.topics_of(device)[0]
        )
        self.mode_executor = ModeOrderExecutor(self.modes, self.dispatcher, self.devices, clock)
        self.tasks |= {
            "tasks": tasks.watch,
            "modes": self.modes.watch,
            "tasking": self.dispatcher.run,
            "emergency": self.mode_executor.run,
        }

    # ── collect, decode, normalise, persist ─────────────────────────────────────────────────────────

    async def open_pipeline(self, stack: contextlib.AsyncExitStack) -> None:
        """Build the four stages in which a reading walks to the log, and the walk over them."""
        life = self.foundations.life
        await self._collect(stack)
        interpreter, series = self._understand(stack)
        self._persist()
        reprocessor, recorded = life.open_reprocessing(self.committer, series, interpreter.decoder.memory)
        self.sources.all.append(recorded)
        stages = PipelineStages(
            interpreter,
            self.indicators,
            self.committer,
            self.devices,
            redaction=self.foundations.cameras.cutting,
            assets=self._assets(),
            commands=self._commands(interpreter.decoder),
            reprocessor=reprocessor,
        )
        observers = (life.observe, self.dispatcher.observe)
        self.ingest = IngestPipeline(self.config, self.clock, self.sources.all, stages, observers=observers)
        self.profiles.on_change.append(self.ingest.apply_profiles)
        self.tasks["ingest"] = self.ingest.run

    async def _collect(self, stack: contextlib.AsyncExitStack) -> None:
        """Open every way in; the broker's store keeps what devices send from before the first of them may connect."""
        self.sources = Sources(self.config, self.clock, self.engine)
        cameras = self.foundations.cameras
        await self.sources.open_broker(stack)
        await self.callout.start()
        stack.push_async_callback(self.callout.stop)
        await self.sources.open_others(stack, self.profiles, self.devices, self.callout.refusals)
        if self.viid is not None:
            self.sources.all.append(self.viid.opened(self.config, cameras.keyring))
        self.sources.all += cameras.opened()
        self.tasks |= cameras.tasks

    def _understand(self, stack: contextlib.AsyncExitStack) -> tuple[Interpreter, SeriesIndex]:
        """Build what turns messages into readings, by the profiles in force."""
        config, clock, profiles = self.config, self.clock, self.profiles.set
        stack.callback(scripts.close)
        scripts.start_children()
        series = SeriesIndex()
        decoder = Decoder(profiles, self.devices, config.ingest, DecoderMemory(undoable=True))
        normaliser = Normaliser(profiles.specs, series=series, clock=clock, time=config.time)
        self.clocks = normaliser.clocks
        self.tasks["clock"] = OwnClock(
            config, clock, self.log, self.clocks, lambda: self.above.clock_offset_s if self.above else None
        ).run
        self.indicators = Indicators(series)
        self.quality = IndicatorStore(self.indicators, clock)
        self.tasks["quality"] = self.quality.run
        return Interpreter(decoder, normaliser), series

    def _persist(self) -> None:
        """Build what judges duplicates and writes commits."""
        config, clock = self.config, self.clock
        duplicates = Duplicates(
            Path(config.directory) / "duplicates",
            clock=clock,
            horizon_h=config.duplicates.horizon_h,
            checkpoint_s=config.duplicates.checkpoint_s,
            device_id=self.devices.id,
        )
        self.committer = Committer(
            self.log,
            duplicates,
            self.devices.index,
            self.profiles.set.specs,
            clock,
            division=config.member_id,
            partition=config.ingest.partition,
            alone=config.role == "node",
            limits=Limits.of(config.store, self.log.payload_bytes_max),
        )
        self.scrubber = Scrubber(
            Scrub(self.log.whole(), scrubbed(config, duplicates.horizon_us), clock, spoil=duplicates.spoil),
            Path(config.directory),
            clock,
            epoch=self.log.epoch,
            bytes_s=config.store.scrub_bytes_s,
        )
        self.tasks["scrub"] = self.scrubber.run

    def _commands(self, decoder: Decoder) -> DownlinkQueue:
        """Return what asks devices for what decoding needs of them; it greets those that are to be asked at a start."""
        commands = DownlinkQueue(self.sources.ways, self.clock)
        for ask in decoder.initial_requests(self.clock.now()):
            commands.ask(ask.topic, ask.payload, ask.about)
        self.tasks["commands"] = commands.run
        self.dispatcher.channels = self.sources.ways
        return commands

    def _assets(self) -> Assets:
        """Open what looks for things built twice and for second sources."""
        measured = purposes(lambda: self.profiles.set)
        self.assets = Assets(self.devices, measured)
        self.neighbours = Neighbours(self.devices, measured, near_m=self.config.sharing.duplicate_distance_m)
        return self.assets

    # ── publish: the other tier ─────────────────────────────────────────────────────────────────────

    async def publish(self) -> None:
        """Tie this gateway to the other tier: a node to its centre, a centre to its nodes."""
        if self.config.role == "node":
            self._to_centre()
        if self.below:
            await self._to_nodes(self.below)

    def _to_centre(self) -> None:
        config, clock, base = self.config, self.clock, self.foundations
        above = self.above = Above(config, clock, self.log, self._report, self.mode_executor.shed, began=self.log.began)
        releases = base.life.releases
        above.taking = ConfigReceiver(releases, releases.contents, self.audit, above.ask, centre=config.division[:2])
        if base.restores.is_merged:
            epoch = base.restores.epoch(self.log.epoch)
            copying = RegistryUploader(self.bus, base.copied, above.ask, clock, log_epoch=epoch)
            above.extras["copy of the registries"] = copying.run
        above.mover = self._mover(above.ask)
        self.tasks |= above.tasks

    async def _to_nodes(self, below: Below) -> None:
        offers = ConfigPublisher(
            self.foundations.life.releases,
            lambda: self.profiles.set.ids,
            home=self.config.division,
            standard=self.config.standard_vendors,
        )
        self.profiles.on_change.append(lambda _now, _names: offers.invalidate())
        below.offers = offers
        if self.seat:
            self.seen = self.seat.hold(self.log)
            self.seat.joined = below.voters
            below.returns.read_from(self.seen)
            below.answers.update(self.seat.answers)
            below.node_links.term = self.seat.current_term
            self.tasks["seat"] = self.seat.run
        below.start()
        self.tasks |= below.tasks
        self.tasks["moves here"] = partial(below.move, self._mover(below.ask))

    def _mover(self, ask: Callable[[str, bytes], Awaitable[bytes]]) -> DeviceMover:
        """Return our part in the moves of devices; `ask`: the centre that orders them."""
        config = self.config
        place = LogIdentity(
            config.member_id,
            config.ingest.partition,
            (config.duplicates.horizon_h + 2) * HOUR_US,
            config.store.readings_ttl_h,
        )
        return DeviceMover(
            self.devices,
            self.log,
            self.clock,
            place,
            ask=ask,
            close=self.callout.close,
            drained=self._drained,
            remember=self.ingest.remember,
            by=Principal("centre", Role.PROVINCE_OPERATOR, Scope(config.division[:2]), name="ordered at the centre"),
        )

    async def _drained(self) -> None:
        """Return when all that has come by MQTT until now is committed. Raises `Unavailable` where that takes long."""
        broker = self.sources.broker
        await self.ingest.wait_drained(broker.name, await broker.newest())

    async def _report(self) -> NodeReport:
        counts, devices = dict(self.committer.totals), len(self.devices.index)
        return report_of(self.clock.now(), counts, devices, [*troubles(self), *warnings(self)])

    # ── share ───────────────────────────────────────────────────────────────────────────────────────

    async def sharing(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the feeds over the log: for those who ask, for those to whom they are pushed, for the other tier."""
        config, clock, base = self.config, self.clock, self.foundations
        self.reader = LogReader(self.seen, clock, readings_ttl_h=config.store.readings_ttl_h)
        self.quality_rows = wiring.quality_rows(self.quality, self.devices)
        measured = wiring.feed_indicators(self.devices, self.quality_rows, clock)
        self.share = wiring.build_sharing(
            config,
            clock,
            self.audit,
            base.tokens,
            reader=self.reader,
            books=HourlyLedgers(
                base.hours,
                clock,
                ttl_h=config.store.ledger_ttl_h,
                payload_bytes_max=base.hours.payload_bytes_max,
            ),
            feeds=await base.bucket("feeds"),
            usage=await base.bucket("usage"),
            sharing=await base.bucket("sharing"),
            measured=measured,
        )
        if self.above:
            upward = self.share.federate_up(self.above.ask, config.member_id, measured)
            self.above.extras["catalogue"] = upward.run
            self.not_taken = upward.problems
        if self.below:
            downward = self.share.federate_down()
            self.below.answers.update(downward.answers)
            self.tasks["catalogue of nodes"] = partial(downward.run, self.below.gone)
            self.reader.on_begin.append(self.below.returns.index_from)
            self.reader.on_rows.append(self.below.returns.index_entry)
        await self.share.open(self.log.began)
        if self.below:
            floors = GradeFloors(self.share.catalogue, self.share.feeds)
            self.below.receive(self.below.rules(floors, self._knows_profile))
        self.mode_executor.grants = EmergencyGrants(self.share.grants, self.share.feeds, clock)
        stack.push_async_callback(self.share.close)
        self.tasks["share"] = self.share.run
        self.pushing = PushDelivery(config, clock, self.share, base.tokens, self.audit)
        await self.pushing.open(await base.bucket("lines"), await base.bucket("sharing"), stack)
        await self.pushing.open_broker(self.engine, self.callout, stack)
        self.tasks |= self.pushing.tasks
        self.hourly = audit_opening.hourly_heads(self.audit, clock, config, self.share.usage)
        self.tasks["audit"] = self.hourly.run

    def _knows_profile(self, name: str) -> bool:
        """Return whether a profile, named with its version, is in force here."""
        return name.partition("@")[0] in self.profiles.set.ids

    # ── web ─────────────────────────────────────────────────────────────────────────────────────────

    async def serve(self, stack: contextlib.AsyncExitStack) -> None:
        """Open the HTTP side over all that it shows, and the listener of GA/T 1400."""
        self.web = Web(shown(self))
        self.http_url = await self.web.start()
        self.tasks["certificates"] = certificate_reload(
            self.config, (self.web.reload_certificates, self.engine.renew), self.clock
        ).run
        stack.push_async_callback(self.web.stop)
        if self.viid is not None:
            await self.viid.start(stack, self.log, self.tasks)
