"""Who may do what where: roles, scopes, and the one function that decides.

Everything is refused unless a role's row in `_RIGHTS` grants it, the target lies in the caller's scope, and, for a
token bound to feeds, the feed is one of them. Every query, change, feed and metric asks `allows`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sensegate.authority.divisions import short_code
from sensegate.errors import PermissionDenied


class Role(StrEnum):
    """What a caller is."""

    DEVICE = "device"
    SUBSCRIBER = "subscriber"
    COUNTY_OPERATOR = "county_operator"
    CITY_OPERATOR = "city_operator"
    PROVINCE_OPERATOR = "province_operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Action(StrEnum):
    """What a caller may want."""

    INGEST = "ingest"
    """Deliver telemetry of one device (its own, for a device)."""
    READ_READINGS = "read_readings"
    """Feeds, records, history."""
    READ_REGISTRY = "read_registry"
    """Devices, profiles, divisions, properties, nodes."""
    READ_LEDGER = "read_ledger"
    """Ledger, quality, metering."""
    READ_QUARANTINE = "read_quarantine"
    """Whole messages that became no reading: may hold what a feed would mask."""
    READ_AUDIT = "read_audit"
    READ_CATALOGUE = "read_catalogue"
    """What is shared: complete entries of every division, drafts of one's own; applications and grants of one's own."""
    CHANGE_DEVICES = "change_devices"
    TASK_DEVICES = "task_devices"
    """Tell devices what to do; a task may ask for a higher role than that."""
    PROPOSE_PROFILES = "propose_profiles"
    RELEASE_PROFILES = "release_profiles"
    CHANGE_FEEDS = "change_feeds"
    CHANGE_TOKENS = "change_tokens"
    APPLY_GRANTS = "apply_grants"
    DECIDE_GRANTS = "decide_grants"
    """On applications for what lies in one's scope; also change and revoke grants."""
    CHANGE_MODE = "change_mode"
    """Write and approve emergency plans, give and end mode orders."""
    CHANGE_NODES = "change_nodes"
    """Invite, replace and expel nodes."""
    CHANGE_PEOPLE = "change_people"
    """Make accounts of people, change them, end them."""


_LOOK = frozenset({Action.READ_READINGS, Action.READ_REGISTRY, Action.READ_LEDGER, Action.READ_QUARANTINE})
_SHARE = frozenset({Action.READ_CATALOGUE, Action.APPLY_GRANTS})
_COUNTY = _LOOK | _SHARE | {Action.CHANGE_DEVICES, Action.TASK_DEVICES, Action.PROPOSE_PROFILES, Action.DECIDE_GRANTS}
_CITY = _COUNTY | {
    Action.RELEASE_PROFILES,
    Action.CHANGE_FEEDS,
    Action.CHANGE_TOKENS,
    Action.CHANGE_PEOPLE,
    Action.CHANGE_MODE,
}
_RIGHTS: dict[Role, frozenset[Action]] = {
    Role.DEVICE: frozenset({Action.INGEST}),
    Role.SUBSCRIBER: _SHARE | {Action.READ_READINGS},
    Role.COUNTY_OPERATOR: _COUNTY,
    Role.CITY_OPERATOR: _CITY,
    Role.PROVINCE_OPERATOR: _CITY | {Action.CHANGE_NODES},
    # Looks at the books, changes nothing and sees no readings.
    Role.AUDITOR: frozenset({Action.READ_AUDIT, Action.READ_LEDGER, Action.READ_REGISTRY, Action.READ_CATALOGUE}),
    # Who rules does not look at the record of what was ruled, nor change it: the duties are separate.
    Role.ADMIN: frozenset(Action) - {Action.READ_AUDIT},
}

_ADMIN_IN_PERSON = frozenset(
    {
        Action.READ_REGISTRY,
        Action.READ_LEDGER,
        Action.READ_CATALOGUE,
        Action.CHANGE_TOKENS,
        Action.CHANGE_PEOPLE,
        Action.CHANGE_NODES,
    }
)
"""A person who administers looks after accounts, tokens, nodes; devices, feeds and grants are the operators' duty."""


class Duty(StrEnum):
    """The three duties that no person unites (三員分立)."""

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"


_DUTY = {
    Role.COUNTY_OPERATOR: Duty.OPERATOR,
    Role.CITY_OPERATOR: Duty.OPERATOR,
    Role.PROVINCE_OPERATOR: Duty.OPERATOR,
    Role.AUDITOR: Duty.AUDITOR,
    Role.ADMIN: Duty.ADMIN,
}

_RANK = {
    Role.DEVICE: 0,
    Role.SUBSCRIBER: 0,
    Role.AUDITOR: 3,
    Role.COUNTY_OPERATOR: 1,
    Role.CITY_OPERATOR: 2,
    Role.PROVINCE_OPERATOR: 3,
    Role.ADMIN: 4,
}
# The widest scope that a role may be given, as digits of the code: a county operator never has a whole city.
_WIDEST = {Role.COUNTY_OPERATOR: 6, Role.CITY_OPERATOR: 4}


