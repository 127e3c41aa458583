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
from sensegate.video.allowlist import GONE, Shape, Sieve, one_of, typed
from sensegate.video.allowlist import number as within
from sensegate.video.format import Camera, Cut, Measured, Refusal, Seen, Veil, VideoFormat
from sensegate.video.formats.detector import Telling, names_in, silent
from sensegate.video.observation import Event, Kind, Place, VideoObservation
from sensegate.video.times import Found, parse_beijing, received
from sensegate.video.values import identity, many, place, text

NAME: Final = "gb28181"
ITEMS_MAX: Final = 10_000
_DEVICE = re.compile(r"\d{20}|\d{16}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?", re.ASCII)
_ROOTS: Final = ("Notify", "Response")
_ONLINE: Final = {"ON": True, "OFF": False, "OK": True, "ONLINE": True, "OFFLINE": False, "ERROR": False}


def _device(value: Any, sieve: Sieve) -> Any:
    """Let a code of the standard pass; hide any other name."""
    word = text(value)
    return GONE if not word else word if _DEVICE.fullmatch(word) else sieve.veil.word(word)


def _time(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    word = text(value)
    return word if _TIME.fullmatch(word) and parse_beijing(word) else GONE


def _state(value: Any, sieve: Sieve) -> Any:  # noqa: ARG001
    return _ONLINE.get(text(value).upper(), GONE)


_PLACE: Final[Shape] = {"Longitude": within(-180, 180), "Latitude": within(-180, 180)}
BODY: Final[Shape] = {
    "CmdType": one_of("Alarm", "MobilePosition", "Keepalive", "Catalog", "DeviceStatus"),
    "SN": within(0, 4_294_967_295),
    "DeviceID": _device,
    "AlarmPriority": silent,
    "AlarmMethod": within(1, 99),
    "AlarmTime": _time,
    "Time": _time,
    **_PLACE,
    "Speed": within(0, 1_300),
    "Direction": within(0, 360),
    "Altitude": within(-1_000, 50_000),
    "Status": _state,
    "Online": _state,
    "Info": {"AlarmType": within(0, 999), "AlarmTypeParam": silent},
    **dict.fromkeys(("SumNum", "Num", "Result", "Encode", "Record", "DeviceTime", "@xmlns"), silent),
}
ITEM: Final[Shape] = {
    "DeviceID": _device,
    "Status": _state,
    **_PLACE,
    **dict.fromkeys(
        ("Parental", "SafetyWay", "RegisterWay", "Secrecy", "CivilCode", "Event", "Info", "@Num", "Certifiable"), silent
    ),
}
_NAMES: Final = names_in(BODY, ITEM) | {
    "AlarmDescription", "Name", "Manufacturer", "Model", "Owner", "Address", "ParentID", "Block", "IPAddress", "Port",
    "Password", "BusinessGroupID", "DeviceList", "Item", "CertNum", "EndTime", "ErrCode", "Alarmstatus", "Reason",
}  # fmt: skip


class Item(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One device of a catalogue."""

    device: str
    online: bool | None = None


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One body."""

    what: str
    device: str
    number: int | None = None
    at: str = ""
    method: int | None = None
    type: int | None = None
    place: tuple[float, float, float | None] | None = None
    speed: float | None = None
    """km/h"""
    direction: float | None = None
    online: bool | None = None
    items: tuple[Item, ...] = ()
    broken: tuple[int, ...] = ()
    removed: tuple[str, ...] = ()


def cut(payload: bytes, topic: str, arrival: int, veil: Veil) -> Cut:  # noqa: ARG001
    """Cut a body down. Raises `Rejected`: no XML, or none of the commands that carry metadata."""
    tree = xmlsafe.tree(payload)
    root = next((tree[name] for name in _ROOTS if isinstance(tree.get(name), dict)), None)
    if root is None:
        raise Rejected(QuarantineReason.SCHEMA, "no Notify or Response of MANSCDP")
    sieve = Telling(veil, arrival, _NAMES)
    kept = sieve.object({name: value for name, value in root.items() if name != "DeviceList"}, BODY)
    if "CmdType" not in kept or "DeviceID" not in kept:
        raise Rejected(QuarantineReason.SCHEMA, "without a CmdType that is known, or without DeviceID")
    items, broken = _items(root.get("DeviceList"), sieve)
    info = kept.get("Info", {})
    number = kept.get("SN")
    message = Message(
        what=kept["CmdType"],
        device=kept["DeviceID"],
        number=None if number is None else int(number),
        at=kept.get("AlarmTime") or kept.get("Time", ""),
        method=_whole(kept, "AlarmMethod"),
        type=_whole(info, "AlarmType"),
        place=_place(kept),
        speed=kept.get("Speed"),
        direction=kept.get("Direction"),
        online=kept.get("Online", kept.get("Status")),
        items=tuple(items),
        broken=tuple(broken),
        removed=tuple(sorted(sieve.removed)),
    )
    return sieve.cut(message)


def _whole(of: Mapping[str, Any], name: str) -> int | None:
    found = of.get(name)
    return int(found) if found is not None and found == int(found) else None


def _place(of: Mapping[str, Any]) -> tuple[float, float, float | None] | None:
    """Return lon, lat, altitude; 0, 0 means that nobody set them."""
    found = place(of.get("Longitude"), of.get("Latitude"))
    return None if found is None else (float(found[0]), float(found[1]), of.get("Altitude"))


def _items(listed: Any, sieve: Telling) -> tuple[list[Item], list[int]]:
    found: list[Item] = []
    broken: list[int] = []
    if not isinstance(listed, dict):
        return found, broken
    given = many(listed.get("Item"))
    if len(given) > ITEMS_MAX:
        raise Rejected(QuarantineReason.TOO_LARGE, f"more than {ITEMS_MAX} devices")
    for index, one in enumerate(given):
        kept = sieve.object(one, ITEM, "Item") if isinstance(one, dict) else {}
        if "DeviceID" in kept:
            found.append(Item(device=kept["DeviceID"], online=kept.get("Status")))
        else:
            broken.append(index)
    return found, broken


def see(payload: bytes, topic: str, arrival: int, camera: Camera) -> Seen:  # noqa: ARG001
    """Return what a body reports."""
    told = typed(payload, Message)
    at, quality = (parse_beijing(told.at) if told.at else None) or received(arrival)
    refused = tuple(Refusal(place, "wrong_type", "a device without its code") for place in told.broken)
    if told.what == "Alarm":
        return Seen((_alarm(told, at, quality),))
    measured = tuple(_measured(told, (at, quality)))
    return Seen(measured=measured, refused=refused, ignored=0 if measured or refused else 1)


def _alarm(told: Message, at: int, quality: str) -> VideoObservation:
    code = "" if told.method is None else str(told.method)
    word = codes.event(NAME, code if told.type is None else f"{code}/{told.type}")
    return VideoObservation(
        id=identity(NAME, told.device, told.number, at, told.method, told.type),
        kind=Kind.EVENT,
        camera=told.device,
        observed_at=at,
        time_quality=quality,
        format=NAME,
        native_id="" if told.number is None else str(told.number),
        place=Place(*told.place) if told.place else None,
        event=Event(word),
        removed=told.removed,
    )


def _measured(told: Message, when: Found) -> Iterator[Measured]:
    at, quality = when
    key = identity(NAME, told.device, told.number, at, told.what)
    if told.what == "MobilePosition" and told.place is not None:
        lon, lat, altitude = told.place
        values = (
            ("longitude", lon, "deg"),
            ("latitude", lat, "deg"),
            ("altitude", altitude, "m"),
            ("speed", told.speed, "km/h"),
            ("heading", told.direction, "deg"),
        )
        for name, value, unit in values:
            if value is not None:
                yield Measured(told.device, name, value, unit, at, quality, key)
    elif told.online is not None:
        yield Measured(told.device, "online", told.online, "", at, quality, key)
    for item in told.items:
        if item.online is not None:
            own = identity(NAME, item.device, told.number, at)
            yield Measured(item.device, "online", item.online, "", at, quality, own)


FORMAT: Final = VideoFormat(NAME, cut, see)
