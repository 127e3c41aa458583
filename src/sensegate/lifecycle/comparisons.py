"""Comparison of profile versions, over recorded messages (`diff`) and over live traffic (shadow).

Neither writes readings. Both work in a thread, a few messages at a time, with lower priority than ingest; a shadow that
cannot keep up skips messages and counts them.
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
from sensegate.bus.contract import Log
from sensegate.clock import Clock
from sensegate.errors import ConfigError, NotFound
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.history import Shadow
from sensegate.lifecycle.jobs import Job, Jobs
from sensegate.lifecycle.recorded import Progress, read_recorded
from sensegate.lifecycle.releases import Releases
from sensegate.model import Device, Message

MESSAGES_AT_ONCE = 400
"""Messages compared before the event loop runs again."""
PAUSE_S = 0.004
WAITING_MAX = 20_000
"""Most messages that wait for shadows; more are skipped."""
WAITING_BYTES_MAX = 32 * 1024**2
"""Most bytes of their payloads."""

_log = structlog.get_logger("lifecycle")


class Comparison(Protocol):
    """A comparison in progress, as implemented by `authoring`."""

    def add(self, messages: Sequence[Message]) -> None:
        """Compare further messages."""
        ...

    def report(self, most: int = 1_000) -> Any:
        """Return the report so far."""
        ...


Compare = Callable[[str, Path | None, Path | None, Callable[[Device], bool]], Comparison]
"""(profile, file of a, file of b, device filter) -> comparison; None: the version in force."""
Ref = int | Content
"""A version by number (0: the one in force), or by its content."""


class MessageRange(msgspec.Struct, frozen=True):
    """Selection of recorded messages by arrival and device."""

    since: int
    """Arrival, µs UTC."""
    until: int
    devices: tuple[str, ...] = ()
    """Ids of the devices; empty: all devices in the target."""


class _ShadowRun(msgspec.Struct):
    """A running shadow."""

    shadow: Shadow
    comparison: Comparison
    skipped: int = 0


def device_filter(target: Scope, devices: Sequence[str]) -> Callable[[Device], bool]:
    """Return a predicate: a device is in the target, and among `devices` where those are given."""
    chosen = frozenset(devices)
    return lambda device: target.covers(device.division, device.department) and (not chosen or device.id in chosen)


class VersionComparisons:
    """Diffs and shadows of this process."""

    def __init__(
        self, releases: Releases, jobs: Jobs, log: Log, clock: Clock, *, partition: str, compare: Compare
    ) -> None:
        """`partition`: ``<division>-<partition>`` whose recorded messages are read."""
        self._releases = releases
        self._jobs = jobs
        self._log = log
        self._clock = clock
        self._partition = partition
        self._compare = compare
        self._shadow_runs: dict[str, _ShadowRun] = {}
        self._failed_shadows: dict[str, Shadow] = {}
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._wake = asyncio.Event()
        releases.on_change.append(lambda _profile: self._wake.set())

    # ── diff ────────────────────────────────────────────────────────────────────────────────────────

    async def diff(
        self, profile: str, a: Ref, b: Ref, period: MessageRange, *, by: Principal, target: Scope | None = None
    ) -> Job:
        """Start a comparison of two versions over recorded messages of the caller's scope.

        Raises:
            PermissionDenied, NotFound: the caller may not compare; there is no such version.
            ConfigError: a content is not a version of the profile.
            Overloaded: too many jobs are running.
        """
        where = self._releases.target(by, target)
        demand(by, Action.PROPOSE_PROFILES, where.division, where.department)
        files = await self._file(profile, a, by), await self._file(profile, b, by)
        comparison = await asyncio.to_thread(self._compare, profile, *files, device_filter(where, period.devices))

        async def work(job: Job) -> Any:
            return await self._compare_recorded(comparison, period, job)

        return self._jobs.start("diff", profile, where, by, work)

    async def _file(self, profile: str, ref: Ref, by: Principal) -> Path | None:
        """Return the file of a version; None for the one in force."""
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
            shelved = self._releases.folder_version(profile)
            if shelved is None or shelved[0] != ref:
                raise
            return await self._releases.contents.materialise_unstored(profile, shelved[1])
        return await self._releases.contents.materialise(profile, digest)

    async def _compare_recorded(self, comparison: Comparison, period: MessageRange, job: Job) -> Any:
        after = await self._log.sequence_at(period.since) - 1
        progress = Progress(after, (await self._log.bounds())[1])
        async for entry in read_recorded(self._log, self._partition, progress):
            messages = [message for message in entry.messages if period.since <= message.received < period.until]
            await self._add(comparison, messages)
            job.share = progress.share
        return comparison.report()

    async def _add(self, comparison: Comparison, messages: Sequence[Message]) -> None:
        for first in range(0, len(messages), MESSAGES_AT_ONCE):
            await asyncio.to_thread(comparison.add, messages[first : first + MESSAGES_AT_ONCE])
            await self._clock.sleep(PAUSE_S)

    # ── shadows ─────────────────────────────────────────────────────────────────────────────────────

    def submit(self, messages: Sequence[Message]) -> None:
        """Queue live messages for the shadows."""
        if not self._shadow_runs:
            return
        waited = len(self._waiting)
        for message in messages:
            if len(self._waiting) >= WAITING_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
                break
            self._waiting.append(message)
            self._waiting_bytes += len(message.payload)
        skipped = len(messages) - (len(self._waiting) - waited)
        for run in self._shadow_runs.values():
            run.skipped += skipped
        self._wake.set()

    def shadow(self, profile: str) -> tuple[Any, int]:
        """Return (report so far, skipped messages) of a shadow in this process. Raises `NotFound`."""
        run = self._shadow_runs.get(profile)
        if run is None:
            raise NotFound(f"no shadow of {profile} runs in this process")
        return run.comparison.report(), run.skipped

    def restart(self, names: Sequence[str]) -> None:
        """Restart the shadows of profiles whose version in force has changed."""
        for name in names:
            if self._shadow_runs.pop(name, None):
                self._wake.set()

    async def run(self) -> None:
        """Run the shadows until cancelled."""
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._follow_shadows()
            while self._waiting and self._shadow_runs:
                messages = [self._waiting.popleft() for _ in range(min(MESSAGES_AT_ONCE, len(self._waiting)))]
                self._waiting_bytes -= sum(len(message.payload) for message in messages)
                for name, run in list(self._shadow_runs.items()):
                    await self._run_shadow(name, run, messages)
            if not self._shadow_runs:
                self._waiting.clear()
                self._waiting_bytes = 0

    async def _run_shadow(self, name: str, run: _ShadowRun, messages: Sequence[Message]) -> None:
        """Run a shadow on messages; a bug in its version ends only this shadow."""
        task = asyncio.create_task(self._add(run.comparison, messages), name=f"shadow {name}")
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if (bug := task.exception()) is not None:
            _log.error("shadow crashed; it is stopped", profile=name, version=run.shadow.number, reason=repr(bug))
            self._failed_shadows[name] = run.shadow
            self._shadow_runs.pop(name, None)

    async def _follow_shadows(self) -> None:
        """Start new shadows and stop ended ones."""
        wanted = dict(self._releases.shadows())
        for name in [name for name, run in self._shadow_runs.items() if wanted.get(name) != run.shadow]:
            del self._shadow_runs[name]
        for name, shadow in wanted.items():
            if name in self._shadow_runs or self._failed_shadows.get(name) == shadow:
                continue
            version = self._releases.history(name).find(shadow.number)
            try:
                file = await self._releases.contents.materialise(name, version.digest if version else "")
                is_selected = device_filter(shadow.target, shadow.devices)
                comparison = await asyncio.to_thread(self._compare, name, None, file, is_selected)
            except (ConfigError, NotFound) as why:
                _log.warning("shadow not started", profile=name, version=shadow.number, reason=str(why))
                continue
            self._shadow_runs[name] = _ShadowRun(shadow, comparison)
