"""Applications, decisions and grants over stores in memory: who may what, until when, and never more than was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.record_store import RecordStore
from sensegate.authority.scope import Principal, Role, scope
from sensegate.clock import DAY_US
from sensegate.control.emergency_grants import EmergencyGrants
from sensegate.control.modes import EmergencyGrant, ModeOrder, ModePlan
from sensegate.errors import ConfigError, Conflict, NotFound, Overloaded, PermissionDenied, Unavailable
from sensegate.share.applications import (
    Application,
    ApplicationState,
    RequestedAccess,
    common_level,
    narrowed,
    parent_level,
)
from sensegate.share.catalogue import (
    CatalogueEntry,
    DatasetCatalogue,
    DatasetKind,
    SharingClass,
    as_csv,
    dcat,
    is_credit_code,
    matches_search,
    missing_fields,
)
from sensegate.share.feeds import Feed, common_divisions
from sensegate.share.grants import Grant, Grants, grant_selection
from tests.share.access_bench import COUNTY, OWNER, READER, WISH, AccessBench
from tests.share.made import NOW, access_request, decision_of, grant_record

PROVINCE = Principal("province", Role.PROVINCE_OPERATOR, scope("44"))
OTHER = Principal("other-city", Role.CITY_OPERATOR, scope("4403"))
ADMIN = Principal("admin", Role.ADMIN, scope("44"))


@pytest_asyncio.fixture
async def made() -> AsyncIterator[AccessBench]:
    bench = AccessBench()
    await bench.open()
    yield bench


async def test_only_the_level_that_owns_the_data_decides(made: AccessBench) -> None:
    """Neither the applicant's city, nor a county below, nor the province above before the deadline."""
    application = await made.access.apply(READER, access_request(WISH))
    assert (application.level, application.state) == ("4401", ApplicationState.PENDING)
    for caller in (OTHER, COUNTY, PROVINCE, READER):
        with pytest.raises((PermissionDenied, NotFound)):
            await made.access.decide(caller, application.id, decision_of({"approve": True}), None)
    with pytest.raises(ConfigError, match="reason"):
        await made.access.decide(OWNER, application.id, decision_of({"approve": False}), None)
    done = await made.access.decide(OWNER, application.id, decision_of({"approve": False, "reason": "用途不明"}), None)
    assert done.state is ApplicationState.REFUSED
    with pytest.raises(Conflict):
        await made.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    assert made.actions == ["application.create", "application.refuse"]


async def test_past_the_deadline_the_level_above_decides_too(made: AccessBench) -> None:
    """Each deadline once. The owner may still answer."""
    first, second = (
        await made.access.apply(READER, access_request(WISH)),
        await made.access.apply(OTHER, access_request({**WISH, "subscriber": "second"})),
    )
    assert await made.access.escalate() == 0
    await made.clock.advance(10 * 86_400 + 1)
    assert await made.access.escalate() == 2
    assert await made.access.escalate() == 0
    risen = made.access.get(PROVINCE, first.id)
    assert (risen.level, risen.owner, risen.escalated) == ("44", "4401", 1)
    assert (
        await made.access.decide(PROVINCE, first.id, decision_of({"approve": True}), None)
    ).state is ApplicationState.APPROVED
    assert (
        await made.access.decide(OWNER, second.id, decision_of({"approve": True}), None)
    ).state is ApplicationState.APPROVED
    assert made.actions.count("application.escalate") == 2


