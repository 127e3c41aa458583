"""Bundles: a pre-approval covers what its owner approved, whatever becomes of the names of its feeds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sensegate.authority.scope import Principal, Role, scope
from sensegate.clock import DAY_US
from sensegate.share.applications import Application, ApplicationState
from sensegate.share.bundles import ApprovedFeed, Bundle, PreApproval
from sensegate.share.catalogue import CatalogueEntry, SharingClass
from sensegate.share.feeds import ALARM, READING, Feed
from tests.share.access_bench import OWNER, READER, AccessBench
from tests.share.made import NOW, access_request, decision_of

TERMS = decision_of({"approve": True, "grade_max": 2})
BUNDLE = Bundle("city", ("air",), pre_approvals=(PreApproval(("44",), NOW + 100 * DAY_US, TERMS),))


@pytest_asyncio.fixture
async def made() -> AsyncIterator[AccessBench]:
    bench = AccessBench()
    await bench.open()
    yield bench


async def applied(made: AccessBench) -> Application:
    """Apply for the bundle."""
    request = access_request({"bundle": "city", "feeds": [], "purpose": "p", "legal_basis": "l", "days": 30})
    return await made.access.apply(READER, request)


async def test_a_pre_approval_grants_at_once(made: AccessBench) -> None:
    """Control: for what the feed is, and for a part of what it was."""
    await made.access.bundles.write(OWNER, BUNDLE, 0)
    feed = made.feeds.find("air")
    assert feed is not None
    await made.feeds.change(msgspec.structs.replace(feed, divisions=("440106",)), feed.revision)
    assert (await applied(made)).state is ApplicationState.APPROVED


async def test_a_pre_approval_is_not_one_of_a_later_feed_of_the_same_name(made: AccessBench) -> None:
    """The owner deletes its feed; another city creates one of its own under that name: it decides itself."""
    await made.access.bundles.write(OWNER, BUNDLE, 0)
    entry = made.catalogue.find("air")
    assert entry is not None
    await made.feeds.delete("air")
    await made.catalogue.records.delete("air", expected=entry.revision)
    await made.feeds.create(Feed("air", divisions=("4403",)))
    other = CatalogueEntry("air", title="水", sharing=SharingClass.CONDITIONAL, grade=2, level="4403", published=1)
    await made.catalogue.records.put("air", other, expected=0)
    application = await applied(made)
    assert (application.state, application.level) == (ApplicationState.PENDING, "4403")
    assert list(made.grants.records) == []


async def test_a_pre_approval_does_not_cover_what_was_added(made: AccessBench) -> None:
    """Until the bundle is written anew by whoever owns all of it."""
    province = Principal("province", Role.PROVINCE_OPERATOR, scope("44"))
    written = await made.access.bundles.write(OWNER, BUNDLE, 0)
    feed = made.feeds.find("air")
    assert feed is not None
    await made.feeds.change(msgspec.structs.replace(feed, divisions=("4401", "4403")), feed.revision)
    first = await applied(made)
    assert first.state is ApplicationState.PENDING
    await made.access.withdraw(READER, first.id)
    await made.access.bundles.write(province, BUNDLE, written.revision)
    assert (await applied(made)).state is ApplicationState.APPROVED


async def test_a_pre_approval_of_an_earlier_release_is_in_force(made: AccessBench) -> None:
    """Its record does not say what the feeds contained."""
    written = await made.access.bundles.write(OWNER, BUNDLE, 0)
    await made.access.bundles.records.put("city", BUNDLE, expected=written.revision)
    assert (await applied(made)).state is ApplicationState.APPROVED


@pytest.mark.parametrize(
    ("changes", "contained"),
    [
        ({}, True),
        ({"divisions": ("440106", "440303")}, True),
        ({"properties": ("pm2_5",), "departments": ("water",)}, True),
        ({"divisions": ("44",)}, False),
        ({"divisions": ()}, False),
        ({"departments": ("water", "police")}, False),
        ({"departments": ()}, False),
        ({"domains": ("weather",)}, False),
        ({"properties": ()}, False),
        ({"kinds": (READING, ALARM)}, False),
    ],
)
def test_a_feed_is_contained_only_if_nothing_was_added(changes: dict[str, Any], contained: bool) -> None:  # noqa: FBT001
    """In each of its conditions, of which an empty one selects all."""
    feed = Feed(
        "air",
        divisions=("4403", "4401", "440106"),
        departments=("water", "environment"),
        domains=("air",),
        properties=("pm2_5", "air_temperature"),
    )
    assert ApprovedFeed.of(feed).contains(msgspec.structs.replace(feed, **changes)) is contained
    assert ApprovedFeed.of(Feed("air")).contains(msgspec.structs.replace(Feed("air"), divisions=("4401",)))
