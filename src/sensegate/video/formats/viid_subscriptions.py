"""Subscriptions of GA/T 1400: parsing of a `SubscribeObject`, and matching of objects. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from sensegate.errors import Rejected
from sensegate.model import QuarantineReason
from sensegate.video.formats.viid_codes import DETAILS
from sensegate.video.formats.viid_read import as_list, decode_body, lower_keys, unwrap_list
from sensegate.video.formats.viid_responses import format_beijing
from sensegate.video.times import parse_beijing

ACTIVE, CANCELLED, EXPIRED, NONE = 0, 1, 2, 9
FOREVER: Final = "20991231235959"
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_RESOURCE = re.compile(r"\d{0,24}", re.ASCII)


class ViidSubscription(msgspec.Struct, frozen=True):
    """A subscription. Names, titles and reasons given by people are not stored."""

    peer: str
    """Code of the subscribing platform."""
    id: str
    kinds: tuple[str, ...]
    """Kinds of objects, of `DETAILS`."""
    resources: tuple[str, ...] = ()
    """Codes of devices, platforms or divisions (up to 6 digits); empty: all."""
    begin: int = 0
    end: int = 0
    """µs UTC."""
    interval_s: int = 0
    status: int = ACTIVE
    sequence: int = 0
    """Sequence number of the log after which it starts."""
    format: int = 1

    def is_active(self, now: int) -> bool:
        """Return whether the subscription is active at this time."""
        return self.status == ACTIVE and self.begin <= now < self.end

    def matches(self, kind: str, camera: str) -> bool:
        """Return whether an object of a kind of a camera is subscribed."""
        if kind not in self.kinds:
            return False
        return not self.resources or any(
            camera.startswith(resource) if len(resource) <= 6 else camera[:20] == resource[:20]
            for resource in self.resources
        )


class SubscriptionRequest(msgspec.Struct, frozen=True):
    """Parsed `SubscribeObject`."""

    id: str
    """Id as sent."""
    subscription: ViidSubscription | None
    """None: it is unusable."""
    cancels: bool = False
    problem: str = ""


def parse_subscriptions(payload: bytes, peer: str, now: int) -> list[SubscriptionRequest]:
    """Parse a body of subscriptions.

    Raises:
        Rejected: if it is not one.
    """
    tree = decode_body(payload)
    if "subscribelistobject" in tree:
        objects = unwrap_list(tree["subscribelistobject"], "Subscribe")
    elif "subscribeobject" in tree:
        objects = as_list(tree["subscribeobject"])
    else:
        raise Rejected(QuarantineReason.SCHEMA, "the body must be {SubscribeListObject: {SubscribeObject: […]}}")
    if len(objects) > 1_000:
        raise Rejected(QuarantineReason.TOO_LARGE, "the body has more than 1,000 subscriptions")
    return [_parse_subscription(raw, peer, now) for raw in objects]


def _parse_subscription(value: Any, peer: str, now: int) -> SubscriptionRequest:
    fields = lower_keys(value) if isinstance(value, dict) else {}

    def text(name: str) -> str:
        value = fields.get(name)
        return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""

    name = text("subscribeid")
    if not _ID.fullmatch(name):
        return SubscriptionRequest(name[:64], None, problem="SubscribeID is missing or malformed")
    if text("operatetype") == "1" or text("subscribestatus") == "1":
        return SubscriptionRequest(name, None, cancels=True)
    details = [detail.strip() for detail in text("subscribedetail").replace("/", ",").split(",") if detail.strip()]
    kinds = tuple(dict.fromkeys(DETAILS[detail] for detail in details if detail in DETAILS))
    if not kinds:
        return SubscriptionRequest(name, None, problem="SubscribeDetail has no known value")
    resources = tuple(resource.strip() for resource in text("resourceuri").split(",") if resource.strip())
    if not all(_RESOURCE.fullmatch(resource) for resource in resources):
        return SubscriptionRequest(name, None, problem="ResourceURI is not a code")
    begin, end = parse_beijing(text("begintime")), parse_beijing(text("endtime"))
    interval = text("reportinterval")
    order = ViidSubscription(
        peer,
        name,
        kinds,
        resources,
        begin[0] if begin else 0,
        end[0] if end else 2**62,
        min(int(interval), 3_600) if interval.isascii() and interval.isdigit() and len(interval) < 9 else 0,
    )
    if order.end <= now:
        return SubscriptionRequest(name, None, problem="EndTime is in the past")
    return SubscriptionRequest(name, order)


def subscription_fields(order: ViidSubscription) -> dict[str, Any]:
    """Return a subscription as a `SubscribeObject`."""
    codes = {kind: code for code, kind in DETAILS.items()}
    return {
        "SubscribeID": order.id,
        "SubscribeDetail": ",".join(codes[kind] for kind in order.kinds),
        "ResourceURI": ",".join(order.resources),
        "BeginTime": format_beijing(order.begin),
        "EndTime": format_beijing(order.end) if order.end < 2**61 else FOREVER,
        "ReportInterval": order.interval_s,
        "OperateType": 0,
        "SubscribeStatus": order.status,
    }
