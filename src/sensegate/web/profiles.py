"""REST: lifecycle of profiles: versions, proposals, releases, canaries, shadows, rollbacks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from sensegate.authority.scope import Action, Scope, scope, scope_text
from sensegate.authority.trail import Facts
from sensegate.errors import ConfigError, NotFound
from sensegate.lifecycle.comparisons import VersionComparisons
from sensegate.lifecycle.contents import Content, digest_of
from sensegate.lifecycle.history import CanaryLimits, ProfileVersion, ReleaseHistory, VersionState
from sensegate.lifecycle.outcomes import Outcomes
from sensegate.lifecycle.releases import CanaryPlan, Releases
from sensegate.web import listing
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.profile_bodies import (
    CanaryRow,
    ForceRow,
    NewCanary,
    NewRelease,
    NewRollback,
    NewShadow,
    NewVersion,
    ReleaseHistoryRow,
    ShadowRow,
    StepNote,
    VersionRow,
    VersionText,
)
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, Route, iso

NUMBER_MAX = 9_999
_AUDITED_DIFFERENCES = 50
"""Most frequent differences of a shadow that are written to the audit trail."""


RELEASES = PartKey[Releases]("releases", absent="this gateway keeps no versions of profiles")
COMPARISONS = PartKey[VersionComparisons]("comparisons", absent="this gateway compares no versions")
IN_FORCE = PartKey[Callable[[], Awaitable[bool]]]("in force", absent="this gateway keeps no versions of profiles")
"""Returns True once all decisions on profiles are in force in this process, False after a timeout."""
OUTCOMES = PartKey[Callable[[str], tuple[Outcomes, Outcomes]]]("outcomes", absent="this gateway runs no canaries")
"""Profile -> outcomes of the canary's devices, and of the other devices of the profile."""


def releases_of(call: Call) -> Releases:
    """Return the releases. Raises `NotFound` at a gateway without stored versions."""
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
    """Return the scope of a text; None: that of the caller."""
    return scope(text) if text else None


def row_of(history: ReleaseHistory, version: ProfileVersion) -> VersionRow:
    """Return the row of a version."""
    trials = (("canary", history.canary), ("shadow", history.shadow))
    return VersionRow(
        version=version.number,
        state=version.state,
        in_force=[scope_text(entry.target) for entry in history.in_force if entry.number == version.number],
        trial=next((kind for kind, trial in trials if trial and trial.number == version.number), ""),
        origin=scope_text(version.origin),
        created=iso(version.created),
        made_by=version.created_by,
        changed=iso(version.changed),
        note=version.note,
        library=version.library,
        digest=version.digest,
    )


def history_row(call: Call, history: ReleaseHistory, *, applied: bool = True) -> ReleaseHistoryRow:
    """Return the row of a release history."""
    shelved = next((row.folder for row in call.deps.profiles() if row.id == history.profile), 0)
    return ReleaseHistoryRow(
        profile=history.profile,
        folder=shelved,
        force=[
            ForceRow(scope_text(entry.target), entry.number, iso(entry.since), entry.by) for entry in history.in_force
        ],
        canary=_canary_row(call, history),
        shadow=_shadow_row(history),
        standard=history.standard,
        applied=applied,
    )


def _shadow_row(history: ReleaseHistory) -> ShadowRow | None:
    shadow = history.shadow
    if shadow is None:
        return None
    return ShadowRow(shadow.number, scope_text(shadow.target), iso(shadow.since), shadow.by, list(shadow.devices))


