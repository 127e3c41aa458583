"""GA/T 1400: what of a body is kept, and what it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS, viid_ids
from sensegate.video.formats.viid import FORMAT
from sensegate.video.formats.viid_read import STANDARD_NAMES
from sensegate.video.formats.viid_records import InvalidRecord
from sensegate.video.formats.viid_redaction import redact_body
from sensegate.video.observation import BoxQuality, ObjectClass
from sensegate.video.pseudonyms import KeyedPseudonymiser

PSEUDONYMISER = KeyedPseudonymiser(b"a key of tests")
CAMERA = "33010101001210000001"
SOURCE = f"{CAMERA}022026011510000000001"
VEHICLE = f"{SOURCE}0200001"
NOW = 1_768_500_000_000_000
TEN = 1_768_442_400_000_000
"""2026-01-15T10:00:00 in Beijing."""
PLATE = "苏N00000"


def vehicle(**more: Any) -> dict[str, Any]:
    return {
        "MotorVehicleID": VEHICLE,
        "SourceID": SOURCE,
        "DeviceID": CAMERA,
        "PassTime": "20260115100000",
        "PlateNo": PLATE,
        **more,
    }


def body(*objects: dict[str, Any], kind: str = "MotorVehicle") -> bytes:
    return json.dumps({f"{kind}ListObject": {f"{kind}Object": list(objects)}}, ensure_ascii=False).encode()


def decode_body(payload: bytes, topic: str = f"http/{CAMERA}", camera: CameraInfo | None = None) -> VideoReport:
    return FORMAT.decode(FORMAT.redact(payload, topic, NOW, PSEUDONYMISER).payload, topic, NOW, camera or CameraInfo())


def test_it_is_in_the_table() -> None:
    assert FORMATS["viid"] is FORMAT


def test_a_vehicle() -> None:
    observation = decode_body(
        body(
            vehicle(
                Speed="36",
                Direction="1",
                LaneNo="2",
                VehicleClass="K33",
                VehicleColor="1",
                PlateColor=5,
                PlateClass="2",
                PlateReliability="90",
                LeftTopX="100",
                LeftTopY=50,
                RightBtmX=200,
                RightBtmY=100,
                SubImageList={
                    "SubImageInfoObject": [
                        {"Type": "01", "Width": 10, "Height": 10},
                        {
                            "Type": "14",
                            "Width": 400,
                            "Height": 200,
                            "Data": "/9j/4AAQ",
                            "StoragePath": "http://x/y.jpg",
                        },
                    ]
                },
            )
        )
    ).observations[0]
    assert (observation.camera, observation.observed_at, observation.time_quality, observation.native_id) == (
        CAMERA,
        TEN,
        "assumed_tz",
        VEHICLE,
    )
    assert observation.object_class is ObjectClass.VEHICLE
    assert (observation.subclass, observation.color, observation.lane, observation.speed, observation.heading) == (
        "car",
        "black",
        2,
        10.0,
        90.0,
    )
    assert observation.box == (0.25, 0.25, 0.5, 0.5)
    assert observation.box_quality is BoxQuality.EXPLICIT
    assert observation.images == 2
    assert observation.plate is not None
    assert (
        observation.plate.region,
        observation.plate.color,
        observation.plate.plate_class,
        observation.plate.confidence,
    ) == (
        "苏N",
        "blue",
        "02",
        0.9,
    )
    assert observation.plate.token == PSEUDONYMISER.plate(PLATE, TEN)
    assert observation.removed == ("SubImageInfoObject.Data", "SubImageInfoObject.StoragePath")


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(body(vehicle()), id="list"),
        pytest.param(json.dumps({"MotorVehicleObject": vehicle()}).encode(), id="single"),
        pytest.param(json.dumps({"MotorVehicleListObject": {"MotorVehicleObject": vehicle()}}).encode(), id="no list"),
        pytest.param(json.dumps({"MotorVehicleListObject": [vehicle()]}).encode(), id="inner name left out"),
        pytest.param(body(vehicle()).decode().encode("gbk"), id="GBK"),
        pytest.param(b"\xef\xbb\xbf" + body(vehicle()), id="byte order mark"),
        pytest.param(
            json.dumps(
                {
                    "motorVehicleListObject": {
                        "motorVehicleObject": [{k[0].lower() + k[1:]: v for k, v in vehicle().items()}]
                    }
                }
            ).encode(),
            id="lower camel case",
        ),
        pytest.param(body(vehicle(PassTime="2026-01-15 10:00:00")), id="ISO time"),
        pytest.param(body(vehicle(PassTime=TEN // 1_000)), id="epoch ms"),
        pytest.param(body(vehicle(PassTime="", AppearTime="20260115100000")), id="another time"),
        pytest.param(body(vehicle(PassTime=None, DeviceID="", Speed="", LaneNo=None)), id="all in the id"),
        pytest.param(
            json.dumps(
                {
                    "SubscribeNotificationListObject": {
                        "SubscribeNotificationObject": [
                            {"MotorVehicleObjectList": {"MotorVehicleObject": [vehicle()]}, "Title": "someone"}
                        ]
                    }
                }
            ).encode(),
            id="in a notification",
        ),
    ],
)
def test_spellings_that_mean_the_same(payload: bytes) -> None:
    [observation] = decode_body(payload).observations
    assert (observation.camera, observation.observed_at, observation.native_id) == (CAMERA, TEN, VEHICLE)
    assert observation.plate is not None
    assert observation.plate.token == PSEUDONYMISER.plate(PLATE, TEN)
    assert observation.id == decode_body(body(vehicle())).observations[0].id


def test_an_object_that_is_none_is_refused_alone() -> None:
    payload = json.dumps({"APEListObject": {"APEObject": [{"ApeID": "x"}, 7, {"ApeID": CAMERA, "IsOnline": 1}]}})
    report = decode_body(payload.encode())
    assert [(item.index, item.reason) for item in report.rejected] == [(0, "wrong_type"), (1, "wrong_type")]
    assert [(measurement.camera, measurement.property, measurement.value) for measurement in report.measurements] == [
        (CAMERA, "online", 1.0)
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"[1]", "schema"),
        (b"\xff\xfe\x00", "not_utf8"),
        (body(vehicle())[:-9], "malformed"),
        (b'{"PersonList": {"PersonObject": [{"PersonID": "P1", "Name": "Alice"}]}}', "schema"),
        (b'{"MotorVehicleListObject": {"Other": 1}}', "schema"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "too_deep"),
    ],
)
def test_a_body_that_is_none(payload: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as why:
        FORMAT.redact(payload, "http/x", NOW, PSEUDONYMISER)
    assert why.value.reason == reason
    assert "Alice" not in str(why.value)


def test_ids_of_other_forms_are_hidden_and_the_identity_holds_the_time() -> None:
    first, second = (
        decode_body(body(vehicle(MotorVehicleID="J. Smith", PassTime=f"2026011510000{n}"))) for n in (0, 1)
    )
    assert "Smith" not in first.observations[0].native_id
    assert first.observations[0].id != second.observations[0].id
    repeated = decode_body(body(vehicle(MotorVehicleID="J. Smith")))
    assert repeated.observations[0].id == first.observations[0].id


def test_an_id_that_breaks_the_rules_is_taken_and_told() -> None:
    other = vehicle(DeviceID="33010101001210000002", MotorVehicleID=f"{SOURCE}0600001")
    kept = redact_body(body(other), "", PSEUDONYMISER, NOW).objects[0].record
    assert kept is not None
    assert kept.deviations == ("id_kind", "id_device")
    assert kept.camera == "33010101001210000002"


def test_a_box_without_size_is_unresolved_and_none_of_zeros() -> None:
    sides = {"LeftTopX": 1, "LeftTopY": 2, "RightBtmX": 3, "RightBtmY": 4}
    observation = decode_body(body(vehicle(**sides))).observations[0]
    assert (observation.box, observation.box_quality) == (None, BoxQuality.UNRESOLVED)
    observation = decode_body(body(vehicle(**dict.fromkeys(sides, 0)))).observations[0]
    assert (observation.box, observation.box_quality) == (None, None)
    grid = {"SubImageInfoObject": [{"Type": "14", "Width": 8192, "Height": 8192}]}
    report = decode_body(body(vehicle(LeftTopX=2048, LeftTopY=1024, RightBtmX=6144, RightBtmY=7168, SubImageList=grid)))
    assert report.observations[0].box == (0.25, 0.125, 0.75, 0.875)


def test_no_plate_is_no_pseudonym() -> None:
    for word in ("", "无车牌", "未知", "-", None):
        assert decode_body(body(vehicle(PlateNo=word))).observations[0].plate is None


def test_a_pseudonym_of_a_gateway_below_is_kept() -> None:
    token = "0123456789abcdef01234567"
    observation = decode_body(body(vehicle(PlateNo="", PlateToken=token, PlateRegion="苏N"))).observations[0]
    assert observation.plate is not None
    assert (observation.plate.token, observation.plate.region) == (token, "苏N")
    bad = FORMAT.redact(body(vehicle(PlateNo="", PlateToken=PLATE, PlateRegion="王五")), "", NOW, PSEUDONYMISER)
    assert PLATE not in bad.payload.decode()
    assert "王五" not in bad.payload.decode()
    assert {"PlateToken", "PlateRegion"} <= bad.removed.keys()


def test_counts_of_a_label() -> None:
    label = {
        "VideoLabelID": f"{SOURCE}0700001",
        "CameraID": CAMERA,
        "EventSort": "14",
        "CreateTimeAbs": "20260115100000",
        "PersonNum": "12",
        "VehicleFlowRate": 600,
    }
    report = decode_body(body(label, kind="VideoLabel"))
    assert not report.observations
    assert {
        (measurement.property, measurement.value, measurement.unit, measurement.time)
        for measurement in report.measurements
    } == {
        ("people_present", 12.0, "1", TEN),
        ("traffic_flow", 600.0, "/h", TEN),
    }
    event = decode_body(body({**label, "EventSort": 21}, kind="VideoLabel")).observations[0]
    assert event.event is not None
    assert event.event.type == "wrong_way"


@pytest.mark.parametrize("kind", ["Image", "VideoSlice", "File", "Case"])
def test_of_files_and_cases_nothing_is_kept(kind: str) -> None:
    report = decode_body(body({f"{kind}ID": SOURCE, "Title": "secret", "Data": "/9j/4AAQ"}, kind=kind))
    assert (report.observations, report.measurements, report.ignored) == ((), (), 1)


CANARY = "CANARY张三440106199001011234"


@given(
    st.sampled_from(
        ["MotorVehicle", "NonMotorVehicle", "Person", "Face", "VideoLabel", "VehiclesFlow", "APE", "Image"]
    ),
    st.lists(st.sampled_from(sorted(STANDARD_NAMES.values())), max_size=12, unique=True),
    st.sampled_from([CANARY, [CANARY], {CANARY: CANARY}, {"SubImageInfoObject": [{"Type": CANARY, CANARY: CANARY}]}]),
)
def test_property_nothing_that_is_not_allowed_comes_through(kind: str, fields: list[str], value: object) -> None:
    payload = body({f"{kind}ID": CANARY, CANARY: 1, **dict.fromkeys(fields, value)}, kind=kind)
    redacted = FORMAT.redact(payload, "http/x", NOW, PSEUDONYMISER)
    for text in (
        redacted.payload.decode(),
        str(dict(redacted.removed)),
        str(FORMAT.decode(redacted.payload, "", NOW, CameraInfo())),
    ):
        assert "CANARY" not in text
        assert "张三" not in text
        assert "19900101" not in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.sampled_from(
        ["MotorVehicle", "Face", "VideoLabel", "VehiclesFlow", "APE", "Lane", "File", "SubscribeNotification"]
    ),
    st.dictionaries(st.sampled_from(sorted(STANDARD_NAMES.values())), JSON, max_size=8),
)
def test_property_any_values_are_taken_or_refused(kind: str, fields: dict[str, Any]) -> None:
    payload = json.dumps({f"{kind}ListObject": {f"{kind}Object": fields}}).encode()
    try:
        redacted = FORMAT.redact(payload, "http/x", NOW, PSEUDONYMISER)
    except Rejected:
        return
    FORMAT.decode(redacted.payload, "", NOW, CameraInfo())


@given(st.binary(max_size=200))
def test_property_any_bytes_are_refused_or_taken(payload: bytes) -> None:
    try:
        FORMAT.redact(payload, "t", NOW, PSEUDONYMISER)
    except Rejected:
        return


@given(st.integers(0, 10**10 - 1), st.sampled_from(["Face", "Person", "MotorVehicle", "NonMotorVehicle"]))
def test_property_ids_that_are_made_are_read_back(number: int, kind: str) -> None:
    made = viid_ids.make_content_id(CAMERA, kind, "20260115100000", number)
    result = viid_ids.parse_id(kind, made, PSEUDONYMISER)
    assert result == viid_ids.ObjectId(made, unique=True, camera=CAMERA, time=TEN)
    other = viid_ids.make_content_id(CAMERA, kind, "20260115100000", number + 1)
    assert other != made
    order = viid_ids.make_order_id("440100", viid_ids.NOTIFICATION, "20260115100000", number)
    assert viid_ids.is_order_id(order, viid_ids.NOTIFICATION)
    assert not viid_ids.is_order_id(order, viid_ids.SUBSCRIPTION)


@pytest.mark.parametrize(
    "text", ["13800138000", "440106199001011234", "J. Smith", "张三", "0" * 20, VEHICLE[:-1] + "x"]
)
def test_what_has_no_form_of_an_id_is_hidden(text: str) -> None:
    assert text not in viid_ids.parse_id("MotorVehicle", text, PSEUDONYMISER).text
    assert not viid_ids.is_device(text)


def test_a_refused_object_names_its_place() -> None:
    kept = redact_body(b'{"FaceListObject": {"FaceObject": [7]}}', "", PSEUDONYMISER, NOW).objects[0].record
    assert kept == InvalidRecord(index=0, detail="the object is malformed")
