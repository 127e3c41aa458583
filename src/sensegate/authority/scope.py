"""Authorisation: roles, actions, scopes; `allows` decides who may act, `may_hand_out` who may make a caller.

Everything is denied unless the role's row in `_RIGHTS` grants the action, the target lies in the caller's scope, and,
for a token restricted to feeds, the feed is one of them. Every query, change, feed and metric calls `allows`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from sensegate.authority.divisions import short_code
from sensegate.errors import PermissionDenied


class Role(StrEnum):
    """The role of a caller."""

    DEVICE = "device"
    SUBSCRIBER = "subscriber"
    COUNTY_OPERATOR = "county_operator"
    CITY_OPERATOR = "city_operator"
    PROVINCE_OPERATOR = "province_operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Action(StrEnum):
    """An action that needs authorisation."""

    INGEST = "ingest"
    """Send telemetry of a device (for a device: its own; for an operator of a city: those of its scope)."""
    READ_READINGS = "read_readings"
    """Read feeds, records, history."""
    READ_REGISTRY = "read_registry"
    """Read devices, profiles, divisions, properties, nodes."""
    READ_LEDGER = "read_ledger"
    """Read ledger, quality, metering."""
    READ_QUARANTINE = "read_quarantine"
    """Read quarantined messages, which may contain what a feed would mask."""
    READ_AUDIT = "read_audit"
    READ_CATALOGUE = "read_catalogue"
    """Read published catalogue entries, one's own drafts, applications and grants."""
    CHANGE_DEVICES = "change_devices"
    TASK_DEVICES = "task_devices"
    """Create tasks of devices; a task may require a higher role."""
    PROPOSE_PROFILES = "propose_profiles"
    RELEASE_PROFILES = "release_profiles"
    CHANGE_FEEDS = "change_feeds"
    CHANGE_TOKENS = "change_tokens"
    APPLY_GRANTS = "apply_grants"
    DECIDE_GRANTS = "decide_grants"
    """Decide on applications for data in one's scope; change and revoke grants."""
    CHANGE_MODE = "change_mode"
    """Write and approve emergency plans, create and end mode orders."""
    READ_ALARMS = "read_alarms"
    """Read alarms and their rules, with the values that opened them."""
    CHANGE_ALARMS = "change_alarms"
    """Write alarm rules, acknowledge and silence alarms."""
    CORRECT_READINGS = "correct_readings"
    """Withdraw readings of a span, or set their quality afterwards."""
    CHANGE_NODES = "change_nodes"
    """Invite, replace and expel nodes."""
    CHANGE_PEOPLE = "change_people"
    """Create, change and remove user accounts."""
    CHANGE_AUDITORS = "change_auditors"
    """Create, change and remove accounts and tokens of auditors."""


