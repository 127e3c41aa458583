"""The second page of the wiring: the life of profiles, from the store of versions to the walk and back.

Releases ─▶ Rollout ─▶ Profiles ─▶ a border of the walk          Trials, Studies ◀─ the walk
Redecodes ─▶ Redecoding ─▶ RedecodeSource ─▶ the walk, with eyes and priors of its own (`Again`)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import msgspec
import numpy as np

from sensegate.authority.callout import Callout, TopicsOf, profile_topics
from sensegate.authority.contents import Content, Contents
from sensegate.authority.devices import Devices
from sensegate.authority.redecodes import Order, Redecodes
from sensegate.authority.releases import Examined, Releases
from sensegate.authority.scope import Role, Scope, scope
from sensegate.authority.tasks import Confirm, Scalar, Told
from sensegate.authority.trail import Trail
from sensegate.bus.kv import Bucket
from sensegate.clock import Clock
from sensegate.collect.redecode import RedecodeSource
from sensegate.config import Config
from sensegate.decode import tasking
from sensegate.decode.compare import Comparison, compared
from sensegate.decode.concern import Concern
from sensegate.decode.decode import Decoder
from sensegate.decode.examine import examine, shelved
from sensegate.decode.grammar import TaskPart
from sensegate.decode.memory import Memory
from sensegate.decode.profile import Profile
from sensegate.decode.profiles import Chosen, ProfileSet
from sensegate.decode.survey import Registered, draft_of, samples_of, shapes
from sensegate.decode.watch import Profiles
from sensegate.errors import ConfigError
from sensegate.halves import Meant, Understood, only
from sensegate.jobs import Jobs
from sensegate.model import BOOL, I32, Delivery, Device, Message, Span
from sensegate.normalise.normalise import Normaliser
from sensegate.persist.commit import Committer
from sensegate.persist.priors import Priors
from sensegate.ports import Log
from sensegate.redecoding import Redecoding
from sensegate.rollout import LaidOut, Rollout
from sensegate.series import Series
from sensegate.studies import Studies
from sensegate.tasking import Capability, Parameter
from sensegate.trials import Trials
from sensegate.unknown import Unknown
from sensegate.web.deps import ProfileRow


class Eyes(msgspec.Struct, frozen=True, eq=False):
    """What understands messages: live ones, or those decoded again."""

    decoder: Decoder
    normaliser: Normaliser

    def use(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Put other profiles in force, between two walks; `changed`: devices that have another version now."""
        self.decoder.use(profiles)
        self.normaliser.adopt(profiles.specs)
        self.normaliser.forget(changed)


