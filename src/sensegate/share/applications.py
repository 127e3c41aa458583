"""Applications for access to data, and the pure rules of who decides on them until when.

pending ─▶ approved        the level that owns the data decides; after the deadline the level above may too
│ └──▶ refused
├────▶ withdrawn
╰────▶ lapsed              the deadline of the province has passed too: no level is left to escalate to, and the
                           applicant may apply again; a late decision is still accepted
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from sensegate.authority.scope import Action, Principal, Role, Scope, allows, reads_only, scope
from sensegate.errors import ConfigError, PermissionDenied
from sensegate.share.feeds import Feed
from sensegate.share.grants import CORE_GRADE, DELIVERIES, FORMS, Grant
from sensegate.share.masks import Mask, known_property

FEEDS_MAX = 100
_LEVELS = (2, 4, 6, 9, 12)
_TEXT_MAX = 1_000
_WORDS_MAX, _WORD_MAX = 500, 64
"""Most properties or divisions that an application names, and most characters of each."""


class ApplicationState(StrEnum):
    """State of an application."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"
    """Never stored: a lapsed application is stored as pending, with the time at which it lapsed."""


class RequestedAccess(msgspec.Struct, frozen=True, omit_defaults=True):
    """Access that an application asks for."""

    feeds: tuple[str, ...]
    """Names of feeds; several are decided together."""
    purpose: str
    legal_basis: str
    days: float = 365.0
    """Duration of the grant."""
    starts: int = 0
    """Start of the grant, µs UTC; 0: at the decision."""
    subscriber: str = ""
    """Id of the token that will read; empty: the token of the caller."""
    properties: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    rate: float = 0.0
    volume: int = 0
    contact: str = ""
    renews: str = ""
    """Id of the grant to be renewed; empty: a new grant."""
    bundle: str = ""
    """Bundle to which the feeds belong; empty: none."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """Decision of the owner on an application; a field that is left out is granted as applied for."""

    approve: bool
    reason: str = ""
    days: float = 0.0
    mask: Mask | None = None
    """None: no mask; for a renewal: the mask of the renewed grant."""
    properties: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    rate: float = 0.0
    volume: int = 0
    grade_max: int = CORE_GRADE - 1


class Application(msgspec.Struct, frozen=True, omit_defaults=True):
    """An application with its history."""

    id: str
    """``a`` and 16 hex digits."""
    requested: RequestedAccess
    subscriber: str
    applicant: str
    """Scope of the subscriber: ``DIVISION`` or ``DIVISION/DEPARTMENT``."""
    by: str
    """Id of the principal that applied."""
    created: int
    level: str
    """Division whose level decides now; the parent level after the deadline."""
    department: str
    deadline: int
    """µs UTC."""
    owner: str = ""
    """Division whose level decides first."""
    escalated: int = 0
    """Number of deadlines that passed without a decision."""
    state: ApplicationState = ApplicationState.PENDING
    decided: int = 0
    decided_by: str = ""
    reason: str = ""
    grants: tuple[str, ...] = ()
    lapsed: int = 0
    """Time when the last deadline passed without a decision, µs UTC; 0: it has not passed."""
    revision: int = 0
    format: int = 1

    @property
    def effective_state(self) -> ApplicationState:
        """State as callers see it: a pending application may have lapsed."""
        return ApplicationState.LAPSED if self.lapsed and self.state is ApplicationState.PENDING else self.state

    @property
    def ended(self) -> int:
        """Return the time when it was decided or lapsed, µs UTC; 0: it is pending."""
        return self.decided or self.lapsed


def check_request(requested: RequestedAccess, *, days_max: float) -> None:
    """Return if a request for access is well-formed.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not 1 <= len(set(requested.feeds)) <= FEEDS_MAX or len(set(requested.feeds)) < len(requested.feeds):
        raise ConfigError(
            f"{len(requested.feeds)} feeds are named", key="feeds", remedy=f"name 1 to {FEEDS_MAX}, each once"
        )
    for key in ("purpose", "legal_basis"):
        text = getattr(requested, key)
        if not text.strip() or len(text) > _TEXT_MAX:
            raise ConfigError(
                f"the text has {len(text)} characters", key=key, remedy=f"write 1 to {_TEXT_MAX} characters"
            )
    for key in ("properties", "divisions"):
        words = getattr(requested, key)
        if len(words) > _WORDS_MAX or any(len(word) > _WORD_MAX for word in words):
            raise ConfigError(
                "is too long", key=key, remedy=f"give at most {_WORDS_MAX}, of up to {_WORD_MAX} characters each"
            )
    if not 0 < requested.days <= days_max:
        raise ConfigError(
            f"{requested.days:g} days are not allowed", key="days", remedy=f"give more than 0, up to {days_max:g}"
        )
    for name in requested.properties:
        known_property(name, key="properties", otherwise="GET /api/v1/properties lists them")
    check_terms(requested)


