"""The histories of profiles in the registry: who may see and decide what, and how a decision is written.

Each decision is recorded on the audit trail, then written with the revision on which it was made: of two concurrent
decisions the second one fails with a conflict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

import msgspec

from sensegate.authority.bucket import Bucket
from sensegate.authority.record_store import RecordStore, RecordTable
from sensegate.authority.scope import Action, Principal, Scope, allows, demand, has_right, scope_text
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.decode.choice import VersionChoice
from sensegate.errors import ConfigError, Conflict, NotFound, PermissionDenied
from sensegate.lifecycle.contents import Content, ContentStore, digest_of
from sensegate.lifecycle.history import (
    Canary,
    ProfileVersion,
    ReleaseHistory,
    Shadow,
    VersionState,
    choices_of,
    describe_in_force,
)
from sensegate.lifecycle.transitions import highest_used, with_library


class Examination(msgspec.Struct, frozen=True):
    """The result of examining a content."""

    profile: str
    number: int
    problems: tuple[str, ...] = ()
    """Failing examples and lint findings: a draft may have them, a proposal may not."""


Examine = Callable[[Content], Awaitable[Examination]]
"""Examines a content. Raises `ConfigError` (with the line) where it is no profile at all."""
FolderVersion = Callable[[str], "tuple[int, Content] | None"]
"""Profile -> its version in the folder of profiles."""
DevicesOf = Callable[[str, Scope], Iterable[str]]
"""(profile, part) -> ids of the devices of this profile in a part of the divisions."""


class StepRecord(msgspec.Struct, frozen=True):
    """Audit record of a step."""

    action: str
    profile: str
    number: int
    note: str = ""
    facts: Facts = {}


HistoryList = list[ReleaseHistory]
Names = list[str]
Canaries = list[tuple[str, Canary]]
Shadows = list[tuple[str, Shadow]]


class ReleaseInputs(msgspec.Struct, frozen=True, eq=False):
    """Answers of the rest of the gateway on which releases depend."""

    examine: Examine
    """Examines a content."""
    folder_version: FolderVersion = lambda _profile: None
    """Returns the folder's version of a profile; it enters the history when another replaces it."""
    devices_of: DevicesOf = lambda _profile, _part: ()
    """Returns the devices of a profile, for the share of a canary."""


