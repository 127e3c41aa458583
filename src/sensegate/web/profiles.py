"""REST: the life of profiles: versions, proposals, releases, trials, going back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sensegate.authority.scope import Action, Scope, scope, written
from sensegate.authority.trail import Facts
from sensegate.errors import ConfigError, NotFound
from sensegate.lifecycle.comparisons import VersionComparisons
from sensegate.lifecycle.contents import Content
from sensegate.lifecycle.history import CanaryLimits, ProfileVersion, ReleaseHistory
from sensegate.lifecycle.outcomes import Outcomes
from sensegate.lifecycle.releases import Releases
from sensegate.web import listing
from sensegate.web.deps import Part
from sensegate.web.problems import BadRequest
from sensegate.web.profile_bodies import (
    CanaryRow,
    ForceRow,
    LifeRow,
    NewCanary,
    NewRelease,
    NewRollback,
    NewShadow,
    NewVersion,
    Said,
    ShadowRow,
    VersionRow,
    VersionText,
)
from sensegate.web.routing import API, Call, Route, iso

NUMBER_MAX = 9_999
_TOLD = 50
"""Differences of a shadow that the audit trail is told, the most frequent first."""


RELEASES = Part[Releases]("releases", absent="this gateway keeps no versions of profiles")
STUDIES = Part[VersionComparisons]("studies", absent="this gateway compares no versions")
IN_FORCE = Part[Callable[[], Awaitable[bool]]]("in force", absent="this gateway keeps no versions of profiles")
"""Returns True once all that was decided about profiles is in force in this process, False if that takes long."""
OUTCOMES = Part[Callable[[str], tuple[Outcomes, Outcomes]]]("outcomes", absent="this gateway runs no canaries")
"""Profile -> outcomes of the canary's devices, and of the other devices of the profile."""


def releases_of(call: Call) -> Releases:
    """Return the lives. Raises `NotFound` at a gateway without a store of versions."""
    return call.part(RELEASES)


def name_of(call: Call) -> str:
    """Return ``vendor/model`` of the path."""
    return f"{call.path('vendor')}/{call.path('model')}"


def number_of(call: Call) -> int:
    """Return the version of the path."""
    text = call.path("version")
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= NUMBER_MAX):
        raise BadRequest(f"path: version: '{text[:20]}' is not a number from 1 to {NUMBER_MAX}")
    return int(text[:6])


def target_of(text: str) -> Scope | None:
    """Return the part of the divisions that is meant; None: the caller's."""
    return scope(text) if text else None


def row_of(life: ReleaseHistory, version: ProfileVersion) -> VersionRow:
    """Return the row of a version."""
    trials = (("canary", life.canary), ("shadow", life.shadow))
    return VersionRow(
        version=version.number,
        state=version.state,
        in_force=[written(entry.target) for entry in life.in_force if entry.number == version.number],
        trial=next((word for word, one in trials if one and one.number == version.number), ""),
        origin=written(version.origin),
        made=iso(version.created),
        made_by=version.created_by,
        changed=iso(version.changed),
        note=version.note,
        library=version.library,
        digest=version.digest,
    )


def life_row(call: Call, life: ReleaseHistory, *, applied: bool = True) -> LifeRow:
    """Return the row of a life."""
    shelved = next((row.folder for row in call.deps.profiles() if row.id == life.profile), 0)
    return LifeRow(
        profile=life.profile,
        folder=shelved,
        force=[ForceRow(written(entry.target), entry.number, iso(entry.since), entry.by) for entry in life.in_force],
        canary=_canary_row(call, life),
        shadow=_shadow_row(life),
        standard=life.standard,
        applied=applied,
    )


def _shadow_row(life: ReleaseHistory) -> ShadowRow | None:
    one = life.shadow
    if one is None:
        return None
    return ShadowRow(one.number, written(one.target), iso(one.since), one.by, list(one.devices))


