"""Our subscription at a platform below: said until it is in force, and again whenever the platform registers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sensegate.authority.bucket import MemoryBucket
from sensegate.clock import SystemClock
from sensegate.config.viid import ViidSubordinateConfig
from sensegate.errors import NotFound
from sensegate.video.formats import viid_ids as ids
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.video.formats.viid_subscriptions import parse_subscriptions
from sensegate.viid.client import ViidClient
from sensegate.viid.subordinate import ViidSubordinate
from tests.conftest import eventually

BELOW, OURS = "44010600005030000001", "44000000005030000003"


class Platform:
    """The platform below."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.responses: list[tuple[int, int]] = []
        """(HTTP status, status code) of the next subscriptions; then all are good."""
        self.apes = b'{"APEListObject": {"APEObject": []}}'

    def has(self, count: int) -> bool:
        return len(self.asked) == count

    async def serve(self, request: web.Request) -> web.Response:
        if request.headers["User-Identify"] != OURS:
            return web.Response(status=401)
        if request.method == "GET":
            return web.Response(status=200 if request.path.endswith("APEs") else 404, body=self.apes)
        self.asked.append(
            {"method": request.method, **(await request.json())["SubscribeListObject"]["SubscribeObject"][0]}
        )
        status, code = self.responses.pop(0) if self.responses else (200, 0)
        name = self.asked[-1]["SubscribeID"]
        return web.Response(status=status, body=answers.encode_status_list(request.path, [ObjectResult(name, code)], 0))


class Rig:
    """Our side."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.bucket = MemoryBucket()
        self.adopted: list[bytes] = []
        self.url = ""

    def below(self) -> ViidSubordinate:
        async def adopt(payload: bytes) -> None:
            self.adopted.append(payload)

        return ViidSubordinate(
            ViidSubordinateConfig(device=BELOW, url=self.url, details="13,3"),
            ViidClient(self.url, OURS),
            self.bucket,
            SystemClock(),
            receive=lambda: "http://us:1",
            adopt=adopt,
            uniform=lambda _low, _high: 0.01,
        )


@contextlib.asynccontextmanager
async def running(subordinate: ViidSubordinate) -> AsyncIterator[None]:
    task = asyncio.create_task(subordinate.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.platform.serve)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


async def test_it_subscribes_when_the_platform_has_registered(rig: Rig) -> None:
    below = rig.below()
    async with running(below):
        await eventually(lambda: below.desired is not None)
        assert not rig.platform.asked
        below.registered()
        await eventually(lambda: below.in_force and bool(rig.adopted))
    [request] = rig.platform.asked
    assert ids.is_order_id(request["SubscribeID"], ids.SUBSCRIPTION)
    assert (request["method"], request["SubscribeDetail"], request["OperateType"]) == ("POST", "13,3", 0)
    assert request["ReceiveAddr"] == "http://us:1/VIID/SubscribeNotifications"
    assert (request["ResultImageDeclare"], request["ResultFeatureDeclare"]) == ("-1", -1)
    assert rig.adopted == [rig.platform.apes]


@pytest.mark.parametrize("bad", [(401, 4), (503, 2), (500, 1), (200, 1)])
async def test_it_says_it_until_it_is_taken(rig: Rig, bad: tuple[int, int]) -> None:
    rig.platform.responses = [bad, bad]
    below = rig.below()
    async with running(below):
        below.registered()
        await eventually(lambda: below.in_force)
    assert len(rig.platform.asked) == 3
    assert len({request["SubscribeID"] for request in rig.platform.asked}) == 1


async def test_another_process_asks_for_the_same_and_so_does_a_new_registration(rig: Rig) -> None:
    for _ in range(2):
        below = rig.below()
        async with running(below):
            below.registered()
            await eventually(partial(getattr, below, "in_force"))
    async with running(below := rig.below()):
        for count in (3, 4):
            below.registered()
            await eventually(partial(rig.platform.has, count))
    first = rig.platform.asked[0]
    assert all(request == first for request in rig.platform.asked)


async def test_a_cancellation_is_told_even_after_a_crash(rig: Rig) -> None:
    below = rig.below()
    with pytest.raises(NotFound):
        await below.cancel()
    async with running(below):
        below.registered()
        await eventually(lambda: below.in_force)
        rig.platform.responses = [(503, 2)] * 3
        assert (await below.cancel()).cancelled
        assert not below.in_force
    rig.platform.responses = []
    requests = len(rig.platform.asked)
    async with running(repeated := rig.below()):
        repeated.registered()
        await eventually(lambda: len(rig.platform.asked) > requests)
        assert rig.platform.asked[-1]["OperateType"] == 1
        assert not repeated.in_force
        assert not (await repeated.renew()).cancelled
        assert repeated.in_force
    assert rig.platform.asked[-1]["OperateType"] == 0


async def test_what_is_asked_is_what_the_other_side_reads(rig: Rig) -> None:
    """Our own reading of subscriptions takes what we say."""
    below = rig.below()
    async with running(below):
        below.registered()
        await eventually(lambda: below.in_force)
    body = msgspec.json.encode({"SubscribeListObject": {"SubscribeObject": rig.platform.asked}})
    [subscription] = parse_subscriptions(body, OURS, SystemClock().now())
    assert subscription.subscription is not None
    assert subscription.subscription.kinds == ("MotorVehicle", "APE")
    assert subscription.subscription.is_active(SystemClock().now() + 1_000_000)
