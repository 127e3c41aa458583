"""A platform above that answers as it likes: nothing is lost, and what is sent again is the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sensegate.authority.bucket import MemoryBucket
from sensegate.authority.devices import Devices
from sensegate.authority.trail import MemoryTrail
from sensegate.bus import columns
from sensegate.bus.memory import MemoryLog
from sensegate.clock import SystemClock
from sensegate.config.viid import ViidConfig, ViidSuperiorConfig
from sensegate.model import OBSERVATION, Device, LogMessage
from sensegate.video.formats import viid_responses as answers
from sensegate.video.formats.viid_records import CatalogueRecord
from sensegate.video.formats.viid_responses import ObjectResult
from sensegate.video.observation import ObjectClass, ObservationKind, VideoObservation
from sensegate.viid.catalogue import ViidCatalogue
from sensegate.viid.client import ViidClient
from sensegate.viid.subscriptions import ViidSubscriptions
from sensegate.viid.superior import SuperiorRecords, ViidSuperior
from tests.conftest import eventually
from tests.share.made import Place as Where
from tests.share.made import make_batch
from tests.support.tasks import ADMIN

OURS, THEIRS = "44010000005030000001", "44000000005030000003"
CAMERA, THERE = "44010600001190000001", "33010101001210000009"
ORDER = "440000000000032026011510000000001"
Say = Callable[[str, dict[str, Any]], tuple[int, list[ObjectResult]]]


class Platform:
    """The platform above: what came, and how it answers."""

    def __init__(self) -> None:
        self.notices: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.say: list[tuple[int, int]] = []
        """(HTTP status, status code) of the next notifications; then all are good."""
        self.body_max = 10**9

    async def serve(self, request: web.Request) -> web.Response:
        raw = await request.read()
        path, code, status = request.path, 0, 200
        self.calls.append(path)
        if path.endswith("SubscribeNotifications"):
            if len(raw) > self.body_max:
                return web.Response(status=413)
            notice = msgspec.json.decode(raw)["SubscribeNotificationListObject"]["SubscribeNotificationObject"][0]
            self.notices.append(notice)
            if self.say:
                status, code = self.say.pop(0)
        return web.Response(status=status, body=answers.encode_status(path, ObjectResult("x", code), 0))

    def taken(self) -> Counter[str]:
        """Return how often each object came."""
        return Counter(
            item["FaceID"] for notice in self.notices for item in notice.get("FaceObjectList", {}).get("FaceObject", [])
        )

    def cameras(self) -> list[str]:
        """Return the cameras that came as entries of the catalogue, in order."""
        return [item["ApeID"] for notice in self.notices for item in notice.get("DeviceList", {}).get("APEObject", [])]


class Rig:
    """A superior with its log and platform."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.log = MemoryLog(self.clock)
        self.bucket = MemoryBucket()
        self.devices = Devices(MemoryBucket(), MemoryTrail(), self.clock)
        self.orders = ViidSubscriptions(self.bucket, self.log, self.clock)
        self.platform = Platform()
        self.url = ""
        self.number = 0

    def superior(self, **more: Any) -> ViidSuperior:
        given = {"server_id": THEIRS, "url": self.url, **more}
        config = ViidSuperiorConfig(name="top", password_file="", backoff_max_s=0.05, **given)
        catalogue = ViidCatalogue(MemoryBucket(), self.devices, ViidConfig(server_id=OURS), home="44")
        return ViidSuperior(
            config,
            ViidClient(config.url, OURS),
            records=SuperiorRecords(self.orders, self.log, catalogue),
            clock=self.clock,
            code_of=lambda _device, camera: camera,
            uniform=lambda low, _high: low / 10,
        )

    async def subscribe(self, details: str = "12", **more: Any) -> None:
        wish = {"SubscribeID": ORDER, "SubscribeDetail": details, "EndTime": "20991231235959", **more}
        [item] = await self.orders.update(THEIRS, msgspec.json.encode({"SubscribeObject": wish}))
        assert item.code == 0

    async def see(self, count: int, *, grade: int = 1) -> None:
        """Put faces on the log."""
        rows: list[tuple[int, str, float | str]] = []
        for _ in range(count):
            self.number += 1
            item = VideoObservation(
                id=f"{self.number:032x}",
                kind=ObservationKind.OBSERVATION,
                camera=CAMERA,
                observed_at=self.clock.now(),
                time_quality="explicit",
                format="viid",
                object_class=ObjectClass.FACE,
                native_id=f"{CAMERA}022026011510000000001060{self.number:04d}",
            )
            rows.append((0, OBSERVATION, msgspec.json.encode(item).decode()))
        batch = make_batch(rows, places=[Where("cam")])
        await self.log.write([LogMessage(f"observations.4401.440106.{grade}", columns.encode(batch), 1)])

    async def kept(self, count: int) -> None:
        """Wait until the offset of the one subscription counts so many: it is kept after the platform has answered."""
        [order] = self.orders.of_peer(THEIRS)
        await eventually(lambda: self.orders.offset(order).objects == count)

    async def arrived(self, count: int) -> None:
        await eventually(lambda: len(self.platform.taken()) >= count)