class ReleaseRegistry:
    """The histories of all profiles, seen by every process."""

    def __init__(
        self,
        bucket: Bucket,
        contents: ContentStore,
        trail: Trail,
        clock: Clock,
        *,
        home: str,
        inputs: ReleaseInputs,
        standard: Collection[str] = (),
    ) -> None:
        """Make it empty; `load` fills it.

        Args:
            bucket: holds the histories, by profile.
            contents: holds the contents of the versions.
            trail: where every step is recorded.
            clock: the time.
            home: the division that this gateway serves.
            inputs: answers of the rest of the gateway.
            standard: vendors (folders) whose profiles are the province's.
        """
        self._store = RecordStore(bucket, clock)
        self._histories: RecordTable[ReleaseHistory] = RecordTable(
            self._store, "profile", ReleaseHistory, prefix="", packed=True
        )
        self._histories.on_change.append(self._changed)
        self.contents = contents
        self._trail = trail
        self._clock = clock
        self._home = home
        self.examine = inputs.examine
        """Examines a content."""
        self.folder_version = inputs.folder_version
        """Returns the folder's version of a profile."""
        self._devices_of = inputs.devices_of
        self._standard = frozenset(standard)
        self.on_change: list[Callable[[str], None]] = []
        """Called with the name of a profile once a change of its history, made by any process, is in memory."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def choices(self) -> list[VersionChoice]:
        """Return the choices of versions for the devices of this gateway; the first choice that picks a device wins."""
        return [choice for history in self._histories for choice in choices_of(history, self._home)]

    def digests(self) -> set[str]:
        """Return the digests of all versions."""
        return {version.digest for history in self._histories for version in history.versions}

    def canaries(self) -> Canaries:
        """Return (profile, canary) of all canaries in progress."""
        return [(history.profile, history.canary) for history in self._histories if history.canary]

    def shadows(self) -> Shadows:
        """Return (profile, shadow) of all shadows in progress."""
        return [(history.profile, history.shadow) for history in self._histories if history.shadow]

    def history(self, profile: str) -> ReleaseHistory:
        """Return the history of a profile; an empty one where nothing was ever decided."""
        return self._histories.find(profile) or ReleaseHistory(
            profile, standard=profile.partition("/")[0] in self._standard
        )

    def get(self, profile: str, by: Principal) -> ReleaseHistory:
        """Return the history of a profile as far as it concerns the caller.

        Without drafts and proposals that it may not see, and without canaries and shadows of other areas. Of one that
        covers the caller's area, the devices are left out.
        """
        history = self.history(profile)
        seen = tuple(version for version in history.versions if self._visible(version, by))
        canary, shadow = history.canary, history.shadow
        if canary is not None and not concerns(canary.target, by):
            canary = None
        elif canary is not None and not reads(canary.target, by):
            canary = msgspec.structs.replace(canary, devices=())
        if shadow is not None and not (
            concerns(shadow.target, by) and any(version.number == shadow.number for version in seen)
        ):
            shadow = None
        elif shadow is not None and not reads(shadow.target, by):
            shadow = msgspec.structs.replace(shadow, devices=())
        return msgspec.structs.replace(history, versions=seen, canary=canary, shadow=shadow)

    def list(self, by: Principal) -> HistoryList:
        """Return the histories of which the caller may see a version, in order of profile."""
        histories = (self.get(profile, by) for profile in self._histories.names())
        return [history for history in histories if history.versions]

    def version(self, profile: str, number: int, by: Principal) -> ProfileVersion:
        """Return one version. Raises `NotFound` where there is none that the caller may see."""
        version = self.get(profile, by).find(number)
        if version is None or not has_right(by, Action.READ_REGISTRY):
            raise NotFound(
                f"no version {number} of {profile} in your scope; see `sensegate profile versions {profile}`"
            )
        return version

    async def content(self, profile: str, number: int, by: Principal) -> Content:
        """Return the content of a version. Raises `NotFound`, `Unavailable`."""
        return await self.contents.read(self.version(profile, number, by).digest)

    @staticmethod
    def _visible(version: ProfileVersion, by: Principal) -> bool:
        if version.state in (VersionState.RELEASED, VersionState.SUPERSEDED) or version.used:
            return True
        origin = version.origin
        return allows(by, Action.READ_REGISTRY, origin.division, origin.department) or origin.covers(
            by.scope.division, by.scope.department
        )

    def profiles(self) -> Names:
        """Return the names of all profiles with a history."""
        return self._histories.names()

    # ── following the registry ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; `watch` then follows its changes."""
        await self._store.open()

    async def watch(self) -> None:
        """Apply the changes made by every process until cancelled; resumes after a loss of the engine."""
        await self._store.run()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the histories holds; it is checked after every step."""
        await self._histories.until(condition)

    def _changed(self, before: ReleaseHistory | None, after: ReleaseHistory | None) -> None:
        if (history := after or before) is not None:
            for listener in self.on_change:
                listener(history.profile)

    # ── internals ──────────────────────────────────────────────────────────────────────────────────────

    def _own_scope(self, by: Principal) -> Scope:
        """Return the part of this gateway that lies in the caller's scope."""
        if by.scope.division.startswith(self._home):
            return by.scope
        if self._home.startswith(by.scope.division):
            return Scope(self._home, by.scope.department)
        raise PermissionDenied(
            f"this gateway serves {self._home}; outside the scope of {by.id} ({scope_text(by.scope)})"
        )

    def target(self, by: Principal, target: Scope | None) -> Scope:
        """Return the target within this gateway; None: all of the caller's scope. It may lie outside that scope.

        Raises:
            ConfigError: this gateway does not serve it. PermissionDenied: it serves no part of the caller's scope.
        """
        wanted = target or self._own_scope(by)
        if not wanted.division.startswith(self._home):
            if not self._home.startswith(wanted.division):
                raise ConfigError(
                    f"{scope_text(wanted)} is not served here", key="target", remedy=f"a part of {self._home}"
                )
            wanted = Scope(self._home, wanted.department)
        return wanted

    def _require_release_right(self, history: ReleaseHistory, by: Principal, where: Scope) -> None:
        demand(by, Action.RELEASE_PROFILES, where.division, where.department)
        if self.history(history.profile).standard or history.profile.partition("/")[0] in self._standard:
            province = where.division[:2]
            if not allows(by, Action.RELEASE_PROFILES, province):
                raise PermissionDenied(
                    f"{history.profile} is a standard profile: only the province ({province}) releases it"
                )

    def _for_release(
        self, profile: str, number: int, by: Principal, target: Scope | None, *, standard: bool = False
    ) -> tuple[ProfileVersion, ReleaseHistory, Scope]:
        if not has_right(by, Action.RELEASE_PROFILES):
            raise PermissionDenied(f"role {by.role} may not release profiles; propose it: the city releases")
        version = self.version(profile, number, by)
        history, where = self.history(profile), self.target(by, target)
        self._require_release_right(history, by, where)
        if standard:
            demand(by, Action.RELEASE_PROFILES, where.division[:2])
        if version.state in (VersionState.DRAFT, VersionState.WITHDRAWN):
            raise Conflict(f"{profile}@{number} is {version.state}; it must be proposed first")
        return version, history, where

    @staticmethod
    def _require_no_trial(history: ReleaseHistory, number: int) -> None:
        for trial, word in ((history.canary, "canary"), (history.shadow, "shadow")):
            if trial and trial.number == number:
                raise Conflict(f"{history.profile}@{number} is a {word}; end it first")

    async def _require_passing(self, version: ProfileVersion) -> None:
        examined = await self.examine(await self.contents.read(version.digest))
        if examined.problems:
            more = f" (and {len(examined.problems) - 1} more)" if len(examined.problems) > 1 else ""
            raise ConfigError(
                f"{examined.problems[0]}{more}", key="examples", remedy="correct it, then propose it again"
            )

    async def _set(
        self, version: ProfileVersion, state: VersionState, by: Principal, step: StepRecord
    ) -> ProfileVersion:
        """Change a version's state."""
        after = msgspec.structs.replace(version, state=state, changed=self._clock.now(), note=step.note or version.note)
        await self._put(after, version, by, step)
        return after

    async def _put(self, after: ProfileVersion, before: ProfileVersion | None, by: Principal, step: StepRecord) -> None:
        """Write a version into the history."""
        history = self.history(step.profile)
        others = [version for version in history.versions if version.number != after.number]
        versions = tuple(sorted([*others, after], key=lambda version: version.number))
        facts: Facts = {"state": after.state.value, "digest": after.digest, **step.facts}
        if before:
            facts["was"] = before.state.value
        step = msgspec.structs.replace(step, facts=facts)
        await self._write(history, msgspec.structs.replace(history, versions=versions), by, step)

    async def _write(
        self, before: ReleaseHistory, after: ReleaseHistory, by: Principal, step: StepRecord
    ) -> ReleaseHistory:
        facts = {**step.facts, "note": step.note} if step.note else step.facts
        await self._keep_library(before, after)
        target = f"{step.profile}@{step.number}"
        await self._trail.record(by, step.action, target, before={"in_force": describe_in_force(before)}, after=facts)
        return await self._histories.put(step.profile, after, expected=before.revision)

    def _with_library(self, history: ReleaseHistory) -> ReleaseHistory:
        """Return the history with the folder's version in force, where the next step replaces that version."""
        shelved = self.folder_version(history.profile)
        if shelved is None or shelved[0] <= highest_used(history):
            return history
        return with_library(history, shelved[0], digest_of(shelved[1]), Scope(self._home), self._clock.now())

    async def _keep_library(self, before: ReleaseHistory, after: ReleaseHistory) -> None:
        """Store the content of the folder's version where the history now includes it."""
        for version in after.versions:
            if version.library and version not in before.versions and (shelved := self.folder_version(after.profile)):
                await self.contents.store(shelved[1])


def reads(target: Scope, by: Principal) -> bool:
    """Return whether a caller may know the devices of an area."""
    return allows(by, Action.READ_REGISTRY, target.division, target.department)


def concerns(target: Scope, by: Principal) -> bool:
    """Return whether a trial in an area concerns a caller: inside its scope, or around it."""
    return reads(target, by) or target.covers(by.scope.division, by.scope.department)
