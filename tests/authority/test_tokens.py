"""Tokens: shown once, hashed, with an end, revoked everywhere at once, never wider than their giver."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.people import People
from sensegate.authority.scope import Principal, Role, Scope
from sensegate.authority.tokens import LIFETIME_MAX_S, Tokens
from sensegate.authority.trail import MemoryTrail
from sensegate.clock import FakeClock
from sensegate.config.people import PeopleConfig
from sensegate.errors import ConfigError, NotFound, PermissionDenied


@pytest.fixture
async def tokens(bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock) -> Tokens:
    made = Tokens(bucket, trail, clock)
    await made.load()
    return made


async def test_a_token_proves_its_principal(tokens: Tokens, bucket: MemoryBucket, admin: Principal) -> None:
    """Role, scope and feeds come back; the secret is stored nowhere."""
    text, token = await tokens.create(Role.SUBSCRIBER, Scope("4401", "police"), by=admin, feeds=("air",), name="ops")
    principal = tokens.verify(text)
    assert (principal.id, principal.role, principal.scope, principal.feeds) == (
        token.id,
        Role.SUBSCRIBER,
        Scope("4401", "police"),
        ("air",),
    )
    assert tokens.is_valid(principal)
    row = await bucket.get(token.id)
    assert row
    assert row.value
    assert text.split("_", 2)[2].encode() not in row.value


@pytest.mark.parametrize("text", ["", "sg_", "Bearer x", "sg_0123456789abcdef_" + "x" * 32, "sg_" + "0" * 10_000])
async def test_what_is_no_token_is_refused(tokens: Tokens, admin: Principal, text: str) -> None:
    """Not authenticated, in the same words whatever is wrong."""
    await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin)
    with pytest.raises(PermissionDenied, match="no such token") as refused:
        tokens.verify(text)
    assert not refused.value.authenticated


async def test_a_wrong_secret_is_refused(tokens: Tokens, admin: Principal) -> None:
    """The id alone proves nothing, and does not tell that it exists."""
    text, _ = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin)
    with pytest.raises(PermissionDenied, match="no such token"):
        tokens.verify(text[:-1] + ("a" if text[-1] != "a" else "b"))


async def test_a_token_expires(tokens: Tokens, clock: FakeClock, admin: Principal) -> None:
    """At its end it is refused, on open streams too."""
    text, _ = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=60)
    principal = tokens.verify(text)
    await clock.advance(59)
    assert tokens.is_valid(principal)
    await clock.advance(1)
    assert not tokens.is_valid(principal)
    with pytest.raises(PermissionDenied, match="has expired") as refused:
        tokens.verify(text)
    assert not refused.value.authenticated


async def test_a_revocation_reaches_every_process(
    tokens: Tokens, bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, admin: Principal
) -> None:
    """Revoked in one, refused in the other as soon as its watch tells."""
    other = Tokens(bucket, trail, clock)
    await other.load()
    watching = asyncio.create_task(other.watch())
    text, token = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin)
    await asyncio.wait_for(other.until(lambda: len(other) == 1), 30)
    principal = other.verify(text)
    results: list[int] = []
    other.on_change.append(lambda changed: results.append(changed.revoked))
    await tokens.revoke(token.id, by=admin)
    await asyncio.wait_for(other.until(lambda: not other.is_valid(principal)), 30)
    watching.cancel()
    assert results == [clock.now()]
    with pytest.raises(PermissionDenied, match="was revoked"):
        other.verify(text)


async def test_nobody_gives_or_takes_what_is_not_his(tokens: Tokens, admin: Principal, operator: Principal) -> None:
    """Creation and revocation are cut to role and scope; one's own token may always be given up."""
    city = Principal("city", Role.CITY_OPERATOR, Scope("4401"))
    with pytest.raises(PermissionDenied):
        await tokens.create(Role.SUBSCRIBER, Scope("440106"), by=operator)
    with pytest.raises(PermissionDenied):
        await tokens.create(Role.SUBSCRIBER, Scope("4403"), by=city)
    with pytest.raises(PermissionDenied):
        await tokens.create(Role.ADMIN, Scope("4401"), by=city)
    text, mine = await tokens.create(Role.SUBSCRIBER, Scope("440106"), by=city)
    _, theirs = await tokens.create(Role.SUBSCRIBER, Scope("4403"), by=admin)
    assert [token.id for token in tokens.list(city)] == [mine.id]
    assert len(tokens.list(admin)) == 2
    with pytest.raises(NotFound):
        await tokens.revoke(theirs.id, by=city)
    await tokens.revoke(mine.id, by=tokens.verify(text))
    assert not tokens.is_valid(Principal(mine.id, Role.SUBSCRIBER, Scope("440106")))


