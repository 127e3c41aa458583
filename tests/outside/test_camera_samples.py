"""Messages of cameras (ONVIF, Hikvision, Dahua): each gives exactly what the README of the samples says.

The files are not ours to copy: `SENSEGATE_SAMPLES` names the folder that holds `video/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.pseudonyms import KeyedPseudonymiser

SAMPLES = os.environ.get("SENSEGATE_SAMPLES", "")
pytestmark = pytest.mark.skipif(not SAMPLES, reason="SENSEGATE_SAMPLES is not set: it names the folder with video/")

ARRIVAL = 1_768_453_201_000_000
PSEUDONYMISER = KeyedPseudonymiser(b"samples" * 5)
PERSONAL = (
    *(b"TEST001", b"TEST070", b"TEST123", b"/9j/", b"COUR NORD", b"Bedroom", b"IP CAPTURE", b"Male", b"LongSleeve"),
    *(b"Backpack", b"00408c000000", b"192.168", b"1.0.0.255", b"172.20.16.40", b"DS-2CD", b"DS-TCG"),
    *(b"BJ0000000000000", b"California"),
)
"""What stands in the files and must be nowhere behind the cut."""


def decode_sample(name: str, file: str, topic: str = "http/cam7", **camera: Any) -> tuple[VideoReport, dict[str, int]]:
    payload = (Path(SAMPLES) / "video" / file).read_bytes()
    cut = FORMATS[name].redact(payload, topic, ARRIVAL, PSEUDONYMISER)
    decoded = FORMATS[name].decode(cut.payload, topic, ARRIVAL, CameraInfo(**camera))
    stored = cut.payload + msgspec.json.encode(decoded)
    assert [word for word in PERSONAL if word in stored] == []
    return decoded, dict(cut.removed)


def rows(report: VideoReport) -> list[dict[str, Any]]:
    """Return observations without what the other cases show: ids, format, names of removed fields."""
    left_out = {"id", "format", "removed", "time_quality", "observed_at"}
    return [
        {name: value for name, value in msgspec.to_builtins(observation).items() if name not in left_out}
        for observation in report.observations
    ]


def counts(report: VideoReport) -> list[tuple[str, str, Any, str]]:
    return [
        (measurement.property, measurement.channel, measurement.value, measurement.unit)
        for measurement in report.measurements
    ]


HUMAN = {
    "kind": "observation",
    "native_id": "15",
    "object_class": "person",
    "track": "15",
    "box": (0.03125, 0.833333, 0.15625, 0.9375),
    "box_quality": "explicit",
    "confidence": 0.8,
}


def test_one_person_in_xml_and_json_is_the_same() -> None:
    in_xml, removed = decode_sample("onvif_xml", "onvif/metadata_frame_full_human.xml")
    in_json, also = decode_sample(
        "onvif_mj", "onvif/metadata_frame_full_human.onvif-mj.json", "cam7/onvif-mj/VideoAnalytics/p1/m1"
    )
    assert removed == also == {"Appearance.Color": 1, "Appearance.HumanBody": 1, "Appearance.HumanFace": 1}
    (results,), (other,) = rows(in_xml), rows(in_json)
    assert HUMAN.items() <= results.items()
    assert HUMAN.items() <= other.items()
    assert (results["camera"], other["camera"], other["analytics"]) == ("cam7", "cam7/p1", "m1")
    assert {report.observations[0].observed_at for report in (in_xml, in_json)} == {1_633_446_807_321_000}
    assert in_xml.observations[0].time_quality == "explicit"


@pytest.mark.parametrize(
    ("name", "file"),
    [("onvif_xml", "onvif/producer_two_objects.xml"), ("onvif_mj", "onvif/producer_two_objects.onvif-mj.json")],
)
def test_two_objects_without_a_transformation(name: str, file: str) -> None:
    report, removed = decode_sample(name, file)
    assert removed == {}
    person, vehicle = rows(report)
    assert person == {
        "kind": "observation",
        "camera": "cam7",
        "native_id": "0",
        "object_class": "person",
        "track": "0",
        "box": (0.1, 0.1, 0.3, 0.5),
        "box_quality": "explicit",
        "confidence": 0.94,
        "analytics": person["analytics"],
    }
    assert (vehicle["object_class"], vehicle["track"]) == ("vehicle", "1")
    assert vehicle["box"] == (0.46875, 0.416667, 0.78125, 0.833333)


def test_fragments() -> None:
    report, removed = decode_sample("onvif_xml", "onvif/metadata_licenseplate_fragment.xml")
    assert removed == {"LicensePlateInfo.IssuingEntity": 1, "LicensePlateInfo.PlateNumber": 1}
    (observation,) = report.observations
    assert observation.plate is not None
    assert (observation.object_class, observation.plate.region, observation.plate.confidence, observation.box) == (
        "plate",
        "US",
        0.9,
        None,
    )
    assert observation.plate.token == PSEUDONYMISER.plate("TEST001", observation.observed_at)

    report, removed = decode_sample("onvif_xml", "onvif/metadata_vehicle_plate_parent_fragment.xml")
    vehicle, plate = report.observations
    assert (vehicle.native_id, vehicle.track) == ("032e91c6-39f1-4504-9970-3a2c41408d4a", "12")
    assert (plate.object_class, plate.parent_track) == ("plate", "12")
    assert plate.observed_at - vehicle.observed_at == 400_000
    assert vehicle.box == (0.03125, 0.625, 0.15625, 0.9375)

    report, removed = decode_sample("onvif_xml", "onvif/metadata_spherical_fragment.xml")
    assert removed == {"Object.SphericalCoordinate": 1}
    assert [(observation.track, observation.observed_at, observation.box) for observation in report.observations] == [
        ("23", 1_473_510_297_321_000, None)
    ]


def test_a_vehicle_of_the_street() -> None:
    report, removed = decode_sample("onvif_xml", "onvif/realworld_anpr_plate_alpha3_country.xml")
    (observation,) = report.observations
    assert observation.plate is not None
    assert (observation.object_class, observation.subclass, observation.color, observation.brand, observation.lane) == (
        "plate",
        "car",
        "grey",
        "audi",
        2,
    )
    assert (observation.speed, observation.images, observation.box, observation.box_quality) == (42.0, 2, None, None)
    assert (observation.plate.region, observation.plate.color) == ("DE", "white")
    assert removed["VehicleInfo.Image"] == removed["LicensePlateInfo.Image"] == 1


def test_events_and_sensors() -> None:
    report, removed = decode_sample("onvif_xml", "onvif/event_motionalarm.xml")
    assert removed == {"NotificationMessage.ProducerReference": 1}
    (row,) = rows(report)
    assert (row["kind"], row["event"]) == ("event", {"type": "motion", "state": True})
    assert counts(report) == [("motion", "", True, "")]
    assert report.observations[0].observed_at == 1_410_388_219_000_000

    report, removed = decode_sample("onvif_ej", "onvif/event_linecrossed.onvif-ej.json")
    (row,) = rows(report)
    assert (row["event"], row["track"]) == ({"type": "line_crossed", "rule": "MyImportantFence1"}, "15")
    assert counts(report) == []

    report, removed = decode_sample(
        "onvif_mj", "onvif/sensordata_temperature.onvif-mj.json", "cam7/onvif-mj/SensorData/Temperature"
    )
    assert counts(report) == [("air_temperature", "", 298.65, "K")]
    assert report.observations == ()


def test_hikvision() -> None:
    report, removed = decode_sample("hikvision", "hikvision/anpr_full.xml")
    (observation,) = report.observations
    assert observation.plate is not None
    assert (observation.kind, observation.camera, observation.object_class, observation.subclass) == (
        "observation",
        "44:a6:42:00:00:01/1",
        "vehicle",
        "suv",
    )
    assert (observation.observed_at, observation.time_quality) == (1_715_078_883_847_000, "explicit")
    assert (observation.box, observation.confidence, observation.lane, observation.speed, observation.images) == (
        (0.271, 0.0, 0.696, 0.426),
        0.98,
        1,
        0.0,
        2,
    )
    assert (observation.native_id, observation.plate.plate_class, observation.place) == (
        "a0fe72d4-3652-464a-aebd-3f9190010236",
        "02",
        None,
    )
    assert counts(report) == []
    assert removed["ANPR.licensePlate"] == removed["ANPR.originalLicensePlate"] == removed["channelName"] == 1

    report, removed = decode_sample("hikvision", "hikvision/fielddetection_human.xml")
    (person,) = rows(report)
    assert (person["object_class"], person["box"]) == ("person", (0.6, 0.215278, 0.735937, 0.720834))
    assert person["event"] == {"type": "intrusion", "state": True, "zone": "3"}
    assert counts(report) == [("intrusion", "zone3", True, "")]
    assert removed["channelName"] == 1

    report, removed = decode_sample("hikvision", "hikvision/io_notification.xml")
    assert counts(report) == [("input_active", "input1", True, "")]
    report, removed = decode_sample("hikvision", "hikvision/pir.xml")
    assert counts(report) == [("presence", "", True, "")]
    assert removed["Extensions"] == 1
    report, removed = decode_sample("hikvision", "hikvision/heartbeat.xml")
    assert (report.observations, report.ignored, counts(report)) == ((), 1, [("online", "", True, "")])
    with pytest.raises(Rejected, match="schema: the message is not an EventNotificationAlert"):
        decode_sample("hikvision", "hikvision/httphosts_put_payload.xml")


def test_dahua() -> None:
    report, removed = decode_sample("dahua", "dahua/eventManager_attach_trafficjunction.multipart.txt")
    assert removed == {"Object.Text": 1, "TrafficCar.MachineName": 1, "TrafficCar.PlateNumber": 1, "Vehicle.Text": 1}
    (observation,) = report.observations
    assert observation.plate is not None
    assert (
        observation.object_class,
        observation.track,
        observation.confidence,
        observation.lane,
        observation.color,
    ) == ("vehicle", "7484", 0.94, 1, "blue")
    assert observation.box == (0.199219, 0.0, 0.84375, 0.802734)
    assert (observation.observed_at, observation.time_quality) == (1_785_762_846_500_000, "assumed_tz")
    assert (observation.plate.region, observation.plate.color, observation.plate.confidence) == ("PS", "white", 0.6)
    assert (report.ignored, counts(report)) == (1, [("online", "", True, "")])


def test_the_words_that_must_be_nowhere_stand_in_the_files() -> None:
    """A control: the scan of `seen` looks for what is there."""
    folders = ("onvif", "hikvision", "dahua")
    files = [path for name in folders for path in (Path(SAMPLES) / "video" / name).iterdir() if path.is_file()]
    text = b"".join(path.read_bytes() for path in files)
    assert [word for word in PERSONAL if word not in text] == []
