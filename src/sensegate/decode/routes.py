"""Routes: for each topic the rules that may apply, the device that it names, or the refusal of all its messages."""

from __future__ import annotations

import base64
import re
import weakref
from types import EllipsisType
from typing import Protocol

import numpy as np

from sensegate.decode.columnar import ColumnarReader, TreeReader
from sensegate.decode.extract import digest16
from sensegate.decode.profile import AppliesTo, CompiledRule
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Rejected
from sensegate.model import BOOL, I32, U16, Device, MessageBatch, QuarantineReason

ROUTES_MAX = 400_000
"""Most topics remembered; beyond that, all are forgotten and learned anew."""
NAMES_MAX = 400_000
"""Most device names from payloads remembered."""
CHARACTERS_MAX = 64 * 1024**2
"""Most characters of all topics remembered."""
NAME_MAX = 256
"""Longest device name; a longer one is no device's."""

NO_PLAN = -1
VIDEO = "video"
PUSHED = ("http/", "tcp/")
"""Prefixes of topics that a listener makes; they end with the device's name."""
IN_PAYLOAD, REFUSED = -1, -2
"""Stand-ins for a device's index."""


class DeviceNames(Protocol):
    """The part of the registry that decoding needs. Indices never change their meaning."""

    @property
    def version(self) -> int:
        """A number that grows with each change of the registry."""
        ...

    @property
    def enabled(self) -> BOOL:
        """Return whether device *i* may send."""
        ...

    def find(self, name: str, /) -> int:
        """Return the index of the device with this id or alias, -1 if there is none."""
        ...

    def record(self, index: int, /) -> Device:
        """Return the registry entry."""
        ...


class TopicRoute:
    """Route of the messages of a topic: device, rule and plan."""

    __slots__ = (
        "carried",
        "device",
        "gateway",
        "misses",
        "path",
        "profile",
        "reader",
        "refusal",
        "rules",
        "text",
        "trees",
        "version",
        "video",
    )

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = digest16(text)
        self.rules: list[tuple[CompiledRule, str]] = []
        """(rule, key under which to wrap the payload), in the order in which they are tried."""
        self.device = IN_PAYLOAD
        self.gateway = -1
        self.profile = ""
        self.version = ""
        """``vendor/model@version`` of the rules."""
        self.refusal: Rejected | None = None
        self.misses = 0
        """Messages of this topic that took the slow path."""
        self.reader: ColumnarReader | EllipsisType | None = ...
        """Reader for formats with flat values; `...`: not determined yet."""
        self.trees: TreeReader | EllipsisType | None = ...
        """Reader for trees that are parsed many at once; `...`: not determined yet."""
        self.carried = False
        """True if the device has a profile of its own, other than that of the rules."""
        self.video: tuple[str, ...] = ()
        """Formats of video metadata that its messages may have: they are redacted before anything is written."""

    @property
    def owner(self) -> int:
        """Device whose rate limit a message counts against; -1 for a network server, which forwards many devices."""
        if any(rule.chains and rule.device is not None for rule, _ in self.rules):
            return -1
        return self.device if self.device >= 0 else self.gateway


_HEX = re.compile(r"[0-9A-Fa-f]+")
_URL_SAFE = str.maketrans("-_", "+/")
_RANK = (QuarantineReason.NO_PROFILE, QuarantineReason.UNKNOWN_DEVICE, QuarantineReason.FOREIGN_TOPIC)


