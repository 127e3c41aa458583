"""Releases of profiles: who may put which version in force where; kept in the registry, seen by every process.

    county: draft, propose, shadow      city: canary, release, rollback, redecode (within its scope)
    province: the same for the standard profiles

Every step asks `scope.allows`, and is written by the `ReleaseRegistry`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sensegate.authority.device_rules import text_fault
from sensegate.authority.scope import Action, Principal, Role, Scope, demand, scope_text
from sensegate.authority.trail import Facts
from sensegate.decode.choice import draw
from sensegate.errors import ConfigError, Conflict
from sensegate.lifecycle.contents import Content, digest_of
from sensegate.lifecycle.history import (
    Canary,
    CanaryLimits,
    ProfileVersion,
    ReleaseHistory,
    Shadow,
    VersionInForce,
    VersionState,
    describe_in_force,
)
from sensegate.lifecycle.release_registry import Examination, ReleaseRegistry, StepRecord, concerns
from sensegate.lifecycle.transitions import put_in_force, rolled_back, with_states

NOTE_BYTES_MAX = 500
VERSIONS_MAX = 500
DEVICES_MAX = 2_000


class CanaryPlan(msgspec.Struct, frozen=True):
    """Devices of a canary, and what ends it: these devices, or a share (0 to 1) of those in its target."""

    share: float = 0.0
    devices: tuple[str, ...] = ()
    limits: CanaryLimits = CanaryLimits()


class Releases(ReleaseRegistry):
    """The steps of a version, from a draft to a release and back."""

    # ── steps of a county ───────────────────────────────────────────────────────────────────────

    async def draft(
        self, content: Content, *, by: Principal, note: str = "", profile: str = ""
    ) -> tuple[ProfileVersion, Examination]:
        """Store a content as a draft of the version that it names; return the version and its examination.

        Storing the same content again changes nothing. `profile`: the profile that the content must be of.

        Raises:
            ConfigError: the content is no profile, or one of another name.
            PermissionDenied: `by` may not propose.
            Conflict: the version exists with another content and is no draft of the caller's.
        """
        origin = self._own_scope(by)
        demand(by, Action.PROPOSE_PROFILES, origin.division, origin.department)
        _require_valid_note(note)
        examined = await self.examine(content)
        if profile and profile != examined.profile:
            raise ConfigError(f"is '{examined.profile}'", key="profile", remedy=f"write `profile: {profile}`")
        history = self.history(examined.profile)
        digest = digest_of(content)
        old = history.find(examined.number)
        self._require_free_number(history, old, digest, examined, by)
        if old and old.digest == digest and old.state is not VersionState.WITHDRAWN:
            return old, examined
        await self.contents.store(content)
        now = self._clock.now()
        fresh = ProfileVersion(examined.number, digest, VersionState.DRAFT, origin, now, by.id, now, note)
        if old is None and len(history.versions) >= VERSIONS_MAX:
            raise Conflict(f"{history.profile} has {VERSIONS_MAX} versions; no more are kept")
        await self._put(fresh, old, by, StepRecord("profile.draft", history.profile, examined.number, note))
        return fresh, examined

    def _require_free_number(
        self, history: ReleaseHistory, old: ProfileVersion | None, digest: str, examined: Examination, by: Principal
    ) -> None:
        shelved = self.folder_version(history.profile)
        highest = max([version.number for version in history.versions] + ([shelved[0]] if shelved else []), default=0)
        remedy = f"versions never change: write `version: {highest + 1}`"
        if shelved and shelved[0] == examined.number and digest_of(shelved[1]) != digest:
            raise Conflict(f"{history.profile}@{examined.number} is the folder's, with another content; {remedy}")
        if old is None or old.digest == digest:
            return
        if old.used or old.state not in (VersionState.DRAFT, VersionState.WITHDRAWN):
            raise Conflict(f"{history.profile}@{old.number} is {old.state} with another content; {remedy}")
        demand(by, Action.PROPOSE_PROFILES, old.origin.division, old.origin.department)

    async def propose(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Propose the release of a draft; all its examples must pass.

        Raises:
            NotFound, PermissionDenied: there is no such version in the caller's scope; the caller may not propose.
            ConfigError: an example or a lint check fails.
            Conflict: the version is no draft.
        """
        version = self.version(profile, number, by)
        demand(by, Action.PROPOSE_PROFILES, version.origin.division, version.origin.department)
        _require_valid_note(note)
        if version.state is VersionState.PROPOSED:
            return version
        if version.state is not VersionState.DRAFT:
            raise Conflict(f"{profile}@{number} is {version.state}, not a draft")
        await self._require_passing(version)
        return await self._set(version, VersionState.PROPOSED, by, StepRecord("profile.propose", profile, number, note))

    async def withdraw(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Withdraw a draft or a proposal. Raises as `propose`."""
        version = self.version(profile, number, by)
        demand(by, Action.PROPOSE_PROFILES, version.origin.division, version.origin.department)
        if version.state not in (VersionState.DRAFT, VersionState.PROPOSED):
            raise Conflict(f"{profile}@{number} is {version.state}; only drafts and proposals are withdrawn")
        self._require_no_trial(self.history(profile), number)
        return await self._set(
            version, VersionState.WITHDRAWN, by, StepRecord("profile.withdraw", profile, number, note)
        )

    async def request_changes(self, profile: str, number: int, *, by: Principal, note: str = "") -> ProfileVersion:
        """Return a proposal to its author as a draft, with a note; needs the right to release. Raises as `propose`."""
        version = self.version(profile, number, by)
        self._require_release_right(self.history(profile), by, version.origin)
        if version.state is not VersionState.PROPOSED:
            raise Conflict(f"{profile}@{number} is {version.state}, not proposed")
        self._require_no_trial(self.history(profile), number)
        return await self._set(
            version, VersionState.DRAFT, by, StepRecord("profile.request_changes", profile, number, note)
        )

    # ── steps of a city ─────────────────────────────────────────────────────────────────────────

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
        """Put a version in force for the devices of `target` (None: the scope of the caller), replacing the old one.

        `standard`: make it a standard profile, which only the province releases.

        Raises:
            NotFound, PermissionDenied, ConfigError: as `propose`; also outside the caller's scope, or the province's.
            Conflict: the version was never proposed, or another canary is in progress.
        """
        version, history, where = self._for_release(profile, number, by, target, standard=standard)
        _require_valid_note(note)
        canary, shadow = history.canary, history.shadow
        # A canary or shadow of another area stays what it is.
        is_tried_here = canary is not None and _overlap(canary.target, where)
        if canary and is_tried_here and canary.number != number:
            raise Conflict(f"{profile}@{canary.number} is a canary; end it first")
        present = history.in_force_for(where)
        if present and present.number == number and not is_tried_here:
            return history
        await self._require_passing(version)
        now = self._clock.now()
        after = put_in_force(self._with_library(history), VersionInForce(where, number, now, by.id))
        if shadow and shadow.number == number and _inside(shadow.target, where):
            shadow = None
        canary = _canary_after(history, where)
        after = msgspec.structs.replace(after, canary=canary, shadow=shadow, standard=history.standard or standard)
        after = with_states(after, now, number, note)
        facts: Facts = {"target": scope_text(where), "digest": version.digest, "in_force": describe_in_force(after)}
        return await self._write(history, after, by, StepRecord("profile.release", profile, number, note, facts))

    async def rollback(
        self, profile: str, *, by: Principal, target: Scope | None = None, to: int = 0, note: str = ""
    ) -> ReleaseHistory:
        """End a canary, or else restore the previous version (or version `to`); return the new history.

        Raises:
            PermissionDenied: as `release`.
            Conflict: there is no previous version.
            NotFound: no such version.
        """
        history, where = self.history(profile), self.target(by, target)
        self._require_release_right(history, by, where)
        _require_valid_note(note)
        if history.canary and not to and _inside(history.canary.target, where):
            return await self.end_canary(profile, by=by, note=note)
        if to:
            version = self.version(profile, to, by)
            if version.state not in (VersionState.RELEASED, VersionState.SUPERSEDED):
                raise Conflict(f"{profile}@{to} is {version.state}: it was never in force; release it")
            after = put_in_force(history, VersionInForce(where, to, self._clock.now(), by.id))
        else:
            back = rolled_back(history, where, self._clock.now(), by.id)
            if back is None:
                raise Conflict(
                    f"nothing of {profile} was in force in {scope_text(where)} before; "
                    "give the version, or release a corrected one"
                )
            after = back
        after = msgspec.structs.replace(after, canary=_canary_after(history, where))
        after = with_states(after, self._clock.now())
        facts: Facts = {
            "target": scope_text(where),
            "from": describe_in_force(history),
            "in_force": describe_in_force(after),
        }
        number = next((entry.number for entry in after.in_force if entry.target == where), 0)
        return await self._write(history, after, by, StepRecord("profile.rollback", profile, number, note, facts))

    async def canary(
        self,
        profile: str,
        number: int,
        *,
        by: Principal,
        plan: CanaryPlan,
        target: Scope | None = None,
        note: str = "",
    ) -> ReleaseHistory:
        """Put a version in force for some devices of `target` only.

        Raises:
            NotFound, PermissionDenied, Conflict: as `release`.
            ConfigError: share and devices are not one of the two, or there are no such devices.
        """
        version, history, where = self._for_release(profile, number, by, target)
        _require_valid_note(note)
        share, devices, limits = plan.share, plan.devices, plan.limits
        _require_valid_limits(limits)
        if history.canary:
            running = f"@{history.canary.number}" if concerns(history.canary.target, by) else " of another area"
            raise Conflict(f"{profile}{running} is a canary already; end that first")
        if (present := history.in_force_for(where)) and present.number == number:
            raise Conflict(f"{profile}@{number} is in force in {scope_text(where)}")
        if bool(devices) == bool(share) or not 0 <= share <= 1:
            raise ConfigError("give one of them", key="share, devices", remedy="a share of 0.1, or a list of devices")
        candidates = sorted(self._devices_of(profile, where))
        if missing := sorted({*devices} - {*candidates}):
            raise ConfigError(
                f"no device {missing[0][:64]} of {profile} in {scope_text(where)}",
                key="devices",
                remedy="see the registry",
            )
        if not candidates or len(devices) > DEVICES_MAX:
            raise ConfigError(f"{len(devices) or 'no'} devices", key="devices", remedy=f"1 to {DEVICES_MAX}")
        await self._require_passing(version)
        lots = sorted(draw(f"{profile}@{number}", device) for device in candidates)
        count = len(devices) or max(1, round(share * len(candidates)))
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
        after = msgspec.structs.replace(self._with_library(history), canary=tried)
        after = with_states(after, self._clock.now(), number, note)
        facts: Facts = {
            "target": scope_text(where),
            "devices": list(devices) or count,
            "share": share,
            "limits": msgspec.to_builtins(limits),
        }
        return await self._write(history, after, by, StepRecord("profile.canary", profile, number, note, facts))

    async def end_canary(
        self, profile: str, *, by: Principal, note: str = "", measured: Facts | None = None, since: int = 0
    ) -> ReleaseHistory:
        """End a canary: its devices return to the version of the others; return the history.

        `measured`: outcomes for which the gateway ends it. `since`: end only the canary that began then.

        Raises:
            PermissionDenied: as `release`.
            Conflict: there is none.
        """
        history = self.history(profile)
        tried = history.canary
        if tried is None or (since and tried.since != since) or not concerns(tried.target, by):
            raise Conflict(f"no canary of {profile} is in progress")
        self._require_release_right(history, by, tried.target)
        after = with_states(msgspec.structs.replace(history, canary=None), self._clock.now())
        facts: Facts = {"target": scope_text(tried.target), "in_force": describe_in_force(after)}
        if measured is not None:
            facts["measured"] = measured
        action = "profile.rollback" if measured is not None else "profile.canary.end"
        return await self._write(history, after, by, StepRecord(action, profile, tried.number, note, facts))

    # ── shadows ───────────────────────────────────────────────────────────────

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
        """Decode with a version in parallel to the one in force, for a report without readings. Raises as `propose`."""
        version = self.version(profile, number, by)
        where, history = self.target(by, target), self.history(profile)
        demand(by, Action.PROPOSE_PROFILES, where.division, where.department)
        _require_valid_note(note)
        if version.state is VersionState.WITHDRAWN:
            raise Conflict(f"{profile}@{number} was withdrawn")
        if history.shadow:
            shadowed = f"@{history.shadow.number}" if concerns(history.shadow.target, by) else " of another area"
            raise Conflict(f"{profile}{shadowed} is a shadow already; end it first")
        if len(devices) > DEVICES_MAX:
            raise ConfigError(f"{len(devices)} devices", key="devices", remedy=f"at most {DEVICES_MAX}")
        beside = Shadow(number, where, self._clock.now(), by.id, devices)
        facts: Facts = {"target": scope_text(where), "devices": list(devices)}
        after = msgspec.structs.replace(history, shadow=beside)
        return await self._write(history, after, by, StepRecord("profile.shadow", profile, number, note, facts))

    async def end_shadow(self, profile: str, *, by: Principal, report: Facts | None = None) -> ReleaseHistory:
        """End the shadow; `report` goes to the audit trail.

        Raises `PermissionDenied`, `Conflict` (there is no shadow).
        """
        history = self.history(profile)
        if history.shadow is None or not concerns(history.shadow.target, by):
            raise Conflict(f"no version of {profile} is shadowed")
        target = history.shadow.target
        demand(by, Action.PROPOSE_PROFILES, target.division, target.department)
        after = msgspec.structs.replace(history, shadow=None)
        facts: Facts = {"target": scope_text(target), "report": report or {}}
        return await self._write(
            history, after, by, StepRecord("profile.shadow.end", profile, history.shadow.number, "", facts)
        )

    # ── from the centre ──────────────────────────────────────────────────────────────────────────────────

    async def apply_from_centre(
        self,
        profile: str,
        force: tuple[VersionInForce, ...],
        contents: Mapping[ProfileVersion, Content],
        *,
        by: Principal,
        standard: bool = False,
    ) -> ReleaseHistory:
        """Apply the decisions of the centre, as if the province had decided here; earlier versions are kept.

        Args:
            profile: ``vendor/model``.
            force: all versions that the centre has in force for parts of this gateway.
            contents: the versions of `in_force` with their contents.
            by: the centre.
            standard: only the province releases this profile.

        Raises:
            ConfigError: a version fails its examination here.
            Conflict: a version number has another content here.
        """
        history = self.history(profile)
        if history.from_centre == force:
            return history
        versions = {version.number: version for version in history.versions}
        for version, content in contents.items():
            await self._require_acceptable(history, version, content)
            old = versions.get(version.number)
            versions[version.number] = old if old and old.digest == version.digest and old.used else version
        for content in contents.values():
            await self.contents.store(content)
        now = self._clock.now()
        after = self._with_library(history)
        known = {version.number: version for version in after.versions}
        every = tuple(sorted({**known, **versions}.values(), key=lambda version: version.number))
        retained = tuple(entry for entry in after.in_force if entry not in history.from_centre or entry in force)
        after = msgspec.structs.replace(after, versions=every, in_force=retained)
        for entry in force:
            if entry not in history.from_centre:
                after = put_in_force(after, entry)
        over = history.canary and any(
            entry.target.covers(history.canary.target.division, history.canary.target.department) for entry in force
        )
        after = msgspec.structs.replace(
            after, canary=None if over else after.canary, standard=history.standard or standard, from_centre=force
        )
        for entry in force:
            after = with_states(after, now, entry.number)
        facts: Facts = {"in_force": describe_in_force(after), "digests": [version.digest for version in contents]}
        number = force[0].number if force else 0
        return await self._write(
            history, after, by, StepRecord("profile.apply_from_centre", profile, number, "", facts)
        )

    async def _require_acceptable(self, history: ReleaseHistory, version: ProfileVersion, content: Content) -> None:
        name = f"{history.profile}@{version.number}"
        old, shelved = history.find(version.number), self.folder_version(history.profile)
        here = old.digest if old and old.used else digest_of(shelved[1]) if shelved else ""
        number = version.number if old and old.used else shelved[0] if shelved else 0
        if number == version.number and here != version.digest:
            raise Conflict(f"{name} exists here with another content; the centre must release it under another number")
        examined = await self.examine(content)
        if (examined.profile, examined.number) != (history.profile, version.number):
            raise ConfigError(f"{name} says that it is {examined.profile}@{examined.number}", key="profile")
        if examined.problems:
            raise ConfigError(f"{name}: {examined.problems[0]}", key="examples", remedy="the centre must correct it")


def _inside(part: Scope, whole: Scope) -> bool:
    return whole.covers(part.division, part.department)


def _overlap(first: Scope, second: Scope) -> bool:
    return _inside(first, second) or _inside(second, first)


def _canary_after(history: ReleaseHistory, where: Scope) -> Canary | None:
    """Return the canary that goes on after a decision for an area: one that is not in it."""
    return None if history.canary and _inside(history.canary.target, where) else history.canary


def _require_valid_note(note: str) -> None:
    if fault := text_fault(note, size_max=NOTE_BYTES_MAX):
        raise ConfigError(f"note {fault}", key="note", remedy="one line of plain text")


def _require_valid_limits(limits: CanaryLimits) -> None:
    if not (0 <= limits.rejected <= 1 and 0 <= limits.faults <= 1 and 1 <= limits.outcomes_min <= 1_000_000):
        raise ConfigError("out of bounds", key="limits", remedy="shares from 0 to 1; `outcomes_min` from 1")


def canary_watcher(home: str) -> Principal:
    """Return the principal in whose name the gateway ends canaries by itself."""
    return Principal("canary-watch", Role.ADMIN, Scope(home[:2]), name="the gateway itself")