def check_terms(terms: RequestedAccess | Decision | Grant) -> None:
    """Return if deliveries and forms are known and the quota is in range. Raises `ConfigError`."""
    for key, known in (("deliveries", DELIVERIES), ("forms", FORMS)):
        if unknown := sorted({*getattr(terms, key)} - {*known}):
            raise ConfigError(
                f"'{unknown[0][:32]}' is unknown", key=key, remedy=f"use {', '.join(known)}; leave it out for all"
            )
    if not 0 <= terms.rate < 1e9:
        raise ConfigError(f"{terms.rate} is out of range", key="rate", remedy="give records a second; 0: no limit")
    if not 0 <= terms.volume < 2**53:
        raise ConfigError(f"{terms.volume} is out of range", key="volume", remedy="give records a month; 0: no limit")


def narrowed(requested: tuple[str, ...], decided: tuple[str, ...], key: str) -> tuple[str, ...]:
    """Return what is decided if it lies within what was requested (empty: all of it). Raises `ConfigError`."""
    if wider := sorted({*decided} - {*requested}) if requested else []:
        raise ConfigError(
            f"'{wider[0][:64]}' was not applied for", key=key, remedy=f"choose among {', '.join(requested)[:200]}"
        )
    return decided or requested


def common_level(divisions: Iterable[str], *, digits_max: int = 4) -> str:
    """Return the division, at most `digits_max` digits long, that contains all of these."""
    codes = list(divisions) or ["44"]
    alike = 0
    while alike < min(map(len, codes)) and len({code[alike] for code in codes}) == 1:
        alike += 1
    return codes[0][: max((length for length in _LEVELS if length <= min(alike, digits_max)), default=2)]


def parent_level(level: str) -> str:
    """Return the level above; the province has none and is returned itself."""
    return level[: max((length for length in _LEVELS if length < len(level)), default=2)]


def common_department(feeds: Iterable[Feed]) -> str:
    """Return the one department to which all of these feeds belong; empty: there are several."""
    departments = {department for feed in feeds for department in feed.departments or ("",)}
    return departments.pop() if len(departments) == 1 else ""


def demand_decider(principal: Principal, application: Application) -> None:
    """Return if the caller may decide on an application now.

    Raises:
        PermissionDenied: another level decides, or the caller's level does so only after the deadline.
    """
    levels = {application.level, application.owner or application.level}
    if not any(allows(principal, Action.DECIDE_GRANTS, level, application.department) for level in levels):
        raise PermissionDenied(
            f"application {application.id} is decided by {application.level}; your scope does not include it"
        )
    if principal.role is not Role.ADMIN and len(principal.scope.division) < len(application.level):
        raise PermissionDenied(f"application {application.id} is decided by {application.level} until its deadline")


def may_see(principal: Principal, *, parties: tuple[str, ...], applicant: str, level: str, department: str) -> bool:
    """Return whether a caller may see an application or grant: a party to it, or an operator of either side."""
    if principal.id in parties:
        return True
    if reads_only(principal):
        return False
    applicant_scope: Scope = scope(applicant) if applicant else Scope("44")
    return principal.scope.covers(applicant_scope.division, applicant_scope.department) or principal.scope.covers(
        level, department
    )