async def test_an_admin_cannot_be_revoked_by_less(tokens: Tokens, admin: Principal) -> None:
    """Who may not hand out a role may not take it either."""
    _, chief = await tokens.create(Role.ADMIN, Scope("4401"), by=admin)
    with pytest.raises(PermissionDenied):
        await tokens.revoke(chief.id, by=Principal("city", Role.CITY_OPERATOR, Scope("4401")))


async def test_lives_and_feeds_are_bounded(tokens: Tokens, admin: Principal) -> None:
    """No token without an end, none for a device, none with a list of feeds without end."""
    for life_s in (0.0, -1.0, LIFETIME_MAX_S + 1, float("nan")):
        with pytest.raises(ConfigError, match="expires"):
            await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=life_s)
    with pytest.raises(ConfigError, match="feeds"):
        await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, feeds=("f",) * 101)
    with pytest.raises(ConfigError, match="device add"):
        await tokens.create(Role.DEVICE, Scope("44"), by=admin)


async def test_the_first_start_makes_an_admin_and_an_auditor(tokens: Tokens, bucket: MemoryBucket) -> None:
    """There is no default credential: the first tokens are made where there are none, once, through a crash between."""
    made = await tokens.bootstrap(Scope("4401"))
    assert {role: tokens.verify(text).role for role, text in made.items()} == {
        Role.AUDITOR: Role.AUDITOR,
        Role.ADMIN: Role.ADMIN,
    }
    assert await tokens.bootstrap(Scope("4401")) == {}
    await bucket.delete(tokens.verify(made[Role.ADMIN]).id, expected=2)
    reopened = Tokens(bucket, MemoryTrail(), FakeClock())
    await reopened.load()
    assert set(await reopened.bootstrap(Scope("4401"))) == {Role.ADMIN}
    await reopened.create(Role.ADMIN, Scope("4401"), by=Principal("x", Role.ADMIN, Scope("44")))
    assert await reopened.bootstrap(Scope("4401")) == {}


async def test_changes_are_recorded_without_secrets(tokens: Tokens, trail: MemoryTrail, admin: Principal) -> None:
    """Creation and revocation stand on the trail."""
    text, token = await tokens.create(Role.ADMIN, Scope("44"), by=admin)
    await tokens.revoke(token.id, by=admin)
    assert [record[1] for record in trail.records] == ["token.create", "token.revoke"]
    assert text.split("_", 2)[2] not in str(trail.records)


async def test_tokens_that_ended_long_ago_go(
    tokens: Tokens, bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, admin: Principal
) -> None:
    """Revoked or expired, after their time, with an entry of the trail and a count; what is good stays."""
    _, revoked = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=300 * 86_400)
    _, expired = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=86_400)
    good, kept = await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=300 * 86_400)
    await clock.advance(1)
    await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=300 * 86_400)
    await tokens.revoke(revoked.id, by=admin)
    await clock.advance(30 * 86_400)
    assert await tokens.prune(30) == 1, "negative control: what expired a day later is kept a day longer"
    await clock.advance(2 * 86_400)
    assert await tokens.prune(30) == 1
    assert await tokens.prune(30) == 0
    with pytest.raises(NotFound):
        tokens.get(expired.id, admin)
    assert tokens.verify(good).id == kept.id
    assert [row[2] for row in trail.records if row[1] == "token.prune"] == [revoked.id, expired.id]
    reopened = Tokens(bucket, MemoryTrail(), clock)
    await reopened.load()
    assert len(reopened) == 2


async def test_the_first_tokens_stay(tokens: Tokens, clock: FakeClock) -> None:
    """Else a start after it would make first ones anew, even of the text of one that was revoked."""
    made = await tokens.bootstrap(Scope("44"))
    for text in made.values():
        first = tokens.verify(text)
        await tokens.revoke(first.id, by=first)
    await clock.advance(1_000 * 86_400)
    assert await tokens.prune(1) == 0
    assert await tokens.bootstrap(Scope("44"), given=made) == {}
    for text in made.values():
        with pytest.raises(PermissionDenied, match="revoked"):
            tokens.verify(text)


async def test_a_token_for_feeds_makes_none_without(tokens: Tokens, admin: Principal) -> None:
    """A token that is restricted to feeds has a subscriber's rights, and makes no tokens at all."""
    text, _ = await tokens.create(Role.CITY_OPERATOR, Scope("4401"), by=admin, feeds=("air",))
    restricted = tokens.verify(text)
    for feeds in ((), ("air",), ("noise",)):
        with pytest.raises(PermissionDenied):
            await tokens.create(Role.SUBSCRIBER, Scope("4401"), by=restricted, feeds=feeds)


