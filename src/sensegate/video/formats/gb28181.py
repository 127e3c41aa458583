"""GB/T 28181: MANSCDP+XML bodies forwarded by a video platform: alarms, positions, device states.

The gateway does not speak SIP; a bridge posts the bodies, or publishes them by MQTT. They are declared GB2312 and use
Beijing time. Names, addresses and descriptions are free text and are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import codes, xmlsafe
from sensegate.video.allowlist import REMOVED, AllowListRedactor, ObjectRule, allow_words, decode_record
from sensegate.video.allowlist import allow_number as within
from sensegate.video.format import (
    CameraInfo,
    Measurement,
    Pseudonymiser,
    Redacted,
    RejectedObject,
    VideoFormat,
    VideoReport,
)
from sensegate.video.formats.detector import NamingRedactor, ignore_field, member_names
from sensegate.video.observation import Location, ObservationKind, VideoEvent, VideoObservation
from sensegate.video.times import TimeResult, parse_beijing, received
from sensegate.video.values import as_list, coordinates, identity, text

NAME: Final = "gb28181"
ITEMS_MAX: Final = 10_000
_DEVICE = re.compile(r"\d{20}|\d{16}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?", re.ASCII)
_ROOTS: Final = ("Notify", "Response")
_ONLINE: Final = {"ON": True, "OFF": False, "OK": True, "ONLINE": True, "OFFLINE": False, "ERROR": False}


def _allow_device(value: Any, redactor: AllowListRedactor) -> Any:
    """Accept a code of the standard; pseudonymise any other name."""
    word = text(value)
    return REMOVED if not word else word if _DEVICE.fullmatch(word) else redactor.pseudonymiser.identifier(word)


def _allow_time(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    word = text(value)
    return word if _TIME.fullmatch(word) and parse_beijing(word) else REMOVED


def _allow_state(value: Any, redactor: AllowListRedactor) -> Any:  # noqa: ARG001
    return _ONLINE.get(text(value).upper(), REMOVED)


_PLACE: Final[ObjectRule] = {"Longitude": within(-180, 180), "Latitude": within(-180, 180)}
BODY: Final[ObjectRule] = {
    "CmdType": allow_words("Alarm", "MobilePosition", "Keepalive", "Catalog", "DeviceStatus"),
    "SN": within(0, 4_294_967_295),
    "DeviceID": _allow_device,
    "AlarmPriority": ignore_field,
    "AlarmMethod": within(1, 99),
    "AlarmTime": _allow_time,
    "Time": _allow_time,
    **_PLACE,
    "Speed": within(0, 1_300),
    "Direction": within(0, 360),
    "Altitude": within(-1_000, 50_000),
    "Status": _allow_state,
    "Online": _allow_state,
    "Info": {"AlarmType": within(0, 999), "AlarmTypeParam": ignore_field},
    **dict.fromkeys(("SumNum", "Num", "Result", "Encode", "Record", "DeviceTime", "@xmlns"), ignore_field),
}
ITEM: Final[ObjectRule] = {
    "DeviceID": _allow_device,
    "Status": _allow_state,
    **_PLACE,
    **dict.fromkeys(
        ("Parental", "SafetyWay", "RegisterWay", "Secrecy", "CivilCode", "Event", "Info", "@Num", "Certifiable"),
        ignore_field,
    ),
}
_NAMES: Final = member_names(BODY, ITEM) | {
    "AlarmDescription", "Name", "Manufacturer", "Model", "Owner", "Address", "ParentID", "Block", "IPAddress", "Port",
    "Password", "BusinessGroupID", "DeviceList", "Item", "CertNum", "EndTime", "ErrCode", "Alarmstatus", "Reason",
}  # fmt: skip


class CatalogueItem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A device of a catalogue."""

    device: str
    online: bool | None = None