async def test_what_the_province_does_not_answer_lapses_and_a_late_answer_is_taken(made: AccessBench) -> None:
    """It waits for nobody for ever: said, recorded once, the way to a new one free; each level may still answer."""
    first, second = (
        await made.access.apply(READER, access_request(WISH)),
        await made.access.apply(OTHER, access_request({**WISH, "subscriber": "second"})),
    )
    await made.clock.advance(10 * 86_400 + 1)
    assert await made.access.escalate() == 2
    assert made.access.get(READER, first.id).effective_state is ApplicationState.PENDING, (
        "negative control: the level above is asked first"
    )
    await made.clock.advance(10 * 86_400 + 1)
    assert await made.access.escalate() == 2
    lapsed = made.access.get(READER, first.id)
    assert (lapsed.effective_state, lapsed.lapsed, lapsed.level) == (ApplicationState.LAPSED, made.clock.now(), "44")
    await made.clock.advance(10 * 86_400 + 1)
    assert await made.access.escalate() == 0
    assert made.actions.count("application.lapse") == 2
    # Late, by the province; and late, by the owner, of one that applied anew and was answered.
    assert (
        await made.access.decide(PROVINCE, first.id, decision_of({"approve": True}), None)
    ).effective_state is ApplicationState.APPROVED
    assert made.admission().grant is not None
    repeated = await made.access.apply(OTHER, access_request({**WISH, "subscriber": "second"}))
    await made.access.decide(OWNER, repeated.id, decision_of({"approve": True}), None)
    with pytest.raises(Conflict, match="meanwhile"):
        await made.access.decide(OWNER, second.id, decision_of({"approve": True}), None)
    done = await made.access.decide(OWNER, second.id, decision_of({"approve": False, "reason": "late"}), None)
    assert done.effective_state is ApplicationState.REFUSED


async def test_what_lapsed_goes_after_its_time(made: AccessBench) -> None:
    """As what was decided does; not before."""
    result = await made.access.apply(READER, access_request(WISH))
    for _ in range(2):
        await made.clock.advance(10 * 86_400 + 1)
        await made.access.escalate()
    await made.clock.advance(99 * 86_400)
    assert await made.access.prune() == 0, "negative control"
    await made.clock.advance(2 * 86_400)
    assert await made.access.prune() == 1
    with pytest.raises(NotFound):
        made.access.get(READER, result.id)


async def test_a_county_decides_about_its_own_and_a_department_about_its_own(made: AccessBench) -> None:
    """Where the entry says so: the county, after its deadline the city; and never another department."""
    await made.feeds.create(Feed("county", divisions=("440106",), departments=("env",)))
    entry = CatalogueEntry("county", sharing=SharingClass.CONDITIONAL, grade=2, level="440106", published=1)
    await made.catalogue.records.put("county", entry, expected=0)
    env, police = (Principal(name, Role.COUNTY_OPERATOR, scope(f"440106/{name}")) for name in ("env", "police"))
    application = await made.access.apply(READER, access_request({**WISH, "feeds": ["county"]}))
    assert (application.level, application.department) == ("440106", "env")
    for caller in (OWNER, PROVINCE, police):
        with pytest.raises((PermissionDenied, NotFound)):
            await made.access.decide(caller, application.id, decision_of({"approve": True}), None)
    await made.clock.advance(10 * 86_400 + 1)
    await made.access.escalate()
    assert made.access.get(OWNER, application.id).level == "4401"
    with pytest.raises((PermissionDenied, NotFound)):
        await made.access.decide(police, application.id, decision_of({"approve": True}), None)
    done = await made.access.decide(env, application.id, decision_of({"approve": True}), None)
    assert done.state is ApplicationState.APPROVED


async def test_what_is_unconditional_is_granted_at_once_and_core_never(made: AccessBench) -> None:
    """The refusal of core is recorded, whoever asks; a decision cannot raise the grade either."""
    free = await made.access.apply(READER, access_request({**WISH, "feeds": ["free"]}))
    assert free.state is ApplicationState.APPROVED
    for caller in (READER, ADMIN):
        with pytest.raises(PermissionDenied, match="core"):
            await made.access.apply(caller, access_request({**WISH, "feeds": ["core"]}))
    application = await made.access.apply(READER, access_request(WISH))
    with pytest.raises(PermissionDenied, match="core"):
        await made.access.decide(OWNER, application.id, decision_of({"approve": True, "grade_max": 4}), None)
    assert made.actions.count("grant.refuse_core") == 3


async def test_a_revocation_is_in_force_at_the_next_look(made: AccessBench) -> None:
    """Admitted before, refused after, with the reason; the record stays."""
    grant = await made.granted()
    assert made.admission().grant == grant
    await made.access.revoke(OWNER, grant.id, "misuse")
    with pytest.raises(PermissionDenied, match="misuse"):
        made.admission()


