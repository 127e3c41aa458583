"""One function decides; everything not granted is refused."""

from __future__ import annotations

import itertools

import pytest

from sensegate.authority.scope import Action, Principal, Role, Scope, allows, demand, may_grant, scope, scope_text
from sensegate.errors import ConfigError, PermissionDenied

LOOK = {Action.READ_READINGS, Action.READ_REGISTRY, Action.READ_LEDGER, Action.READ_QUARANTINE}
SHARE = {Action.READ_CATALOGUE, Action.APPLY_GRANTS}
COUNTY = LOOK | SHARE | {Action.CHANGE_DEVICES, Action.TASK_DEVICES, Action.PROPOSE_PROFILES, Action.DECIDE_GRANTS}
CITY = COUNTY | {
    Action.RELEASE_PROFILES,
    Action.CHANGE_FEEDS,
    Action.CHANGE_TOKENS,
    Action.CHANGE_PEOPLE,
    Action.CHANGE_MODE,
}
# Written out here a second time on purpose: a change of rights must be made in two places.
TABLE = {
    Role.DEVICE: {Action.INGEST},
    Role.SUBSCRIBER: {Action.READ_READINGS} | SHARE,
    Role.COUNTY_OPERATOR: COUNTY,
    Role.CITY_OPERATOR: CITY,
    Role.PROVINCE_OPERATOR: CITY | {Action.CHANGE_NODES},
    Role.AUDITOR: {Action.READ_AUDIT, Action.READ_LEDGER, Action.READ_REGISTRY, Action.READ_CATALOGUE},
    Role.ADMIN: set(Action) - {Action.READ_AUDIT},
}
SCOPES = ["44", "4401", "440106", "4419", "441900003", "4401/police"]
PLACES = [("44", ""), ("4401", ""), ("440106", "police"), ("440106001", "environment"), ("4403", "police")]
PLACES += [("441900003", ""), ("441900", "police"), ("440106", "")]
INSIDE = {
    "44": {0, 1, 2, 3, 4, 5, 6, 7},
    "4401": {1, 2, 3, 7},
    "440106": {2, 3, 7},
    "4419": {5, 6},
    "441900003": {5},
    "4401/police": {2},
}


def caller(role: Role, place: str, feeds: tuple[str, ...] = ()) -> Principal:
    return Principal(id="t1", role=role, scope=scope(place), feeds=feeds)


@pytest.mark.parametrize(("role", "place"), list(itertools.product(Role, SCOPES)))
def test_every_cell_of_role_scope_action_and_place(role: Role, place: str) -> None:
    """Allowed exactly where the role has the right and the place lies in the scope; all else is refused."""
    principal = caller(role, place)
    for action, (index, (division, department)) in itertools.product(Action, enumerate(PLACES)):
        expected = action in TABLE[role] and index in INSIDE[place]
        assert allows(principal, action, division, department) is expected, (action, division, department)


def test_a_scope_of_a_department_sees_only_its_own() -> None:
    """Police and environment do not see each other, and neither sees what belongs to no department."""
    police = caller(Role.CITY_OPERATOR, "4401/police")
    assert allows(police, Action.READ_REGISTRY, "440106", "police")
    assert not allows(police, Action.READ_REGISTRY, "440106", "environment")
    assert not allows(police, Action.READ_REGISTRY, "440106")


def test_a_token_bound_to_feeds_reads_nothing_else() -> None:
    """Outside its feeds, and where no feed is named, it is refused."""
    bound = caller(Role.SUBSCRIBER, "44", ("air",))
    assert allows(bound, Action.READ_READINGS, "4401", feed="air")
    assert not allows(bound, Action.READ_READINGS, "4401", feed="noise")
    assert not allows(bound, Action.READ_READINGS, "4401")


def test_demand_says_what_is_missing() -> None:
    """The refusal names the role or the scope."""
    with pytest.raises(PermissionDenied, match="role subscriber may not change devices"):
        demand(caller(Role.SUBSCRIBER, "44"), Action.CHANGE_DEVICES, "4401")
    with pytest.raises(PermissionDenied, match=r"scope of t1 \(4401\)"):
        demand(caller(Role.SUBSCRIBER, "4401"), Action.READ_READINGS, "4403")
    demand(caller(Role.SUBSCRIBER, "4401"), Action.READ_READINGS, "440106")


def test_nobody_hands_out_more_than_he_has() -> None:
    """A token is never wider or higher than its giver; a county operator gives none and never has a whole city."""
    city = caller(Role.CITY_OPERATOR, "4401")
    assert may_grant(city, Role.SUBSCRIBER, Scope("440106"))
    assert may_grant(city, Role.COUNTY_OPERATOR, Scope("440106"))
    assert not may_grant(city, Role.COUNTY_OPERATOR, Scope("4401"))
    assert not may_grant(city, Role.SUBSCRIBER, Scope("4403"))
    assert not may_grant(city, Role.ADMIN, Scope("4401"))
    assert not may_grant(city, Role.AUDITOR, Scope("4401"))
    assert not may_grant(caller(Role.COUNTY_OPERATOR, "440106"), Role.SUBSCRIBER, Scope("440106"))
    assert may_grant(caller(Role.ADMIN, "44"), Role.ADMIN, Scope("4401"))
    assert not may_grant(caller(Role.CITY_OPERATOR, "4401/police"), Role.SUBSCRIBER, Scope("4401"))


def test_a_scope_is_read_and_written() -> None:
    """`DIVISION` or `DIVISION/DEPARTMENT`; a full code is shortened; nonsense is refused."""
    assert scope("440100/police") == Scope("4401", "police")
    assert scope_text(scope("440100/police")) == "4401/police"
    assert scope_text(scope("44")) == "44"
    with pytest.raises(ConfigError):
        scope("")
