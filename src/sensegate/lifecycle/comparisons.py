"""Versions held against one another: over what the log has recorded (`diff`), and beside live traffic (a shadow).

Neither writes a reading. Both work in a thread, a few messages at a time, behind whatever the ingest does; a shadow
that cannot keep up leaves messages out and says how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from sensegate.authority.scope import Action, Principal, Scope, demand
from sensegate.clock import Clock
from sensegate.errors import ConfigError, NotFound
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.history import Shadow
from sensegate.lifecycle.jobs import Job, Jobs
from sensegate.lifecycle.recorded import Progress, recorded
from sensegate.lifecycle.releases import Releases
from sensegate.model import Device, Message
from sensegate.ports import Log

SLICE = 400
"""Messages compared before the loop has its turn."""
PAUSE_S = 0.004
WAITING_MAX = 20_000
"""Messages that wait for their shadow; more are left out."""

_log = structlog.get_logger("studies")


class Comparison(Protocol):
    """`decode.compare.Comparison`."""

    def add(self, messages: Sequence[Message]) -> None:
        """Compare some more messages."""
        ...

    def report(self, most: int = 1_000) -> Any:
        """Return what was found so far."""
        ...


Compare = Callable[[str, Path | None, Path | None, Callable[[Device], bool]], Comparison]
"""(profile, file of a, file of b, devices that count) -> comparison; None stands for what is in force."""
Ref = int | Content
"""A version by number (0: what is in force), or as it is written."""


class MessageRange(msgspec.Struct, frozen=True):
    """Which of the recorded messages are meant."""

    since: int
    """Arrival, µs UTC."""
    until: int
    devices: tuple[str, ...] = ()
    """Only of these; empty: of all in the target."""


class _ShadowRun(msgspec.Struct):
    """A shadow at work."""

    shadow: Shadow
    comparison: Comparison
    left_out: int = 0


def device_filter(target: Scope, devices: Sequence[str]) -> Callable[[Device], bool]:
    """Return whether a device is in a part of the divisions, and one of these where there are any."""
    chosen = frozenset(devices)
    return lambda device: target.covers(device.division, device.department) and (not chosen or device.id in chosen)


class VersionComparisons:
    """Diffs and shadows of one process."""

    def __init__(
        self, releases: Releases, jobs: Jobs, log: Log, clock: Clock, *, partition: str, compare: Compare
    ) -> None:
        """`partition`: whose recorded messages are read (``<division>-<partition>``)."""
        self._releases = releases
        self._jobs = jobs
        self._log = log
        self._clock = clock
        self._partition = partition
        self._compare = compare
        self._shadow_runs: dict[str, _ShadowRun] = {}
        self._crashed: dict[str, Shadow] = {}
        self._waiting: deque[Message] = deque()
        self._wake = asyncio.Event()
        releases.on_change.append(lambda _profile: self._wake.set())

    # ── diff ────────────────────────────────────────────────────────────────────────────────────────

    async def diff(
        self, profile: str, a: Ref, b: Ref, stretch: MessageRange, *, by: Principal, target: Scope | None = None
    ) -> Job:
        """Begin to compare two versions over recorded messages of the caller's scope.

        Raises:
            PermissionDenied, NotFound: the caller may not; there is no such version.
            ConfigError: a text is no version of the profile.
            Overloaded: too many jobs run.
        """
        where = self._releases.target(by, target)
        demand(by, Action.PROPOSE_PROFILES, where.division, where.department)
        files = await self._file(profile, a, by), await self._file(profile, b, by)
        comparison = await asyncio.to_thread(self._compare, profile, *files, device_filter(where, stretch.devices))

        async def work(job: Job) -> Any:
            return await self._over(comparison, stretch, job)

        return self._jobs.begin("diff", profile, where, by, work)

    async def _file(self, profile: str, ref: Ref, by: Principal) -> Path | None:
        """Return where a version is laid out; None for the one in force."""
        if isinstance(ref, Content):
            examined = await self._releases.examine(ref)
            if examined.profile != profile:
                raise ConfigError(f"is '{examined.profile}'", key="profile", remedy=f"write `profile: {profile}`")
            return await self._releases.contents.materialise_unstored(profile, ref)
        if not ref:
            return None
        try:
            digest = self._releases.version(profile, ref, by).digest
        except NotFound:
            shelved = self._releases.shelved(profile)
            if shelved is None or shelved[0] != ref:
                raise
            return await self._releases.contents.materialise_unstored(profile, shelved[1])
        return await self._releases.contents.materialise(profile, digest)

    async def _over(self, comparison: Comparison, stretch: MessageRange, job: Job) -> Any:
        after = await self._log.sequence_at(stretch.since) - 1
        progress = Progress(after, (await self._log.bounds())[1])
        async for entry in recorded(self._log, self._partition, progress):
            messages = [message for message in entry.messages if stretch.since <= message.received < stretch.until]
            await self._add(comparison, messages)
            job.share = progress.share
        return comparison.report()

    async def _add(self, comparison: Comparison, messages: Sequence[Message]) -> None:
        for first in range(0, len(messages), SLICE):
            await asyncio.to_thread(comparison.add, messages[first : first + SLICE])
            await self._clock.sleep(PAUSE_S)

    # ── shadows ─────────────────────────────────────────────────────────────────────────────────────

    def offer(self, messages: Sequence[Message]) -> None:
        """Take live messages, after their walk, for those who decode beside."""
        if not self._shadow_runs:
            return
        room = WAITING_MAX - len(self._waiting)
        if len(messages) > room:
            for run in self._shadow_runs.values():
                run.left_out += len(messages) - max(room, 0)
        self._waiting.extend(messages[: max(room, 0)])
        self._wake.set()

    def shadow(self, profile: str) -> tuple[Any, int]:
        """Return (report so far, messages left out) of a shadow in this process. Raises `NotFound`."""
        found = self._shadow_runs.get(profile)
        if found is None:
            raise NotFound(f"no version of {profile} is shadowed here")
        return found.comparison.report(), found.left_out

    def changed(self, names: Sequence[str]) -> None:
        """Begin anew where another version has come in force."""
        for name in names:
            if self._shadow_runs.pop(name, None):
                self._wake.set()

    async def run(self) -> None:
        """Decode beside until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._follow_shadows()
            while self._waiting and self._shadow_runs:
                messages = [self._waiting.popleft() for _ in range(min(SLICE, len(self._waiting)))]
                for name, one in list(self._shadow_runs.items()):
                    await self._run_shadow(name, one, messages)
            if not self._shadow_runs:
                self._waiting.clear()

    async def _run_shadow(self, name: str, one: _ShadowRun, messages: Sequence[Message]) -> None:
        """Let one shadow decode; a bug in its version ends it and nothing else."""
        task = asyncio.create_task(self._add(one.comparison, messages), name=f"shadow {name}")
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if (bug := task.exception()) is not None:
            _log.error("a shadow crashed and is left out", profile=name, version=one.shadow.number, bug=repr(bug))
            self._crashed[name] = one.shadow
            self._shadow_runs.pop(name, None)

    async def _follow_shadows(self) -> None:
        """Begin the shadows that were decided, end the others."""
        wanted = dict(self._releases.shadows())
        for name in [name for name, one in self._shadow_runs.items() if wanted.get(name) != one.shadow]:
            del self._shadow_runs[name]
        for name, shadow in wanted.items():
            if name in self._shadow_runs or self._crashed.get(name) == shadow:
                continue
            version = self._releases.history(name).find(shadow.number)
            try:
                file = await self._releases.contents.materialise(name, version.digest if version else "")
                cut = device_filter(shadow.target, shadow.devices)
                comparison = await asyncio.to_thread(self._compare, name, None, file, cut)
            except (ConfigError, NotFound) as why:
                _log.warning("a version cannot be shadowed", profile=name, version=shadow.number, why=str(why))
                continue
            self._shadow_runs[name] = _ShadowRun(shadow, comparison)
