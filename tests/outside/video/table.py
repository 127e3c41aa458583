"""What each sample of video metadata gives: `python -m tests.outside.video.table [FOLDER]` prints it as a table.

What is expected stands here as the knowledge file has it (sections 10 to 14), never as our output was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from sensegate.errors import Rejected
from sensegate.video.format import CameraInfo, VideoReport
from sensegate.video.formats import FORMATS
from sensegate.video.pseudonyms import KeyedPseudonymiser

ARRIVAL: Final = 1_768_453_201_000_000
PSEUDONYMISER: Final = KeyedPseudonymiser(b"samples")
HTTP: Final = "http/cam7"

Members = Mapping[str, Any]


class Row(NamedTuple):
    """One file, how it is read, and what it must give."""

    file: str
    format: str
    observations: tuple[Members, ...] = ()
    """Of each the members that its source states; `observed_at` in µs UTC."""
    readings: tuple[tuple[str, str, Any], ...] = ()
    """Property, channel, value."""
    removed: frozenset[str] = frozenset()
    """Fields that must have been taken out, among others."""
    refused: str = ""
    """Reason of a refusal of the whole."""
    ignored: int = 0
    topic: str = HTTP
    camera: CameraInfo = CameraInfo()
    hidden: tuple[str, ...] = ()
    """Words of the file that must be nowhere behind the cut."""


def _person(at: int, **more: Any) -> dict[str, Any]:
    return {"kind": "observation", "object_class": "person", "observed_at": at, "time_quality": "explicit", **more}


_TWO: Final = (
    _person(1_768_453_200_123_000, track="0", confidence=0.94, box=[0.1, 0.1, 0.3, 0.5]),
    {"object_class": "vehicle", "track": "1", "confidence": 0.88, "box": [0.46875, 0.416667, 0.78125, 0.833333]},
)
_HUMAN: Final = _person(
    1_633_446_807_321_000, track="15", confidence=0.8, box=[0.03125, 0.833333, 0.15625, 0.9375], box_quality="explicit"
)
_HUMAN_REMOVED: Final = frozenset({"Appearance.HumanFace", "Appearance.HumanBody", "Appearance.Color"})
_BEIJING: Final = "assumed_tz"
_VEHICLE: Final = {
    "kind": "observation",
    "object_class": "vehicle",
    "camera": "65010000001190000001",
    "native_id": "330101010012100000010220171018080608022060269899",
    "observed_at": 1_473_688_867_000_000,
    "time_quality": _BEIJING,
    "lane": 1,
    "speed": 2.222,
    "color": "black",
}
_SYSTEM: Final = "schema"
"""Requests of the system and replies hold no observations: the format refuses them, the VIID server answers them."""

ROWS: Final = (
    # ── GA/T 1400 ──
    Row(
        "gat1400/motorvehicle_list_allfields.json",
        "viid",
        (_VEHICLE,),
        (("vehicle_speed", "lane1", 8.0),),
        removed=frozenset({"StorageUrl1", "SubImageInfoObject.StoragePath", "PlateDescribe", "NumOfPassenger"}),
        hidden=("苏N00000", "9527/upload"),
    ),
    Row(
        "gat1400/motorvehicle_list_empty_strings.json",
        "viid",
        ({"object_class": "vehicle", "observed_at": 1_618_132_417_000_000, "time_quality": _BEIJING},),
        removed=frozenset({"InOut"}),
        hidden=("浙B00000",),
    ),
    Row(
        "gat1400/face_list_allfields.json",
        "viid",
        ({"object_class": "face", "similarity": 1.0, "time_quality": _BEIJING, "images": 1},),
        removed=frozenset({"Name", "IDNumber", "IDType", "EthicCode", "IsSuspectedTerrorist", "IsDetainees", "Alias"}),
        hidden=("localhost",),
    ),
    Row(
        "gat1400/face_minimal_beijing.json",
        "viid",
        (
            {
                "object_class": "face",
                "camera": "11010801001320001388",
                "native_id": "110108010013200013880220201209161120000010600001",
                "observed_at": 1_607_501_480_000_000,
                "time_quality": _BEIJING,
            },
        ),
        removed=frozenset({"GenderCode"}),
    ),
    Row(
        "gat1400/subscribe_notifications_constructed.json",
        "viid",
        ({**_VEHICLE, "box_quality": "unresolved"},),
        (("vehicle_speed", "lane1", 8.0),),
        removed=frozenset({"Title"}),
        hidden=("苏N00000",),
    ),
    Row(
        "gat1400/ape_list_community.json",
        "viid",
        readings=(("online", "", True),),
        removed=frozenset({"Name", "IPAddr", "Place"}),
    ),
    Row("gat1400/nonconformant_simulator_personlist.json", "viid", refused="schema"),
    *(
        Row(f"gat1400/community_{name}.json", "viid", refused="schema")
        for name in ("carinfos", "doordevices", "doorinfos", "personinfos")
    ),
    *(
        Row(f"gat1400/{name}.json", "viid", refused=_SYSTEM)
        for name in (
            "register_request",
            "keepalive_request",
            "unregister_request",
            "system_time_constructed",
            "response_status_object",
            "response_status_list_object",
            "subscribes_request",
        )
    ),
    # ── ONVIF ──
    Row("onvif/metadata_frame_full_human.xml", "onvif_xml", (_HUMAN,), removed=_HUMAN_REMOVED, hidden=("LongSleeve",)),
    Row(
        "onvif/metadata_frame_full_human.onvif-mj.json",
        "onvif_mj",
        (_HUMAN,),
        removed=_HUMAN_REMOVED,
        topic="cam7/onvif-mj/VideoAnalytics/p1/m1",
        hidden=("LongSleeve", "Backpack"),
    ),
    Row("onvif/producer_two_objects.xml", "onvif_xml", _TWO),
    Row("onvif/producer_two_objects.onvif-mj.json", "onvif_mj", _TWO, topic="cam7/onvif-mj/VideoAnalytics/p1/m1"),
    Row(
        "onvif/metadata_licenseplate_fragment.xml",
        "onvif_xml",
        ({"object_class": "plate", "observed_at": 1_287_577_497_321_000},),
        removed=frozenset({"LicensePlateInfo.PlateNumber"}),
        hidden=("TEST001",),
    ),
    Row(
        "onvif/metadata_vehicle_plate_parent_fragment.xml",
        "onvif_xml",
        (
            {"object_class": "vehicle", "track": "12", "box": [0.03125, 0.625, 0.15625, 0.9375]},
            {"object_class": "plate", "track": "14", "parent_track": "12"},
        ),
    ),
    Row(
        "onvif/metadata_spherical_fragment.xml",
        "onvif_xml",
        ({"track": "23", "observed_at": 1_473_510_297_321_000, "time_quality": "explicit"},),
        removed=frozenset({"Object.SphericalCoordinate"}),
    ),
    Row(
        "onvif/realworld_anpr_plate_alpha3_country.xml",
        "onvif_xml",
        (
            {
                "object_class": "plate",
                "speed": 42.0,
                "lane": 2,
                "color": "grey",
                "images": 2,
                "observed_at": 1_768_452_491_000_000,
            },
        ),
        removed=frozenset({"VehicleInfo.Image", "LicensePlateInfo.Image", "LicensePlateInfo.PlateNumber"}),
        hidden=("TEST070", "/9j/"),
    ),
    Row(
        "onvif/event_motionalarm.xml",
        "onvif_xml",
        ({"kind": "event", "event": {"type": "motion", "state": True}, "observed_at": 1_410_388_219_000_000},),
        (("motion", "", True),),
        hidden=("00408c000000",),
    ),
    Row(
        "onvif/event_linecrossed.onvif-ej.json",
        "onvif_ej",
        ({"kind": "event", "track": "15", "observed_at": 1_223_641_497_321_000},),
        topic="MyDevice/onvif-ej/RuleEngine/LineDetector/Crossed/&1/2/MyImportantFence1",
    ),
    Row(
        "onvif/sensordata_temperature.onvif-mj.json",
        "onvif_mj",
        readings=(("air_temperature", "", 298.65),),
        topic="cam7/onvif-mj/SensorData/Temperature",
    ),
    # ── detectors ──
    Row(
        "frigate/events_update.json",
        "frigate",
        (
            _person(
                1_607_123_962_082_975,
                camera="front_door",
                track="1607123955.475377-mxklsc",
                track_state="update",
                confidence=0.87890625,
                box=[0.3375, 0.516667, 0.425, 0.889583],
                box_quality="camera",
                image_size=[1280, 960],
                speed=0.2139,
            ),
        ),
        removed=frozenset({"after.sub_label", "after.recognized_license_plate", "before.recognized_license_plate"}),
        topic="frigate/events",
        camera=CameraInfo(width=1280, height=960),
        hidden=("John Smith", "ABC12345"),
    ),
    Row(
        "frigate/reviews_update.json",
        "frigate",
        (
            {
                "kind": "event",
                "camera": "front_cam",
                "event": {"type": "review_alert", "state": True, "zone": "front_yard"},
                "observed_at": 1_718_987_129_308_396,
            },
        ),
        removed=frozenset({"after.data.sub_labels", "after.thumb_path"}),
        topic="frigate/reviews",
        hidden=("Bob", ".webp"),
    ),
    *(
        Row(
            f"frigate/tracked_object_update_{name}.json",
            "frigate",
            (
                {
                    "kind": "event",
                    "camera": "front_door_cam",
                    "track": "1607123955.475377-mxklsc",
                    "observed_at": 1_607_123_958_748_393,
                    "event": {"type": event},
                },
            ),
            removed=frozenset({field}),
            topic="frigate/tracked_object_update",
            hidden=hidden,
        )
        for name, event, field, hidden in (
            ("classification", "object_classified", "sub_label", ("delivery_person",)),
            ("classification_attr", "object_classified", "attribute", ('"yes"',)),
            ("face", "face_matched", "name", ("John",)),
        )
    ),
    Row(
        "frigate/tracked_object_update_description.json",
        "frigate",
        removed=frozenset({"description"}),
        ignored=1,
        topic="frigate/tracked_object_update",
        hidden=("sedan",),
    ),
    Row(
        "frigate/triggers.json",
        "frigate",
        (
            {
                "kind": "event",
                "camera": "driveway",
                "confidence": 0.85,
                "track": "1751565549.853251-b69j73",
                "observed_at": ARRIVAL,
                "time_quality": "received",
            },
        ),
        topic="frigate/triggers",
    ),
    Row(
        "deepstream/full_schema.json",
        "deepstream",
        (
            {
                "kind": "observation",
                "camera": "CAMERA_001",
                "analytics": "ANALYTICS_001",
                "object_class": "vehicle",
                "subclass": "car",
                "track": "1",
                "observed_at": 1_705_314_600_000_000,
                "time_quality": "explicit",
                "box": [0.052083, 0.185185, 0.15625, 0.37037],
                "event": {"type": "field_entered"},
            },
        ),
        removed=frozenset({"place.name", "sensor.description", "analyticsModule.description"}),
        topic="deepstream/pipeline",
        camera=CameraInfo(width=1920, height=1080, speed_unit="m/s"),
        hidden=("ParkingLot_A", "Entrance Camera", "Vehicle Detection", "30.32"),
    ),
    Row(
        "dlstreamer/full_constructed.json",
        "dlstreamer",
        (
            {
                "camera": "cam-1",
                "object_class": "vehicle",
                "track": "1",
                "confidence": 0.94,
                "box": [0.69, 0.22, 0.78, 0.41],
                "image_size": [1920, 1080],
                "observed_at": 1_768_453_200_123_000,
                "time_quality": "explicit",
            },
        ),
        removed=frozenset({"source"}),
        topic="dlstreamer/pipeline",
        hidden=("rtsp",),
    ),
    # ── Axis ──
    Row(
        "axis/analytics_scene_description.v0.beta.json",
        "axis",
        (
            _person(1_678_266_019_320_111, track="1", confidence=0.6, box=[0.13332, 0.59942, 0.80004, 0.89332]),
            {"object_class": "vehicle", "subclass": "bus", "track": "2", "color": "yellow", "parent_track": "8"},
            {"track": "3", "track_state": "end"},
            {"track": "8", "track_state": "end"},
        ),
        removed=frozenset({"observations.image", "observations.class.upper_clothing_colors"}),
        hidden=("/9j/",),
    ),
    Row(
        "axis/consolidated_track.v1.beta.json",
        "axis",
        (
            _person(
                1_715_613_700_319_053,
                track="5b8b4da4-bd35-41e6-b4d3-564b761727d7",
                track_state="end",
                confidence=0.744,
                box=[0.5211, 0.8854, 0.543, 0.9935],
            ),
        ),
        removed=frozenset({"image", "classes.upper_clothing_colors", "classes.lower_clothing_colors"}),
        hidden=("/9j/",),
    ),
    Row(
        "axis/aoa_crossline_mqtt.json",
        "axis",
        readings=(
            ("object_count_total", "scenario1", 20_960),
            ("vehicle_count_total", "scenario1_bus", 0),
            ("vehicle_count_total", "scenario1_car", 18_103),
            ("people_count_total", "scenario1", 0),
            ("bicycles_total", "scenario1", 0),
            ("vehicle_count_total", "scenario1_truck", 2_857),
            ("object_count_total", "scenario1_unknown", 0),
        ),
        topic="axis/0123456789AB/event/CameraApplicationPlatform/ObjectAnalytics/Device1Scenario1",
    ),
    # ── vendors ──
    Row(
        "hikvision/anpr_full.xml",
        "hikvision",
        (
            {
                "kind": "observation",
                "object_class": "vehicle",
                "observed_at": 1_715_078_883_847_000,
                "confidence": 0.98,
                "lane": 1,
                "box": [0.271, 0.0, 0.696, 0.426],
            },
        ),
        removed=frozenset({"ANPR.licensePlate", "pictureInfo.fileName"}),
        hidden=("TEST",),
    ),
    Row(
        "hikvision/fielddetection_human.xml",
        "hikvision",
        (
            {
                "object_class": "person",
                "observed_at": 1_643_633_585_000_000,
                "box": [0.6, 0.215278, 0.735937, 0.720834],
                "event": {"type": "intrusion", "state": True, "zone": "3"},
            },
        ),
        (("intrusion", "zone3", True),),
        removed=frozenset({"channelName"}),
    ),
    Row(
        "hikvision/io_notification.xml",
        "hikvision",
        ({"kind": "event", "event": {"type": "alarm_input", "state": True, "zone": "input1"}},),
        (("input_active", "input1", True),),
    ),
    Row(
        "hikvision/pir.xml",
        "hikvision",
        ({"kind": "event", "event": {"type": "pir", "state": True}, "observed_at": 1_680_816_141_000_000},),
        (("presence", "", True),),
    ),
    Row("hikvision/heartbeat.xml", "hikvision", readings=(("online", "", True),), ignored=1),
    Row("hikvision/httphosts_put_payload.xml", "hikvision", refused="schema"),
    Row(
        "dahua/eventManager_attach_trafficjunction.multipart.txt",
        "dahua",
        (
            {
                "object_class": "vehicle",
                "track": "7484",
                "confidence": 0.94,
                "lane": 1,
                "color": "blue",
                "box": [0.199219, 0.0, 0.84375, 0.802734],
                "observed_at": 1_785_762_846_500_000,
                "time_quality": _BEIJING,
            },
        ),
        (("online", "", True),),
        removed=frozenset({"Object.Text", "TrafficCar.PlateNumber", "TrafficCar.MachineName"}),
        ignored=1,
        hidden=("TEST123", "BJ0000000000000"),
    ),
    Row(
        "gb28181/alarm_notify.xml",
        "gb28181",
        (
            {
                "kind": "event",
                "camera": "44010300001340000001",
                "observed_at": 1_768_453_200_000_000,
                "time_quality": _BEIJING,
                "place": {"lon": 113.264385, "lat": 23.129112},
                "event": {"type": "line_crossed"},
            },
        ),
        removed=frozenset({"AlarmDescription"}),
    ),
    Row(
        "gb28181/mobileposition_notify.xml",
        "gb28181",
        readings=(
            ("longitude", "", 113.264385),
            ("latitude", "", 23.129112),
            ("altitude", "", 12.0),
            ("speed", "", 36.0),
            ("heading", "", 90.0),
        ),
    ),
)

NOT_MESSAGES: Final = ("azure_lva/Extension_Data_Schema.json", "onvif/xsd/", "README.md")
"""Schemas and texts."""


class Ran(NamedTuple):
    """What came of a file."""

    report: VideoReport | None
    removed: Mapping[str, int]
    refused: str
    stored: bytes
    """All that goes on of it."""


def run(row: Row, payload: bytes) -> Ran:
    """Cut a file and read what is left."""
    form = FORMATS[row.format]
    try:
        cut = form.redact(payload, row.topic, ARRIVAL, PSEUDONYMISER)
        decoded = form.decode(cut.payload, row.topic, ARRIVAL, row.camera)
    except Rejected as why:
        return Ran(None, {}, why.reason, str(why).encode())
    return Ran(decoded, cut.removed, "", cut.payload + msgspec.json.encode(decoded) + msgspec.json.encode(cut.removed))


def _shown(row: Row, ran: Ran) -> str:
    if ran.report is None:
        return f"| `{row.file}` | refused: {ran.refused} | – | – |"
    observations = []
    for observation in ran.report.observations:
        text = " ".join(str(part) for part in (observation.object_class, observation.subclass) if part)
        text = text or ("track" if observation.track else "")
        if observation.event is not None:
            text = f"{text}: {observation.event.type}".removeprefix(": ")
        if observation.track_state is not None:
            text += f" ({observation.track_state.value})"
        box = "" if observation.box is None else " [" + " ".join(f"{side:.4g}" for side in observation.box) + "]"
        observations.append(f"{observation.kind.value} {text}{box}")
    readings = [
        f"{measurement.property}{f'#{measurement.channel}' if measurement.channel else ''} = {measurement.value}"
        for measurement in ran.report.measurements
    ]
    removed = [f"{name}×{count}" if count > 1 else name for name, count in sorted(ran.removed.items())]
    short = removed if len(removed) <= 12 else [*removed[:10], f"… {len(removed)} fields in all"]
    cells = (f"`{row.file}`", "; ".join(observations), "; ".join(readings), ", ".join(short))
    return f"| {' | '.join(cell or '–' for cell in cells)} |"


def table(folder: Path) -> str:
    """Return the table of all files."""
    lines = ["| file | observations | readings | dropped fields |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_shown(row, run(row, (folder / row.file).read_bytes())) for row in ROWS)])


if __name__ == "__main__":
    samples = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["SENSEGATE_SAMPLES"]) / "video"
    sys.stdout.write(table(samples) + "\n")