class Scope(msgspec.Struct, frozen=True):
    """A division and all below it, optionally of one department only."""

    division: str
    """Short form of the code (`divisions.short_code`)."""
    department: str = ""
    """Empty: all departments. Otherwise only what belongs to exactly this one."""

    def covers(self, division: str, department: str = "") -> bool:
        """Return whether a thing of this division and department lies in the scope."""
        return short_code(division).startswith(self.division) and self.department in ("", department)


def scope(text: str) -> Scope:
    """Return the scope written as ``DIVISION`` or ``DIVISION/DEPARTMENT``.

    Raises:
        ConfigError: if the division is no code.
    """
    division, _, department = text.partition("/")
    return Scope(short_code(division), department)


class Principal(msgspec.Struct, frozen=True):
    """A caller whose identity has been proved."""

    id: str
    """Token id, or device id for a device."""
    role: Role
    scope: Scope
    feeds: tuple[str, ...] = ()
    """Names of the only feeds it may read; empty: all that its scope and role allow."""
    name: str = ""
    """For people: who holds it."""
    person: bool = False
    """Somebody who signed in, not the holder of a token: bound to one duty."""
    session: str = ""
    """Id of the session, for a person."""


def _rights(principal: Principal) -> frozenset[Action]:
    if principal.person and principal.role is Role.ADMIN:
        return _ADMIN_IN_PERSON
    return _RIGHTS[principal.role]


def allows(principal: Principal, action: Action, division: str, department: str = "", *, feed: str = "") -> bool:
    """Return whether `principal` may do `action` to a thing of this division and department.

    The one function that decides. A device's own ingest is asked with its own division; that the device is the same
    one is proved by its credential. A principal bound to feeds reads only through one of them: `feed` names it.
    """
    if action not in _rights(principal):
        return False
    if principal.feeds and action is Action.READ_READINGS and feed not in principal.feeds:
        return False
    return principal.scope.covers(division, department)


def demand(principal: Principal, action: Action, division: str, department: str = "", *, feed: str = "") -> None:
    """Return if `allows`.

    Raises:
        PermissionDenied: saying what is missing, without telling whether the thing exists.
    """
    if allows(principal, action, division, department, feed=feed):
        return
    if action not in _rights(principal):
        raise PermissionDenied(missing_right(principal, action))
    raise PermissionDenied(f"outside the scope of {principal.id} ({scope_text(principal.scope)})")


def missing_right(principal: Principal, action: Action) -> str:
    """Say that the role does not grant `action`, and which roles do."""
    others = ", ".join(role for role in Role if role is not principal.role and action in _RIGHTS[role])
    may_not = f"role {principal.role} may not {action.replace('_', ' ')}"
    return f"{may_not}; ask for a token of another role ({others})" if others else may_not


def has_right(principal: Principal, action: Action) -> bool:
    """Return whether the role grants `action` anywhere; what it is done to is then cut by the scope."""
    return action in _rights(principal)


def duty(role: Role) -> Duty | None:
    """Return the duty of a role; None for devices and subscribers, which are no people."""
    return _DUTY.get(role)


def fits_role(role: Role, wanted: Scope) -> bool:
    """Return whether a scope is not wider than a role may have."""
    return len(wanted.division) >= _WIDEST.get(role, 2)


def may_appoint(giver: Principal, role: Role, wanted: Scope) -> bool:
    """Return whether `giver` may give a person this role and scope: an operator those of the levels below its own."""
    if duty(role) is None or not allows(giver, Action.CHANGE_PEOPLE, wanted.division, wanted.department):
        return False
    if not fits_role(role, wanted):
        return False
    return giver.role is Role.ADMIN or (duty(role) is Duty.OPERATOR and _RANK[role] < _RANK[giver.role])


def has_rank(principal: Principal, role: Role) -> bool:
    """Return whether the caller's role is at least another."""
    return _RANK[principal.role] >= _RANK[role] and principal.role is not Role.AUDITOR


def may_grant(giver: Principal, role: Role, wanted: Scope) -> bool:
    """Return whether `giver` may hand out a token of this role and scope: never wider or higher than its own.

    A person hands out tokens of its own duty and of subscribers: no way round the separation of duties.
    """
    if giver.person and duty(role) not in (None, duty(giver.role)):
        return False
    if not allows(giver, Action.CHANGE_TOKENS, wanted.division, wanted.department):
        return False
    if not fits_role(role, wanted):
        return False
    return giver.role is Role.ADMIN or _RANK[role] <= _RANK[giver.role]


def scope_text(place: Scope) -> str:
    """Return the scope as `scope` reads it."""
    return f"{place.division}/{place.department}" if place.department else place.division
