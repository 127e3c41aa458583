"""One function decides; everything not granted is refused."""

from __future__ import annotations

import itertools

import pytest

from sensegate.authority.scope import (
    Action,
    Principal,
    Role,
    Scope,
    allows,
    demand,
    may_hand_out,
    may_withdraw,
    scope,
    scope_text,
)
from sensegate.errors import ConfigError, PermissionDenied

LOOK = {Action.READ_READINGS, Action.READ_REGISTRY, Action.READ_LEDGER, Action.READ_QUARANTINE}
SHARE = {Action.READ_CATALOGUE, Action.APPLY_GRANTS}
COUNTY = LOOK | SHARE | {Action.CHANGE_DEVICES, Action.TASK_DEVICES, Action.PROPOSE_PROFILES, Action.DECIDE_GRANTS}
COUNTY |= {Action.READ_ALARMS, Action.CHANGE_ALARMS, Action.CORRECT_READINGS}
CITY = COUNTY | {
    Action.INGEST,
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
    Role.AUDITOR: {
        Action.READ_AUDIT,
        Action.READ_LEDGER,
        Action.READ_REGISTRY,
        Action.READ_CATALOGUE,
        Action.CHANGE_AUDITORS,
    },
    Role.ADMIN: set(Action) - {Action.READ_AUDIT, Action.CHANGE_AUDITORS},
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


def test_a_token_for_feeds_has_no_right_beyond_a_subscriber() -> None:
    """Quarantined messages and the registry hold what other feeds would mask: a token for one feed gets neither."""
    for role in Role:
        rights = {action for action in Action if allows(caller(role, "44", ("air",)), action, "44", feed="air")}
        assert rights == TABLE[role] & TABLE[Role.SUBSCRIBER], role


GIVERS = [
    *(Principal("g", role, scope(place), feeds) for role in Role for place in SCOPES for feeds in ((), ("air",))),
    *(Principal("g", role, scope(place), person=True) for role in Role for place in SCOPES),
]
HOLDERS = [
    *(
        Principal("h", role, scope(place), feeds)
        for role in Role
        for place in SCOPES
        for feeds in ((), ("air",), ("x",))
    ),
    *(Principal("h", role, scope(place), person=True) for role in Role for place in SCOPES),
]


def gained(giver: Principal, holder: Principal) -> str:
    """Return what a holder may do that its giver may not; empty: nothing."""
    for action, (division, department), feed in itertools.product(Action, PLACES, ("", "air", "x")):
        if allows(holder, action, division, department, feed=feed) and not allows(
            giver, action, division, department, feed=feed
        ):
            return f"{action} on {division}/{department} {feed}"
    return ""


def test_nobody_hands_out_rights_that_they_do_not_have() -> None:
    """Every giver × holder × action × place: who is made may do nothing that the giver may not."""
    pairs = list(itertools.product(GIVERS, HOLDERS))
    given = [(giver, holder) for giver, holder in pairs if may_hand_out(giver, holder)]
    assert len(pairs) > 20_000
    assert len(given) > 300, "negative control: the rule is not `never`"
    assert not [(pair, more) for pair in given if (more := gained(*pair))]
    by = {(giver.role, giver.person, holder.role, holder.person) for giver, holder in given}
    operators = (Role.COUNTY_OPERATOR, Role.CITY_OPERATOR, Role.PROVINCE_OPERATOR)
    tokens = {
        Role.CITY_OPERATOR: {Role.SUBSCRIBER, Role.COUNTY_OPERATOR, Role.CITY_OPERATOR},
        Role.PROVINCE_OPERATOR: {Role.SUBSCRIBER, *operators},
        Role.AUDITOR: {Role.AUDITOR},
    }
    people = {
        Role.CITY_OPERATOR: {Role.COUNTY_OPERATOR},
        Role.PROVINCE_OPERATOR: {Role.COUNTY_OPERATOR, Role.CITY_OPERATOR},
        Role.AUDITOR: {Role.AUDITOR},
        Role.ADMIN: {Role.ADMIN},
    }
    expected = {
        (giver, person, role, is_person)
        for person in (False, True)
        for is_person, table in ((False, tokens), (True, people))
        for giver, roles in table.items()
        for role in roles
    }
    # The token of an administrator has the rights of operators, the administrator in person has not.
    expected |= {(Role.ADMIN, False, role, False) for role in (Role.SUBSCRIBER, *operators, Role.ADMIN)}
    expected |= {(Role.ADMIN, False, role, True) for role in operators}
    assert by == expected
    auditors = {giver.role for giver, holder in given if holder.role is Role.AUDITOR}
    assert auditors == {Role.AUDITOR}


def test_a_planted_hole_in_the_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a role that has more than the rule knows of, or a wider scope, is named by the matrix."""
    giver = Principal("g", Role.ADMIN, scope("4401"), person=True)
    assert not gained(giver, Principal("h", Role.ADMIN, scope("4401"), person=True))
    assert gained(giver, Principal("h", Role.SUBSCRIBER, scope("4401"))), "more rights"
    assert gained(giver, Principal("h", Role.ADMIN, scope("44"), person=True)), "a wider scope"
    monkeypatch.setattr(Scope, "covers", lambda *_: True)
    wide = [(g, h) for g, h in itertools.product(GIVERS, HOLDERS) if may_hand_out(g, h)]
    monkeypatch.undo()
    assert [pair for pair in wide if gained(*pair)], "a rule that forgets the scope"


def test_examples_of_what_may_be_handed_out() -> None:
    """A token is never wider or higher than its giver; a county operator gives none and never has a whole city."""

    def given(giver: Principal, role: Role, place: str) -> bool:
        return may_hand_out(giver, Principal("", role, scope(place)))

    city = caller(Role.CITY_OPERATOR, "4401")
    assert given(city, Role.SUBSCRIBER, "440106")
    assert given(city, Role.COUNTY_OPERATOR, "440106")
    assert not given(city, Role.COUNTY_OPERATOR, "4401")
    assert not given(city, Role.SUBSCRIBER, "4403")
    assert not given(city, Role.ADMIN, "4401")
    assert not given(city, Role.AUDITOR, "4401")
    assert not given(caller(Role.PROVINCE_OPERATOR, "44"), Role.AUDITOR, "44")
    assert not given(caller(Role.ADMIN, "44"), Role.AUDITOR, "44")
    assert not given(caller(Role.COUNTY_OPERATOR, "440106"), Role.SUBSCRIBER, "440106")
    assert given(caller(Role.ADMIN, "44"), Role.ADMIN, "4401")
    assert not given(caller(Role.CITY_OPERATOR, "4401/police"), Role.SUBSCRIBER, "4401")
    assert not given(Principal("p", Role.ADMIN, scope("44"), person=True), Role.ADMIN, "44")


def test_withdrawing_needs_less_than_handing_out() -> None:
    """An administrator in person takes away what it could not give, within its scope; auditors only from an auditor."""
    admin = Principal("p", Role.ADMIN, scope("4401"), person=True)
    for role in set(Role) - {Role.AUDITOR, Role.DEVICE}:
        assert may_withdraw(admin, caller(role, "440106")), role
        assert not may_withdraw(admin, caller(role, "4403")), role
    assert not may_withdraw(admin, caller(Role.AUDITOR, "4401"))
    assert may_withdraw(caller(Role.AUDITOR, "44"), caller(Role.AUDITOR, "4401"))
    assert not may_withdraw(caller(Role.AUDITOR, "44"), caller(Role.SUBSCRIBER, "4401"))
    assert not may_withdraw(caller(Role.CITY_OPERATOR, "4401"), caller(Role.ADMIN, "4401"))


def test_a_scope_is_read_and_written() -> None:
    """`DIVISION` or `DIVISION/DEPARTMENT`; a full code is shortened; nonsense is refused."""
    assert scope("440100/police") == Scope("4401", "police")
    assert scope_text(scope("440100/police")) == "4401/police"
    assert scope_text(scope("44")) == "44"
    with pytest.raises(ConfigError):
        scope("")