def _canary_row(call: Call, life: ReleaseHistory) -> CanaryRow | None:
    tried = life.canary
    if tried is None:
        return None
    mine, others = call.part(OUTCOMES)(life.profile)
    return CanaryRow(
        version=tried.number,
        target=written(tried.target),
        since=iso(tried.since),
        by=tried.by,
        share=tried.share,
        devices=list(tried.devices),
        count=tried.device_count,
        rejected_max=tried.limits.rejected,
        faults_max=tried.limits.faults,
        least=tried.limits.outcomes_min,
        outcomes=mine.total,
        rejected=mine.rejected_share,
        faults=mine.faults_share,
        others_outcomes=others.total,
        others_rejected=others.rejected_share,
        others_faults=others.faults_share,
    )


async def _done(call: Call, life: ReleaseHistory) -> LifeRow:
    """Return the life once it is in force here."""
    applied = await call.part(IN_FORCE)()
    return life_row(call, releases_of(call).get(life.profile, call.principal), applied=applied)


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────


async def _life(call: Call) -> Any:
    return life_row(call, releases_of(call).get(name_of(call), call.principal))


async def _versions(call: Call) -> Any:
    life = releases_of(call).get(name_of(call), call.principal)
    return listing.answer(call, [row_of(life, version) for version in life.versions], VersionRow, "version")


async def _version(call: Call) -> Any:
    return await _whole(call, number_of(call))


async def _whole(call: Call, number: int, problems: tuple[str, ...] = ()) -> VersionText:
    releases, name = releases_of(call), name_of(call)
    version = releases.version(name, number, call.principal)
    content = await releases.content(name, number, call.principal)
    row = row_of(releases.history(name), version)
    return VersionText(row, content.text, content.files, list(problems))


# ── steps of a county ─────────────────────────────────────────────────────────────────────────────────


async def _draft(call: Call) -> Any:
    releases, wanted = releases_of(call), await call.body(NewVersion)
    content = Content(wanted.text, wanted.files)
    version, examined = await releases.draft(content, by=call.principal, note=wanted.note, profile=name_of(call))
    return await _whole(call, version.number, examined.problems)


async def _propose(call: Call) -> Any:
    releases, name, said = releases_of(call), name_of(call), await call.body(Said)
    version = await releases.propose(name, number_of(call), by=call.principal, note=said.note)
    return row_of(releases.history(name), version)


async def _withdraw(call: Call) -> Any:
    releases, name = releases_of(call), name_of(call)
    return row_of(releases.history(name), await releases.withdraw(name, number_of(call), by=call.principal))


async def _shadow(call: Call) -> Any:
    releases, wanted = releases_of(call), await call.body(NewShadow)
    life = await releases.shadow(
        name_of(call),
        number_of(call),
        by=call.principal,
        target=target_of(wanted.target),
        devices=tuple(wanted.devices),
        note=wanted.note,
    )
    return await _done(call, life)


async def _end_shadow(call: Call) -> Any:
    releases, name = releases_of(call), name_of(call)
    facts: Facts = {}
    if (studies := call.find_part(STUDIES)) is not None:
        try:
            report, left_out = studies.shadow(name)
            facts = {**msgspec.to_builtins(report), "left_out": left_out}
            facts["differences"] = facts["differences"][:_TOLD]  # type: ignore[index]
        except NotFound:
            pass  # it had not begun yet
    return await _done(call, await releases.end_shadow(name, by=call.principal, report=facts))


# ── steps of a city ───────────────────────────────────────────────────────────────────────────────────


async def _return(call: Call) -> Any:
    releases, name, said = releases_of(call), name_of(call), await call.body(Said)
    version = await releases.request_changes(name, number_of(call), by=call.principal, note=said.note)
    return row_of(releases.history(name), version)


async def _release(call: Call) -> Any:
    releases, wanted = releases_of(call), await call.body(NewRelease)
    life = await releases.release(
        name_of(call),
        number_of(call),
        by=call.principal,
        target=target_of(wanted.target),
        note=wanted.note,
        standard=wanted.standard,
    )
    return await _done(call, life)


async def _canary(call: Call) -> Any:
    releases, wanted = releases_of(call), await call.body(NewCanary)
    if bool(wanted.devices) == bool(wanted.share):
        raise ConfigError("give one of them", key="share, devices", remedy="a share (0.1), or a list of devices")
    life = await releases.canary(
        name_of(call),
        number_of(call),
        by=call.principal,
        target=target_of(wanted.target),
        share=wanted.share,
        devices=tuple(wanted.devices),
        limits=CanaryLimits(wanted.rejected_max, wanted.faults_max, wanted.least),
        note=wanted.note,
    )
    return await _done(call, life)