_READ = frozenset({Action.READ_READINGS, Action.READ_REGISTRY, Action.READ_LEDGER, Action.READ_QUARANTINE})
_SHARE = frozenset({Action.READ_CATALOGUE, Action.APPLY_GRANTS})
_COUNTY = (
    _READ
    | _SHARE
    | {
        Action.CHANGE_DEVICES,
        Action.TASK_DEVICES,
        Action.PROPOSE_PROFILES,
        Action.DECIDE_GRANTS,
        Action.READ_ALARMS,
        Action.CHANGE_ALARMS,
        Action.CORRECT_READINGS,
    }
)
_CITY = _COUNTY | {
    # Whoever registers devices and renews their credentials could send in their name; so it is said by its own.
    Action.INGEST,
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
    # Reads the accounts, changes nothing but who audits, and sees no readings.
    Role.AUDITOR: frozenset(
        {
            Action.READ_AUDIT,
            Action.READ_LEDGER,
            Action.READ_REGISTRY,
            Action.READ_CATALOGUE,
            Action.CHANGE_AUDITORS,
        }
    ),
    # Separation of duties: an administrator neither reads the audit trail nor decides who does.
    Role.ADMIN: frozenset(Action) - {Action.READ_AUDIT, Action.CHANGE_AUDITORS},
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
"""Rights of an administrator in person: accounts, tokens, nodes; devices, feeds and grants are for operators."""


class Duty(StrEnum):
    """The three duties, of which a person has exactly one (三員分立)."""

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
# The least number of code digits in the scope of a role: a county operator never has a whole city.
_CODE_DIGITS_MIN = {Role.COUNTY_OPERATOR: 6, Role.CITY_OPERATOR: 4}


class Scope(msgspec.Struct, frozen=True):
    """A division with its subdivisions, optionally restricted to a department."""

    division: str
    """Short form of the code (`divisions.short_code`)."""
    department: str = ""
    """Empty: all departments. Otherwise only what belongs to exactly this one."""

    def covers(self, division: str, department: str = "") -> bool:
        """Return whether an object of this division and department lies in the scope."""
        return short_code(division).startswith(self.division) and self.department in ("", department)


def scope(text: str) -> Scope:
    """Return the scope written as ``DIVISION`` or ``DIVISION/DEPARTMENT``.

    Raises:
        ConfigError: if the division is no code.
    """
    division, _, department = text.partition("/")
    return Scope(short_code(division), department)


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller."""

    id: str
    """Token id, or device id of a device."""
    role: Role
    scope: Scope
    feeds: tuple[str, ...] = ()
    """Feeds to which reading is restricted; empty: all that scope and role allow."""
    name: str = ""
    """Display name of the holder."""
    person: bool = False
    """The caller is a signed-in person, not the holder of a token."""
    session: str = ""
    """Id of the session, for a person."""


def _rights(principal: Principal) -> frozenset[Action]:
    if principal.person and principal.role is Role.ADMIN:
        return _ADMIN_IN_PERSON
    rights = _RIGHTS[principal.role]
    # A token for some feeds reads those. Quarantine, registry and ledger would show it the devices of all others.
    return rights & _RIGHTS[Role.SUBSCRIBER] if principal.feeds else rights


def allows(principal: Principal, action: Action, division: str, department: str = "", *, feed: str = "") -> bool:
    """Return whether `principal` may do `action` to an object of a division and department.

    For ingest a device is checked with its own division; its credential proves its identity. A principal restricted to
    feeds has the rights of a subscriber at most, and reads only through one of them, which `feed` names.
    """
    if action not in _rights(principal):
        return False
    if principal.feeds and action is Action.READ_READINGS and feed not in principal.feeds:
        return False
    return principal.scope.covers(division, department)


def demand(principal: Principal, action: Action, division: str, department: str = "", *, feed: str = "") -> None:
    """Require that `allows` is true.

    Raises:
        PermissionDenied: the message says which right is missing, but not whether the object exists.
    """
    if allows(principal, action, division, department, feed=feed):
        return
    if action not in _rights(principal):
        raise PermissionDenied(missing_right(principal, action))
    raise PermissionDenied(f"the object is outside the scope of {principal.id} ({scope_text(principal.scope)})")


def missing_right(principal: Principal, action: Action) -> str:
    """Return a message that the role does not grant `action`, and which roles do."""
    others = ", ".join(role for role in Role if role is not principal.role and action in _RIGHTS[role])
    may_not = f"role {principal.role} may not {action.replace('_', ' ')}"
    return f"{may_not}; ask for a token of another role ({others})" if others else may_not


def has_right(principal: Principal, action: Action) -> bool:
    """Return whether the role grants `action` at all; the scope then restricts its objects."""
    return action in _rights(principal)


def reads_only(principal: Principal) -> bool:
    """Return whether a caller is a reader of feeds, who sees nothing of what others administer in its scope."""
    return principal.role in {Role.SUBSCRIBER, Role.DEVICE} or bool(principal.feeds)


def duty(role: Role) -> Duty | None:
    """Return the duty of a role; None for devices and subscribers."""
    return _DUTY.get(role)


def fits_role(role: Role, wanted: Scope) -> bool:
    """Return whether a scope is narrow enough for a role."""
    return len(wanted.division) >= _CODE_DIGITS_MIN.get(role, 2)


def has_rank(principal: Principal, role: Role) -> bool:
    """Return whether the caller's role ranks at least as high as another."""
    return _RANK[principal.role] >= _RANK[role] and principal.role is not Role.AUDITOR


def giving_action(role: Role) -> Action:
    """Return the right to administer the tokens of a role."""
    return Action.CHANGE_AUDITORS if role is Role.AUDITOR else Action.CHANGE_TOKENS


def appointing_action(role: Role) -> Action:
    """Return the right to administer the accounts of a role."""
    return Action.CHANGE_AUDITORS if role is Role.AUDITOR else Action.CHANGE_PEOPLE


def administers(principal: Principal, holder: Principal) -> bool:
    """Return whether `principal` administers an account or a token: whether it may know of it."""
    action = appointing_action(holder.role) if holder.person else giving_action(holder.role)
    return allows(principal, action, holder.scope.division, holder.scope.department)


def may_hand_out(giver: Principal, holder: Principal) -> bool:
    """Return whether `giver` may make a token, or an account (`holder.person`), or gain access to one.

    Whoever makes a caller can act as it. Nobody hands out rights that they do not have: rights, scope and feeds of the
    holder are among the giver's own. Operators appoint people of lower levels only.
    """
    if holder.role is Role.DEVICE or (holder.person and duty(holder.role) is None):
        return False
    if not administers(giver, holder) or not fits_role(holder.role, holder.scope):
        return False
    if not _rights(holder) <= _rights(giver) or _RANK[holder.role] > _RANK[giver.role]:
        return False
    if giver.feeds and not (holder.feeds and set(holder.feeds) <= set(giver.feeds)):
        return False
    if not holder.person or giver.role in (Role.ADMIN, Role.AUDITOR):
        return True
    return duty(holder.role) is Duty.OPERATOR and _RANK[holder.role] < _RANK[giver.role]


def may_withdraw(principal: Principal, holder: Principal) -> bool:
    """Return whether `principal` may revoke a token, or disable or remove an account, which gives it no right.

    An administrator withdraws what it could not hand out, but from auditors only an auditor withdraws.
    """
    is_admin = principal.role is Role.ADMIN and holder.role is not Role.AUDITOR
    return may_hand_out(principal, holder) or (is_admin and administers(principal, holder))


def scope_text(scope_: Scope) -> str:
    """Return the text of a scope, as `scope` parses it."""
    return f"{scope_.division}/{scope_.department}" if scope_.department else scope_.division
