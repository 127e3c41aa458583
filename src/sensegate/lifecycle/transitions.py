"""What a decision makes of a profile's history: pure."""

from __future__ import annotations

import msgspec

from sensegate.authority.scope import Scope
from sensegate.lifecycle.history import PREVIOUS_MAX, ProfileVersion, ReleaseHistory, VersionInForce, VersionState


def highest_used(history: ReleaseHistory) -> int:
    """Return the greatest number that readings may bear; only a newer file of the folder goes before a decision."""
    return max((version.number for version in history.versions if version.used), default=0)


def put_in_force(history: ReleaseHistory, fresh: VersionInForce) -> ReleaseHistory:
    """Return the history with a version in force for a target; what was in force within it is in force no more."""
    out = tuple(
        entry for entry in history.in_force if fresh.target.covers(entry.target.division, entry.target.department)
    )
    kept = tuple(entry for entry in history.in_force if entry not in out)
    return msgspec.structs.replace(history, in_force=(*kept, fresh), previous=(*history.previous, *out)[-PREVIOUS_MAX:])


def rolled_back(history: ReleaseHistory, target: Scope, now: int, by: str) -> ReleaseHistory | None:
    """Return the history with what was in force for a target before; None where nothing was."""
    last = next((entry for entry in reversed(history.previous) if entry.target == target), None)
    present = history.in_force_for(target)
    if last is None or present is None:
        return None
    back = VersionInForce(target, last.number, now, by)
    return msgspec.structs.replace(
        history,
        in_force=tuple(back if entry is present else entry for entry in history.in_force),
        previous=tuple(entry for entry in history.previous if entry is not last),
    )


def with_library(history: ReleaseHistory, number: int, digest: str, home: Scope, now: int) -> ReleaseHistory:
    """Return the history with the folder's version, in force for the whole gateway, so that it can be gone back to."""
    kept = ProfileVersion(number, digest, VersionState.RELEASED, home, now, "folder", now, used=True, library=True)
    others = [version for version in history.versions if version.number != number]
    versions = tuple(sorted([*others, kept], key=lambda one: one.number))
    return put_in_force(
        msgspec.structs.replace(history, versions=versions), VersionInForce(home, number, now, "folder")
    )


def with_states(history: ReleaseHistory, now: int, used: int = 0, note: str = "") -> ReleaseHistory:
    """Return the history with each version's state as the decisions make it; version `used` is settled for good."""
    forced = {entry.number for entry in history.in_force}

    def one_settled(one: ProfileVersion) -> ProfileVersion:
        state = one.state
        if one.number in forced:
            state = VersionState.RELEASED
        elif state is VersionState.RELEASED:
            state = VersionState.SUPERSEDED
        return msgspec.structs.replace(
            one,
            state=state,
            changed=one.changed if state is one.state else now,
            used=one.used or one.number == used or one.number in forced,
            note=note if one.number == used and note else one.note,
        )

    return msgspec.structs.replace(history, versions=tuple(one_settled(version) for version in history.versions))
