"""Build the stages through which a reading passes to the log: interpreter, indicators, committer."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from sensegate.authority.assets import Assets
from sensegate.authority.devices import Devices
from sensegate.authority.neighbours import Neighbours
from sensegate.bus.opening import Core
from sensegate.collect.commands import CommandChannel, DownlinkQueue
from sensegate.decode import codec_scripts
from sensegate.decode.decode import Decoder
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.purposes import purposes
from sensegate.decode.watch import ProfileWatcher
from sensegate.ingest.boundary import BatchBoundary, CommitBarrier
from sensegate.ingest.interpreter import Interpreter
from sensegate.ingest.own_clock import ClockMonitor, ClockSources
from sensegate.normalise.book import IndicatorStore
from sensegate.normalise.clocks import TimeChecks
from sensegate.normalise.indicators import Indicators
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import CommitLimits, Committer, CommitWriter
from sensegate.persist.duplicates import Deduplicator
from sensegate.persist.scrub import Scrub, scrub_target
from sensegate.persist.scrubber import ScrubTask
from sensegate.quantities.series import SeriesIndex


class Stages(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Open stages of the ingest pipeline."""

    devices: Devices
    series: SeriesIndex
    interpreter: Interpreter
    time_checks: TimeChecks
    clock_monitor: ClockMonitor
    indicators: Indicators
    quality: IndicatorStore
    """Indicators of the last days, by device and hour."""
    committer: Committer
    assets: Assets
    neighbours: Neighbours
    downlink: DownlinkQueue
    """Asks devices for what decoding needs of them."""
    scrubber: ScrubTask
    boundary: BatchBoundary
    barrier: CommitBarrier
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""

    def not_ready(self) -> list[str]:
        """Return why readings are not taken as they should be."""
        problems = []
        if self.committer.blocked_reason:
            problems.append(f"log: full, devices are held back until there is room: {self.committer.blocked_reason}")
        return [*problems, *self.clock_monitor.not_ready()]

    def warnings(self) -> list[str]:
        """Return what keeps some messages from becoming readings."""
        return [*codec_scripts.problems(), *self.scrubber.warnings()]

    def clock_lag(self, device: str) -> float | None:
        """Return by how many seconds a device's clock was behind ours when it last spoke; None: unknown."""
        at = self.devices.find(device)
        return self.time_checks.device_lag(at) if at >= 0 else None


def open_stages(
    core: Core,
    profiles: ProfileWatcher,
    devices: Devices,
    channels: tuple[CommandChannel, ...],
    stack: contextlib.AsyncExitStack,
    *,
    centre_offset_s: Callable[[], float | None],
) -> Stages:
    """Build the stages by the profiles in force.

    Args:
        core: configuration, clock and stores.
        profiles: the profiles in force.
        devices: the registry.
        channels: brokers on which a device may listen to us.
        stack: closes the processes of codec scripts.
        centre_offset_s: returns by how much the centre's clock is ahead of ours; None: unknown.
    """
    config, clock, in_force = core.config, core.clock, profiles.set
    stack.callback(codec_scripts.close)
    codec_scripts.start()
    series = SeriesIndex()
    decoder = Decoder(in_force, devices, config.ingest, DecoderMemory(undoable=True))
    normaliser = Normaliser(in_force.specs, series=series, clock=clock, time=config.time, places=devices)
    indicators = Indicators(series)
    quality = IndicatorStore(indicators, clock)
    committer, scrubber = _open_committer(core, profiles, devices)
    boundary = BatchBoundary()
    measured = purposes(lambda: profiles.set)
    downlink = DownlinkQueue(channels, clock)
    monitor = ClockMonitor(
        config,
        clock,
        core.log,
        normaliser.clocks,
        index=devices.index,
        sources=ClockSources(devices.intervals_s, centre_offset_s),
    )
    for request in decoder.initial_requests(clock.now()):
        downlink.enqueue(request.topic, request.payload, request.about)
    return Stages(
        devices=devices,
        series=series,
        interpreter=Interpreter(decoder, normaliser),
        time_checks=normaliser.clocks,
        clock_monitor=monitor,
        indicators=indicators,
        quality=quality,
        committer=committer,
        assets=Assets(devices, measured),
        neighbours=Neighbours(devices, measured, near_m=config.sharing.duplicate_distance_m),
        downlink=downlink,
        scrubber=scrubber,
        boundary=boundary,
        barrier=CommitBarrier(boundary, committer, clock),
        tasks={
            "clock": monitor.run,
            "quality": quality.run,
            "scrub": scrubber.run,
            "commands": downlink.run,
        },
    )


def _open_committer(core: Core, profiles: ProfileWatcher, devices: Devices) -> tuple[Committer, ScrubTask]:
    """Return what judges duplicates and writes commits, and what checks the stored commits."""
    config, clock = core.config, core.clock
    duplicates = Deduplicator(
        core.directory / "duplicates",
        clock=clock,
        horizon_h=config.duplicates.horizon_h,
        checkpoint_s=config.duplicates.checkpoint_s,
        device_id=devices.id,
    )
    committer = Committer(
        core.log,
        duplicates,
        devices.index,
        profiles.set.specs,
        clock,
        writer=CommitWriter(config.member_id, is_sole=config.role == "node"),
        limits=CommitLimits.of(config.store, core.log.payload_bytes_max),
    )
    scrubber = ScrubTask(
        Scrub(
            core.log.unfiltered(),
            scrub_target(config, duplicates.horizon_us),
            clock,
            request_rebuild=duplicates.request_rebuild,
        ),
        core.directory,
        clock,
        epoch=core.log.epoch,
        bytes_s=config.store.scrub_bytes_s,
    )
    return committer, scrubber