class Life:
    """All that decides which version of a profile reads which message."""

    def __init__(self, config: Config, clock: Clock, log: Log, trail: Trail) -> None:
        self.config = config
        self.clock = clock
        self.log = log
        self.trail = trail
        self.partition = f"{config.division}-{config.ingest.partition}"
        self.tasks: dict[str, Callable[[], Awaitable[None]]] = {}

    async def open(self, bucket: Callable[[str], Awaitable[Bucket]], stack: contextlib.AsyncExitStack) -> None:
        """Open the store and the folders; what was decided is in force from the first message on."""
        config, clock = self.config, self.clock
        self.releases = Releases(
            await bucket("profiles"),
            Contents(await bucket("profile_contents"), Path(config.directory) / "profiles"),
            self.trail,
            clock,
            home=scope(config.division).division,
            examine=_examined,
            library=lambda name: shelved(self.profiles.set, name),
            devices_of=self._devices_of,
            standard=config.standard_vendors,
        )
        await self.releases.load()
        await self.releases.contents.tidy(self.releases.digests())
        self.rollout = Rollout(self.releases)
        self.profiles = Profiles(config.profiles, clock, list(starmap(Chosen, await self.rollout.begin())))
        self.granted = self.profiles.set
        """By these devices may publish."""
        self.trials = Trials(self.releases, config.division)
        self.jobs = Jobs(clock)
        stack.push_async_callback(self.jobs.stop)
        self.studies = Studies(
            self.releases, self.jobs, self.log, clock, partition=self.partition, compare=self._compare
        )
        self.unknown = Unknown(
            self.log,
            shapes=lambda told: shapes([*samples_of(told, self.profiles.set)], Registered(self.devices.find)),
            draft=lambda told, profile, shape: draft_of(
                [*samples_of(told, self.profiles.set)], profile, shape=shape, names=Registered(self.devices.find)
            ),
        )
        self.redecodes = Redecodes(await bucket("redecodes"), self.trail, clock)
        await self.redecodes.load()
        self.profiles.on_change.append(lambda _, names: self.studies.changed(names))
        self.tasks |= {
            "profiles": self.profiles.run,
            "releases": self.releases.watch,
            "rollout": partial(self.rollout.run, self._choose),
            "trials": self.trials.run,
            "studies": self.studies.run,
            "redecodes": self.redecodes.watch,
        }

    async def _choose(self, laid_out: LaidOut) -> None:
        await self.profiles.choose(list(starmap(Chosen, laid_out)))

    def _compare(self, name: str, a: Path | None, b: Path | None, cut: Callable[[Device], bool]) -> Comparison:
        return Comparison(name, *compared(name, self.profiles.set, a, b), self.devices, cut)

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
        return self.granted.heard_topics(device, names)

    def renew(self, callout: Callout) -> None:
        """From now on close the connections of devices whose rights a change of their profile has changed."""

        def changed(profiles: ProfileSet, names: Sequence[str]) -> None:
            before, self.granted = self.granted, profiles
            then, now = (
                profile_topics(one.publish_topics, self.devices, one.heard_topics) for one in (before, profiles)
            )
            for name in names:
                rights = profiles.rights(name)
                if rights != before.rights(name) or len(rights) > 1:
                    callout.renew(name, lambda device: then(device) != now(device))

        self.profiles.on_change.append(changed)

    # ── the walk ────────────────────────────────────────────────────────────────────────────────────

    def again(self, committer: Committer, series: Series, memory: Memory) -> Again:
        """Return the way of messages that are decoded again; `memory`: what decoding live has been told."""
        bench = Again(self, committer, series, memory)
        self.redecoding = Redecoding(
            self.redecodes,
            self.releases,
            self.log,
            self.clock,
            partition=self.partition,
            store=self.config.store,
            horizon_h=self.config.duplicates.horizon_h,
            bench=bench,
        )
        bench.source = RedecodeSource(self.log, self.redecoding, committer.position)
        return bench

    def study(self, eyes: Eyes, span: Span, batch: Understood) -> None:
        """Look at what was understood of live messages: canaries, shadows."""
        fields = batch.fields
        rejected = [*fields.rejected, *batch.rejected]
        self.trials.count(eyes.normaliser.table.specs, batch.readings, rejected, fields.quarantined)
        self.studies.offer(span)

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
            on_shelf, profile = now.shelved(name), now.find(name)
            problem = problems.pop(on_shelf.file, "") if on_shelf else ""
            row = _row_of(profile, problem) if profile else ProfileRow(name, 0)
            tried = tuple(arm.profile.version for arm in now.arms.get(name, ()))
            rows.append(msgspec.structs.replace(row, folder=on_shelf.version if on_shelf else 0, trials=tried))
        # What was never good has no version in force.
        rows += [
            ProfileRow(f"{Path(file).parent.name}/{Path(file).stem}", 0, problem=problems[file]) for file in problems
        ]
        return rows


class Speaker:
    """What the profiles in force know of tasks."""

    def __init__(self, profiles: Callable[[], ProfileSet], devices: Devices) -> None:
        self._profiles = profiles
        self._devices = devices

    def _profile(self, device: Device) -> Profile:
        found = self._profiles().of(device)
        if found is None:
            raise ConfigError(f"profile {device.profile} is not loaded", key="device", remedy="mend or release it")
        return found

    def capabilities(self, device: Device) -> list[Capability]:
        return [_capability(task) for task in self._profile(device).source.tasks]

    def told(self, device: Device, task: str, said: Mapping[str, Scalar]) -> Told:
        profile = self._profile(device)
        part = tasking.of(profile, task)
        values = tasking.checked(part, said)
        confirm = None
        if (shown := part.confirm) is not None:
            wanted = tasking.expected(shown, values)
            confirm = Confirm(shown.property, wanted, shown.channel, shown.tolerance)
        names = [device.id, *([device.alias] if device.alias else [])]
        return Told(
            part.name,
            profile.name,
            values,
            tuple(tasking.topics_of(profile, part, names)),
            tasking.payload(part, values),
            confirm,
            Role(part.role),
            part.when == "heard",
            part.expires_s,
            part.again_s,
        )

    def shows(self, confirm: Confirm, value: float, text: str | None) -> bool:
        return tasking.shows(confirm.wanted, confirm.tolerance, value, text)


