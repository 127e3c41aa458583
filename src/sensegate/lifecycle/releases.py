"""The life of profiles: who may put which version in force, where; kept in the engine's store, seen by every process.

    county: draft, propose, shadow      city: canary, release, rollback, redecode (within its scope)
    province: the same for the standard profiles

Every step asks `scope.allows`, is recorded on the audit trail, and then written with the revision that it was decided
on: of two that decide at once the second is told to look again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

import msgspec
import structlog

from sensegate.authority.bucket import Bucket
from sensegate.authority.device_rules import text_fault
from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, may, written
from sensegate.authority.shelf import Records, Shelf
from sensegate.authority.trail import Facts, Trail
from sensegate.clock import Clock
from sensegate.decode.choice import Choice, draw
from sensegate.errors import ConfigError, Conflict, NotFound, Refused
from sensegate.lifecycle.contents import Content, Contents, digest_of
from sensegate.lifecycle.history import (
    Canary,
    CanaryLimits,
    ProfileVersion,
    ReleaseHistory,
    Shadow,
    VersionInForce,
    VersionState,
    choices_of,
    describe_in_force,
)
from sensegate.lifecycle.transitions import highest_used, put_in_force, settled, taken_back, with_library

NOTE_BYTES_MAX = 500
VERSIONS_MAX = 500
DEVICES_MAX = 2_000

_log = structlog.get_logger(__name__)


class Examined(msgspec.Struct, frozen=True):
    """What a look into a content found."""

    profile: str
    number: int
    problems: tuple[str, ...] = ()
    """Examples that do not come out, lints: a draft may have them, a proposal may not."""


Examine = Callable[[Content], Awaitable[Examined]]
"""Raises `ConfigError` (with the line) where the content is no profile at all."""
Library = Callable[[str], "tuple[int, Content] | None"]
"""Profile -> the version that the folder has of it."""
DevicesOf = Callable[[str, Scope], Iterable[str]]
"""(profile, part) -> ids of the devices of this profile in a part of the divisions."""


class Told(msgspec.Struct, frozen=True):
    """What the trail is told of a step."""

    action: str
    profile: str
    number: int
    note: str = ""
    facts: Facts = {}


Lives = list[ReleaseHistory]
Names = list[str]
Canaries = list[tuple[str, Canary]]
Shadows = list[tuple[str, Shadow]]


class Releases:
    """The lives of all profiles at one gateway."""

    def __init__(
        self,
        bucket: Bucket,
        contents: Contents,
        trail: Trail,
        clock: Clock,
        *,
        home: str,
        examine: Examine,
        library: Library = lambda _profile: None,
        devices_of: DevicesOf = lambda _profile, _part: (),
        standard: Collection[str] = (),
    ) -> None:
        """Make it empty; `load` fills it.

        Args:
            bucket: where lives are, by profile.
            contents: where the versions' contents are.
            trail: where every step is recorded.
            clock: the time.
            home: the division that this gateway serves.
            examine: looks into a content.
            library: the folder's version of a profile, which is taken over when another replaces it.
            devices_of: the devices of a profile, for the share of a canary.
            standard: vendors (folders) whose profiles are the province's.
        """
        self._shelf = Shelf(bucket, clock)
        self._lives: Records[ReleaseHistory] = Records(self._shelf, "profile", ReleaseHistory, prefix="", packed=True)
        self._lives.on_change.append(self._changed)
        self.contents = contents
        self._trail = trail
        self._clock = clock
        self._home = home
        self.examine = examine
        """Looks into a content."""
        self.shelved = library
        """Returns the folder's version of a profile."""
        self._devices_of = devices_of
        self._standard = frozenset(standard)
        self.on_change: list[Callable[[str], None]] = []
        """Called with a profile's name when a change of its life is in memory, from whichever process it came."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────

    def choices(self) -> list[Choice]:
        """Return what is decided for the devices of this gateway; of a profile's choices the first that picks wins."""
        return [choice for life in self._lives for choice in choices_of(life, self._home)]

    def digests(self) -> set[str]:
        """Return the digests of all versions."""
        return {one.digest for life in self._lives for one in life.versions}

    def canaries(self) -> Canaries:
        """Return (profile, canary) of all that are under way."""
        return [(life.profile, life.canary) for life in self._lives if life.canary]

    def shadows(self) -> Shadows:
        """Return (profile, shadow) of all that are under way."""
        return [(life.profile, life.shadow) for life in self._lives if life.shadow]

    def life(self, profile: str) -> ReleaseHistory:
        """Return a profile's life, an empty one where nothing was ever decided about it."""
        return self._lives.find(profile) or ReleaseHistory(
            profile, standard=profile.partition("/")[0] in self._standard
        )

    def get(self, profile: str, by: Principal) -> ReleaseHistory:
        """Return a profile's life as the caller may see it: others' drafts and proposals are not theirs to see."""
        life = self.life(profile)
        seen = tuple(one for one in life.versions if self._visible(one, by))
        shadow = life.shadow if life.shadow and any(one.number == life.shadow.number for one in seen) else None
        return msgspec.structs.replace(life, versions=seen, shadow=shadow)

    def list(self, by: Principal) -> Lives:
        """Return the lives in which the caller may see a version, in order of profile."""
        found = (self.get(profile, by) for profile in self._lives.names())
        return [life for life in found if life.versions]

    def version(self, profile: str, number: int, by: Principal) -> ProfileVersion:
        """Return one version. Raises `NotFound` where there is none that the caller may see."""
        found = self.get(profile, by).find(number)
        if found is None or not may(by, Action.READ_REGISTRY):
            raise NotFound(f"no version {number} of {profile} in your scope; see `sensegate profile list {profile}`")
        return found

    async def content(self, profile: str, number: int, by: Principal) -> Content:
        """Return what a version consists of. Raises `NotFound`, `Lost`."""
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
        """Return the names of all profiles about which something was decided."""
        return self._lives.names()

    # ── the steps of a county ───────────────────────────────────────────────────────────────────────

    async def draft(
        self, content: Content, *, by: Principal, note: str = "", profile: str = ""
    ) -> tuple[ProfileVersion, Examined]:
        """Keep a content as the draft of the version that it says it is; return it and what is wrong with it still.

        The same content again changes nothing. `profile`: what it is taken for.

        Raises:
            ConfigError: it is no profile, or another one.
            Refused: `by` may not propose.
            Conflict: that version has another content and is more than a draft of the caller's.
        """
        origin = self._own(by)
        demand(by, Action.PROPOSE_PROFILES, origin.division, origin.department)
        _demand_note(note)
        examined = await self.examine(content)
        if profile and profile != examined.profile:
            raise ConfigError(f"is '{examined.profile}'", key="profile", remedy=f"write `profile: {profile}`")
        life = self.life(examined.profile)
        digest = digest_of(content)
        old = life.find(examined.number)
        self._demand_free(life, old, digest, examined, by)
        if old and old.digest == digest and old.state is not VersionState.WITHDRAWN:
            return old, examined
        await self.contents.keep(content)
        now = self._clock.now()
        fresh = ProfileVersion(examined.number, digest, VersionState.DRAFT, origin, now, by.id, now, note)
        if old is None and len(life.versions) >= VERSIONS_MAX:
            raise Conflict(f"{life.profile} has {VERSIONS_MAX} versions; no more are kept")
        await self._put(fresh, old, by, Told("profile.draft", life.profile, examined.number, note))
        return fresh, examined

    def _demand_free(
        self, life: ReleaseHistory, old: ProfileVersion | None, digest: str, examined: Examined, by: Principal
    ) -> None:
        shelved = self.shelved(life.profile)
        highest = max([one.number for one in life.versions] + ([shelved[0]] if shelved else []), default=0)
        remedy = f"versions never change: write `version: {highest + 1}`"
        if shelved and shelved[0] == examined.number and digest_of(shelved[1]) != digest:
            raise Conflict(f"{life.profile}@{examined.number} is the folder's, with another content; {remedy}")
        if old is None or old.digest == digest:
            return
        if old.used or old.state not in (VersionState.DRAFT, VersionState.WITHDRAWN):
            raise Conflict(f"{life.profile}@{old.number} is {old.state} with another content; {remedy}")
        demand(by, Action.PROPOSE_PROFILES, old.origin.division, old.origin.department)

    async def propose(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Ask for the release of a draft, whose examples must all come out.

        Raises:
            NotFound, Refused: none in the caller's scope; it may not.
            ConfigError: examples fail, or lints find something.
            Conflict: it is no draft.
        """
        version = self.version(profile, number, by)
        demand(by, Action.PROPOSE_PROFILES, version.origin.division, version.origin.department)
        _demand_note(note)
        if version.state is VersionState.PROPOSED:
            return version
        if version.state is not VersionState.DRAFT:
            raise Conflict(f"{profile}@{number} is {version.state}, not a draft")
        await self._demand_sound(version)
        return await self._set(version, VersionState.PROPOSED, by, Told("profile.propose", profile, number, note))

    async def withdraw(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Take back a draft or a proposal. Raises as `propose`."""
        version = self.version(profile, number, by)
        demand(by, Action.PROPOSE_PROFILES, version.origin.division, version.origin.department)
        if version.state not in (VersionState.DRAFT, VersionState.PROPOSED):
            raise Conflict(f"{profile}@{number} is {version.state}; only drafts and proposals are withdrawn")
        self._demand_no_trial(self.life(profile), number)
        return await self._set(version, VersionState.WITHDRAWN, by, Told("profile.withdraw", profile, number, note))

    async def send_back(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Make a proposal a draft again, saying why. Raises as `propose`; who may release may do this."""
        version = self.version(profile, number, by)
        self._demand_release(self.life(profile), by, version.origin)
        if version.state is not VersionState.PROPOSED:
            raise Conflict(f"{profile}@{number} is {version.state}, not proposed")
        self._demand_no_trial(self.life(profile), number)
        return await self._set(version, VersionState.DRAFT, by, Told("profile.return", profile, number, note))

    # ── the steps of a city ─────────────────────────────────────────────────────────────────────────

    async def release(
        self,
        profile: str,
        number: int,
        *,
        by: Principal,
        target: Scope | None = None,
        note: str = "",
        standard: bool = False,
    ) -> ReleaseHistory:
        """Put a version in force for the devices of `target` (None: the caller's scope), in place of any other there.

        `standard`: from now on the profile is the province's.

        Raises:
            NotFound, Refused, ConfigError: as `propose`; also outside the caller's scope, or the province's.
            Conflict: it was never proposed, or another canary is under way.
        """
        version, life, where = self._for_release(profile, number, by, target, standard=standard)
        _demand_note(note)
        if life.canary and life.canary.number != number:
            raise Conflict(f"{profile}@{life.canary.number} is tried as a canary; end that first")
        present = life.in_force_for(where)
        if present and present.number == number and life.canary is None:
            return life
        await self._demand_sound(version)
        now = self._clock.now()
        after = put_in_force(self._with_library(life), VersionInForce(where, number, now, by.id))
        shadow = None if after.shadow and after.shadow.number == number else after.shadow
        after = msgspec.structs.replace(after, canary=None, shadow=shadow, standard=life.standard or standard)
        after = settled(after, now, number, note)
        told: Facts = {"target": written(where), "digest": version.digest, "in_force": describe_in_force(after)}
        return await self._write(life, after, by, Told("profile.release", profile, number, note, told))

    async def rollback(
        self, profile: str, *, by: Principal, target: Scope | None = None, to: int = 0, note: str = ""
    ) -> ReleaseHistory:
        """End a canary, or else put back in force what was before (or version `to`); return the life then.

        Raises:
            Refused: as `release`.
            Conflict: there is nothing before it.
            NotFound: no such version.
        """
        life, where = self.life(profile), self.target(by, target)
        self._demand_release(life, by, where)
        _demand_note(note)
        if life.canary and not to:
            return await self.end_canary(profile, by=by, note=note)
        if to:
            version = self.version(profile, to, by)
            if version.state not in (VersionState.RELEASED, VersionState.SUPERSEDED):
                raise Conflict(f"{profile}@{to} is {version.state}: it was never in force; release it")
            after = put_in_force(life, VersionInForce(where, to, self._clock.now(), by.id))
        else:
            back = taken_back(life, where, self._clock.now(), by.id)
            if back is None:
                raise Conflict(
                    f"nothing of {profile} was in force in {written(where)} before; "
                    "give the version, or release a repaired one"
                )
            after = back
        after = settled(msgspec.structs.replace(after, canary=None), self._clock.now())
        told: Facts = {"target": written(where), "from": describe_in_force(life), "in_force": describe_in_force(after)}
        number = next((one.number for one in after.force if one.target == where), 0)
        return await self._write(life, after, by, Told("profile.rollback", profile, number, note, told))

    async def canary(
        self,
        profile: str,
        number: int,
        *,
        by: Principal,
        target: Scope | None = None,
        share: float = 0.0,
        devices: tuple[str, ...] = (),
        limits: CanaryLimits | None = None,
        note: str = "",
    ) -> ReleaseHistory:
        """Put a version in force for some devices only: these, or a share (0 to 1) of those in `target`.

        Raises:
            NotFound, Refused, Conflict: as `release`.
            ConfigError: share and devices are not one of the two, or there are no such devices.
        """
        version, life, where = self._for_release(profile, number, by, target)
        _demand_note(note)
        limits = limits or CanaryLimits()
        _demand_limits(limits)
        if life.canary:
            raise Conflict(f"{profile}@{life.canary.number} is tried as a canary already; end that first")
        if (present := life.in_force_for(where)) and present.number == number:
            raise Conflict(f"{profile}@{number} is in force in {written(where)}")
        if bool(devices) == bool(share) or not 0 <= share <= 1:
            raise ConfigError("give one of them", key="share, devices", remedy="a share of 0.1, or a list of devices")
        there = sorted(self._devices_of(profile, where))
        if missing := sorted({*devices} - {*there}):
            raise ConfigError(
                f"no device {missing[0][:64]} of {profile} in {written(where)}",
                key="devices",
                remedy="see the registry",
            )
        if not there or len(devices) > DEVICES_MAX:
            raise ConfigError(f"{len(devices) or 'no'} devices", key="devices", remedy=f"1 to {DEVICES_MAX}")
        await self._demand_sound(version)
        lots = sorted(draw(f"{profile}@{number}", one) for one in there)
        count = len(devices) or max(1, round(share * len(there)))
        tried = Canary(
            number,
            where,
            self._clock.now(),
            by.id,
            devices,
            share,
            0 if devices else lots[count - 1],
            count,
            limits,
        )
        after = msgspec.structs.replace(self._with_library(life), canary=tried)
        after = settled(after, self._clock.now(), number, note)
        told: Facts = {
            "target": written(where),
            "devices": list(devices) or count,
            "share": share,
            "limits": msgspec.to_builtins(limits),
        }
        return await self._write(life, after, by, Told("profile.canary", profile, number, note, told))

    async def end_canary(
        self, profile: str, *, by: Principal, note: str = "", measured: Facts | None = None, since: int = 0
    ) -> ReleaseHistory:
        """Give the canary's devices back the version of the others; return the life then.

        `measured`: why it ended by itself. `since`: only that canary is meant, none that began later.

        Raises:
            Refused: as `release`.
            Conflict: there is none.
        """
        life = self.life(profile)
        tried = life.canary
        if tried is None or (since and tried.since != since):
            raise Conflict(f"no canary of {profile} is under way")
        self._demand_release(life, by, tried.target)
        after = settled(msgspec.structs.replace(life, canary=None), self._clock.now())
        told: Facts = {"target": written(tried.target), "in_force": describe_in_force(after)}
        if measured is not None:
            told["measured"] = measured
        action = "profile.rollback" if measured is not None else "profile.canary.end"
        return await self._write(life, after, by, Told(action, profile, tried.number, note, told))

    # ── a shadow: whoever may propose ───────────────────────────────────────────────────────────────

    async def shadow(
        self,
        profile: str,
        number: int,
        *,
        by: Principal,
        target: Scope | None = None,
        devices: tuple[str, ...] = (),
        note: str = "",
    ) -> ReleaseHistory:
        """Let a version decode beside the one in force: a report, no reading. Raises as `propose`."""
        version = self.version(profile, number, by)
        where, life = self.target(by, target), self.life(profile)
        demand(by, Action.PROPOSE_PROFILES, where.division, where.department)
        _demand_note(note)
        if version.state is VersionState.WITHDRAWN:
            raise Conflict(f"{profile}@{number} was withdrawn")
        if life.shadow:
            raise Conflict(f"{profile}@{life.shadow.number} is shadowed already; end that first")
        if len(devices) > DEVICES_MAX:
            raise ConfigError(f"{len(devices)} devices", key="devices", remedy=f"at most {DEVICES_MAX}")
        beside = Shadow(number, where, self._clock.now(), by.id, devices)
        told: Facts = {"target": written(where), "devices": list(devices)}
        after = msgspec.structs.replace(life, shadow=beside)
        return await self._write(life, after, by, Told("profile.shadow", profile, number, note, told))

    async def end_shadow(
        self, profile: str, *, by: Principal, report: Facts | None = None, note: str = ""
    ) -> ReleaseHistory:
        """End it; `report` goes to the audit trail. Raises `Refused`, `Conflict` (there is none)."""
        life = self.life(profile)
        if life.shadow is None:
            raise Conflict(f"no version of {profile} is shadowed")
        target = life.shadow.target
        demand(by, Action.PROPOSE_PROFILES, target.division, target.department)
        after = msgspec.structs.replace(life, shadow=None)
        told: Facts = {"target": written(target), "report": report or {}}
        return await self._write(life, after, by, Told("profile.shadow.end", profile, life.shadow.number, note, told))

    # ── from above ──────────────────────────────────────────────────────────────────────────────────

    async def take_over(
        self,
        profile: str,
        force: tuple[VersionInForce, ...],
        contents: Mapping[ProfileVersion, Content],
        *,
        by: Principal,
        standard: bool = False,
    ) -> ReleaseHistory:
        """Put in force what the centre decided, as if the province had decided it here; what was taken before stays.

        Args:
            profile: ``vendor/model``.
            force: all that the centre has in force for parts of this gateway.
            contents: the versions of `force` with their contents.
            by: the centre.
            standard: the profile is the province's.

        Raises:
            ConfigError: a version is not sound here.
            Conflict: its number has another content here.
        """
        life = self.life(profile)
        if life.from_centre == force:
            return life
        versions = {one.number: one for one in life.versions}
        for version, content in contents.items():
            await self._demand_takeable(life, version, content)
            old = versions.get(version.number)
            versions[version.number] = old if old and old.digest == version.digest and old.used else version
        for content in contents.values():
            await self.contents.keep(content)
        now = self._clock.now()
        after = self._with_library(life)
        mine = {one.number: one for one in after.versions}
        every = tuple(sorted({**mine, **versions}.values(), key=lambda one: one.number))
        kept = tuple(one for one in after.force if one not in life.from_centre or one in force)
        after = msgspec.structs.replace(after, versions=every, force=kept)
        for one in force:
            if one not in life.from_centre:
                after = put_in_force(after, one)
        over = life.canary and any(
            one.target.covers(life.canary.target.division, life.canary.target.department) for one in force
        )
        after = msgspec.structs.replace(
            after, canary=None if over else after.canary, standard=life.standard or standard, above=force
        )
        for one in force:
            after = settled(after, now, one.number)
        told: Facts = {"in_force": describe_in_force(after), "digests": [one.digest for one in contents]}
        number = force[0].number if force else 0
        return await self._write(life, after, by, Told("profile.handed_down", profile, number, "", told))

    async def _demand_takeable(self, life: ReleaseHistory, version: ProfileVersion, content: Content) -> None:
        name = f"{life.profile}@{version.number}"
        old, shelved = life.find(version.number), self.shelved(life.profile)
        here = old.digest if old and old.used else digest_of(shelved[1]) if shelved else ""
        number = version.number if old and old.used else shelved[0] if shelved else 0
        if number == version.number and here != version.digest:
            raise Conflict(f"{name} is here with another content; the centre must release it under another number")
        examined = await self.examine(content)
        if (examined.profile, examined.number) != (life.profile, version.number):
            raise ConfigError(f"{name} says that it is {examined.profile}@{examined.number}", key="profile")
        if examined.problems:
            raise ConfigError(f"{name}: {examined.problems[0]}", key="examples", remedy="the centre must mend it")

    # ── keeping up ──────────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Read the whole bucket; then `watch` keeps up with it."""
        await self._shelf.open()

    async def watch(self) -> None:
        """Apply the steps of every process until cancelled; through losses of the engine."""
        await self._shelf.run()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on the lives holds; looked at after every step."""
        await self._lives.until(condition)

    def _changed(self, before: ReleaseHistory | None, after: ReleaseHistory | None) -> None:
        if (life := after or before) is not None:
            for listener in self.on_change:
                listener(life.profile)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────

    def _own(self, by: Principal) -> Scope:
        """Return the part of this gateway that lies in the caller's scope."""
        if by.scope.division.startswith(self._home):
            return by.scope
        if self._home.startswith(by.scope.division):
            return Scope(self._home, by.scope.department)
        raise Refused(f"this gateway serves {self._home}; outside the scope of {by.id} ({written(by.scope)})")

    def target(self, by: Principal, target: Scope | None) -> Scope:
        """Return the part of this gateway that is meant; None: all of the caller's. It may lie outside his scope.

        Raises:
            ConfigError: it is not served here. Refused: nothing of the caller's is.
        """
        wanted = target or self._own(by)
        if not wanted.division.startswith(self._home):
            if not self._home.startswith(wanted.division):
                raise ConfigError(
                    f"{written(wanted)} is not served here", key="target", remedy=f"a part of {self._home}"
                )
            wanted = Scope(self._home, wanted.department)
        return wanted

    def _demand_release(self, life: ReleaseHistory, by: Principal, where: Scope) -> None:
        demand(by, Action.RELEASE_PROFILES, where.division, where.department)
        if self.life(life.profile).standard or life.profile.partition("/")[0] in self._standard:
            province = where.division[:2]
            if not allows(by, Action.RELEASE_PROFILES, province):
                raise Refused(f"{life.profile} is a standard profile: only the province ({province}) releases it")

    def _for_release(
        self, profile: str, number: int, by: Principal, target: Scope | None, *, standard: bool = False
    ) -> tuple[ProfileVersion, ReleaseHistory, Scope]:
        if not may(by, Action.RELEASE_PROFILES):
            raise Refused(f"role {by.role} may not release profiles; propose it: the city releases")
        version = self.version(profile, number, by)
        life, where = self.life(profile), self.target(by, target)
        self._demand_release(life, by, where)
        if standard:
            demand(by, Action.RELEASE_PROFILES, where.division[:2])
        if version.state in (VersionState.DRAFT, VersionState.WITHDRAWN):
            raise Conflict(f"{profile}@{number} is {version.state}; it must be proposed first")
        return version, life, where

    @staticmethod
    def _demand_no_trial(life: ReleaseHistory, number: int) -> None:
        for trial, word in ((life.canary, "canary"), (life.shadow, "shadow")):
            if trial and trial.number == number:
                raise Conflict(f"{life.profile}@{number} is tried as {word}; end that first")

    async def _demand_sound(self, version: ProfileVersion) -> None:
        examined = await self.examine(await self.contents.read(version.digest))
        if examined.problems:
            more = f" (and {len(examined.problems) - 1} more)" if len(examined.problems) > 1 else ""
            raise ConfigError(f"{examined.problems[0]}{more}", key="examples", remedy="mend it, then propose it again")

    async def _set(self, version: ProfileVersion, state: VersionState, by: Principal, told: Told) -> ProfileVersion:
        """Change a version's state."""
        after = msgspec.structs.replace(version, state=state, changed=self._clock.now(), note=told.note or version.note)
        await self._put(after, version, by, told)
        return after

    async def _put(self, after: ProfileVersion, before: ProfileVersion | None, by: Principal, told: Told) -> None:
        """Put a version in its place in the life."""
        life = self.life(told.profile)
        others = [one for one in life.versions if one.number != after.number]
        versions = tuple(sorted([*others, after], key=lambda one: one.number))
        facts: Facts = {"state": after.state.value, "digest": after.digest, **told.facts}
        if before:
            facts["was"] = before.state.value
        told = msgspec.structs.replace(told, facts=facts)
        await self._write(life, msgspec.structs.replace(life, versions=versions), by, told)

    async def _write(self, before: ReleaseHistory, after: ReleaseHistory, by: Principal, told: Told) -> ReleaseHistory:
        facts = {**told.facts, "note": told.note} if told.note else told.facts
        await self._keep_library(before, after)
        target = f"{told.profile}@{told.number}"
        await self._trail.record(by, told.action, target, before={"in_force": describe_in_force(before)}, after=facts)
        return await self._lives.put(told.profile, after, expected=before.revision)

    def _with_library(self, life: ReleaseHistory) -> ReleaseHistory:
        """Return the life with the folder's version in it and in force, where the next step replaces that."""
        shelved = self.shelved(life.profile)
        if shelved is None or shelved[0] <= highest_used(life):
            return life
        return with_library(life, shelved[0], digest_of(shelved[1]), Scope(self._home), self._clock.now())

    async def _keep_library(self, before: ReleaseHistory, after: ReleaseHistory) -> None:
        """Keep the folder's content where the life takes it over."""
        for one in after.versions:
            if one.library and one not in before.versions and (shelved := self.shelved(after.profile)):
                await self.contents.keep(shelved[1])


def _demand_note(note: str) -> None:
    if fault := text_fault(note, size_max=NOTE_BYTES_MAX):
        raise ConfigError(f"note {fault}", key="note", remedy="one line of plain text")


def _demand_limits(limits: CanaryLimits) -> None:
    if not (0 <= limits.rejected <= 1 and 0 <= limits.faults <= 1 and 1 <= limits.least <= 1_000_000):
        raise ConfigError("out of bounds", key="limits", remedy="shares from 0 to 1; `least` from 1")


def watchman(home: str) -> Principal:
    """Return whom the trail names for what the gateway does by itself."""
    return Principal("canary-watch", Role.ADMIN, Scope(home[:2]), name="the gateway itself")
