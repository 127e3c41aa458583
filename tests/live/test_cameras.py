"""Cameras of others at a running node: a published ONVIF producer, XML of a stranger's library, Hikvision and Dahua."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from lxml import etree  # type: ignore[import-untyped] # ships no types
from msgspec import structs
from onvif_m import BoundingBox, ClassCandidate, DetectedObject, build_frame, build_payload, to_xml_string
from typer.testing import CliRunner

from sensegate.cli import app
from sensegate.config import WebConfig
from sensegate.config.cameras import CameraConfig
from sensegate.config.people import EgressConfig
from tests.collect.camera import SECRET, TheCamera, alert, part, sending
from tests.conftest import eventually
from tests.live.site import PROFILES, Answer, Made, Site, config_of, running

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

JPEG = b"\xff\xd8\xff\xe0" + b"a face, a plate" * 20_000 + b"\xff\xd9"
PLATE = "粤B12345"
NOW = datetime.now(UTC).replace(microsecond=250_000)


class City(NamedTuple):
    """A node with cameras of three makes; two of them are fetched."""

    site: Site
    onvif: Made
    pushing: Made
    recorder: Made
    fetched: TheCamera
    dahua: TheCamera
    done: asyncio.Event


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def city(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[City]:
    folder: Path = tmp_path_factory.mktemp("cameras")
    (folder / "password").write_text(SECRET)
    registered, done = asyncio.Event(), asyncio.Event()  # events of an unregistered camera go to quarantine
    stream = [part(alert("VMD", since=NOW)), part(JPEG, "image/jpeg"), part(alert("VMD", second=1, since=NOW))]
    stream += [part(alert(kind, "inactive", second=2, since=NOW)) for kind in ("VMD", "heartBeat")]
    fetched = await TheCamera(sending(*stream[:2], start=registered), sending(*stream[2:], then=done)).start()
    event = b'Code=CrossLineDetection;action=Pulse;index=0;data={"UTC": 1768449600, "EventID": 5, "Name": "Line1"}'
    parts = [part(body, "text/plain", token="myboundary") for body in (event, b"Heartbeat")]
    dahua = await TheCamera(sending(*parts, start=registered, then=done), boundary="myboundary").start()
    config = config_of(
        folder / "4401",
        profiles=tuple(str(PROFILES / name) for name in ("onvif", "hikvision", "dahua")),
        egress=EgressConfig(cameras=("127.0.0.1",)),
        web=WebConfig(multipart_bytes_max=4_000_000),
    )
    first = CameraConfig(
        device="hik1",
        make="hikvision",
        url=fetched.url,
        user="reader",
        password_file=str(folder / "password"),
        backoff_max_s=0.2,
    )
    cameras = (first, structs.replace(first, device="dahua1", make="dahua", url=dahua.url))
    try:
        async with running(structs.replace(config, cameras=cameras)) as site:
            await site.device("hik1", profile="hikvision/camera")
            await site.device("dahua1", profile="dahua/camera")
            registered.set()
            onvif = await site.device("onvif1", profile="onvif/camera")
            pushing = await site.device("hik2", profile="hikvision/camera")
            recorder = await site.device("nvr1", profile="hikvision/recorder")
            yield City(site, onvif, pushing, recorder, fetched, dahua, done)
    finally:
        registered.set()
        done.set()
        await fetched.stop()
        await dahua.stop()


async def rows(site: Site, device: str, count: int) -> list[dict[str, Any]]:
    """Return the records of a device once there are so many."""

    async def stored() -> list[dict[str, Any]]:
        records = await site.records(device=device)
        return records if len(records) >= count else []

    result: list[dict[str, Any]] = await eventually(stored)
    return result


def observations(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(row["value"]) for row in records if row["property"] == "video_observation"]


async def pushed(site: Site, device: Made, body: bytes, media: str = "application/xml") -> Answer:
    return await site.push(device, io.BytesIO(body), headers={"Content-Type": media})


def produced(*boxes: tuple[int, float, float, float, float, str]) -> dict[str, Any]:
    """Return metadata as the published producer builds it."""
    objects = [
        DetectedObject(
            object_id=observation, bbox=BoundingBox(left, top, right, bottom), classes=[ClassCandidate(kind, 0.9)]
        )
        for observation, left, top, right, bottom, kind in boxes
    ]
    payload: dict[str, Any] = build_payload([build_frame(NOW, source="cam-7", objects=objects)])
    return payload


async def test_a_published_onvif_producer_is_taken_in(city: City) -> None:
    """Its XML pushed by HTTP, its JSON over MQTT: the same boxes, read at the feed."""
    site, camera = city.site, city.onvif
    payload = produced((0, -0.8, 0.8, -0.4, 0.0, "Human"), (1, -0.0625, 0.16667, 0.5625, -0.66667, "Vehicle"))
    answer = await pushed(site, camera, to_xml_string(payload).encode())
    assert answer.status == 202
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        phone.send("onvif1/onvif-mj/VideoAnalytics/Profile1/Module1", json.dumps(payload).encode())
        observation = observations(await rows(site, "onvif1", 4))
    boxes = [(row["object_class"], row["track"], tuple(row["box"])) for row in observation]
    person, vehicle = ("person", "0", (0.1, 0.1, 0.3, 0.5)), ("vehicle", "1", (0.46875, 0.416665, 0.78125, 0.833335))
    assert sorted(boxes) == sorted([person, vehicle] * 2)
    assert {row["format"] for row in observation} == {"onvif_xml", "onvif_mj"}


TT = "http://www.onvif.org/ver10/schema"
WSNT = "http://docs.oasis-open.org/wsn/b-2"


def notification(topic: str, operation: str, data: dict[str, str], **source: str) -> bytes:
    """Return an event as lxml writes it, with prefixes of its own."""
    root = etree.Element(
        f"{{{TT}}}MetadataStream", nsmap={"a": TT, "b": WSNT, "tns1": "http://www.onvif.org/ver10/topics"}
    )
    event = etree.SubElement(root, f"{{{TT}}}Event")
    notice = etree.SubElement(event, f"{{{WSNT}}}NotificationMessage")
    etree.SubElement(notice, f"{{{WSNT}}}Topic", Dialect="http://www.onvif.org/ver10/tev/topicExpression").text = topic
    outer = etree.SubElement(notice, f"{{{WSNT}}}Message")
    message = etree.SubElement(outer, f"{{{TT}}}Message", UtcTime="2026-01-15T04:00:00Z", PropertyOperation=operation)
    for name, items in (("Source", source), ("Data", data)):
        parent = etree.SubElement(message, f"{{{TT}}}{name}")
        for key, value in items.items():
            etree.SubElement(parent, f"{{{TT}}}SimpleItem", Name=key, Value=value)
    result: bytes = etree.tostring(root, xml_declaration=True, encoding="UTF-8", pretty_print=True)
    return result


async def test_events_with_a_state_become_readings(city: City) -> None:
    """Initialized, Changed, Deleted: the state of a field by the channel of its rule; a count by its line."""
    site, camera = city.site, city.onvif
    topic, rule = "tns1:RuleEngine/FieldDetector/ObjectsInside", {"VideoSource": "1", "Rule": "Region 2"}
    body = notification(topic, "Initialized", {"ObjectId": "7", "IsInside": "true"}, **rule)
    assert (await pushed(site, camera, body)).status == 202
    assert (await pushed(site, camera, notification(topic, "Deleted", {"ObjectId": "7"}, **rule))).status == 202
    counter = "tns1:RuleEngine/CountAggregation/Counter"
    assert (await pushed(site, camera, notification(counter, "Changed", {"Count": "41"}, Rule="Line1"))).status == 202

    async def stored() -> list[tuple[str, str, Any]]:
        rows = [row for row in await site.records(device="onvif1") if row["property"] != "video_observation"]
        return [(row["property"], row.get("channel", ""), row["value"]) for row in rows] if len(rows) == 3 else []

    assert await eventually(stored) == [
        ("field_occupied", "zone2", True),
        ("field_occupied", "zone2", False),
        ("object_count_total", "line1", 41),
    ]


async def test_a_property_ends_with_an_empty_message(city: City) -> None:
    """`onvif-ej` over MQTT: the alarm, then nothing at all on its topic (a retained message is taken away)."""
    site = city.site
    camera = await site.device("onvif3", profile="onvif/camera")
    topic = "onvif3/onvif-ej/VideoSource/MotionAlarm/&VideoSource1"
    alarm = {"UtcTime": NOW.isoformat(), "Source": {"VideoSource": "VideoSource1"}, "Data": {"State": True}}
    async with site.phone() as phone:
        assert await phone.connect(camera.id, camera.password) == 0
        phone.send(topic, json.dumps(alarm).encode())
        await rows(site, "onvif3", 2)
        phone.send(topic, b"")
        records = await rows(site, "onvif3", 4)
    assert [row["value"] for row in records if row["property"] == "motion"] == [True, False]
    assert await site.quarantine(device="onvif3") == []


async def test_a_push_of_hikvision_with_pictures(city: City) -> None:
    """multipart/form-data: the alert is read, the plate hidden, of 2 MB of picture nothing is kept but its number."""
    site, camera = city.site, city.pushing
    plate = f"<ANPR><licensePlate>{PLATE}</licensePlate><line>2</line><confidenceLevel>97</confidenceLevel></ANPR>"
    body = part(alert("ANPR", second=5).replace(b"</Event", f"{plate}</Event".encode()), token="MIME")
    body += part(JPEG * 8, "image/jpeg", token="MIME") + b"--MIME--\r\n"
    media = "multipart/form-data; boundary=MIME"
    assert len(body) > site.config.web.body_bytes_max
    assert (await pushed(site, camera, body, media)).status == 202
    assert (await pushed(site, camera, body + JPEG * 20, media)).status == 413
    assert (await pushed(site, camera, part(b"<a>" * 700_000, token="MIME"), media)).status == 202
    (observation,) = observations(await rows(site, "hik2", 1))
    assert (
        observation["object_class"],
        observation["lane"],
        observation["images"],
        observation["plate"]["region"],
    ) == ("vehicle", 2, 1, "粤B")
    assert "part.picture" not in observation["removed"]
    assert PLATE not in json.dumps(observation, ensure_ascii=False)
    assert await site.metric('sensegate_video_fields_removed_total{field="part.picture",format="hikvision"}') >= 1

    bad = alert().replace(b"<channelID>", f"<channelName>{PLATE} & B</channelName><channelID>".encode())
    assert (await pushed(site, camera, bad)).status == 202

    async def both() -> list[dict[str, Any]]:
        result = await site.quarantine(device="hik2")
        return result if len(result) == 2 else []

    quarantined = await eventually(both)
    assert {message["reason"] for message in quarantined} == {"malformed", "too_large"}
    assert PLATE not in json.dumps(quarantined, ensure_ascii=False)


async def test_the_cameras_of_a_recorder_without_a_mac_address(city: City) -> None:
    """Of one second: motion on two channels, vehicles on two lanes of a third; what comes again is a duplicate."""
    site, recorder = city.site, city.recorder
    cameras = [f"gate{channel}" for channel in (2, 3, 4)]
    for channel, camera in zip((2, 3, 4), cameras, strict=True):
        await site.device(camera, profile="hikvision/recorder", gateway="nvr1", alias=f"nvr1/{channel}")
    address = b"<macAddress>44:19:b6:00:00:01</macAddress><channelID>1</channelID>"

    def event_xml(kind: str, channel: int, more: str = "") -> bytes:
        body = alert(kind, second=5, since=NOW).replace(address, b"<dynChannelID>%d</dynChannelID>" % channel)
        return body.replace(b"</Event", f"{more}</Event".encode())

    lanes = [f"<ANPR><licensePlate>{PLATE}</licensePlate><line>{lane}</line></ANPR>" for lane in (1, 2)]
    bodies = [event_xml("VMD", 2), event_xml("VMD", 3), *(event_xml("ANPR", 4, lane) for lane in lanes)]
    before = (await site.totals()).get("messages", 0)
    for body in (*bodies, *bodies):
        assert (await pushed(site, recorder, body)).status == 202

    async def accounted() -> bool:
        return (await site.totals()).get("messages", 0) >= before + 2 * len(bodies)

    await eventually(accounted, 30)
    results = [await rows(site, camera, 2) for camera in cameras]
    assert [[row["value"] for row in records if row["property"] == "motion"] for records in results] == [
        [True],
        [True],
        [],
    ]
    entries = [
        sorted((observation["camera"], observation.get("lane") or 0) for observation in observations(records))
        for records in results
    ]
    assert entries == [[("nvr1/2", 0)], [("nvr1/3", 0)], [("nvr1/4", 1), ("nvr1/4", 2)]]


async def test_streams_are_fetched(city: City) -> None:
    """Digest, a break in between, a state that is told again, a heartbeat; a Dahua stream beside it."""
    records = await rows(city.site, "hik1", 5)
    assert [observation["event"] for observation in observations(records)] == [
        {"type": "motion", "state": True},
        {"type": "motion", "state": False},
    ]
    states = [(row["property"], row["value"]) for row in records if row["property"] != "video_observation"]
    assert states == [("motion", True), ("motion", False), ("online", True)]
    assert city.fetched.asked[-1] == "200"
    assert len(city.fetched.paths) >= 2

    records = await rows(city.site, "dahua1", 2)
    (crossed,) = observations(records)
    assert crossed["event"] == {"type": "line_crossed", "rule": "Line1"}
    assert ("online", True) in [(row["property"], row["value"]) for row in records]
    lag = (await city.site.ask("GET", "/api/v1/devices/hik1")).body["clock_lag_s"]
    since_s = (datetime.now(UTC) - NOW).total_seconds()  # the file was read long ago where many run
    assert -5 < lag < since_s + 300
    assert (await city.site.ask("GET", "/api/v1/devices/onvif1")).body["clock_lag_s"] is not None
    assert (await city.site.ready())[1] == []
    totals = await city.site.totals()
    assert totals["messages"] > 0


async def test_files_are_sent(city: City, tmp_path: Path) -> None:
    """A folder of what a camera has written down, by the command line with the camera's own password."""
    site = city.site
    camera = await site.device("onvif2", profile="onvif/camera")
    (tmp_path / "in").mkdir()
    first = produced((0, -0.8, 0.8, -0.4, 0.0, "Human"))
    (tmp_path / "in" / "1.xml").write_text(to_xml_string(first))
    (tmp_path / "in" / "2.json").write_text(json.dumps(produced((5, -0.8, 0.8, -0.4, 0.0, "Vehicle"))))
    (tmp_path / "password").write_text(camera.password)
    args = ["device", "publish", "onvif2", str(tmp_path / "in"), "--url", site.addresses.http]
    result = await asyncio.to_thread(CliRunner().invoke, app, [*args, "--password-file", str(tmp_path / "password")])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "2 messages published and committed, 0 refused")
    observation = observations(await rows(site, "onvif2", 2))
    assert [row["object_class"] for row in observation] == ["person", "vehicle"]
    (tmp_path / "password").write_text("wrong")
    result = await asyncio.to_thread(CliRunner().invoke, app, [*args, "--password-file", str(tmp_path / "password")])
    assert result.exit_code == 1
    assert "1.xml  401" in result.output


async def test_a_code_names_the_division(city: City) -> None:
    """GB/T 28181: 20 digits as id or alias; without them the division is asked for."""
    wanted = {"profile": "onvif/camera"}
    answer = await city.site.ask("POST", "/api/v1/devices", json={"id": "44010604001320000001", **wanted})
    assert (answer.status, answer.body["device"]["division"]) == (201, "440106")
    answer = await city.site.ask(
        "POST", "/api/v1/devices", json={"id": "c8", "alias": "44011800001320000002", **wanted}
    )
    assert (answer.status, answer.body["device"]["division"]) == (201, "440118")
    answer = await city.site.ask("POST", "/api/v1/devices", json={"id": "c9", **wanted})
    assert answer.status == 400
    assert "division" in answer.body["detail"]
    answer = await city.site.ask("POST", "/api/v1/devices", json={"id": "44030500001320000001", **wanted})
    assert answer.status in {400, 403, 422}  # Shenzhen is not served here