class Routes:
    """The routes of the topics seen, numbered, with the columns that the fast path needs. A bounded cache."""

    def __init__(self, profiles: ProfileSet, devices: DeviceNames) -> None:
        self._profiles = profiles
        self._devices = devices
        self._version = devices.version
        self._names: dict[tuple[str, str, int, AppliesTo], int | Rejected] = {}
        self._characters = 0
        self.inner: dict[tuple[int, int | None], ColumnarReader | None] = {}
        """(device, port) -> reader for the frames of its rules, if a carrier delivers them."""
        self.numbers: dict[str, int] = {}
        self._numbered: tuple[weakref.ref[MessageBatch], I32] | None = None
        """The span whose routes were asked for last, and their numbers."""
        self.routes: list[TopicRoute] = []
        self.device: I32 = np.full(64, IN_PAYLOAD, np.int32)
        self.owner: I32 = np.full(64, -1, np.int32)
        """Device whose rate limit a message counts against: the topic's, else its gateway's, else none (-1)."""
        self.path: U16 = np.zeros(64, np.uint16)
        self.plan: I32 = np.full(64, NO_PLAN, np.int32)
        self.video: BOOL = np.zeros(64, np.bool_)
        """True if the messages are video metadata."""
        self.remembers: BOOL = np.zeros(64, np.bool_)
        """True if messages are parsed even if the device is disabled, because other devices' messages need them."""

    @property
    def outdated(self) -> bool:
        """Return whether the registry has changed since, or a limit is reached."""
        full = len(self.routes) > ROUTES_MAX or len(self._names) > NAMES_MAX
        return full or self._characters > CHARACTERS_MAX or self._version != self._devices.version

    def store_reader(self, device: int, port: int | None, reader: ColumnarReader | None) -> None:
        """Store the reader for the frames of a device's port."""
        if len(self.inner) >= NAMES_MAX:
            self.inner.clear()
        self.inner[device, port] = reader

    def numbers_of(self, span: MessageBatch) -> I32:
        """Return the number of the route of each message; of the span that was asked for last it is known."""
        if self._numbered is not None and self._numbered[0]() is span:
            return self._numbered[1]
        topics = span.topics
        if any(span.principals):
            topics = [m.topic if not m.principal else f"{m.topic}\0{m.principal}" for m in span]
        numbers: list[int | None] = list(map(self.numbers.get, topics))
        if None in numbers:
            numbers = list(map(self.number, topics))
        column = np.fromiter(numbers, np.int32, len(numbers))
        self._numbered = weakref.ref(span), column
        return column

    def number(self, topic: str) -> int:
        """Return the number of a topic's route, adding it if it is new (a NUL separates the credential's device)."""
        known = self.numbers.get(topic)
        if known is not None:
            return known
        route = self.build(*topic.split("\0", 1))
        number = len(self.routes)
        if number == len(self.device):
            self.device = np.concatenate([self.device, np.full(number, IN_PAYLOAD, np.int32)])
            self.owner = np.concatenate([self.owner, np.full(number, -1, np.int32)])
            self.path = np.concatenate([self.path, np.zeros(number, np.uint16)])
            self.plan = np.concatenate([self.plan, np.full(number, NO_PLAN, np.int32)])
            self.remembers = np.concatenate([self.remembers, np.zeros(number, np.bool_)])
            self.video = np.concatenate([self.video, np.zeros(number, np.bool_)])
        self.routes.append(route)
        self.numbers[topic] = number
        self._characters += len(topic)
        self.device[number] = REFUSED if route.refusal is not None else route.device
        self.owner[number] = route.owner
        self.path[number] = route.path
        self.remembers[number] = any(rule.remembers for rule, _ in route.rules)
        route.video = self._video(route)
        self.video[number] = bool(route.video)
        return number

    def _video(self, route: TopicRoute) -> tuple[str, ...]:
        """Return the formats of video metadata that messages of a route may have, including a refused route."""
        rules = [rule for rule, _ in route.rules]
        if not rules:
            rules = [rule for rule, _ in self._profiles.match(route.text)]
            pushed = route.text.split("/")[-1] if route.text.startswith(PUSHED) else ""
            if pushed and (index := self._devices.find(pushed)) >= 0:
                record = self._devices.record(index)
                profile = self._profiles.of(record)
                rules += profile.rules if profile else ()
                if profile is None and record.domain == VIDEO:
                    return (VIDEO,)
        names = tuple(dict.fromkeys(rule.video for rule in rules if rule.video))
        if names or not self._profiles.video:
            return names
        # Nothing of a camera is stored unredacted: neither messages that its profile ignores or decodes otherwise, nor
        # messages under topics like its own that no profile takes.
        cameras = any(self._profiles.is_video(rule.profile) for rule in rules)
        return (VIDEO,) if cameras or (not rules and self._profiles.resembles_video_topic(route.text)) else ()

    def refusal(self, route: TopicRoute) -> Rejected | None:
        """Return why messages of this route are refused now, or None."""
        if route.refusal is None and route.device >= 0 and not self._devices.enabled[route.device]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return route.refusal

    def build(self, topic: str, principal: str = "") -> TopicRoute:
        """Return a new route."""
        route = TopicRoute(topic)
        if topic.startswith("http/"):
            self._route_http(route, topic.removeprefix("http/"), principal)
            return route
        if topic.startswith("tcp/"):
            self._route_listener(route, topic.split("/")[1], principal)
            return route
        refusals: list[Rejected] = []
        # Rules by which a gateway publishes for others come after the device's own profile.
        for rule, captured in sorted(self._profiles.match(topic), key=_names_gateway):
            if route.profile not in {"", rule.profile} and not (route.carried and rule.applies_to is not AppliesTo.OWN):
                continue
            claim = self._resolve(rule, captured, principal)
            if isinstance(claim, Rejected):
                refusals.append(claim)
                continue
            if route.device >= 0 and claim[0] != route.device:
                continue  # another rule finds another device in the topic
            if not self._in_force(rule, *claim):
                continue  # another version of the profile is in force for the device
            route.device, route.gateway = claim
            route.carried = claim[0] >= 0 and self._profile_of(claim[0]) != rule.profile
            route.profile = rule.profile
            route.version = f"{rule.profile}@{rule.version}"
            if (wrapped_rule := (rule, _wrap_key(rule, captured))) not in route.rules:
                route.rules.append(wrapped_rule)
        if not route.rules:
            unclaimed = Rejected(QuarantineReason.NO_PROFILE, "no profile claims this topic")
            route.refusal = max(refusals, key=_refusal_rank, default=unclaimed)
        route.rules.sort(key=_rule_number)
        return route

    def _in_force(self, rule: CompiledRule, device: int, gateway: int) -> bool:
        """Return whether a rule is of the version in force for the sender: the device, or the gateway of many."""
        if rule.profile not in self._profiles.arms:
            return True
        sender = device if device >= 0 else gateway
        return self._profiles.is_rule_in_force(rule, self._devices.record(sender) if sender >= 0 else None)

    def _route_http(self, route: TopicRoute, name: str, principal: str) -> None:
        device = self._find_device(name, "", self._devices.find(principal) if principal else -1)
        if isinstance(device, Rejected):
            route.refusal = device
            return
        route.device = route.gateway = device  # as a gateway, it publishes for the devices behind it
        profile = self._profiles.of(self._devices.record(device))
        if profile is None:
            route.refusal = Rejected(QuarantineReason.NO_PROFILE, "its profile is not loaded")
            return
        route.profile, route.version = profile.id, profile.name
        # A push has no topic that would select a rule, and plain text accepts any bytes: only rules with the format of
        # the first message are tried, so that a broken JSON body is refused as malformed and not as an unknown word.
        # A camera's push is video metadata, whatever comes first in its profile: otherwise it would not be redacted.
        form = VIDEO if any(rule.video for rule in profile.rules) else profile.rules[0].format
        rules = [rule for rule in profile.rules if not rule.wrap and rule.format == form]
        if any(rule.device is not None and rule.chains for rule in rules):
            # A network server: its messages name their device, and no topic tells what they are.
            rules = [rule for rule in rules if rule.device is not None or (rule.ignore and (rule.where or rule.root))]
        route.rules = [(rule, "") for rule in rules if rule.patterns or rule.device is not None or not rule.frames]

    def _route_listener(self, route: TopicRoute, protocol: str, principal: str) -> None:
        """Route a frame of a listener: the device is the one that authenticated, the rules those of the protocol."""
        device = self._find_device(principal, "", -1)
        if isinstance(device, Rejected):
            route.refusal = device
            return
        route.device = route.gateway = device  # as a gateway, it publishes for the devices behind it
        profile = self._profiles.of(self._devices.record(device))
        rules = [rule for rule in profile.rules if rule.format == protocol and not rule.wrap] if profile else []
        if profile is None or not rules:
            detail = f"its profile has no rule for {protocol}" if profile else "its profile is not loaded"
            route.refusal = Rejected(QuarantineReason.NO_PROFILE, detail)
            return
        route.profile, route.version = profile.id, profile.name
        route.rules = [(rule, "") for rule in rules]

    def _resolve(self, rule: CompiledRule, captured: dict[str, str], principal: str) -> tuple[int, int] | Rejected:
        """Return (device or -1, gateway or -1) of a topic by a rule, or why the rule does not apply."""
        gateway = -1
        captured = rule.names.complete(captured)
        if "gateway" in captured:
            gateway = self._devices.find(captured["gateway"])
            if gateway < 0:
                return Rejected(QuarantineReason.UNKNOWN_DEVICE, "the gateway is not registered")
            if not self._devices.enabled[gateway]:
                return Rejected(QuarantineReason.DISABLED_DEVICE, "the gateway is disabled")
        elif principal:
            gateway = self._devices.find(principal)
        if rule.names.gateway is not None and self._profile_of(gateway) != rule.profile:
            return Rejected(QuarantineReason.FOREIGN_TOPIC, "the gateway has another profile")
        if rule.device is not None:
            return IN_PAYLOAD, gateway
        name = principal if rule.by_credential else captured.get("device", "")
        device = self._find_device(looked_up_name(name, rule), rule.profile, gateway, rule.applies_to)
        return device if isinstance(device, Rejected) else (device, gateway)

    def _profile_of(self, index: int) -> str:
        return self._devices.record(index).profile.partition("@")[0]

    def _find_device(
        self, name: str, profile: str, gateway: int, applies_to: AppliesTo = AppliesTo.OWN
    ) -> int | Rejected:
        """Return the index of a device that may use this profile (empty: any) through this gateway (-1: any)."""
        index = self._devices.find(name) if name else -1
        if index < 0:
            return Rejected(QuarantineReason.UNKNOWN_DEVICE, "no such device is registered")
        record = self._devices.record(index)
        if profile and (rejection := self._foreign_profile(record, profile, applies_to)):
            return rejection
        if gateway >= 0 and index != gateway and self._devices.record(gateway).id not in record.gateways:
            return Rejected(QuarantineReason.FOREIGN_TOPIC, "the device belongs to another gateway")
        return index

    def _foreign_profile(self, record: Device, profile: str, applies_to: AppliesTo) -> Rejected | None:
        """Return why a device may not use a rule of this profile, None if it may."""
        if record.profile.partition("@")[0] == profile:
            if applies_to is not AppliesTo.CARRIED:
                return None
            detail = "it carries the frames of other devices: register this one with the profile of its model"
            return Rejected(QuarantineReason.FOREIGN_TOPIC, detail)
        own_profile = self._profiles.of(record)
        if own_profile is None:
            return Rejected(QuarantineReason.NO_PROFILE, f"its profile '{record.profile}' is not loaded")
        if applies_to is not AppliesTo.OWN and own_profile.carried:
            return self._other_server(record, profile)
        return Rejected(QuarantineReason.FOREIGN_TOPIC, f"its profile is '{record.profile}', not '{profile}'")

    def _other_server(self, record: Device, profile: str) -> Rejected | None:
        """Return why a device's frames are refused in envelopes of this profile: its gateways are other servers."""
        gateways = (self._devices.find(name) for name in record.gateways)
        servers = {self._profile_of(index) for index in gateways if index >= 0}
        servers = {name for name in servers if (server := self._profiles.find(name)) and server.carries}
        if not servers or profile in servers:
            return None
        return Rejected(QuarantineReason.FOREIGN_TOPIC, f"its network server has the profile '{min(servers)}'")

    def look_up(self, name: str, rule: CompiledRule, gateway: int) -> int | Rejected:
        """Return the index of a device named in a payload, or why it may not be used."""
        if len(name) > NAME_MAX:
            return Rejected(QuarantineReason.UNKNOWN_DEVICE, "the name is longer than any device's")
        name = looked_up_name(name, rule)
        profile = "" if rule.any_profile else rule.profile
        key = (name, profile, gateway, rule.applies_to)
        device = self._names.get(key)
        if device is None:
            device = self._names[key] = self._find_device(name, profile, gateway, rule.applies_to)
        if isinstance(device, int) and not self._devices.enabled[device]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return device