class Gb28181Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A body."""

    command: str
    device: str
    number: int | None = None
    time: str = ""
    method: int | None = None
    type: int | None = None
    location: tuple[float, float, float | None] | None = None
    speed: float | None = None
    """km/h"""
    direction: float | None = None
    online: bool | None = None
    items: tuple[CatalogueItem, ...] = ()
    invalid: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()


def redact(payload: bytes, topic: str, arrival: int, pseudonymiser: Pseudonymiser) -> Redacted:  # noqa: ARG001
    """Redact a body. Raises `Rejected` if it is not XML, or not a command with metadata."""
    tree = xmlsafe.tree(payload)
    root = next((tree[name] for name in _ROOTS if isinstance(tree.get(name), dict)), None)
    if root is None:
        raise Rejected(QuarantineReason.SCHEMA, "the body is not a Notify or Response of MANSCDP")
    redactor = NamingRedactor(pseudonymiser, arrival, _NAMES)
    members = redactor.apply_object({name: value for name, value in root.items() if name != "DeviceList"}, BODY)
    if "CmdType" not in members or "DeviceID" not in members:
        raise Rejected(QuarantineReason.SCHEMA, "a known CmdType or the DeviceID is missing")
    items, broken = _redact_items(root.get("DeviceList"), redactor)
    info = members.get("Info", {})
    number = members.get("SN")
    message = Gb28181Body(
        command=members["CmdType"],
        device=members["DeviceID"],
        number=None if number is None else int(number),
        time=members.get("AlarmTime") or members.get("Time", ""),
        method=_integer(members, "AlarmMethod"),
        type=_integer(info, "AlarmType"),
        location=_location(members),
        speed=members.get("Speed"),
        direction=members.get("Direction"),
        online=members.get("Online", members.get("Status")),
        items=tuple(items),
        invalid=tuple(broken),
        removed=tuple(sorted(redactor.removed)),
    )
    return redactor.result(message)


def _integer(members: Mapping[str, Any], name: str) -> int | None:
    value = members.get(name)
    return int(value) if value is not None and value == int(value) else None


def _location(members: Mapping[str, Any]) -> tuple[float, float, float | None] | None:
    """Return (lon, lat, altitude); 0, 0 means not set."""
    location = coordinates(members.get("Longitude"), members.get("Latitude"))
    return None if location is None else (float(location[0]), float(location[1]), members.get("Altitude"))


def _redact_items(listed: Any, redactor: NamingRedactor) -> tuple[list[CatalogueItem], list[int]]:
    items: list[CatalogueItem] = []
    broken: list[int] = []
    if not isinstance(listed, dict):
        return items, broken
    given = as_list(listed.get("Item"))
    if len(given) > ITEMS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {ITEMS_MAX} devices")
    for index, raw in enumerate(given):
        members = redactor.apply_object(raw, ITEM, "Item") if isinstance(raw, dict) else {}
        if "DeviceID" in members:
            items.append(CatalogueItem(device=members["DeviceID"], online=members.get("Status")))
        else:
            broken.append(index)
    return items, broken


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a body reports."""
    body = decode_record(payload, Gb28181Body)
    at, quality = (parse_beijing(body.time) if body.time else None) or received(arrival)
    refused = tuple(RejectedObject(place, "wrong_type", "the device has no code") for place in body.invalid)
    if body.command == "Alarm":
        return VideoReport((_alarm(body, at, quality),))
    measured = tuple(_measurements(body, (at, quality)))
    return VideoReport(measurements=measured, rejected=refused, ignored=0 if measured or refused else 1)


def _alarm(body: Gb28181Body, at: int, quality: str) -> VideoObservation:
    code = "" if body.method is None else str(body.method)
    word = codes.event(NAME, code if body.type is None else f"{code}/{body.type}")
    return VideoObservation(
        id=identity(NAME, body.device, body.number, at, body.method, body.type),
        kind=ObservationKind.EVENT,
        camera=body.device,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id="" if body.number is None else str(body.number),
        place=Location(*body.location) if body.location else None,
        event=VideoEvent(word),
        removed=body.removed,
    )


def _measurements(body: Gb28181Body, when: TimeResult) -> Iterator[Measurement]:
    at, quality = when
    key = identity(NAME, body.device, body.number, at, body.command)
    if body.command == "MobilePosition" and body.location is not None:
        lon, lat, altitude = body.location
        values = (
            ("longitude", lon, "deg"),
            ("latitude", lat, "deg"),
            ("altitude", altitude, "m"),
            ("speed", body.speed, "km/h"),
            ("heading", body.direction, "deg"),
        )
        for name, value, unit in values:
            if value is not None:
                yield Measurement(body.device, name, value, unit, at, quality, key)
    elif body.online is not None:
        yield Measurement(body.device, "online", body.online, "", at, quality, key)
    for item in body.items:
        if item.online is not None:
            own = identity(NAME, item.device, body.number, at)
            yield Measurement(item.device, "online", item.online, "", at, quality, own)


FORMAT: Final = VideoFormat(NAME, redact, decode)
