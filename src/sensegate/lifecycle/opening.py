"""Build the lifecycle of profiles: which version interprets which message, from the store of versions to the pipeline.

Releases ─▶ Rollout ─▶ ProfileWatcher ─▶ a batch boundary of the pipeline
Canaries, comparisons ◀─ the pipeline
Orders ─▶ Reprocessing ─▶ ReprocessingSource ─▶ the pipeline, with `ReprocessingInterpreter`
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Protocol

import msgspec

from sensegate.authoring.compare import VersionComparison, sets_to_compare
from sensegate.authoring.examples import failing_example
from sensegate.authoring.survey import Registered, draft_of, samples_of, shapes
from sensegate.authority.bucket import Bucket
from sensegate.authority.device_table import RegistrationFacts
from sensegate.authority.devices import Devices
from sensegate.authority.divisions import Divisions
from sensegate.authority.scope import scope
from sensegate.authority.trail import Trail
from sensegate.bus.contract import Log
from sensegate.bus.names import writer_of
from sensegate.bus.opening import Core
from sensegate.bus.recovered import PlacesLog, RecoveredMessages
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.decode import codec_scripts
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profiles import Chosen
from sensegate.decode.watch import ProfileWatcher
from sensegate.ingest.batches import DecodedBatch
from sensegate.lifecycle.canaries import CanaryAnalysis
from sensegate.lifecycle.comparisons import VersionComparisons
from sensegate.lifecycle.contents import Content, ContentStore
from sensegate.lifecycle.corrections import Corrections, CorrectionSource
from sensegate.lifecycle.examination import examine, folder_version
from sensegate.lifecycle.examined import ExaminedProfiles
from sensegate.lifecycle.jobs import Jobs
from sensegate.lifecycle.release_registry import Examination, ReleaseInputs
from sensegate.lifecycle.releases import Releases
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_interpreter import ReprocessingInterpreter
from sensegate.lifecycle.reprocessing_orders import ReprocessingOrders
from sensegate.lifecycle.reprocessing_source import ReprocessingSource
from sensegate.lifecycle.rollout import MaterialisedVersions, Rollout
from sensegate.lifecycle.unexplained import UnexplainedMessages
from sensegate.model import Device, MessageBatch, Spec
from sensegate.persist.commit import Committer
from sensegate.quantities.coordinates import wgs84
from sensegate.quantities.series import SeriesIndex


class RecordedLog(Log, PlacesLog, Protocol):
    """The log, with the messages that have left its quarantine."""


class LifecycleStores(msgspec.Struct, frozen=True, eq=False):
    """Stores of the lifecycle of profiles."""

    config: Config
    clock: Clock
    log: RecordedLog
    trail: Trail
    bucket: Callable[[str], Awaitable[Bucket]]

    @property
    def partition(self) -> str:
        """Name of the partition in subjects of the log."""
        return writer_of(self.config.member_id)


class ProfileLifecycle(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything that decides which version of a profile interprets which message."""

    stores: LifecycleStores
    profiles: ProfileWatcher
    devices: Devices
    releases: Releases
    rollout: Rollout
    canaries: CanaryAnalysis
    jobs: Jobs
    comparisons: VersionComparisons
    unexplained: UnexplainedMessages
    recovered: RecoveredMessages
    """Messages that have left the quarantine."""
    corrections: Corrections
    orders: ReprocessingOrders
    tasks: Mapping[str, Callable[[], Awaitable[None]]]
    """Name -> task that runs as long as the gateway."""

    def observe(self, specs: Sequence[Spec], span: MessageBatch, batch: DecodedBatch) -> None:
        """Count live messages for canaries, and offer them to versions that are compared."""
        fields = batch.fields
        rejected = [*fields.rejected, *batch.rejected]
        self.canaries.count(specs, batch.readings, rejected, fields.quarantined)
        self.comparisons.submit(span)


class ReprocessingParts(msgspec.Struct, frozen=True, eq=False):
    """Parts that reprocess recorded messages."""

    reprocessing: Reprocessing
    interpreter: ReprocessingInterpreter
    source: ReprocessingSource
    corrections: CorrectionSource


async def open_profiles(
    core: Core,
    audit: Trail,
    divisions: Divisions,
    stack: contextlib.AsyncExitStack,
    *,
    digest: Callable[[Device, str], bytes],
) -> ProfileLifecycle:
    """Open the profiles and the registry of devices, each of which needs the other.

    Args:
        core: configuration, clock and stores.
        audit: the trail.
        divisions: the table of divisions.
        stack: ends the background jobs.
        digest: (device, password) -> what is kept for VIID; empty: nothing.
    """
    config, clock = core.config, core.clock
    codec_scripts.configure(config.scripts)
    examined = ExaminedProfiles(core.directory, failing_example)
    profiles = ProfileWatcher(config.profile_folders, clock, examine=examined)
    examined.save()

    def interval_of(name: str) -> float:
        profile = profiles.set.find(name)
        return profile.source.interval_s if profile else 0.0

    devices = Devices(
        await core.bucket("devices"),
        audit,
        clock,
        home=config.division,
        facts=RegistrationFacts(divisions, wgs84, lambda: frozenset(profiles.set.ids), interval_of),
        digest=digest,
    )
    stores = LifecycleStores(config, clock, core.log, audit, core.bucket)
    lifecycle = await open_lifecycle(stores, profiles, devices, stack)
    await devices.load()
    return lifecycle


