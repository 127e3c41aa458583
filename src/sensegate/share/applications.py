"""Applications: what somebody wants of whose data, and the pure rules of who decides until when.

pending ─▶ approved        the owner's level decides; past the deadline the level above may, too
│ └──▶ refused
├────▶ withdrawn
╰────▶ lapsed              the province's deadline has passed as well: nobody is asked any more, and the applicant may
                           apply anew; an answer that comes late is taken all the same
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from sensegate.authority.scope import Action, Principal, Role, Scope, allows, scope
from sensegate.errors import ConfigError, PermissionDenied
from sensegate.share.feeds import Feed
from sensegate.share.grants import CORE, DELIVERIES, FORMS
from sensegate.share.masks import Mask

FEEDS_MAX = 100
_LEVELS = (2, 4, 6, 9, 12)
_WORDS_MAX = 1_000


class State(StrEnum):
    """Where an application stands."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"
    """Only shown: it is kept as pending, with the time, so that a node of the release before can read and decide it."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is applied for."""

    feeds: tuple[str, ...]
    """One, or a bundle that is decided as one."""
    purpose: str
    legal_basis: str
    days: float = 365.0
    """For how long."""
    starts: int = 0
    """µs UTC; 0: at the decision."""
    subscriber: str = ""
    """Id of the token that will read; empty: the caller's own."""
    properties: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    rate: float = 0.0
    volume: int = 0
    contact: str = ""
    renews: str = ""
    """Grant that is to go on."""
    bundle: str = ""
    """Bundle whose feeds they are."""


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the owner says; what is left out is as applied for."""

    approve: bool
    reason: str = ""
    days: float = 0.0
    mask: Mask | None = None
    """None: none; of a renewal: as it was."""
    properties: tuple[str, ...] = ()
    divisions: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    rate: float = 0.0
    volume: int = 0
    grade_max: int = CORE - 1


class Application(msgspec.Struct, frozen=True, omit_defaults=True):
    """An application with its history."""

    id: str
    """``a`` and 16 hex digits."""
    asked: Asked
    subscriber: str
    applicant: str
    """Scope of the subscriber: ``DIVISION`` or ``DIVISION/DEPARTMENT``."""
    by: str
    """Who sent it."""
    created: int
    level: str
    """Division whose level decides now; goes up past the deadline."""
    department: str
    deadline: int
    """µs UTC."""
    owner: str = ""
    """Division whose level decided first."""
    escalated: int = 0
    """How often the deadline passed without a decision."""
    state: State = State.PENDING
    decided: int = 0
    decided_by: str = ""
    reason: str = ""
    grants: tuple[str, ...] = ()
    lapsed: int = 0
    """When the last deadline passed without an answer, µs UTC; 0: it did not."""
    revision: int = 0
    format: int = 1

    @property
    def standing(self) -> State:
        """Where it stands."""
        return State.LAPSED if self.lapsed and self.state is State.PENDING else self.state

    @property
    def ended(self) -> int:
        """When it was decided or lapsed, µs UTC; 0: it waits."""
        return self.decided or self.lapsed


def check(asked: Asked, *, days_max: float) -> None:
    """Return if an application can be decided upon.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    if not 1 <= len(set(asked.feeds)) <= FEEDS_MAX or len(set(asked.feeds)) < len(asked.feeds):
        raise ConfigError(f"{len(asked.feeds)} feeds", key="feeds", remedy=f"1 to {FEEDS_MAX}, each once")
    for key in ("purpose", "legal_basis"):
        text = getattr(asked, key)
        if not text.strip() or len(text) > _WORDS_MAX:
            raise ConfigError(f"{len(text)} characters", key=key, remedy=f"say it in 1 to {_WORDS_MAX} characters")
    if not 0 < asked.days <= days_max:
        raise ConfigError(f"{asked.days:g} days", key="days", remedy=f"more than 0, up to {days_max:g}")
    terms(asked)


def terms(of: Asked | Decision) -> None:
    """Return if deliveries, forms and quota are known words and sizes. Raises `ConfigError`."""
    for key, known in (("deliveries", DELIVERIES), ("forms", FORMS)):
        if unknown := sorted({*getattr(of, key)} - {*known}):
            raise ConfigError(f"'{unknown[0][:32]}'", key=key, remedy=f"of {', '.join(known)}; leave it out for all")
    if not 0 <= of.rate < 1e9:
        raise ConfigError(f"{of.rate}", key="rate", remedy="records a second, 0 for no limit")
    if not 0 <= of.volume < 2**53:
        raise ConfigError(f"{of.volume}", key="volume", remedy="records a month, 0 for no limit")


def narrower(ours: tuple[str, ...], decided: tuple[str, ...], key: str) -> tuple[str, ...]:
    """Return what is decided where it lies in what was asked (empty: all of it). Raises `ConfigError`."""
    if wider := sorted({*decided} - {*ours}) if ours else []:
        raise ConfigError(f"'{wider[0][:64]}' was not applied for", key=key, remedy=f"of {', '.join(ours)[:200]}")
    return decided or ours


def level_of(divisions: Iterable[str], *, most: int = 4) -> str:
    """Return the division, at most `most` digits long, that all of these lie in."""
    codes = list(divisions) or ["44"]
    alike = 0
    while alike < min(map(len, codes)) and len({code[alike] for code in codes}) == 1:
        alike += 1
    return codes[0][: max((length for length in _LEVELS if length <= min(alike, most)), default=2)]


def above(level: str) -> str:
    """Return the level above; the province is above all."""
    return level[: max((length for length in _LEVELS if length < len(level)), default=2)]


def department_of(feeds: Iterable[Feed]) -> str:
    """Return the one department to which all of these feeds belong; empty: several."""
    found = {department for feed in feeds for department in feed.departments or ("",)}
    return found.pop() if len(found) == 1 else ""


def demand_decider(principal: Principal, application: Application) -> None:
    """Return if the caller may decide now.

    Raises:
        PermissionDenied: not his to decide, or not yet: before the deadline only the level that owns the data decides.
    """
    levels = {application.level, application.owner or application.level}
    if not any(allows(principal, Action.DECIDE_GRANTS, level, application.department) for level in levels):
        raise PermissionDenied(f"application {application.id} is decided by {application.level}, not by you")
    if principal.role is not Role.ADMIN and len(principal.scope.division) < len(application.level):
        raise PermissionDenied(f"application {application.id} is {application.level}'s to decide until its deadline")


def concerns(principal: Principal, *, parties: tuple[str, ...], applicant: str, level: str, department: str) -> bool:
    """Return whether a caller sees an application or grant: a party to it, or in charge of either side."""
    if principal.id in parties:
        return True
    if principal.role in {Role.SUBSCRIBER, Role.DEVICE}:
        return False
    theirs: Scope = scope(applicant) if applicant else Scope("44")
    return principal.scope.covers(theirs.division, theirs.department) or principal.scope.covers(level, department)
