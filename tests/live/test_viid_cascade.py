"""Subscriptions by GA/T 1400 through three gateways: nothing lost or doubled by a crash, and a cancellation holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.live.cascade import CAMERA, LOW, PLATE, Row, row, vehicle

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

COUNT = 500


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Row]:
    async with row(tmp_path_factory.mktemp("cascade")) as made:
        yield made


async def test_objects_pass_upward_through_a_kill(three: Row) -> None:
    """`kill -9` of the middle gateway while objects pass: each arrives once, with its pseudonym alone."""
    sending = asyncio.create_task(three.send(0, COUNT, batch=20))
    await three.until(COUNT // 10)
    await three.middle.kill()
    await sending
    records = await three.until(COUNT)
    assert set(records) == {vehicle(number)["MotorVehicleID"] for number in range(COUNT)}
    assert set(records.values()) == {1}
    top_records = str(await three.top.records())
    assert PLATE not in top_records
    assert '"region":"粤B"' in top_records.replace("\\", "")
    await three.top.totals()  # it balances


async def test_cameras_come_up_as_devices(three: Row) -> None:
    """The camera at the bottom is a device at the top, behind the platform in the middle."""
    row = (await three.top.ask("GET", f"/api/v1/devices/{CAMERA}")).body
    assert row["profile"] == "sensegate/viid"
    above = (await three.middle_site.ask("GET", "/api/v1/viid")).body["superiors"]
    assert above[0]["registered"]


async def test_a_cancelled_subscription_stops(three: Row) -> None:
    """Cancelled in the middle, what is sent at the bottom from then on stays there; renewed, new objects come again.

    The answer to the cancellation is the stop: what is sent right behind it must not come, nor ever after.
    """
    before = set(await three.arrived())
    assert (await three.middle_site.ask("POST", f"/api/v1/viid/subordinates/{LOW}/cancel")).body["cancelled"]
    await three.send(COUNT, COUNT + 20)
    orders = (await three.low.ask("GET", "/api/v1/viid")).body["subscriptions"]
    assert [order["status"] for order in orders] == [1]
    assert (await three.middle_site.ask("POST", f"/api/v1/viid/subordinates/{LOW}/renew")).body["in_force"]
    await three.send(COUNT + 20, COUNT + 30)
    records = await three.until(len(before) + 10)  # the log is read in its order: the others would have come before
    assert set(records) - before == {vehicle(number)["MotorVehicleID"] for number in range(COUNT + 20, COUNT + 30)}
