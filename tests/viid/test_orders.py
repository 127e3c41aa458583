"""Subscriptions of platforms above: made, changed, cancelled, expired, and where each goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.authority.bucket import MemoryBucket
from sensegate.bus.memory import MemoryLog
from sensegate.clock import FakeClock
from sensegate.errors import Rejected
from sensegate.video.formats.viid_subscriptions import ACTIVE, CANCELLED, parse_subscriptions, subscription_fields
from sensegate.viid.subscriptions import SubscriptionOffset, ViidSubscriptions
from tests.spoil import ODD

PEER = "44000000005030000003"
ID = "440000000000032026011510000000001"
FIELDS = ("SubscribeID", "SubscribeDetail", "ResourceURI", "BeginTime", "EndTime", "OperateType", "ReportInterval")
START = 1_768_442_400_000_000
"""2026-01-15T10:00:00 in Beijing."""


def body(**more: Any) -> bytes:
    wish = {
        "SubscribeID": ID,
        "Title": "someone's",
        "SubscribeDetail": "12,13",
        "ResourceURI": "4401",
        "BeginTime": "20260115100000",
        "EndTime": "20260115110000",
        "OperateType": 0,
        **more,
    }
    return json.dumps({"SubscribeListObject": {"SubscribeObject": [wish]}}).encode()


@pytest.mark.parametrize(
    "end", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00", "99991231235959", "20991231235959"]
)
def test_an_end_without_end_is_told_again(end: str) -> None:
    [result] = parse_subscriptions(body(EndTime=end), PEER, START)
    assert result.subscription
    assert subscription_fields(result.subscription)["EndTime"] in {"99991231235959", "20991231235959"}


@given(st.dictionaries(st.sampled_from(FIELDS), st.sampled_from([*ODD[:60], [], {}, None, 10**400]), min_size=1))
def test_any_wish_is_an_order_or_none(more: dict[str, Any]) -> None:
    try:
        subscriptions = parse_subscriptions(body(**more), PEER, START)
    except Rejected:
        return
    for result in subscriptions:
        assert result.subscription is None or json.dumps(subscription_fields(result.subscription))


async def made(clock: FakeClock, bucket: MemoryBucket, log: MemoryLog) -> ViidSubscriptions:
    orders = ViidSubscriptions(bucket, log, clock)
    await orders.load()
    return orders


async def test_made_changed_cancelled() -> None:
    clock, bucket, log = FakeClock(START), MemoryBucket(), MemoryLog()
    orders = await made(clock, bucket, log)
    assert [result.code for result in await orders.update(PEER, body())] == [0]
    [order] = orders.of_peer(PEER)
    assert (order.kinds, order.resources, order.status) == (("Face", "MotorVehicle"), ("4401",), ACTIVE)
    assert order.is_active(START)
    assert not order.is_active(START + 3_600_000_000)
    assert order.matches("Face", "44010600001190000001")
    assert not order.matches("Face", "44030600001190000001")
    assert not order.matches("Person", "44010600001190000001")
    await orders.set_offset(order, SubscriptionOffset(log.epoch, 7, 3))
    await orders.update(PEER, body(SubscribeDetail="13"))
    [order] = orders.of_peer(PEER)
    assert order.kinds == ("MotorVehicle",)
    repeated = await made(clock, bucket, log)
    assert repeated.of_peer(PEER) == [order]
    assert (repeated.offset(order).sequence, repeated.offset(order).row) == (7, 3)
    changed = orders.changed(PEER)
    changed.clear()
    assert [result.code for result in await orders.update(PEER, body(OperateType=1))] == [0]
    assert orders.of_peer(PEER)[0].status == CANCELLED
    assert changed.is_set()
    assert [result.code for result in await orders.remove(PEER, ["none"])] == [4]
    assert "someone" not in orders.listed(PEER).decode()


async def test_what_expired_is_told_as_such() -> None:
    clock = FakeClock(START)
    orders = await made(clock, MemoryBucket(), MemoryLog())
    await orders.update(PEER, body())
    assert b'"SubscribeStatus":0' in orders.listed(PEER)
    await clock.advance(3_601)
    assert b'"SubscribeStatus":2' in orders.listed(PEER)
    assert [result.code for result in await orders.update(PEER, body())] == [8]


async def test_cancelled_ones_give_way_to_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A platform that cancels and subscribes anew under another id is not refused some day; active ones stay."""
    monkeypatch.setattr("sensegate.viid.subscriptions.SUBSCRIPTIONS_MAX", 2)
    clock, bucket, log = FakeClock(START), MemoryBucket(), MemoryLog()
    orders = await made(clock, bucket, log)
    first, second, third, fourth = (f"{ID[:-1]}{number}" for number in range(1, 5))
    for name in (first, second):
        assert [result.code for result in await orders.update(PEER, body(SubscribeID=name))] == [0]
    assert [result.code for result in await orders.update(PEER, body(SubscribeID=third))] == [4]
    await orders.remove(PEER, [first])
    assert [result.code for result in await orders.update(PEER, body(SubscribeID=third))] == [0]
    assert [order.id for order in orders.of_peer(PEER)] == [second, third]
    assert [order.id for order in (await made(clock, bucket, log)).of_peer(PEER)] == [second, third]
    await clock.advance(3_601)
    later = body(SubscribeID=fourth, EndTime="20260116110000")
    assert [result.code for result in await orders.update(PEER, later)] == [0]
    assert [order.id for order in orders.of_peer(PEER)] == [third, fourth]


async def test_another_life_of_the_log_begins_at_its_beginning() -> None:
    """Sequences of two lives do not compare: all is sent once more, and told as duplicates above."""
    clock, bucket = FakeClock(START), MemoryBucket()
    orders = await made(clock, bucket, MemoryLog())
    await orders.update(PEER, body())
    [order] = orders.of_peer(PEER)
    await orders.set_offset(order, SubscriptionOffset("another", 9))
    assert orders.offset(order).sequence == 0


@pytest.mark.parametrize(
    "wrong", [{"SubscribeID": ""}, {"SubscribeDetail": "99"}, {"ResourceURI": "x"}, {"EndTime": "20200101000000"}]
)
async def test_one_that_cannot_be_used_is_refused_alone(wrong: dict[str, Any]) -> None:
    orders = await made(FakeClock(START), MemoryBucket(), MemoryLog())
    assert [result.code for result in await orders.update(PEER, body(**wrong))] == [8]
    assert not orders.of_peer(PEER)


async def test_a_body_that_is_none() -> None:
    orders = await made(FakeClock(START), MemoryBucket(), MemoryLog())
    with pytest.raises(Rejected):
        await orders.update(PEER, b"{}")
