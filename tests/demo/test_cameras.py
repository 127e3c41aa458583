"""The simulated cameras: whatever their quirks, what they send gives what the judge was told; what is wrong is told."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.demo.camera_messages import (
    SimulatedCamera,
    encode_envelope,
    encode_json_frame,
    encode_xml_frame,
    motion_alarm,
    onvif_frame,
    reported_object,
    video_label,
)
from sensegate.demo.cameras import ONVIF, PUSH, VIID, CameraEndpoints, CameraMessage, CameraPlan, CameraSimulator, fleet
from sensegate.demo.intents import Intents
from sensegate.demo.judge import CANARY_WORD, VERDICTS, FeedJudge, FeedTap
from sensegate.demo.simulator import Broker
from sensegate.demo.summary import DemoTokens, MemberAddress, Summary
from sensegate.video.format import CameraInfo
from sensegate.video.formats import FORMATS
from sensegate.video.pseudonyms import KeyedPseudonymiser

AT = 1_767_225_600_000_000
PSEUDONYMISER = KeyedPseudonymiser(b"test")
NOBODY = Broker("127.0.0.1", 1)


def camera(number: int, transport: str = VIID) -> SimulatedCamera:
    return SimulatedCamera(f"4401000000119{0}{number:06d}", "4401", "440106", transport, number)


def decode_message(name: str, payload: bytes, topic: str) -> tuple[list[dict[str, Any]], list[tuple[str, object]]]:
    """Return what the format reads of it: observations, and (property, value) of the rest."""
    cut = FORMATS[name].redact(payload, topic, AT, PSEUDONYMISER)
    assert CANARY_WORD.encode() not in cut.payload
    assert (
        CANARY_WORD.encode() in payload
        or b"VideoLabel" in payload
        or b"ideoLabel" in payload
        or name.startswith("onvif")
    )
    decoded = FORMATS[name].decode(cut.payload, topic, AT, CameraInfo())
    assert decoded.rejected == ()
    observations = json.loads(msgspec.json.encode(decoded.observations))
    assert {observation["observed_at"] for observation in observations} <= {AT}
    return observations, [(measurement.property, measurement.value) for measurement in decoded.measurements]


def holds(wanted: object, document: dict[str, Any]) -> bool:
    assert isinstance(wanted, dict)
    return all(document.get(name) == value for name, value in wanted.items())


@pytest.mark.parametrize("number", range(0, 90, 3))
@pytest.mark.parametrize("kind", ["MotorVehicle", "Person"])
@pytest.mark.parametrize("odd", [False, True])
def test_objects_of_gat1400(number: int, kind: str, *, odd: bool) -> None:
    """Texts for numbers, GBK, small keys, one object without its list, three forms of local time: all the same."""
    result = camera(number)
    for count in (1, 3):
        objects = [reported_object(result, AT, number, lane, kind) for lane in range(1, count + 1)]
        body = encode_envelope(result, kind, [each.fields for each in objects], odd=odd)
        observations, _ = decode_message("viid", body, f"http/{result.id}")
        assert len(observations) == count
        assert all(holds(each.expected, row) for each, row in zip(objects, observations, strict=True))


@pytest.mark.parametrize("number", range(0, 30, 3))
def test_counts_of_gat1400(number: int) -> None:
    """What a VideoLabel counts are ordinary readings."""
    fields, values = video_label(camera(number), AT, number)
    _, measured = decode_message("viid", encode_envelope(camera(number), "VideoLabel", [fields], odd=False), "http/x")
    assert measured == values


@pytest.mark.parametrize("number", range(1, 25))
@pytest.mark.parametrize("odd", [False, True])
def test_frames_of_onvif(number: int, *, odd: bool) -> None:
    """Pixels with a transformation, texts for numbers, a time without zone: in JSON and XML the same boxes."""
    for transport, name, write in ((ONVIF, "onvif_mj", encode_json_frame), (PUSH, "onvif_xml", encode_xml_frame)):
        result = camera(number, transport)
        things, values = onvif_frame(result, number, number % 4 + 1)
        observations, _ = decode_message(
            name, write(result, AT, things, odd=odd), f"{result.id}/onvif-mj/VideoAnalytics/P/M"
        )
        assert len(observations) == len(values)
        assert all(holds(value, entry) for (_, value), entry in zip(values, observations, strict=True))


def test_alarms_of_onvif() -> None:
    """A state is an observation and a reading."""
    for sequence in (0, 1):
        body, values = motion_alarm(AT, sequence)
        observations, measured = decode_message("onvif_ej", body, "x/onvif-ej/VideoSource/MotionAlarm/&VideoSource_1")
        assert holds(values[0][1], observations[0])
        assert measured == values[1:]


def test_a_fleet_has_all_ways() -> None:
    """Codes of 20 digits, a third by each way."""
    result = fleet("4401", 51, counties=("440106",), rng=random.Random(1))
    assert {len(item.id) for item in result} == {20}
    assert {item.transport: 17 for item in result} == {VIID: 17, ONVIF: 17, PUSH: 17}
    assert [sum(item.transport == transport for item in result) for transport in (VIID, ONVIF, PUSH)] == [17, 17, 17]


# ── the accounting ───────────────────────────────────────────────────────────────────────────────────


def judged(lines: list[str], records: list[dict[str, Any]]) -> dict[str, Any]:
    judge = FeedJudge([FeedTap("centre", "", "", "")])
    for line in lines:
        judge.read_line(line)
    for record in records:
        judge.read_record(judge.taps[0], record, AT)
    return judge.verdict()


def record(
    device: str, value: object, name: str = "video_observation", at: str = "2026-01-01T00:00:00Z"
) -> dict[str, Any]:
    text = json.dumps(value) if isinstance(value, dict) else value
    return {"id": "1", "cursor": "c", "device": device, "property": name, "value": text, "time": at, "flags": []}


OBSERVATION = {"native_id": "7", "object_class": "vehicle", "lane": 1}
LINES = [
    "C cam",
    f'I r1 1 plain 4401 cam {AT} - video_observation={{"native_id":"7"}}',
    f'I r2 1 redelivery 4401 cam {AT} r1 video_observation={{"native_id":"7"}}',
    f'I r3 1 unknown_device 4401 cam {AT} - video_observation!{{"native_id":"8"}}',
    "A r1 2",
    "A r2 2",
    "A r3 2",
    "E 3",
]


def test_objects_are_accounted_for() -> None:
    """Acknowledged = delivered + duplicates + refused; an object is found by the members that were told."""
    verdict = judged(LINES, [record("cam", OBSERVATION)])
    assert verdict["objects"] == {"acknowledged": 3, "duplicates": 1, "refused": 1}
    assert verdict["taps"]["centre"]["objects"] == 1
    assert not verdict["failed"]


@pytest.mark.parametrize(
    ("records", "verdict"),
    [
        ([], "lost"),
        ([record("cam", OBSERVATION), record("cam", OBSERVATION)], "doubled"),
        ([record("cam", {**OBSERVATION, "native_id": "9"})], "corrupt"),
        ([record("cam", OBSERVATION), record("cam", {"native_id": "8"})], "leaked"),
        ([record("cam", {**OBSERVATION, "brand": f"x{CANARY_WORD}"})], "leaked"),
        ([record("cam", OBSERVATION, at="2026-01-01T00:00:01Z")], "phantom"),
    ],
)
def test_what_is_wrong_is_told(records: list[dict[str, Any]], verdict: str) -> None:
    """Controls: a lost object, one twice, another one, a refused one, somebody's plate, one that nobody sent."""
    judgement = judged(LINES, records)
    assert judgement["taps"]["centre"][verdict] >= 1
    assert judgement["failed"]
    assert verdict in VERDICTS