async def test_a_planted_hole_in_revocation_is_found(made: AccessBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grants whose revocation is forgotten admit: the test above would see it (its negative control)."""
    grant = await made.granted()
    await made.access.revoke(OWNER, grant.id, "misuse")
    monkeypatch.setattr(Grant, "state", lambda _self, _now: "active")
    assert made.admission().grant is not None


async def test_another_process_sees_a_revocation(made: AccessBench) -> None:
    """By the bucket alone: what one process writes, another one follows."""
    grant = await made.granted()
    other = RecordStore(made.bucket, made.clock)
    theirs = Grants(other, made.feeds, made.clock, demands_grant=lambda _: True)
    await other.open()
    assert theirs.admit(READER, "air").grant is not None
    await made.access.revoke(OWNER, grant.id, "misuse")
    rows, _ = await made.bucket.load_all()
    for row in rows:
        await other._take(row)
    with pytest.raises(PermissionDenied):
        theirs.admit(READER, "air")


async def test_a_grant_ends_and_begins_by_the_clock(made: AccessBench) -> None:
    """Waiting, active, expired."""
    application = await made.access.apply(READER, access_request({**WISH, "starts": NOW + DAY_US}))
    await made.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    with pytest.raises(NotFound, match="no feed"):
        made.grants.admit(OTHER, "air")
    with pytest.raises(PermissionDenied, match="not started"):
        made.admission()
    await made.clock.advance(86_401)
    assert made.admission().selection is not None
    await made.clock.advance(31 * 86_400)
    with pytest.raises(PermissionDenied, match="expired"):
        made.admission()


async def test_a_renewal_goes_on_with_its_mask_and_is_decided_as_any(made: AccessBench) -> None:
    """From its end on, under the same id; without a word about masks they stay; revoked, it is not renewed."""
    grant = await made.granted(mask={"hash": ["device"]}, rate=5.0)
    wish = await made.access.renew(READER, grant.id, days=60)
    await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    longer = made.access.grant(READER, grant.id)
    assert longer.expires == grant.expires + 60 * DAY_US
    assert (longer.mask, longer.rate, longer.created) == (grant.mask, 5.0, grant.created)
    with pytest.raises(Conflict, match="renew it"):
        await made.access.apply(READER, access_request(WISH))
    await made.access.revoke(READER, grant.id)
    with pytest.raises(Conflict, match="revoked"):
        await made.access.renew(READER, grant.id, days=1)


async def test_terms_are_changed_by_the_owner_and_handed_over_by_the_applicant(made: AccessBench) -> None:
    """Never the other way, never to another city, never as of an old revision."""
    grant = await made.granted()
    whole = msgspec.to_builtins(grant)
    with pytest.raises(PermissionDenied):
        await made.access.change(READER, grant.id, grant_record({**whole, "rate": 1.0}), grant.revision)
    with pytest.raises((PermissionDenied, NotFound)):
        await made.access.change(PROVINCE, grant.id, grant_record({**whole, "subscriber": "foreign"}), grant.revision)
    changed = await made.access.change(OWNER, grant.id, grant_record({**whole, "rate": 1.0}), grant.revision)
    assert changed.rate == 1.0
    with pytest.raises(Conflict):
        await made.access.change(OWNER, grant.id, grant_record({**whole, "rate": 2.0}), grant.revision)
    handed = await made.access.change(
        OTHER, grant.id, grant_record({**msgspec.to_builtins(changed), "subscriber": "second"}), changed.revision
    )
    assert handed.subscriber == "second"
    with pytest.raises((PermissionDenied, NotFound)):
        made.admission()


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate", -1.0), ("rate", float("nan")), ("volume", -1), ("volume", 2**53), ("forms", ("fax",))],
)
async def test_changed_terms_are_checked_as_decided_ones(made: AccessBench, key: str, value: Any) -> None:
    """A change to terms that an application could not request is refused; the grant stays as it was."""
    grant = await made.granted()
    with pytest.raises(ConfigError) as refused:
        await made.access.change(OWNER, grant.id, msgspec.structs.replace(grant, **{key: value}), grant.revision)
    assert refused.value.key == key
    assert made.access.grant(OWNER, grant.id) == grant


async def test_a_crash_between_grant_and_decision_makes_no_second_grant(
    made: AccessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application is pending still; decided again, its grant is the same one; nothing is added twice."""

    async def lost(*_: object, **__: object) -> Application:
        raise Unavailable("killed")

    application = await made.access.apply(READER, access_request(WISH))
    with monkeypatch.context() as patch:
        patch.setattr(made.access.applications, "put", lost)
        with pytest.raises(Unavailable):
            await made.access.decide(OWNER, application.id, decision_of({"approve": True}), None)
    done = await made.access.decide(OWNER, application.id, decision_of({"approve": True, "rate": 3.0}), None)
    assert [(record.id, record.rate) for record in made.grants.records] == [(done.grants[0], 3.0)]
    wish = await made.access.renew(READER, done.grants[0], days=60)
    with monkeypatch.context() as patch:
        patch.setattr(made.access.applications, "put", lost)
        with pytest.raises(Unavailable):
            await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    (grant,) = made.grants.records
    assert grant.expires == NOW + 90 * DAY_US


async def _interrupted(made: AccessBench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Approve an application in a process that is killed between the grant and the decision."""

    async def lost(*_: object, **__: object) -> Application:
        raise Unavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(made.access.applications, "put", lost)
        with pytest.raises(Unavailable):
            await made.access.decide(OWNER, name, decision_of({"approve": True}), None)


@pytest.mark.parametrize("ending", ["refuse", "withdraw"])
async def test_what_is_refused_after_an_interrupted_approval_is_not_granted(
    made: AccessBench, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The grant that the approval left is revoked, on the trail; approved anew it would be in force again."""
    application = await made.access.apply(READER, access_request(WISH))
    await _interrupted(made, application.id, monkeypatch)
    assert made.admission().grant is not None, "negative control"
    if ending == "refuse":
        await made.access.decide(OWNER, application.id, decision_of({"approve": False, "reason": "no"}), None)
    else:
        await made.access.withdraw(READER, application.id)
    with pytest.raises(PermissionDenied, match="revoked"):
        made.admission()
    assert "grant.revoke" in made.actions


async def test_an_extension_by_an_interrupted_approval_is_not_refused_silently(
    made: AccessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grant was in force before: it is neither revoked nor left longer than the record says."""
    grant = await made.granted()
    wish = await made.access.renew(READER, grant.id, days=60)
    await _interrupted(made, wish.id, monkeypatch)
    with pytest.raises(Conflict, match="revoke the grant first"):
        await made.access.decide(OWNER, wish.id, decision_of({"approve": False, "reason": "no"}), None)
    await made.access.revoke(OWNER, grant.id)
    done = await made.access.decide(OWNER, wish.id, decision_of({"approve": False, "reason": "no"}), None)
    assert done.state is ApplicationState.REFUSED


@pytest.mark.parametrize("renewal", [False, True])
async def test_a_refusal_during_an_approval_leaves_no_grant(
    made: AccessBench, monkeypatch: pytest.MonkeyPatch, *, renewal: bool
) -> None:
    """Two officials at once: that of the refusal is stored first, and what the other one granted is undone."""
    before = await made.granted() if renewal else None
    wish = (
        await made.access.renew(READER, before.id, days=60)
        if before
        else await made.access.apply(READER, access_request(WISH))
    )
    refusal = decision_of({"approve": False, "reason": "no"})
    written = made.trail.record

    async def record(principal: Principal, action: str, *args: Any, **named: Any) -> None:
        await written(principal, action, *args, **named)
        if action == "grant.create":
            monkeypatch.setattr(made.trail, "record", written)
            await made.access.decide(OWNER, wish.id, refusal, None)

    monkeypatch.setattr(made.trail, "record", record)
    with pytest.raises(Conflict):
        await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    assert made.access.get(OWNER, wish.id).state is ApplicationState.REFUSED
    if before:
        after = made.access.grant(OWNER, before.id)
        assert msgspec.structs.replace(after, revision=0) == msgspec.structs.replace(before, revision=0)
    else:
        with pytest.raises(PermissionDenied, match="revoked"):
            made.admission()


async def test_a_renewal_neither_revives_a_grant_nor_takes_it_back(made: AccessBench) -> None:
    """What was revoked after the application stays revoked; what was handed over stays with its new subscriber."""
    grant = await made.granted()
    wish = await made.access.renew(READER, grant.id, days=60)
    handed = await made.access.change(
        OTHER, grant.id, msgspec.structs.replace(grant, subscriber="second"), grant.revision
    )
    await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    extended = made.access.grant(OWNER, grant.id)
    assert (extended.subscriber, extended.expires) == ("second", handed.expires + 60 * DAY_US)
    wish = await made.access.renew(OTHER, grant.id, days=60)
    await made.access.revoke(OWNER, grant.id, "misuse")
    with pytest.raises(Conflict, match="revoked meanwhile"):
        await made.access.decide(OWNER, wish.id, decision_of({"approve": True}), None)
    assert made.access.grant(OWNER, grant.id).revoked


async def test_nobody_renews_without_end(made: AccessBench) -> None:
    """What is granted at once is not extended by its subscriber to a hundred years."""
    free = await made.access.apply(READER, access_request({**WISH, "feeds": ["free"], "days": 1_096}))
    (name,) = free.grants
    await made.access.renew(READER, name, days=1_096)
    with pytest.raises(Conflict, match="renew it later"):
        await made.access.renew(READER, name, days=1_096)
    await made.clock.advance(1_096 * 86_400)
    await made.access.renew(READER, name, days=1_096)


async def test_the_newest_grant_decides_while_it_lasts(made: AccessBench) -> None:
    """One of a mode order, without a mask and for an hour, goes before the ordinary one, and gives way to it again."""
    ordinary = await made.granted(mask={"hash": ["device"]})
    await made.clock.advance(60)
    now = made.clock.now()
    order = Grant("g00000000000000ff", "air", "reader", expires=now + 3_600_000_000, created=now, divisions=("4401",))
    await made.grants.records.put(order.id, order, expected=0)
    admission = made.admission()
    assert admission.grant_id == order.id
    assert admission.selection is not None
    assert not admission.selection.mask
    await made.clock.advance(3_601)
    assert made.admission().grant_id == ordinary.id


async def test_what_the_owner_adds_to_a_feed_is_not_in_a_grant(made: AccessBench) -> None:
    """Kinds, domains, properties, divisions as they were; what he takes away is gone."""
    grant = await made.granted()
    feed = made.feeds.find("air")
    assert feed is not None
    wider = msgspec.structs.replace(feed, kinds=("reading", "observation"), divisions=("4401", "4403"))
    await made.feeds.change(wider, feed.revision)
    selection = made.admission().selection
    assert selection is not None
    assert (selection.kinds, selection.divisions) == (("reading",), ("4401",))
    assert grant.kinds == ("reading",)
    feed = made.feeds.find("air")
    assert feed is not None
    await made.feeds.change(msgspec.structs.replace(feed, divisions=("440106",), grade_max=1), feed.revision)
    selection = made.admission().selection
    assert selection is not None
    assert (selection.divisions, selection.grade_max) == (("440106",), 1)


def test_a_grant_of_readings_has_no_observations() -> None:
    """Whatever the grant says: the feed's kinds are not widened by one."""
    feed = Feed("f", kinds=("reading",))
    for kinds in ((), ("reading",), ("reading", "observation")):
        cut = grant_selection(feed, Grant("g", "f", "r", 0, kinds=kinds))
        assert cut is not None
        assert cut.kinds == ("reading",)
    assert grant_selection(feed, Grant("g", "f", "r", 0, kinds=("observation",))) is None


async def test_what_is_not_offered_cannot_be_applied_for(made: AccessBench) -> None:
    """A draft, a feed without an entry, none at all: not told apart; the owner is told what to do."""
    await made.feeds.create(Feed("draft", divisions=("4401",)))
    for name in ("draft", "nothing", "all"):
        with pytest.raises(NotFound, match="in the catalogue"):
            await made.access.apply(READER, access_request({**WISH, "feeds": [name]}))
    with pytest.raises(ConfigError, match="complete its catalogue entry"):
        await made.access.apply(OWNER, access_request({**WISH, "feeds": ["draft"], "subscriber": ""}))


BAD_WISHES: list[dict[str, Any]] = [
    {"feeds": []},
    {"feeds": ["air", "air"]},
    {"purpose": " "},
    {"legal_basis": ""},
    {"properties": ["air_temprature"]},
    {"days": 0},
    {"days": 1e9},
    {"deliveries": ["pigeon"]},
    {"forms": ["xml"]},
    {"rate": -1},
    {"volume": -1},
    {"divisions": ["4403"]},
    {"divisions": ["4401"] * 501},
    {"properties": ["x" * 65]},
    {"properties": ["pm2_5"] * 501},
]


@pytest.mark.parametrize("bad", BAD_WISHES, ids=lambda bad: repr(bad)[:60])
async def test_a_wish_that_cannot_be_is_refused(made: AccessBench, bad: dict[str, Any]) -> None:
    """With the key that is wrong, and nothing is kept."""
    with pytest.raises(ConfigError):
        await made.access.apply(READER, access_request({**WISH, **bad}))
    assert not list(made.access.applications)


# ── terms: never more than the feed has, than was asked, than was decided ────────────────────────────────

CODES = ("44", "4401", "440106", "440103", "4403", "440304", "441900003")
codes = st.lists(st.sampled_from(CODES), max_size=3, unique=True).map(tuple)
names = st.lists(st.sampled_from(("a", "b", "c")), max_size=3, unique=True).map(tuple)


@given(codes, codes, names, names, st.integers(1, 4), st.integers(1, 3), st.sampled_from(CODES), st.sampled_from("abc"))
def test_a_grant_lets_nothing_through_that_the_feed_or_the_grant_has_not(  # noqa: PLR0917 - drawn
    feed_codes: tuple[str, ...],
    grant_codes: tuple[str, ...],
    feed_names: tuple[str, ...],
    grant_names: tuple[str, ...],
    feed_grade: int,
    grant_grade: int,
    place: str,
    name: str,
) -> None:
    """For any place, property and grade: admitted only where feed and grant both admit it; never core."""
    feed = Feed("f", divisions=feed_codes, properties=feed_names, grade_max=feed_grade)
    grant = Grant("g", "f", "r", 0, divisions=grant_codes, properties=grant_names, grade_max=grant_grade)
    cut = grant_selection(feed, grant)

    def inside(division: str, allowed: tuple[str, ...]) -> bool:
        return not allowed or division.startswith(allowed)

    right = (
        inside(place, feed_codes)
        and inside(place, grant_codes)
        and (not feed_names or name in feed_names)
        and (not grant_names or name in grant_names)
    )
    shown = cut is not None and inside(place, cut.divisions) and (not cut.properties or name in cut.properties)
    assert shown == right
    if cut is not None:
        assert cut.grade_max <= min(feed_grade, grant_grade, 3)


@given(names, names)
def test_a_decision_is_never_wider_than_the_wish(requested: tuple[str, ...], decided: tuple[str, ...]) -> None:
    """Where something was asked for, only that can be given; where nothing was, all was asked for."""
    if requested and {*decided} - {*requested}:
        with pytest.raises(ConfigError):
            narrowed(requested, decided, "properties")
        return
    given_ = narrowed(requested, decided, "properties")
    assert given_ == (decided or requested)
    assert not requested or {*given_} <= {*requested}


@given(codes)
def test_the_level_holds_all_of_the_data_and_rises_to_the_province(divisions: tuple[str, ...]) -> None:
    """At most a city; each level above holds the one below, and ends at the province."""
    level = common_level(divisions)
    assert len(level) in {2, 4}
    assert all(code.startswith(level) for code in divisions)
    for _ in range(4):
        assert level.startswith(parent_level(level))
        level = parent_level(level)
    assert level == "44"


@given(codes, codes)
def test_common_divisions_lie_in_both(ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    """None is in one of them alone."""
    both = common_divisions(ours, theirs)
    for code in both or ():
        assert not ours or code.startswith(ours)
        assert not theirs or code.startswith(theirs)


# ── the catalogue ───────────────────────────────────────────────────────────────────────────────────────


def test_an_entry_says_what_is_missing() -> None:
    """The five fields, and what its class demands."""
    lacks = {text.partition(":")[0] for text in missing_fields(CatalogueEntry("f"))}
    assert {"department", "source", "update", "quality", "usage", "conditions", "legal_basis"} <= lacks
    free = {text.partition(":")[0] for text in missing_fields(CatalogueEntry("f", sharing=SharingClass.UNCONDITIONAL))}
    assert lacks - free == {"conditions", "legal_basis"}


def test_a_search_is_in_both_languages_and_demands_every_word() -> None:
    """Whatever the case and the order."""
    entry = CatalogueEntry("f", title="廣州水位", title_en="Water level of Guangzhou")
    for text in ("水位", "WATER", "guangzhou 水位", ""):
        assert matches_search(entry, text), text
    assert not matches_search(entry, "water 深圳")


@pytest.mark.parametrize(
    ("code", "good"), [("91350100M000100Y43", True), ("91350100M000100Y44", False), ("9135", False)]
)
def test_a_credit_code_has_its_check_sign(code: str, good: bool) -> None:  # noqa: FBT001 - a table
    """GB 32100: mod 31."""
    assert is_credit_code(code) is good


def test_an_export_holds_no_formula_and_is_whole() -> None:
    """CSV for spreadsheets, DCAT for catalogues."""
    entry = CatalogueEntry(
        "f", title="=HYPERLINK(1)", title_en="t", department="d", kind=DatasetKind.BASE, published=NOW, code="c-1"
    )
    line = as_csv([entry]).splitlines()[1]
    assert ",=HYPERLINK" not in line
    (dataset,) = dcat([entry], title="x")["dcat:dataset"]
    assert dataset["dct:identifier"] == "c-1"
    assert len(dataset["dcat:distribution"]) == 2


def test_an_application_is_read_as_it_was_written() -> None:
    """Records of the last release are read: fields that are left out have their defaults."""
    assert msgspec.json.decode(b'{"feeds":["f"],"purpose":"p","legal_basis":"l"}', type=RequestedAccess).days == 365.0


async def test_what_ended_long_ago_goes(made: AccessBench) -> None:
    """The grant first, its application after it; what is in force or undecided stays; each removal is on the trail."""
    grant = await made.granted()
    waiting = await made.access.apply(OTHER, access_request({**WISH, "subscriber": "second"}))
    await made.clock.advance(101 * 86_400)
    assert await made.access.prune() == 0, "negative control: it ended 71 days ago; its application waits for it"
    await made.clock.advance(31 * 86_400)
    assert await made.access.prune() == 2
    assert made.grants.find(grant.id) is None
    assert [application.id for application in made.access.applications] == [waiting.id]
    assert made.actions[-2:] == ["grant.prune", "application.prune"]
    with pytest.raises((NotFound, PermissionDenied)):
        made.admission()
    reopened = Grants(store := RecordStore(made.bucket, made.clock), made.feeds, made.clock)
    await store.open()
    assert list(reopened.records) == []


async def test_a_grant_that_lasts_is_not_pruned(made: AccessBench) -> None:
    """However old its application is."""
    grant = await made.granted()
    await made.grants.records.put(
        grant.id, msgspec.structs.replace(grant, expires=NOW + 900 * DAY_US), expected=grant.revision
    )
    await made.clock.advance(500 * 86_400)
    assert await made.access.prune() == 0
    assert made.admission().grant_id == grant.id


async def test_one_subscriber_cannot_fill_the_desk(made: AccessBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another subscriber there is still room, and again after a decision."""
    monkeypatch.setattr("sensegate.share.access_requests.PENDING_MAX", 2)
    first = await made.access.apply(READER, access_request(WISH))
    await made.access.apply(READER, access_request(WISH))
    with pytest.raises(Overloaded, match="withdraw"):
        await made.access.apply(READER, access_request(WISH))
    await made.access.apply(OTHER, access_request({**WISH, "subscriber": "second"}))
    await made.access.withdraw(READER, first.id)
    await made.access.apply(READER, access_request(WISH))


async def test_what_becomes_core_is_given_no_more(made: AccessBench) -> None:
    """Also by a grant of before, and by no mode order; what is not core stays open."""
    grant = await made.granted()
    assert made.admission().grant_id == grant.id, "negative control"
    entry = made.catalogue.find("air")
    assert entry is not None
    place = scope("4401")
    wanted = EmergencyGrant("air", "second")
    plan = ModePlan(name="p", title="p", place=place, grants=(wanted,))
    order = ModeOrder(id="o", plan=plan, place=place, since=NOW, until=NOW + DAY_US, reason="x", by="owner")
    widen = EmergencyGrants(made.grants, made.feeds, made.clock)
    core = await made.catalogue.records.put("air", msgspec.structs.replace(entry, grade=4), expected=entry.revision)
    with pytest.raises(PermissionDenied, match="core"):
        made.admission()
    with pytest.raises(PermissionDenied, match="core"):
        await widen.open(order, wanted)
    assert len(list(made.grants.records)) == 1
    await made.catalogue.records.put("air", msgspec.structs.replace(entry, grade=3), expected=core.revision)
    await widen.open(order, wanted)
    assert len(list(made.grants.records)) == 2, "negative control"
    assert made.admission().grant_id == grant.id


async def test_an_order_does_not_tell_of_feeds_elsewhere(made: AccessBench) -> None:
    """A grant for a feed without a part in the order's place fails as for no feed at all."""
    place = scope("4403")
    results = set()
    for name in ("air", "nothing"):
        wanted = EmergencyGrant(name, "second")
        plan = ModePlan(name="p", title="p", place=place, grants=(wanted,))
        order = ModeOrder(id="o", plan=plan, place=place, since=NOW, until=NOW + DAY_US, reason="x", by="owner")
        with pytest.raises(NotFound) as why:
            await EmergencyGrants(made.grants, made.feeds, made.clock).open(order, wanted)
        results.add(str(why.value).replace(name, "*"))
    assert len(results) == 1
    assert not list(made.grants.records)


async def test_a_name_is_free_again_also_when_the_mark_of_its_deletion_is_gone(made: AccessBench) -> None:
    """The store forgets deletions after some days, a process that lives longer does not; what is there still is."""
    entry = made.catalogue.find("free")
    assert entry is not None
    records = made.catalogue.records
    for forgotten in (False, True):
        present = records.find("free")
        assert present is not None
        await records.delete("free", expected=present.revision)
        if forgotten:
            del made.bucket._rows["entry/free"]
        await records.put("free", msgspec.structs.replace(entry, revision=0), expected=0)
        assert records.find("free") is not None
    with pytest.raises(Conflict):
        await records.put("free", entry, expected=0)


async def test_a_code_is_given_once(made: AccessBench) -> None:
    """Those who ask at once get different ones; one whose entry is gone is given to no other, after a restart too."""
    codes = await asyncio.gather(*(made.catalogue.next_code("4401", DatasetKind.THEME) for _ in range(5)))
    assert len(set(codes)) == 5
    assert await made.catalogue.next_code("4403", DatasetKind.THEME) == "440300-theme-000001", "negative control"
    reopened = DatasetCatalogue(store := RecordStore(made.bucket, made.clock))
    await store.open()
    assert await reopened.next_code("4401", DatasetKind.THEME) == "440100-theme-000006"
    entry = reopened.find("air")
    assert entry is not None
    await reopened.records.put(
        "air", msgspec.structs.replace(entry, code="440100-theme-000040"), expected=entry.revision
    )
    assert await reopened.next_code("4401", DatasetKind.THEME) == "440100-theme-000041"
