"""What a decision makes of a profile's life: pure."""

from __future__ import annotations

import msgspec

from sensegate.authority.scope import Scope
from sensegate.lifecycle.history import BEFORE_MAX, ProfileVersion, ReleaseHistory, VersionInForce, VersionState


def highest_used(life: ReleaseHistory) -> int:
    """Return the greatest number that readings may bear; only a newer file of the folder goes before a decision."""
    return max((one.number for one in life.versions if one.used), default=0)


def put_in_force(life: ReleaseHistory, fresh: VersionInForce) -> ReleaseHistory:
    """Return the life with a version in force for a target; what was in force within it is in force no more."""
    out = tuple(one for one in life.force if fresh.target.covers(one.target.division, one.target.department))
    kept = tuple(one for one in life.force if one not in out)
    return msgspec.structs.replace(life, force=(*kept, fresh), before=(*life.before, *out)[-BEFORE_MAX:])


def taken_back(life: ReleaseHistory, target: Scope, now: int, by: str) -> ReleaseHistory | None:
    """Return the life with what was in force for a target before; None where nothing was."""
    last = next((one for one in reversed(life.before) if one.target == target), None)
    present = life.in_force_for(target)
    if last is None or present is None:
        return None
    back = VersionInForce(target, last.number, now, by)
    return msgspec.structs.replace(
        life,
        force=tuple(back if one is present else one for one in life.force),
        before=tuple(one for one in life.before if one is not last),
    )


def with_library(life: ReleaseHistory, number: int, digest: str, home: Scope, now: int) -> ReleaseHistory:
    """Return the life with the folder's version, in force for the whole gateway, so that it can be gone back to."""
    kept = ProfileVersion(number, digest, VersionState.RELEASED, home, now, "folder", now, used=True, library=True)
    others = [one for one in life.versions if one.number != number]
    versions = tuple(sorted([*others, kept], key=lambda one: one.number))
    return put_in_force(msgspec.structs.replace(life, versions=versions), VersionInForce(home, number, now, "folder"))


def settled(life: ReleaseHistory, now: int, used: int = 0, note: str = "") -> ReleaseHistory:
    """Return the life with each version's state as the decisions make it; version `used` is settled for good."""
    forced = {one.number for one in life.force}

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

    return msgspec.structs.replace(life, versions=tuple(one_settled(one) for one in life.versions))
