"""Feeds and selections: what is cut, what is seen, what changes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.scope import Principal, Role, scope
from sensegate.clock import FakeClock
from sensegate.errors import Conflict, NotFound, PermissionDenied
from sensegate.share import feeds
from sensegate.share.feeds import ALL_FEED, Feed, FeedFilter, Feeds, FeedSelection
from sensegate.share.matching import matches
from tests.share.made import DEVICES, Place, make_batch

codes = st.sampled_from(["44", "4401", "4403", "440106", "440103", "440304", "4419", "441900003"])


def caller(where: str, role: Role = Role.SUBSCRIBER, **more: Any) -> Principal:
    """Return a caller of a scope."""
    return Principal("t", role, scope(where), **more)


@given(st.lists(codes, max_size=4), st.lists(codes, max_size=4), codes)
def test_common_divisions_are_those_in_both(ours: list[str], theirs: list[str], place: str) -> None:
    """A place lies in the common part exactly if it lies in both; an empty list is everywhere."""
    result = feeds.common_divisions(feeds.outermost(ours), feeds.outermost(theirs))
    inside = all(not codes or any(place.startswith(code) for code in codes) for codes in (ours, theirs))
    assert (result is not None and (not result or any(place.startswith(code) for code in result))) == inside


@given(
    st.lists(codes, max_size=3),
    st.lists(st.sampled_from(["env", "police"]), max_size=2),
    st.lists(st.sampled_from(["air", "safety"]), max_size=2),
    st.lists(st.sampled_from(["pm2_5", "air_temperature"]), max_size=2),
    st.integers(1, 4),
    codes,
    st.sampled_from(["", "env", "police"]),
    st.lists(codes, max_size=2),
)
def test_masks_equal_the_definition(  # noqa: PLR0917 - hypothesis gives them
    divisions: list[str],
    departments: list[str],
    domains: list[str],
    properties: list[str],
    grade: int,
    where: str,
    department: str,
    wanted: list[str],
) -> None:
    """The rows that the columns select are those that a plain reading of feed, scope and request selects."""
    places = [*DEVICES, Place("sz-1", "440304"), Place("dg-1", "441900003"), Place("gz-all", "4401", "police")]
    rows = [(place, name, 1.0) for place in range(len(places)) for name in ("pm2_5", "air_temperature#2")]
    batch = make_batch(rows, places=places)
    feed = Feed("f", tuple(divisions), tuple(domains), tuple(properties), tuple(departments), grade_max=grade)
    narrowed = scope(f"{where}/{department}" if department else where)
    selection = feeds.scoped_selection(feed, narrowed, FeedFilter(divisions=tuple(wanted)))
    expected = {
        (place.device, name)
        for place in places
        for name in ("pm2_5", "air_temperature#2")
        if place.grade <= grade
        and place.division.startswith(where)
        and (not department or place.department == department)
        and (not divisions or any(place.division.startswith(code) for code in divisions))
        and (not wanted or any(place.division.startswith(code) for code in wanted))
        and (not departments or place.department in departments)
        and (not domains or place.domain in domains)
        and (not properties or name.partition("#")[0] in properties)
    }
    chosen = matches(batch, selection) if selection else np.zeros(0, np.int64)
    results = {(batch.origins.device[batch.origin[row]], batch.properties[batch.property[row]]) for row in chosen}
    assert results == expected
    assert list(chosen) == sorted(chosen)


@given(st.lists(codes, max_size=3), st.integers(1, 4), codes, st.integers(1, 4))
def test_subjects_are_never_passed_by_wrongly(divisions: list[str], grade_max: int, place: str, grade: int) -> None:
    """An entry whose readings could match is always looked into."""
    selection = FeedSelection(feeds.outermost(divisions), grade_max=grade_max)
    county = place[:9] if place.startswith("4419") and len(place) > 4 else place[:6] if len(place) >= 6 else "all"
    matching = grade <= grade_max and (not divisions or any(place.startswith(code) for code in divisions))
    if matching:
        assert selection.wants_subject(f"readings.{place[:4]}.{county}.{grade}")
        assert selection.wants_subject(f"readings.{place[:4]}.all.{grade}")
    assert not selection.wants_subject(f"raw.{place[:4]}-0")


def test_kinds_are_told_by_the_subject() -> None:
    """A feed of readings passes observations by, one of both looks into both, one of none is nothing."""
    readings, both = (
        feeds.scoped_selection(Feed("f", kinds=kinds), scope("44")) for kinds in (("reading",), feeds.DATA_KINDS)
    )
    assert readings
    assert both
    assert not both.kinds
    subjects = ("readings.4401.440106.1", "observations.4401.440106.1", "alarms.4401.440106.1")
    assert [readings.wants_subject(subject) for subject in subjects] == [True, False, False]
    assert [both.wants_subject(subject) for subject in subjects] == [True, True, False]
    alarms = feeds.scoped_selection(feeds.ALARM_FEED, scope("44"))
    assert alarms
    assert [alarms.wants_subject(subject) for subject in subjects] == [False, False, True]
    assert feeds.scoped_selection(Feed("f", kinds=()), scope("44")) is None


async def test_every_process_sees_a_change(fake_clock: FakeClock) -> None:
    """What one process writes another has within its watch, deletions too; the built-in feed always stays."""
    bucket = MemoryBucket()
    first, two = Feeds(bucket, fake_clock), Feeds(bucket, fake_clock)
    await first.open()
    await two.open()
    task = asyncio.create_task(two.run())
    admin = caller("44", Role.ADMIN)

    async def names(expected: list[str]) -> None:
        async with asyncio.timeout(30):
            while [feed.name for feed in two.visible(admin)] != expected:
                await asyncio.sleep(0)

    made = await first.create(Feed("air", ("4401",)))
    await names(["air", "alarms", "all"])
    await first.change(msgspec.structs.replace(made, description="x"), made.revision)
    with pytest.raises(Conflict):
        await first.change(made, made.revision)
    await first.delete("air")
    await names(["alarms", "all"])
    await first.create(Feed("air"))
    await names(["air", "alarms", "all"])
    with pytest.raises(Conflict):
        await first.delete("all")
    third = Feeds(bucket, fake_clock)
    await third.open()
    assert [feed.name for feed in third.visible(admin)] == ["air", "alarms", "all"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_a_caller_gets(fake_clock: FakeClock) -> None:
    """Role, scope, feed list and request, in this order."""
    made = Feeds(MemoryBucket(), fake_clock)
    await made.create(Feed("shenzhen", ("4403",)))
    with pytest.raises(PermissionDenied):
        made.select(caller("44", Role.AUDITOR), "all", FeedFilter())
    with pytest.raises(NotFound):
        made.select(caller("4401"), "shenzhen", FeedFilter())
    with pytest.raises(NotFound):
        made.select(caller("44", feeds=("shenzhen",)), "all", FeedFilter())
    with pytest.raises(PermissionDenied):
        made.select(caller("4401"), "all", FeedFilter(divisions=("4403",)))
    assert made.select(caller("44"), "shenzhen", FeedFilter(divisions=("4401",))) is None
    assert made.select(caller("4403"), "shenzhen", FeedFilter()) == FeedSelection(
        ("4403",), kinds=("reading",), grade_max=ALL_FEED.grade_max
    )
    first = made.select(caller("4401"), "all", FeedFilter(properties=("b", "a")))
    second = made.select(
        Principal("other", Role.CITY_OPERATOR, scope("4401")), "all", FeedFilter(properties=("a", "b"))
    )
    assert first == second
    assert hash(first) == hash(second)