def test_a_sum_that_does_not_hold_is_guilt() -> None:
    """An object that was acknowledged, and is neither there nor a duplicate nor refused."""
    address = MemberAddress("44", "", "", 0, 0)
    good = Summary(address, [], DemoTokens("", ""), [], [], "", "", 1)
    objects = {"acknowledged": 4, "delivered": 1, "duplicates": 2, "refused": 1}
    assert not msgspec.structs.replace(good, objects=objects).failed
    assert msgspec.structs.replace(good, objects={**objects, "acknowledged": 5}).failed
    assert msgspec.structs.replace(good, objects={**objects, "delivered": 2}).failed


def test_what_is_sent_is_written_before(tmp_path: Path) -> None:
    """Each object's intent is in the file before its message is handed to a connection."""
    place = CameraEndpoints(NOBODY, NOBODY, NOBODY)
    watchers = [camera(number, transport) for number, transport in enumerate((VIID, ONVIF, PUSH))]
    plan = CameraPlan("r", str(tmp_path / "x.ledger"), 1, 1.0, {"4401": place}, watchers)
    cameras = CameraSimulator(plan, Intents(Path(plan.ledger), plan.run))
    sent: list[tuple[str, ...]] = []
    for http_camera in cameras._http_cameras.values():

        def send(job: CameraMessage) -> None:
            written = Path(plan.ledger).read_text()
            assert all(f"I {rid} " in written for rid in job.rids)
            sent.append(job.rids)

        http_camera.send = send  # type: ignore[method-assign]
    for _ in range(40):
        cameras._next()
    assert sent