async def open_lifecycle(
    stores: LifecycleStores, profiles: ProfileWatcher, devices: Devices, stack: contextlib.AsyncExitStack
) -> ProfileLifecycle:
    """Load the decisions on profiles, and apply them before the first message.

    Args:
        stores: where it reads and writes.
        profiles: the versions of the folder; those decided replace them.
        devices: the registry, loaded or not.
        stack: ends the background jobs.

    Raises:
        Unavailable: a bucket cannot be read.
    """
    config, clock, bucket = stores.config, stores.clock, stores.bucket
    releases = Releases(
        await bucket("profiles"),
        ContentStore(await bucket("profile_contents"), Path(config.directory) / "profiles"),
        stores.trail,
        clock,
        home=scope(config.division).division,
        inputs=ReleaseInputs(_examined, lambda name: folder_version(profiles.set, name), devices.ids_of),
        standard=config.standard_vendors,
    )
    await releases.load()
    await releases.contents.remove_unused(releases.digests())
    rollout = Rollout(releases)
    profiles.begin_with(list(starmap(Chosen, await rollout.initial())))
    canaries = CanaryAnalysis(releases, config.division)
    jobs = Jobs(clock)
    stack.push_async_callback(jobs.cancel_all)

    def compare(name: str, a: Path | None, b: Path | None, is_redacted: Callable[[Device], bool]) -> VersionComparison:
        return VersionComparison(name, *sets_to_compare(name, profiles.set, a, b), devices, is_redacted)

    comparisons = VersionComparisons(
        releases,
        jobs,
        stores.log,
        clock,
        partition=stores.partition,
        compare=compare,
    )
    profiles.on_change.append(lambda _in_force, names: comparisons.restart(names))
    orders = ReprocessingOrders(await bucket("redecodes"), stores.trail, clock)
    await orders.load()

    async def choose(versions: MaterialisedVersions) -> None:
        await profiles.choose(list(starmap(Chosen, versions)))

    recovered = RecoveredMessages(stores.log)
    corrections = Corrections(await bucket("corrections"), stores.trail, clock, stores.log, devices)
    await corrections.open()
    return ProfileLifecycle(
        stores=stores,
        profiles=profiles,
        devices=devices,
        releases=releases,
        rollout=rollout,
        canaries=canaries,
        jobs=jobs,
        comparisons=comparisons,
        unexplained=_open_unexplained(stores.log, recovered, profiles, devices),
        recovered=recovered,
        corrections=corrections,
        orders=orders,
        tasks={
            "profiles": profiles.run,
            "devices": devices.watch,
            "releases": releases.watch,
            "rollout": partial(rollout.run, choose),
            "trials": canaries.run,
            "studies": comparisons.run,
            "redecodes": orders.watch,
            "corrections": corrections.run,
        },
    )


def _open_unexplained(
    log: Log, recovered: RecoveredMessages, profiles: ProfileWatcher, devices: Devices
) -> UnexplainedMessages:
    names = Registered(devices.find)
    return UnexplainedMessages(
        log,
        recovered,
        shapes=lambda messages: shapes([*samples_of(messages, profiles.set)], names),
        draft=lambda messages, profile, shape: draft_of(
            [*samples_of(messages, profiles.set)], profile, shape=shape, names=names
        ),
    )


def open_reprocessing(
    lifecycle: ProfileLifecycle, committer: Committer, *, series: SeriesIndex, memory: DecoderMemory
) -> ReprocessingParts:
    """Build what reprocesses recorded messages.

    Args:
        lifecycle: the versions and the orders.
        committer: writes revisions of readings.
        series: the index of series of live messages.
        memory: what live decoding has established.
    """
    stores = lifecycle.stores
    config, clock = stores.config, stores.clock
    interpreter = ReprocessingInterpreter(
        config, clock, lifecycle.profiles, lifecycle.devices, committer, series=series, memory=memory
    )
    reprocessing = Reprocessing(
        lifecycle.orders,
        lifecycle.releases,
        stores.log,
        clock,
        partition=stores.partition,
        config=config,
        interpreter=interpreter,
    )
    source = ReprocessingSource(stores.log, reprocessing, committer.position, lifecycle.recovered)
    corrections = CorrectionSource(stores.log, lifecycle.corrections, committer.position, writer=stores.partition)
    return ReprocessingParts(reprocessing, interpreter, source, corrections)


async def _examined(content: Content) -> Examination:
    return await asyncio.to_thread(examine, content)