def looked_up_name(name: str, rule: CompiledRule) -> str:
    """Return the name as the profile has it looked up: decoded, and in a letter case."""
    if rule.device_decode:
        name = _hex_of_base64(name)
    case = rule.device_case
    return name.lower() if case == "lower" else name.upper() if case == "upper" else name


def _hex_of_base64(name: str) -> str:
    """Return a name in base64 (of either alphabet) as hex digits; hex digits and what is no base64 stay."""
    if not len(name) % 2 and _HEX.fullmatch(name):
        return name
    try:
        return base64.b64decode(name.translate(_URL_SAFE), validate=True).hex()
    except ValueError:
        return name


def _names_gateway(item: tuple[CompiledRule, dict[str, str]]) -> bool:
    return item[0].names.gateway is not None


def _rule_number(item: tuple[CompiledRule, str]) -> int:
    return item[0].number


def _refusal_rank(rejection: Rejected) -> int:
    """Return how specific a refusal is: the most specific one is reported."""
    return _RANK.index(QuarantineReason(rejection.reason)) if rejection.reason in _RANK else len(_RANK)


def _wrap_key(rule: CompiledRule, captured: dict[str, str]) -> str:
    return captured.get(rule.wrap.strip("{}"), "") if rule.wrap.startswith("{") else rule.wrap