def _canary_row(call: Call, history: ReleaseHistory) -> CanaryRow | None:
    tried = history.canary
    if tried is None:
        return None
    mine, others = call.part(OUTCOMES)(history.profile)
    return CanaryRow(
        version=tried.number,
        target=scope_text(tried.target),
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


async def _applied(call: Call, history: ReleaseHistory) -> ReleaseHistoryRow:
    """Return the release history once it is in force here."""
    applied = await call.part(IN_FORCE)()
    return history_row(call, releases_of(call).get(history.profile, call.principal), applied=applied)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────


async def _history(call: Call) -> ReleaseHistoryRow:
    """Get the release history of a profile, with the outcomes of its canary."""
    return history_row(call, releases_of(call).get(name_of(call), call.principal))


async def _versions(call: Call) -> listing.RowPage[VersionRow]:
    """List the versions of a profile that the caller may see."""
    history = releases_of(call).get(name_of(call), call.principal)
    return listing.page_of(call, [row_of(history, version) for version in history.versions], VersionRow, "version")


async def _version(call: Call) -> VersionText:
    """Get a version with its content."""
    number = number_of(call)
    try:
        return await _version_text(call, number)
    except NotFound:
        in_folder = releases_of(call).folder_version(name_of(call))
        if in_folder is None or in_folder[0] != number:
            raise
        return _folder_text(call, *in_folder)


def _folder_text(call: Call, number: int, content: Content) -> VersionText:
    """Return a version that stands in the folder of profiles only."""
    row = VersionRow(
        version=number,
        state=VersionState.RELEASED,
        in_force=[],
        trial="",
        origin=call.deps.division,
        created="",
        made_by="",
        changed="",
        note="",
        library=True,
        digest=digest_of(content),
    )
    return VersionText(row, content.text, content.files)


async def _version_text(call: Call, number: int, problems: tuple[str, ...] = ()) -> VersionText:
    releases, name = releases_of(call), name_of(call)
    version = releases.version(name, number, call.principal)
    content = await releases.content(name, number, call.principal)
    row = row_of(releases.history(name), version)
    return VersionText(row, content.text, content.files, list(problems))


# ── steps of a county ─────────────────────────────────────────────────────────────────────────────────


async def _draft(call: Call) -> VersionText:
    """Create a version as a draft; the same content again changes nothing."""
    releases, wanted = releases_of(call), await call.body(NewVersion)
    content = Content(wanted.text, wanted.files)
    version, examined = await releases.draft(content, by=call.principal, note=wanted.note, profile=name_of(call))
    return await _version_text(call, version.number, examined.problems)


async def _propose(call: Call) -> VersionRow:
    """Propose a draft for release; all of its examples must pass."""
    releases, name, message = releases_of(call), name_of(call), await call.body(StepNote)
    version = await releases.propose(name, number_of(call), by=call.principal, note=message.note)
    return row_of(releases.history(name), version)


async def _withdraw(call: Call) -> VersionRow:
    """Withdraw a draft or a proposal."""
    releases, name = releases_of(call), name_of(call)
    return row_of(releases.history(name), await releases.withdraw(name, number_of(call), by=call.principal))


async def _shadow(call: Call) -> ReleaseHistoryRow:
    """Start a shadow: a version also decodes live messages, for a report and without readings."""
    releases, wanted = releases_of(call), await call.body(NewShadow)
    history = await releases.shadow(
        name_of(call),
        number_of(call),
        by=call.principal,
        target=target_of(wanted.target),
        devices=tuple(wanted.devices),
        note=wanted.note,
    )
    return await _applied(call, history)


async def _end_shadow(call: Call) -> ReleaseHistoryRow:
    """End a shadow; its report is written to the audit trail."""
    releases, name = releases_of(call), name_of(call)
    facts: Facts = {}
    if (comparisons := call.find_part(COMPARISONS)) is not None:
        try:
            report, left_out = comparisons.shadow(name)
            facts = {**msgspec.to_builtins(report), "left_out": left_out}
            facts["differences"] = facts["differences"][:_AUDITED_DIFFERENCES]  # type: ignore[index]
        except NotFound:
            pass  # the shadow has not started yet
    return await _applied(call, await releases.end_shadow(name, by=call.principal, report=facts))


# ── steps of a city ───────────────────────────────────────────────────────────────────────────────────


async def _request_changes(call: Call) -> VersionRow:
    """Return a proposal to its author with a note of the changes requested."""
    releases, name, message = releases_of(call), name_of(call), await call.body(StepNote)
    version = await releases.request_changes(name, number_of(call), by=call.principal, note=message.note)
    return row_of(releases.history(name), version)


async def _release(call: Call) -> ReleaseHistoryRow:
    """Release a version: it is in force from the next commit on, without a restart."""
    releases, wanted = releases_of(call), await call.body(NewRelease)
    history = await releases.release(
        name_of(call),
        number_of(call),
        by=call.principal,
        target=target_of(wanted.target),
        note=wanted.note,
        standard=wanted.standard,
    )
    return await _applied(call, history)


async def _canary(call: Call) -> ReleaseHistoryRow:
    """Start a canary on some devices; rolled back automatically if they do worse than the others."""
    releases, wanted = releases_of(call), await call.body(NewCanary)
    if bool(wanted.devices) == bool(wanted.share):
        raise ConfigError(
            "exactly one is needed", key="share, devices", remedy="give a share (0.1), or a list of devices"
        )
    history = await releases.canary(
        name_of(call),
        number_of(call),
        by=call.principal,
        plan=CanaryPlan(
            wanted.share,
            tuple(wanted.devices),
            CanaryLimits(wanted.rejected_max, wanted.faults_max, wanted.least),
        ),
        target=target_of(wanted.target),
        note=wanted.note,
    )
    return await _applied(call, history)


async def _end_canary(call: Call) -> ReleaseHistoryRow:
    """End a canary: its devices get the version of the others."""
    releases = releases_of(call)
    return await _applied(call, await releases.end_canary(name_of(call), by=call.principal))


async def _rollback(call: Call) -> ReleaseHistoryRow:
    """Roll back to the previous or a given version; ends a canary."""
    releases, wanted = releases_of(call), await call.body(NewRollback)
    history = await releases.rollback(
        name_of(call), by=call.principal, target=target_of(wanted.target), to=wanted.to, note=wanted.note
    )
    return await _applied(call, history)


_READ, _PROPOSE, _RELEASE = Action.READ_REGISTRY, Action.PROPOSE_PROFILES, Action.RELEASE_PROFILES
_PROFILE = f"{API}/profiles/{{vendor}}/{{model}}"
_VERSION = f"{_PROFILE}/versions/{{version}}"
ROUTES = tagged(
    "profiles",
    Route("GET", f"{_PROFILE}/history", _history, action=_READ, errors=(404,)),
    Route("GET", f"{_PROFILE}/versions", _versions, action=_READ, query=listing.params(VersionRow), errors=(404,)),
    Route(
        "POST",
        f"{_PROFILE}/versions",
        _draft,
        action=_PROPOSE,
        body=NewVersion,
        status=201,
        errors=(404, 409, 413, 415),
    ),
    Route("GET", _VERSION, _version, action=_READ, errors=(404,)),
    Route("DELETE", _VERSION, _withdraw, action=_PROPOSE, errors=(404, 409)),
    Route("POST", f"{_VERSION}/propose", _propose, action=_PROPOSE, body=StepNote, errors=(404, 409, 415)),
    Route("POST", f"{_VERSION}/return", _request_changes, action=_RELEASE, body=StepNote, errors=(404, 409, 415)),
    Route("POST", f"{_VERSION}/release", _release, action=_RELEASE, body=NewRelease, errors=(404, 409, 415)),
    Route("POST", f"{_VERSION}/canary", _canary, action=_RELEASE, body=NewCanary, errors=(404, 409, 415)),
    Route("DELETE", f"{_PROFILE}/canary", _end_canary, action=_RELEASE, errors=(404, 409)),
    Route("POST", f"{_VERSION}/shadow", _shadow, action=_PROPOSE, body=NewShadow, errors=(404, 409, 415)),
    Route("DELETE", f"{_PROFILE}/shadow", _end_shadow, action=_PROPOSE, errors=(404, 409)),
    Route("POST", f"{_PROFILE}/rollback", _rollback, action=_RELEASE, body=NewRollback, errors=(404, 409, 415)),
)
