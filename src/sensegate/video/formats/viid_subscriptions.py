"""Subscriptions of GA/T 1400 as records: what a `SubscribeObject` asks for, and which objects that is. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.formats.viid_codes import DETAILS
from sensegate.video.formats.viid_read import folded, listed, many, tree_of
from sensegate.video.formats.viid_responses import beijing
from sensegate.video.times import parse_beijing

ACTIVE, CANCELLED, EXPIRED, NONE = 0, 1, 2, 9
FOREVER: Final = "20991231235959"
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_RESOURCE = re.compile(r"\d{0,24}", re.ASCII)


class Order(msgspec.Struct, frozen=True):
    """One subscription. Names, titles and reasons of people are not kept."""

    peer: str
    """Code of the platform that subscribes."""
    id: str
    kinds: tuple[str, ...]
    """Kinds of objects, of `DETAILS`."""
    resources: tuple[str, ...] = ()
    """Codes of devices or platforms, or of divisions (up to 6 digits); empty: all."""
    begin: int = 0
    end: int = 0
    """µs UTC."""
    interval_s: int = 0
    status: int = ACTIVE
    sequence: int = 0
    """Entry of our log after which it begins."""
    format: int = 1

    def active(self, now: int) -> bool:
        """Return whether it is served at this time."""
        return self.status == ACTIVE and self.begin <= now < self.end

    def wants(self, kind: str, camera: str) -> bool:
        """Return whether an object of a kind of a camera is asked for."""
        if kind not in self.kinds:
            return False
        return not self.resources or any(
            camera.startswith(one) if len(one) <= 6 else camera[:20] == one[:20] for one in self.resources
        )


class Asked(msgspec.Struct, frozen=True):
    """What one `SubscribeObject` asks."""

    id: str
    """As sent."""
    order: Order | None
    """None: it cannot be used."""
    cancels: bool = False
    why: str = ""


def asked(payload: bytes, peer: str, now: int) -> list[Asked]:
    """Return what a body of subscriptions asks.

    Raises:
        Rejected: it is none.
    """
    tree = tree_of(payload)
    if "subscribelistobject" in tree:
        objects = listed(tree["subscribelistobject"], "Subscribe")
    elif "subscribeobject" in tree:
        objects = many(tree["subscribeobject"])
    else:
        raise Rejected(QuarantineReason.SCHEMA, "the body must be {SubscribeListObject: {SubscribeObject: […]}}")
    if len(objects) > 1_000:
        raise Rejected(QuarantineReason.TOO_LARGE, "more than 1,000 subscriptions in one body")
    return [_one(one, peer, now) for one in objects]


def _one(value: Any, peer: str, now: int) -> Asked:
    fields = folded(value) if isinstance(value, dict) else {}

    def text(name: str) -> str:
        found = fields.get(name)
        return str(found).strip() if isinstance(found, str | int) and not isinstance(found, bool) else ""

    name = text("subscribeid")
    if not _ID.fullmatch(name):
        return Asked(name[:64], None, why="SubscribeID is missing, or no id")
    if text("operatetype") == "1" or text("subscribestatus") == "1":
        return Asked(name, None, cancels=True)
    details = [one.strip() for one in text("subscribedetail").replace("/", ",").split(",") if one.strip()]
    kinds = tuple(dict.fromkeys(DETAILS[one] for one in details if one in DETAILS))
    if not kinds:
        return Asked(name, None, why="SubscribeDetail names nothing that is known")
    resources = tuple(one.strip() for one in text("resourceuri").split(",") if one.strip())
    if not all(_RESOURCE.fullmatch(one) for one in resources):
        return Asked(name, None, why="ResourceURI is no code")
    begin, end = parse_beijing(text("begintime")), parse_beijing(text("endtime"))
    interval = text("reportinterval")
    order = Order(
        peer,
        name,
        kinds,
        resources,
        begin[0] if begin else 0,
        end[0] if end else 2**62,
        min(int(interval), 3_600) if interval.isascii() and interval.isdigit() and len(interval) < 9 else 0,
    )
    if order.end <= now:
        return Asked(name, None, why="EndTime is over")
    return Asked(name, order)


def told(order: Order) -> dict[str, Any]:
    """Return a subscription as a `SubscribeObject`."""
    codes = {kind: code for code, kind in DETAILS.items()}
    return {
        "SubscribeID": order.id,
        "SubscribeDetail": ",".join(codes[kind] for kind in order.kinds),
        "ResourceURI": ",".join(order.resources),
        "BeginTime": beijing(order.begin),
        "EndTime": beijing(order.end) if order.end < 2**61 else FOREVER,
        "ReportInterval": order.interval_s,
        "OperateType": 0,
        "SubscribeStatus": order.status,
    }