async def test_they_are_looked_for_every_hour_or_never(tokens: Tokens, clock: FakeClock, admin: Principal) -> None:
    """By the kept time of the configuration; 0 keeps all."""
    for _ in range(2):
        await tokens.create(Role.SUBSCRIBER, Scope("44"), by=admin, lifetime_s=60)
    for kept_days, left in ((0.0, 2), (1.0, 0)):
        task = asyncio.create_task(tokens.sweep(kept_days))
        await asyncio.sleep(0)
        for _ in range(30):
            await clock.advance(3_600)
        task.cancel()
        assert len(tokens) == left


# ── who made it ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def people(trail: MemoryTrail, clock: FakeClock) -> People:
    """One operator of a city, who signs in."""
    made = People(MemoryBucket(), trail, clock, PeopleConfig())
    await made.create("li", Role.CITY_OPERATOR, Scope("4401"), by=OPERATOR)
    return made


ROOT = Principal("root", Role.ADMIN, Scope("44"))
OPERATOR = Principal("operator", Role.PROVINCE_OPERATOR, Scope("44"))
LI = Principal("person:li", Role.CITY_OPERATOR, Scope("4401"), person=True)


async def test_a_token_does_not_outlive_the_rights_of_the_person_who_made_it(
    bucket: MemoryBucket, trail: MemoryTrail, clock: FakeClock, people: People
) -> None:
    """Also by way of other tokens; given back, it is good again: as personal access tokens of GitHub."""
    tokens = Tokens(bucket, trail, clock, present_rights=people.present_rights)
    people.on_change.append(tokens.person_changed)
    heard: list[str] = []
    tokens.on_change.append(lambda token: heard.append(token.id))
    own, _ = await tokens.create(Role.CITY_OPERATOR, Scope("4401"), by=LI)
    narrow, _ = await tokens.create(Role.SUBSCRIBER, Scope("440106"), by=tokens.verify(own))
    others, _ = await tokens.create(Role.CITY_OPERATOR, Scope("4401"), by=ROOT)
    good = [tokens.verify(text) for text in (own, narrow, others)]

    async def changed(**changes: Any) -> tuple[list[bool], list[bool]]:
        """Change the account; return which tokens are still taken, and which stay valid on open streams."""
        heard.clear()
        version = tokens.version
        await people.change("li", by=OPERATOR, revision=people.get("li", ROOT).revision, **changes)
        assert tokens.version > version
        assert {*heard} == {good[0].id, good[1].id}
        return [is_taken(tokens, text) for text in (own, narrow, others)], [
            tokens.is_valid(example) for example in good
        ]

    for change, expected in (
        ({"disabled": True}, [False, False, True]),
        ({"disabled": False}, [True, True, True]),
        ({"role": Role.COUNTY_OPERATOR, "scope": Scope("440106")}, [False, False, True]),
        ({"role": Role.CITY_OPERATOR, "scope": Scope("4401")}, [True, True, True]),
        ({"scope": Scope("4401", "water")}, [False, False, True]),
    ):
        assert await changed(**change) == (expected, expected), change
    with pytest.raises(PermissionDenied, match="has ended"):
        tokens.principal(good[1].id)
    with pytest.raises(PermissionDenied, match="may no longer make it"):
        tokens.verify(own)
    await people.remove("li", by=ROOT)
    with pytest.raises(PermissionDenied, match="account of the person who made it has ended"):
        tokens.verify(narrow)


async def test_the_person_is_known_when_the_token_between_is_gone(
    tokens: Tokens, clock: FakeClock, people: People
) -> None:
    """A token that ended long ago is removed; what it made still has the person behind it."""
    tokens = Tokens(MemoryBucket(), MemoryTrail(), clock, present_rights=people.present_rights)
    between, made = await tokens.create(Role.CITY_OPERATOR, Scope("4401"), by=LI, lifetime_s=60)
    narrow, _ = await tokens.create(Role.SUBSCRIBER, Scope("440106"), by=tokens.verify(between))
    await clock.advance(3 * 86_400)
    assert await tokens.prune(1) == 1
    assert tokens.person_behind(tokens.verify(narrow).id) == LI.id
    assert made.person == LI.id


def is_taken(tokens: Tokens, text: str) -> bool:
    """Return whether a token is accepted."""
    try:
        tokens.verify(text)
    except PermissionDenied:
        return False
    return True