@contextlib.asynccontextmanager
async def running(superior: ViidSuperior) -> AsyncIterator[None]:
    task = asyncio.create_task(superior.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    app = web.Application(client_max_size=10**9)
    app.router.add_route("*", "/{path:.*}", made.platform.serve)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


async def test_objects_go_up_once_in_batches_and_on_from_where_it_was(rig: Rig) -> None:
    await rig.subscribe()
    await rig.see(7)
    async with running(rig.superior(batch_max=3)):
        await rig.kept(7)
    assert [len(item["FaceObjectList"]["FaceObject"]) for item in rig.platform.notices] == [3, 3, 1]
    assert all(len(item["NotificationID"]) == 33 for item in rig.platform.notices)
    await rig.see(2)
    async with running(rig.superior()):
        await rig.kept(9)
    assert set(rig.platform.taken().values()) == {1}
    assert len(rig.platform.taken()) == 9


@pytest.mark.parametrize("bad", [(503, 2), (200, 2), (500, 1), (401, 4)])
async def test_what_was_not_taken_is_sent_again_as_it_was(rig: Rig, bad: tuple[int, int]) -> None:
    rig.platform.say = [bad, bad]
    await rig.subscribe()
    await rig.see(4)
    async with running(rig.superior(batch_max=2)):
        await rig.arrived(4)
        await eventually(lambda: len(rig.platform.notices) == 4)
    first, second, third = rig.platform.notices[:3]
    assert first == second == third
    assert rig.platform.notices[3] != first


async def test_a_place_that_moves_too_early_would_lose_objects(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: with the place kept before the notification is taken, the same fault loses what it held."""
    rig.platform.say = [(503, 2)]
    await rig.subscribe()
    await rig.see(4)
    superior = rig.superior(batch_max=2)
    deliver = superior._deliver

    async def early(order: Any, part: Any) -> Any:
        await rig.orders.set_offset(order, part.place)
        return await deliver(order, part)

    monkeypatch.setattr(superior, "_deliver", early)
    async with running(superior):
        await eventually(lambda: len(rig.platform.notices) == 2)
    taken = [item["FaceID"] for item in rig.platform.notices[1]["FaceObjectList"]["FaceObject"]]
    assert len(taken) == 2  # the first two were in the one that was refused


async def test_what_is_never_wanted_is_left_out_and_the_rest_goes_on(rig: Rig) -> None:
    rig.platform.say = [(200, 8)] * 4
    await rig.subscribe()
    await rig.see(2)
    async with running(rig.superior(batch_max=1)):
        await rig.arrived(2)
    assert len(rig.platform.notices) == 5


async def test_a_body_that_is_too_large_is_made_smaller(rig: Rig) -> None:
    rig.platform.body_max = 1_500
    await rig.subscribe()
    await rig.see(10)
    async with running(rig.superior(batch_max=10)):
        await rig.arrived(10)
    assert set(rig.platform.taken().values()) == {1}


async def test_no_two_notifications_have_the_same_id(rig: Rig) -> None:
    """Objects of several entries of the log in one second, each in a notification of its own."""
    await rig.subscribe()
    await rig.see(9)
    await rig.see(2)
    async with running(rig.superior(batch_max=1)):
        await rig.arrived(11)
    assert len({item["NotificationID"] for item in rig.platform.notices}) == 11


async def test_entries_that_are_too_many_for_one_body_are_sent_in_parts(rig: Rig) -> None:
    """Each camera comes once, although the first bodies are refused as too large."""
    codes = [f"440106000011900001{number:02d}" for number in range(9)]
    for code in codes:
        await rig.devices.add(Device(code, "440106", "acme/camera"), by=ADMIN)
    rig.platform.body_max = 900
    await rig.subscribe("3")
    async with running(rig.superior(batch_max=8, catalogue=False)):
        await eventually(lambda: len(rig.platform.cameras()) == len(codes))
    assert rig.platform.cameras() == codes
    assert [code for item in rig.platform.notices for code in item["InfoIDs"].split(",")] == codes
    assert len({item["NotificationID"] for item in rig.platform.notices}) == len(rig.platform.notices) > 1


async def test_lanes_of_two_tollgates_with_one_number_come_once_each(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of lanes are unique only within a tollgate: neither is taken for a change of the other."""
    await rig.subscribe("9")
    superior, sent, names = rig.superior(), dict[str, dict[str, Any]](), list[str]()
    gates = ("44010600001210000001", "44010600001210000002")
    lanes = [CatalogueRecord(id="1", kind="Lane", owner=gate) for gate in gates]
    monkeypatch.setattr(superior._catalogue, "entries", lambda _kind: lanes)

    async def notify(_order: object, _number: object, ids: list[str], _lists: object) -> bool:
        names.extend(ids)
        return True

    monkeypatch.setattr(superior, "_notify", notify)
    [order] = rig.orders.of_peer(THEIRS)
    for _ in range(2):
        await superior._notify_entries(order, sent)
    assert names == ["1", "1"]


async def test_codes_of_the_other_platform(rig: Rig) -> None:
    await rig.subscribe(ResourceURI=THERE)
    await rig.see(1)
    async with running(rig.superior(id_map=(f"{CAMERA}={THERE}",))):
        await rig.arrived(1)
    [item] = rig.platform.notices[0]["FaceObjectList"]["FaceObject"]
    assert item["DeviceID"] == THERE
    assert item["FaceID"].startswith(THERE)
    assert CAMERA not in str(rig.platform.notices)


async def test_only_what_is_asked_for_and_may_be_told(rig: Rig) -> None:
    await rig.subscribe("13")  # vehicles
    await rig.see(3)
    async with running(rig.superior()):
        await eventually(lambda: rig.orders.offset(rig.orders.of_peer(THEIRS)[0]).sequence > 0)
        await rig.subscribe("12")
        await rig.see(2, grade=4)
        await rig.see(1)
        await rig.arrived(1)
    assert len(rig.platform.taken()) == 1


async def test_a_cancellation_stops_it_at_once(rig: Rig) -> None:
    await rig.subscribe()
    async with running(rig.superior()):
        await rig.see(1)
        await rig.arrived(1)
        await rig.orders.remove(THEIRS, [ORDER])
        await rig.see(1)
        await rig.subscribe()
        await rig.see(1)
        await rig.arrived(2)
    assert sorted(int(name[-4:]) for name in rig.platform.taken()) == [1, 3]


async def test_a_change_that_is_taken_back_at_once_does_not_stop_it(rig: Rig) -> None:
    """Its task ends at the change; the subscription, which is what it was, is served on by another one."""
    await rig.subscribe()
    async with running(rig.superior(catalogue=False)):
        await rig.see(1)
        await rig.kept(1)
        [order] = rig.orders.of_peer(THEIRS)
        fetch, fetched = rig.log.fetch, asyncio.Event()

        async def fetch_and_change(*args: Any, **more: Any) -> Any:
            if not fetched.is_set():
                fetched.set()
                # The task sees the change; it is taken back before anybody else looks.
                rig.orders._subscriptions[THEIRS, ORDER] = msgspec.structs.replace(order, interval_s=1)
                asyncio.get_running_loop().call_soon(rig.orders._subscriptions.__setitem__, (THEIRS, ORDER), order)
            return await fetch(*args, **more)

        rig.log.fetch = fetch_and_change  # type: ignore[method-assign]
        await rig.see(1)
        await fetched.wait()
        await rig.see(1)
        await rig.arrived(3)


async def test_two_subscriptions_have_places_of_their_own(rig: Rig) -> None:
    await rig.subscribe()
    other = ORDER[:-1] + "2"
    await rig.see(1)
    async with running(rig.superior()):
        await rig.arrived(1)
        await rig.subscribe(SubscribeID=other)
        await rig.see(1)
        await eventually(lambda: len(rig.platform.notices) == 3)
    assert Counter(item["SubscribeID"] for item in rig.platform.notices) == {ORDER: 2, other: 1}


async def test_it_registers_again_and_takes_leave(rig: Rig) -> None:
    superior = rig.superior()
    async with running(superior):
        await eventually(lambda: superior.registered)
        assert superior.addresses
    assert rig.platform.calls[0].endswith("/Register")
    assert rig.platform.calls[-1].endswith("/UnRegister")


async def test_each_of_several_platforms_gets_what_it_asked_for_under_its_codes(rig: Rig) -> None:
    """One is away for a while: the other does not wait, and the first one misses nothing."""
    second, peer = Platform(), "33010000005030000007"
    app = web.Application(client_max_size=10**9)
    app.router.add_route("*", "/{path:.*}", second.serve)
    await rig.subscribe()
    [item] = await rig.orders.update(
        peer, msgspec.json.encode({"SubscribeObject": {"SubscribeID": ORDER, "SubscribeDetail": "12"}})
    )
    assert item.code == 0
    rig.platform.say = [(503, 2)] * 3
    async with TestServer(app) as server:
        there = str(server.make_url("")).rstrip("/")
        other = rig.superior(url=there, server_id=peer, id_map=(f"{CAMERA}={THERE}",))
        async with running(rig.superior()), running(other):
            await rig.see(5)
            await eventually(lambda: len(second.taken()) == 5)
            await rig.arrived(5)
    assert all(name.startswith(THERE) for name in second.taken())
    assert all(name.startswith(CAMERA) for name in rig.platform.taken())
    assert set(second.taken().values()) == {1}
