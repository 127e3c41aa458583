"""Wiring of the life of profiles, from the store of versions to the walk and back.

Releases ─▶ Rollout ─▶ Profiles ─▶ a border of the walk          Trials, Studies ◀─ the walk
Redecodes ─▶ Redecoding ─▶ RedecodeSource ─▶ the walk, with eyes and priors of its own (`eyes.ReprocessingInterpreter`)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import msgspec

from sensegate.authoring.compare import VersionComparison, sets_to_compare
from sensegate.authoring.survey import Registered, draft_of, samples_of, shapes
from sensegate.authority.callout import Callout, TopicsOf, profile_topics
from sensegate.authority.devices import Devices
from sensegate.authority.scope import Scope, scope
from sensegate.authority.trail import Trail
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.config import Config
from sensegate.decode.memory import DecoderMemory
from sensegate.decode.profile import CompiledProfile
from sensegate.decode.profiles import Chosen, ProfileSet
from sensegate.decode.watch import ProfileWatcher
from sensegate.ingest.batches import DecodedBatch
from sensegate.lifecycle.canaries import CanaryAnalysis
from sensegate.lifecycle.comparisons import VersionComparisons
from sensegate.lifecycle.contents import Content, ContentStore
from sensegate.lifecycle.examination import examine, folder_version
from sensegate.lifecycle.jobs import Jobs
from sensegate.lifecycle.releases import Examination, Releases
from sensegate.lifecycle.reprocessing import Reprocessing
from sensegate.lifecycle.reprocessing_interpreter import ReprocessingInterpreter
from sensegate.lifecycle.reprocessing_orders import ReprocessingOrders
from sensegate.lifecycle.reprocessing_source import ReprocessingSource
from sensegate.lifecycle.rollout import MaterialisedVersions, Rollout
from sensegate.lifecycle.unexplained import UnexplainedMessages
from sensegate.model import Device, Span, Spec
from sensegate.normalise.series import SeriesIndex
from sensegate.persist.commit import Committer
from sensegate.ports import Log
from sensegate.web.deps import ProfileRow


class ProfileLifecycle:
    """All that decides which version of a profile reads which message."""

    def __init__(self, config: Config, clock: Clock, log: Log, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.log = log
        self.trail = trail
        self.partition = f"{config.member_id}-{config.ingest.partition}"
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Callable[[str], Awaitable[Bucket]], stack: contextlib.AsyncExitStack) -> None:
        """Open the store and the folders; what was decided is in force from the first message on."""
        config, clock = self.config, self.clock
        self.releases = Releases(
            await bucket("profiles"),
            ContentStore(await bucket("profile_contents"), Path(config.directory) / "profiles"),
            self.trail,
            clock,
            home=scope(config.division).division,
            examine=_examined,
            library=lambda name: folder_version(self.profiles.set, name),
            devices_of=self._devices_of,
            standard=config.standard_vendors,
        )
        await self.releases.load()
        await self.releases.contents.remove_unused(self.releases.digests())
        self.rollout = Rollout(self.releases)
        self.profiles = ProfileWatcher(
            config.profile_folders, clock, list(starmap(Chosen, await self.rollout.initial()))
        )
        self.granted = self.profiles.set
        """By these devices may publish."""
        self.canaries = CanaryAnalysis(self.releases, config.division)
        self.jobs = Jobs(clock)
        stack.push_async_callback(self.jobs.stop)
        self.comparisons = VersionComparisons(
            self.releases, self.jobs, self.log, clock, partition=self.partition, compare=self._compare
        )
        self.unknown = UnexplainedMessages(
            self.log,
            shapes=lambda told: shapes([*samples_of(told, self.profiles.set)], Registered(self.devices.find)),
            draft=lambda told, profile, shape: draft_of(
                [*samples_of(told, self.profiles.set)], profile, shape=shape, names=Registered(self.devices.find)
            ),
        )
        self.reprocessing_orders = ReprocessingOrders(await bucket("redecodes"), self.trail, clock)
        await self.reprocessing_orders.load()
        self.profiles.on_change.append(lambda _, names: self.comparisons.changed(names))
        self.tasks |= {
            "profiles": self.profiles.run,
            "releases": self.releases.watch,
            "rollout": partial(self.rollout.run, self._choose),
            "trials": self.canaries.run,
            "studies": self.comparisons.run,
            "redecodes": self.reprocessing_orders.watch,
        }

    async def _choose(self, laid_out: MaterialisedVersions) -> None:
        await self.profiles.choose(list(starmap(Chosen, laid_out)))

    def _compare(self, name: str, a: Path | None, b: Path | None, cut: Callable[[Device], bool]) -> VersionComparison:
        return VersionComparison(name, *sets_to_compare(name, self.profiles.set, a, b), self.devices, cut)

    def _devices_of(self, profile: str, part: Scope) -> list[str]:
        return self.devices.ids_of(profile, part)

    # ── rights ──────────────────────────────────────────────────────────────────────────────────────

    def topics_of(self, devices: Devices) -> TopicsOf:
        """Return where devices may publish and what they hear, by the versions in force for them."""
        self.devices = devices
        return profile_topics(self._publish_topics, devices, self._heard_topics)

    def _publish_topics(
        self, device: Device, names: Sequence[str], gateways: Sequence[str] | None, carrier: str
    ) -> list[str]:
        return self.granted.publish_topics(device, names, gateways, carrier)

    def _heard_topics(self, device: Device, names: Sequence[str]) -> list[str]:
        return self.granted.subscribe_topics(device, names)

    def renew(self, callout: Callout) -> None:
        """From now on close the connections of devices whose rights a change of their profile has changed."""

        def changed(profiles: ProfileSet, names: Sequence[str]) -> None:
            before, self.granted = self.granted, profiles
            then, now = (
                profile_topics(profile.publish_topics, self.devices, profile.subscribe_topics)
                for profile in (before, profiles)
            )
            for name in names:
                rights = profiles.topic_rights(name)
                if rights != before.topic_rights(name) or len(rights) > 1:
                    callout.renew(name, lambda device: then(device) != now(device))

        self.profiles.on_change.append(changed)

    # ── the walk ────────────────────────────────────────────────────────────────────────────────────

    def open_reprocessing(
        self, committer: Committer, series: SeriesIndex, memory: DecoderMemory
    ) -> tuple[ReprocessingInterpreter, ReprocessingSource]:
        """Return the interpreter and the source of recorded messages; `memory`: what live decoding has established."""
        interpreter = ReprocessingInterpreter(
            self.config, self.clock, self.profiles, self.devices, committer, series=series, memory=memory
        )
        self.reprocessing = Reprocessing(
            self.reprocessing_orders,
            self.releases,
            self.log,
            self.clock,
            partition=self.partition,
            store=self.config.store,
            horizon_h=self.config.duplicates.horizon_h,
            interpreter=interpreter,
        )
        return interpreter, ReprocessingSource(self.log, self.reprocessing, committer.position)

    def observe(self, specs: Sequence[Spec], span: Span, batch: DecodedBatch) -> None:
        """Count live messages for canaries, and offer them to versions that are compared."""
        fields = batch.fields
        rejected = [*fields.rejected, *batch.rejected]
        self.canaries.count(specs, batch.readings, rejected, fields.quarantined)
        self.comparisons.offer(span)

    # ── what it says ────────────────────────────────────────────────────────────────────────────────

    def interval_of(self, profile: str) -> float:
        """Return the expected interval of a profile's devices, seconds; 0: none."""
        found = self.profiles.set.find(profile)
        return found.source.interval_s if found else 0.0

    def rows(self) -> list[ProfileRow]:
        """Return the profiles in force, and what is wrong with those that are not."""
        now = self.profiles.set
        problems = {why.file: str(why) for why in now.problems}
        rows = []
        for name in now.ids:
            on_shelf, profile = now.folder_version(name), now.find(name)
            problem = problems.pop(on_shelf.file, "") if on_shelf else ""
            row = _row_of(profile, problem) if profile else ProfileRow(name, 0)
            tried = tuple(arm.profile.version for arm in now.arms.get(name, ()))
            rows.append(msgspec.structs.replace(row, folder=on_shelf.version if on_shelf else 0, trial_versions=tried))
        # What was never good has no version in force.
        rows += [
            ProfileRow(f"{Path(file).parent.name}/{Path(file).stem}", 0, problem=problems[file]) for file in problems
        ]
        return rows


async def _examined(content: Content) -> Examination:
    return await asyncio.to_thread(examine, content)


def _row_of(profile: CompiledProfile, problem: str) -> ProfileRow:
    return ProfileRow(
        id=profile.id,
        version=profile.version,
        title=profile.source.label.en,
        topics=tuple(dict.fromkeys(pattern.text for rule in profile.rules for pattern in rule.patterns)),
        format=profile.rules[0].format if profile.rules else "",
        problem=problem,
    )