class Again:
    """The way of messages that are on the log: eyes of their own, priors, and a filter.

    Their memory begins with what live traffic has told by then (the birth that a quarantined message lacked).
    """

    source: RedecodeSource

    def __init__(self, life: Life, committer: Committer, series: Series, memory: Memory) -> None:
        self._life = life
        self._memory = memory
        self._committer = committer
        self._series = series
        self._order: Order | None = None
        self._devices: frozenset[str] = frozenset()
        self._known: dict[int, bool] = {}
        self.eyes = self._open()

    def _open(self) -> Eyes:
        life = self._life
        profiles = life.profiles.set
        # What was too much for a minute then is not refused once more.
        limits = msgspec.structs.replace(life.config.ingest, rate_per_device_s=1e9)
        return Eyes(
            Decoder(profiles, life.devices, limits, self._memory.copy(hindsight=True)),
            Normaliser(profiles.specs, series=self._series, clock=life.clock, time=life.config.time),
        )

    # ── for the desk ────────────────────────────────────────────────────────────────────────────────

    def begin(self, order: Order) -> Priors:
        here = self._life.devices
        ids = frozenset(here.ids_of(order.profile, order.target))
        self._order, self._devices = order, ids & frozenset(order.devices) if order.devices else ids
        self._known = {}
        self.eyes = self._open()
        self._concern = Concern(self.eyes.decoder, here, order.profile)
        priors = Priors(self._devices.__contains__, here.id)
        self._committer.tell(priors)
        return priors

    @property
    def told_after(self) -> int | None:
        return self._committer.told_after

    def concerned(self, messages: Sequence[Message]) -> Sequence[Message]:
        if self._order is None:
            return []
        return [message for message in messages if self._concern(message)]

    def end(self) -> None:
        self._order = None
        self._committer.tell(None)

    # ── for the walk ────────────────────────────────────────────────────────────────────────────────

    def use(self, profiles: ProfileSet, changed: BOOL) -> None:
        """Put other profiles in force where an order is at work; the next one begins with those of its time."""
        if self._order is not None:
            self.eyes.use(profiles, changed)

    def meant(self, span: Span, batch: Understood) -> tuple[Span, Understood]:
        """Return what the order means of messages and of what was understood of them."""
        order, table = self._order, self.eyes.normaliser.table
        mine = np.array([spec.profile.partition("@")[0] == (order.profile if order else "") for spec in table.specs])
        fields, readings = batch.fields, batch.readings
        of_fields = mine[fields.spec] & self._counts(fields.device)
        of_readings = mine[readings.spec] & self._counts(readings.device)

        def ours(name: str, device: int) -> bool:
            return order is not None and name.partition("@")[0] == order.profile and self._count(device)

        quarantined = [one for one in fields.quarantined if ours(one.profile, one.device)]
        lost = [one for one in fields.rejected if ours(one.profile, one.device)]
        rejected = [one for one in batch.rejected if ours(one.profile, one.device)]
        messages = np.zeros(len(span), np.bool_)
        messages[fields.message[of_fields]] = True
        messages[[one.message for one in quarantined]] = True
        messages[[one.message for one in (*lost, *rejected)]] = True
        whole = msgspec.structs.replace(fields, quarantined=quarantined, rejected=lost, ignored=0)
        batch = Understood(batch.received, whole, readings, rejected)
        kept = Span(message for message, wanted in zip(span, messages.tolist(), strict=True) if wanted)
        return kept, only(batch, Meant(messages, of_fields, of_readings))

    def _count(self, device: int) -> bool:
        found = self._known.get(device)
        if found is None:
            found = self._known[device] = device >= 0 and self._life.devices.id(device) in self._devices
        return found

    def _counts(self, device: I32) -> BOOL:
        different, place = np.unique(device, return_inverse=True)
        return np.array([self._count(one) for one in different.tolist()], np.bool_)[place]


def delivered(delivery: Delivery, span: Span) -> Delivery:
    """Return a delivery with some of its messages; its position is that of all."""
    return msgspec.structs.replace(delivery, messages=list(span))


async def _examined(content: Content) -> Examined:
    return await asyncio.to_thread(examine, content)


def _capability(task: TaskPart) -> Capability:
    parameters = (
        Parameter(
            name,
            part.kind,
            part.label.zh,
            part.label.en,
            part.unit,
            part.range[0] if part.range else None,
            part.range[1] if part.range else None,
            tuple(part.words),
            part.default,
        )
        for name, part in task.parameters.items()
    )
    return Capability(
        task.name,
        task.label.zh,
        task.label.en,
        task.role,
        tuple(parameters),
        task.confirm is not None,
        task.when,
        task.expires_s,
        task.again_s,
    )


def _row_of(profile: Profile, problem: str) -> ProfileRow:
    return ProfileRow(
        id=profile.id,
        version=profile.version,
        title=profile.source.label.en,
        topics=tuple(dict.fromkeys(pattern.text for rule in profile.rules for pattern in rule.patterns)),
        format=profile.rules[0].format if profile.rules else "",
        problem=problem,
    )