async def _end_canary(call: Call) -> Any:
    releases = releases_of(call)
    return await _done(call, await releases.end_canary(name_of(call), by=call.principal))


async def _rollback(call: Call) -> Any:
    releases, wanted = releases_of(call), await call.body(NewRollback)
    life = await releases.rollback(
        name_of(call), by=call.principal, target=target_of(wanted.target), to=wanted.to, note=wanted.note
    )
    return await _done(call, life)


_READ, _PROPOSE, _RELEASE = Action.READ_REGISTRY, Action.PROPOSE_PROFILES, Action.RELEASE_PROFILES
_PROFILE = f"{API}/profiles/{{vendor}}/{{model}}"
_VERSION = f"{_PROFILE}/versions/{{version}}"
ROUTES = (
    Route(
        method="GET",
        path=f"{_PROFILE}/life",
        call=_life,
        what="What is decided about a profile here, and how its canary does.",
        tag="profiles",
        action=_READ,
        answer=LifeRow,
        errors=(404,),
    ),
    Route(
        method="GET",
        path=f"{_PROFILE}/versions",
        call=_versions,
        what="The versions of a profile that the caller may see.",
        tag="profiles",
        action=_READ,
        query=listing.params(VersionRow),
        answer=list[VersionRow],
        errors=(404,),
    ),
    Route(
        method="POST",
        path=f"{_PROFILE}/versions",
        call=_draft,
        what="Hand in a version as a draft; the same content again changes nothing.",
        tag="profiles",
        action=_PROPOSE,
        body=NewVersion,
        answer=VersionText,
        status=201,
        errors=(404, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=_VERSION,
        call=_version,
        what="One version with its content.",
        tag="profiles",
        action=_READ,
        answer=VersionText,
        errors=(404,),
    ),
    Route(
        method="DELETE",
        path=_VERSION,
        call=_withdraw,
        what="Take back a draft or a proposal.",
        tag="profiles",
        action=_PROPOSE,
        answer=VersionRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/propose",
        call=_propose,
        what="Ask for the release of a draft; all of its examples must come out.",
        tag="profiles",
        action=_PROPOSE,
        body=Said,
        answer=VersionRow,
        errors=(404, 409, 415),
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/return",
        call=_return,
        what="Make a proposal a draft again, with a word why.",
        tag="profiles",
        action=_RELEASE,
        body=Said,
        answer=VersionRow,
        errors=(404, 409, 415),
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/release",
        call=_release,
        what="Put a version in force without a restart, from the next commit on.",
        tag="profiles",
        action=_RELEASE,
        body=NewRelease,
        answer=LifeRow,
        errors=(404, 409, 415),
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/canary",
        call=_canary,
        what="Try a version on some devices; rolled back by itself when they do worse than the others.",
        tag="profiles",
        action=_RELEASE,
        body=NewCanary,
        answer=LifeRow,
        errors=(404, 409, 415),
    ),
    Route(
        method="DELETE",
        path=f"{_PROFILE}/canary",
        call=_end_canary,
        what="End a canary: its devices have the version of the others again.",
        tag="profiles",
        action=_RELEASE,
        answer=LifeRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/shadow",
        call=_shadow,
        what="Decode live traffic by a version too, for a report and no reading.",
        tag="profiles",
        action=_PROPOSE,
        body=NewShadow,
        answer=LifeRow,
        errors=(404, 409, 415),
    ),
    Route(
        method="DELETE",
        path=f"{_PROFILE}/shadow",
        call=_end_shadow,
        what="End a shadow; its report goes to the audit trail.",
        tag="profiles",
        action=_PROPOSE,
        answer=LifeRow,
        errors=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{_PROFILE}/rollback",
        call=_rollback,
        what="Put back in force what was before, or a version given; ends a canary.",
        tag="profiles",
        action=_RELEASE,
        body=NewRollback,
        answer=LifeRow,
        errors=(404, 409, 415),
    ),
)
