"""The source behind the listener of GA/T 1400: nothing is answered before its commit, and each object for itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from sensegate.clock import SystemClock
from sensegate.config import IngestConfig
from sensegate.errors import Overloaded, Rejected, Unavailable
from sensegate.model import Device, Message
from sensegate.video import stored
from sensegate.video.formats.viid import FORMAT
from sensegate.video.formats.viid_records import CatalogueRecord
from sensegate.video.pseudonyms import KeyedPseudonymiser
from sensegate.viid.source import BodyOutcome, ViidSource

CAMERA, BEHIND, FOREIGN = "44010600001190000001", "44010600001190000002", "44010600001190000003"
DEVICES = {
    CAMERA: Device(CAMERA, "440106", "sensegate/viid"),
    BEHIND: Device(BEHIND, "440106", "sensegate/viid", gateway=CAMERA),
    FOREIGN: Device(FOREIGN, "440106", "sensegate/viid"),
}
SOURCE = f"{CAMERA}022026011510000000001"


class Rig:
    """The source, and what takes from it."""

    def __init__(self, *, wait: float = 5.0, **limits: Any) -> None:
        self.adopted: list[CatalogueRecord] = []
        pseudonymiser = KeyedPseudonymiser(b"a key")
        self.trusts = False
        self.source = ViidSource(
            IngestConfig(**limits),
            SystemClock(),
            pseudonymiser,
            DEVICES.get,
            self._adopt,
            trusts=lambda _sender: self.trusts,
            timeout_s=wait,
        )
        self.messages: list[Message] = []

    async def _adopt(self, _sender: Device, entries: Sequence[CatalogueRecord]) -> None:
        self.adopted += entries

    async def commit(self) -> None:
        """Acknowledge whatever comes, until cancelled."""
        async with aclosing(self.source.deliveries()) as arriving:  # type: ignore[type-var] # a generator
            async for delivery in arriving:
                self.messages += delivery.messages
                await delivery.ack()

    async def take(self, payload: bytes, *kinds: str) -> BodyOutcome:
        """Take a body while commits go on."""
        await self.source.start(None)
        committing = asyncio.create_task(self.commit())
        try:
            return await self.source.take(DEVICES[CAMERA], payload, frozenset(kinds))
        finally:
            committing.cancel()
            await asyncio.gather(committing, return_exceptions=True)


def listed(kind: str, *objects: Any) -> bytes:
    return json.dumps({f"{kind}ListObject": {f"{kind}Object": list(objects)}}).encode()


def face(number: int, camera: str = CAMERA, **more: Any) -> dict[str, Any]:
    return {"FaceID": f"{SOURCE}06{number:05d}", "DeviceID": camera, "FaceAppearTime": "20260115100000", **more}


async def test_each_object_is_answered_for_itself() -> None:
    rig = Rig()
    taken = await rig.take(listed("Face", face(1), face(2, BEHIND), face(3, FOREIGN), face(4, "44" * 10), 7), "Face")
    assert [answer.code for answer in taken.answers] == [0, 0, 4, 4, 8]
    assert [answer.id for answer in taken.answers[:2]] == [face(1)["FaceID"], face(2)["FaceID"]]
    [message] = rig.messages
    assert (message.topic, message.principal, message.cut) == (f"http/{CAMERA}", CAMERA, True)
    kept = stored.decode_stored(message.payload)
    assert kept is not None
    assert kept.video == FORMAT.name


async def test_nothing_is_answered_before_the_commit() -> None:
    rig = Rig()
    await rig.source.start(None)
    asking = asyncio.create_task(rig.source.take(DEVICES[CAMERA], listed("Face", face(1))))
    async with aclosing(rig.source.deliveries()) as arriving:  # type: ignore[type-var] # a generator
        async for delivery in arriving:
            assert not asking.done()
            await delivery.ack()
            break
    assert [answer.code for answer in (await asking).answers] == [0]


async def test_without_a_commit_the_outcome_is_unknown() -> None:
    rig = Rig(wait=0.05)
    await rig.source.start(None)
    with pytest.raises(Unavailable, match="send it again"):
        await rig.source.take(DEVICES[CAMERA], listed("Face", face(1)))


async def test_too_many_that_wait_are_told_to_come_back() -> None:
    rig = Rig(depth_messages_max=0)
    with pytest.raises(Overloaded):
        await rig.source.take(DEVICES[CAMERA], listed("Face", face(1)))


async def test_a_large_body_becomes_several_messages_that_the_log_takes() -> None:
    rig = Rig()
    pictures: dict[str, Any] = {"SubImageList": {"SubImageInfoObject": [{"Type": "11", "Data": "A" * 2_000}]}}
    taken = await rig.take(listed("Face", *(face(number, **pictures) for number in range(1_200))))
    assert len(taken.answers) == 1_200
    assert len(rig.messages) >= 3
    assert max(len(message.payload) for message in rig.messages) < IngestConfig().message_bytes_max
    bodies = [stored.decode_stored(message.payload) for message in rig.messages]
    assert sum(kept.removed.get("SubImageInfoObject.Data", 0) for kept in bodies if kept) == 1_200
    assert not any(b"AAAA" in message.payload for message in rig.messages)


async def test_of_a_body_that_is_none_a_trace_is_kept_and_nothing_of_it() -> None:
    rig = Rig()
    for payload, kinds in ((b'{"FaceListObject": {"Secr', ()), (listed("Face", face(1)), ("Person",))):
        with pytest.raises(Rejected):
            await rig.take(payload, *kinds)
    kept = [stored.decode_stored(message.payload) for message in rig.messages]
    assert [row.reason for row in kept if row] == ["malformed", "schema"]
    assert not any(b"Secr" in message.payload or b"FaceID" in message.payload for message in rig.messages)


async def test_what_an_image_shows_is_taken_and_the_image_is_answered() -> None:
    rig = Rig()
    image = {
        "ImageInfo": {"ImageID": SOURCE, "DeviceID": CAMERA, "ShotTime": "20260115100000", "Title": "someone's"},
        "FaceList": {"FaceObject": [face(1), face(2)]},
        "Data": "/9j/4AAQ",
    }
    taken = await rig.take(json.dumps({"ImageListObject": {"Image": [image]}}).encode(), "Image")
    assert [answer.code for answer in taken.answers] == [0]
    kept = stored.decode_stored(rig.messages[0].payload)
    assert kept is not None
    assert bytes(kept.body).count(b'"kind":"Face"') == 2
    assert b"someone" not in rig.messages[0].payload


async def test_notifications_are_answered_as_such() -> None:
    """One that holds anything good is taken; one of which nothing is good is refused."""
    notices = [
        {"NotificationID": "1", "SubscribeID": "s", "FaceObjectList": {"FaceObject": [face(1), face(2, FOREIGN)]}},
        {"NotificationID": "2", "SubscribeID": "s", "FaceObjectList": {"FaceObject": [face(3, FOREIGN)]}},
        {"NotificationID": "3", "SubscribeID": "s", "DeviceList": {"APEObject": [{"ApeID": BEHIND, "IsOnline": "1"}]}},
        {"NotificationID": "4", "SubscribeID": "s"},
    ]
    rig = Rig()
    taken = await rig.take(listed("SubscribeNotification", *notices))
    assert [(answer.id, answer.code) for answer in taken.answers] == [("1", 0), ("2", 4), ("3", 0), ("4", 0)]
    assert [device.id for device in rig.adopted] == [BEHIND]


async def test_cameras_that_only_objects_name_are_taken_from_a_platform_that_is_trusted() -> None:
    new = "44010600001190000009"
    for trusts in (False, True):
        rig = Rig()
        rig.trusts = trusts
        await rig.take(listed("Face", face(1), face(2, new)))
        assert [device.id for device in rig.adopted] == ([new] if trusts else [])
