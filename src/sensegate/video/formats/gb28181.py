"""GB/T 28181: bodies in MANSCDP+XML that a video platform hands on: alarms, positions, states of devices.

The gateway speaks no SIP; a bridge posts the bodies, or publishes them by MQTT. They are declared GB2312 and hold local
time of Beijing. Names, addresses and descriptions are free text and do not pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video import codes, xmlsafe
from sensegate.video.allowlist import REMOVED, ObjectRule, Redactor, allow_words, decode_record
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


def _allow_device(value: Any, sieve: Redactor) -> Any:
    """Let a code of the standard pass; hide any other name."""
    word = text(value)
    return REMOVED if not word else word if _DEVICE.fullmatch(word) else sieve.pseudonymiser.identifier(word)


def _allow_time(value: Any, sieve: Redactor) -> Any:  # noqa: ARG001
    word = text(value)
    return word if _TIME.fullmatch(word) and parse_beijing(word) else REMOVED


def _allow_state(value: Any, sieve: Redactor) -> Any:  # noqa: ARG001
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
    """One device of a catalogue."""

    device: str
    online: bool | None = None


class Gb28181Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One body."""

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


def redact(payload: bytes, topic: str, arrival: int, veil: Pseudonymiser) -> Redacted:  # noqa: ARG001
    """Cut a body down. Raises `Rejected`: no XML, or none of the commands that carry metadata."""
    tree = xmlsafe.tree(payload)
    root = next((tree[name] for name in _ROOTS if isinstance(tree.get(name), dict)), None)
    if root is None:
        raise Rejected(QuarantineReason.SCHEMA, "no Notify or Response of MANSCDP")
    sieve = NamingRedactor(veil, arrival, _NAMES)
    kept = sieve.apply_object({name: value for name, value in root.items() if name != "DeviceList"}, BODY)
    if "CmdType" not in kept or "DeviceID" not in kept:
        raise Rejected(QuarantineReason.SCHEMA, "without a CmdType that is known, or without DeviceID")
    items, broken = _redact_items(root.get("DeviceList"), sieve)
    info = kept.get("Info", {})
    number = kept.get("SN")
    message = Gb28181Body(
        command=kept["CmdType"],
        device=kept["DeviceID"],
        number=None if number is None else int(number),
        time=kept.get("AlarmTime") or kept.get("Time", ""),
        method=_integer(kept, "AlarmMethod"),
        type=_integer(info, "AlarmType"),
        location=_location(kept),
        speed=kept.get("Speed"),
        direction=kept.get("Direction"),
        online=kept.get("Online", kept.get("Status")),
        items=tuple(items),
        invalid=tuple(broken),
        removed=tuple(sorted(sieve.removed)),
    )
    return sieve.result(message)


def _integer(of: Mapping[str, Any], name: str) -> int | None:
    found = of.get(name)
    return int(found) if found is not None and found == int(found) else None


def _location(of: Mapping[str, Any]) -> tuple[float, float, float | None] | None:
    """Return lon, lat, altitude; 0, 0 means that nobody set them."""
    found = coordinates(of.get("Longitude"), of.get("Latitude"))
    return None if found is None else (float(found[0]), float(found[1]), of.get("Altitude"))


def _redact_items(listed: Any, sieve: NamingRedactor) -> tuple[list[CatalogueItem], list[int]]:
    found: list[CatalogueItem] = []
    broken: list[int] = []
    if not isinstance(listed, dict):
        return found, broken
    given = as_list(listed.get("Item"))
    if len(given) > ITEMS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {ITEMS_MAX} devices")
    for index, one in enumerate(given):
        kept = sieve.apply_object(one, ITEM, "Item") if isinstance(one, dict) else {}
        if "DeviceID" in kept:
            found.append(CatalogueItem(device=kept["DeviceID"], online=kept.get("Status")))
        else:
            broken.append(index)
    return found, broken


def decode(payload: bytes, topic: str, arrival: int, camera: CameraInfo) -> VideoReport:  # noqa: ARG001
    """Return what a body reports."""
    told = decode_record(payload, Gb28181Body)
    at, quality = (parse_beijing(told.time) if told.time else None) or received(arrival)
    refused = tuple(RejectedObject(place, "wrong_type", "a device without its code") for place in told.invalid)
    if told.command == "Alarm":
        return VideoReport((_alarm(told, at, quality),))
    measured = tuple(_measurements(told, (at, quality)))
    return VideoReport(measurements=measured, rejected=refused, ignored=0 if measured or refused else 1)


def _alarm(told: Gb28181Body, at: int, quality: str) -> VideoObservation:
    code = "" if told.method is None else str(told.method)
    word = codes.event(NAME, code if told.type is None else f"{code}/{told.type}")
    return VideoObservation(
        id=identity(NAME, told.device, told.number, at, told.method, told.type),
        kind=ObservationKind.EVENT,
        camera=told.device,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id="" if told.number is None else str(told.number),
        place=Location(*told.location) if told.location else None,
        event=VideoEvent(word),
        removed=told.removed,
    )


def _measurements(told: Gb28181Body, when: TimeResult) -> Iterator[Measurement]:
    at, quality = when
    key = identity(NAME, told.device, told.number, at, told.command)
    if told.command == "MobilePosition" and told.location is not None:
        lon, lat, altitude = told.location
        values = (
            ("longitude", lon, "deg"),
            ("latitude", lat, "deg"),
            ("altitude", altitude, "m"),
            ("speed", told.speed, "km/h"),
            ("heading", told.direction, "deg"),
        )
        for name, value, unit in values:
            if value is not None:
                yield Measurement(told.device, name, value, unit, at, quality, key)
    elif told.online is not None:
        yield Measurement(told.device, "online", told.online, "", at, quality, key)
    for item in told.items:
        if item.online is not None:
            own = identity(NAME, item.device, told.number, at)
            yield Measurement(item.device, "online", item.online, "", at, quality, own)


FORMAT: Final = VideoFormat(NAME, redact, decode)
