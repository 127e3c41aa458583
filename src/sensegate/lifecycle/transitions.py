"""Pure transitions of a profile's release history."""

from __future__ import annotations

import msgspec

from sensegate.authority.scope import Scope
from sensegate.lifecycle.history import PREVIOUS_MAX, ProfileVersion, ReleaseHistory, VersionInForce, VersionState


def highest_used(history: ReleaseHistory) -> int:
    """Return the greatest version number that readings may have; only newer files of the folder override decisions."""
    return max((version.number for version in history.versions if version.used), default=0)


def put_in_force(history: ReleaseHistory, fresh: VersionInForce) -> ReleaseHistory:
    """Return the history with a version in force for a target, replacing those in force within it."""
    replaced = tuple(
        entry for entry in history.in_force if fresh.target.covers(entry.target.division, entry.target.department)
    )
    remaining = tuple(entry for entry in history.in_force if entry not in replaced)
    return msgspec.structs.replace(
        history, in_force=(*remaining, fresh), previous=(*history.previous, *replaced)[-PREVIOUS_MAX:]
    )


def rolled_back(history: ReleaseHistory, target: Scope, now: int, by: str) -> ReleaseHistory | None:
    """Return the history with the previous version in force for a target; None where there was none."""
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
    """Return the history with the folder's version in force for the whole gateway, as a target of roll-back."""
    folder = ProfileVersion(number, digest, VersionState.RELEASED, home, now, "folder", now, used=True, library=True)
    others = [version for version in history.versions if version.number != number]
    versions = tuple(sorted([*others, folder], key=lambda version: version.number))
    return put_in_force(
        msgspec.structs.replace(history, versions=versions), VersionInForce(home, number, now, "folder")
    )


def with_states(history: ReleaseHistory, now: int, used: int = 0, note: str = "") -> ReleaseHistory:
    """Return the history with the states of versions updated to what is in force; version `used` becomes final."""
    forced = {entry.number for entry in history.in_force}

    def updated(version: ProfileVersion) -> ProfileVersion:
        state = version.state
        if version.number in forced:
            state = VersionState.RELEASED
        elif state is VersionState.RELEASED:
            state = VersionState.SUPERSEDED
        return msgspec.structs.replace(
            version,
            state=state,
            changed=version.changed if state is version.state else now,
            used=version.used or version.number == used or version.number in forced,
            note=note if version.number == used and note else version.note,
        )

    return msgspec.structs.replace(history, versions=tuple(updated(version) for version in history.versions))
