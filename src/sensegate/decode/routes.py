"""What a topic means: the rules that may hold for it, the device it names, or the refusal of all its messages."""

from __future__ import annotations

from types import EllipsisType
from typing import Protocol

import numpy as np

from sensegate.decode.columnar import Reader
from sensegate.decode.extract import digest16
from sensegate.decode.profile import Rule, Whom
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Rejected
from sensegate.model import BOOL, I32, U16, Device, QuarantineReason

ROUTES_MAX = 400_000
"""Topics remembered; beyond, all are forgotten and learned again."""
NAMES_MAX = 400_000
"""Device names from payloads remembered."""
CHARACTERS_MAX = 64 * 1024**2
"""Characters of all topics remembered."""
NAME_MAX = 256
"""A longer name is no device's."""

NO_PLAN = -1
VIDEO = "video"
PUSHED = ("http/", "tcp/")
"""Begin of topics that the listener made, which end with the device's name."""
IN_PAYLOAD, REFUSED = -1, -2
"""In place of a device's index."""


class DeviceNames(Protocol):
    """What decoding must know of the registry. Indices never change their meaning."""

    @property
    def version(self) -> int:
        """A number that rises with each change of the registry."""
        ...

    @property
    def enabled(self) -> BOOL:
        """Whether device *i* may send."""
        ...

    def find(self, name: str, /) -> int:
        """Return the index of the device with this id or alias, -1 if there is none."""
        ...

    def record(self, index: int, /) -> Device:
        """Return the registry entry."""
        ...


class Route:
    """What one topic means."""

    __slots__ = (
        "carried",
        "device",
        "gateway",
        "misses",
        "named",
        "path",
        "profile",
        "reader",
        "refusal",
        "rules",
        "text",
        "video",
    )

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = digest16(text)
        self.rules: list[tuple[Rule, str]] = []
        """(rule, key to wrap the payload in), in the order in which they are tried."""
        self.device = IN_PAYLOAD
        self.gateway = -1
        self.profile = ""
        self.named = ""
        """``vendor/model@version`` of its rules."""
        self.refusal: Rejected | None = None
        self.misses = 0
        """Messages of this topic that went the general way."""
        self.reader: Reader | EllipsisType | None = ...
        """For formats that give bare values; not looked for yet."""
        self.carried = False
        """Whether the device has a profile of its own, other than the rules'."""
        self.video: tuple[str, ...] = ()
        """Formats of video metadata that its messages may be of: they are cut before anything is written."""

    @property
    def owner(self) -> int:
        """Whose rate a message counts for; a network server brings what many devices sent: nobody's (-1)."""
        if any(rule.chains and rule.device is not None for rule, _ in self.rules):
            return -1
        return self.device if self.device >= 0 else self.gateway


_RANK = (QuarantineReason.NO_PROFILE, QuarantineReason.UNKNOWN_DEVICE, QuarantineReason.FOREIGN_TOPIC)


class Routes:
    """The routes of the topics seen, numbered, with what the quick path needs as columns. A cache: bounded."""

    def __init__(self, profiles: ProfileSet, devices: DeviceNames) -> None:
        self._profiles = profiles
        self._devices = devices
        self._version = devices.version
        self._names: dict[tuple[str, str, int, Whom], int | Rejected] = {}
        self._characters = 0
        self.inner: dict[tuple[int, int | None], Reader | None] = {}
        """(device, port) -> how the frames of its rules are read, where a carrier brings them."""
        self.numbers: dict[str, int] = {}
        self.routes: list[Route] = []
        self.device: I32 = np.full(64, IN_PAYLOAD, np.int32)
        self.owner: I32 = np.full(64, -1, np.int32)
        """Whose rate a message counts for: the topic's device, else its gateway, else nobody (-1)."""
        self.path: U16 = np.zeros(64, np.uint16)
        self.plan: I32 = np.full(64, NO_PLAN, np.int32)
        self.video: BOOL = np.zeros(64, np.bool_)
        """Whether its messages are video metadata."""
        self.remembers: BOOL = np.zeros(64, np.bool_)
        """Whether its messages are looked into even where the device is disabled: others behind it depend on them."""

    @property
    def outdated(self) -> bool:
        """Whether the registry has changed since, or a bound is reached."""
        full = len(self.routes) > ROUTES_MAX or len(self._names) > NAMES_MAX
        return full or self._characters > CHARACTERS_MAX or self._version != self._devices.version

    def remember(self, device: int, port: int | None, reader: Reader | None) -> None:
        """Keep how the frames of a device's port are read."""
        if len(self.inner) >= NAMES_MAX:
            self.inner.clear()
        self.inner[device, port] = reader

    def number(self, topic: str) -> int:
        """Return the number of a topic's route (after a NUL: the credential's device), made now where it is new."""
        known = self.numbers.get(topic)
        if known is not None:
            return known
        route = self.make(*topic.split("\0", 1))
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

    def _video(self, route: Route) -> tuple[str, ...]:
        """Return the formats of video metadata that messages of a route may be of, also of one that is refused."""
        rules = [rule for rule, _ in route.rules]
        if not rules:
            rules = [rule for rule, _ in self._profiles.match(route.text)]
            pushed = route.text.split("/")[-1] if route.text.startswith(PUSHED) else ""
            if pushed and (at := self._devices.find(pushed)) >= 0:
                record = self._devices.record(at)
                found = self._profiles.of(record)
                rules += found.rules if found else ()
                if found is None and record.domain == VIDEO:
                    return (VIDEO,)
        names = tuple(dict.fromkeys(rule.video for rule in rules if rule.video))
        if names or not self._profiles.video:
            return names
        # Of a camera nothing is kept as it came: neither what its profile ignores or takes for something else, nor what
        # comes under topics like its own that no profile takes.
        cameras = any(self._profiles.of_cameras(rule.profile) for rule in rules)
        return (VIDEO,) if cameras or (not rules and self._profiles.near_cameras(route.text)) else ()

    def refusal(self, route: Route) -> Rejected | None:
        """Return why no message of this route is taken now, or None."""
        if route.refusal is None and route.device >= 0 and not self._devices.enabled[route.device]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return route.refusal

    def make(self, topic: str, principal: str = "") -> Route:
        """Return a new route."""
        route = Route(topic)
        if topic.startswith("http/"):
            self._by_http(route, topic.removeprefix("http/"), principal)
            return route
        if topic.startswith("tcp/"):
            self._by_listener(route, topic.split("/")[1], principal)
            return route
        refusals: list[Rejected] = []
        # What a gateway says of the devices behind it comes after the device's own profile.
        for rule, captured in sorted(self._profiles.match(topic), key=_for_others):
            if route.profile not in {"", rule.profile} and not (route.carried and rule.whom is not Whom.OWN):
                continue
            found = self._claim(rule, captured, principal)
            if isinstance(found, Rejected):
                refusals.append(found)
                continue
            if route.device >= 0 and found[0] != route.device:
                continue  # another reading of the topic names another device
            if not self._in_force(rule, *found):
                continue  # another version of the profile is in force for it
            route.device, route.gateway = found
            route.carried = found[0] >= 0 and self._profile_of(found[0]) != rule.profile
            route.profile = rule.profile
            route.named = f"{rule.profile}@{rule.version}"
            if (held := (rule, _wrap(rule, captured))) not in route.rules:
                route.rules.append(held)
        if not route.rules:
            nothing = Rejected(QuarantineReason.NO_PROFILE, "no profile claims this topic")
            route.refusal = max(refusals, key=_rank, default=nothing)
        route.rules.sort(key=_place)
        return route

    def _in_force(self, rule: Rule, device: int, gateway: int) -> bool:
        """Return whether a rule is of the version in force for who speaks: the device, for many their gateway."""
        if rule.profile not in self._profiles.arms:
            return True
        speaker = device if device >= 0 else gateway
        return self._profiles.speaks(rule, self._devices.record(speaker) if speaker >= 0 else None)

    def _by_http(self, route: Route, name: str, principal: str) -> None:
        found = self._find(name, "", self._devices.find(principal) if principal else -1)
        if isinstance(found, Rejected):
            route.refusal = found
            return
        route.device = route.gateway = found  # as a gateway, it speaks for the devices behind it
        profile = self._profiles.of(self._devices.record(found))
        if profile is None:
            route.refusal = Rejected(QuarantineReason.NO_PROFILE, "its profile is not loaded")
            return
        route.profile, route.named = profile.id, profile.name
        # A push names no topic that would choose a rule, and to a rule for plain text any bytes are a text: only those
        # of the first message's format are tried, so that a broken JSON body is malformed and not a strange word.
        # What a camera pushes is video metadata, whatever its profile says first: nothing else of it would be cut.
        form = VIDEO if any(rule.video for rule in profile.rules) else profile.rules[0].format
        rules = [rule for rule in profile.rules if not rule.wrap and rule.format == form]
        if any(rule.device is not None and rule.chains for rule in rules):
            # A network server's: whatever it is about is named in it, and no topic says what it is.
            rules = [rule for rule in rules if rule.device is not None or (rule.ignore and (rule.where or rule.root))]
        route.rules = [(rule, "") for rule in rules if rule.patterns or rule.device is not None or not rule.frames]

    def _by_listener(self, route: Route, protocol: str, principal: str) -> None:
        """A frame from a listener: the device is the one that it proved to be, the rules are those of its protocol."""
        found = self._find(principal, "", -1)
        if isinstance(found, Rejected):
            route.refusal = found
            return
        route.device = route.gateway = found  # as a gateway, it speaks for the devices behind it
        profile = self._profiles.of(self._devices.record(found))
        rules = [rule for rule in profile.rules if rule.format == protocol and not rule.wrap] if profile else []
        if profile is None or not rules:
            why = f"its profile reads no {protocol}" if profile else "its profile is not loaded"
            route.refusal = Rejected(QuarantineReason.NO_PROFILE, why)
            return
        route.profile, route.named = profile.id, profile.name
        route.rules = [(rule, "") for rule in rules]

    def _claim(self, rule: Rule, captured: dict[str, str], principal: str) -> tuple[int, int] | Rejected:
        """Return (device or -1, gateway or -1) of a topic by a rule, or why the rule does not hold."""
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
        found = self._find(cased(name, rule.device_case), rule.profile, gateway, rule.whom)
        return found if isinstance(found, Rejected) else (found, gateway)

    def _profile_of(self, index: int) -> str:
        return self._devices.record(index).profile.partition("@")[0]

    def _find(self, name: str, profile: str, gateway: int, whom: Whom = Whom.OWN) -> int | Rejected:
        """Return the index of a device that may speak by this profile (empty: any) through this gateway (-1: any)."""
        index = self._devices.find(name) if name else -1
        if index < 0:
            return Rejected(QuarantineReason.UNKNOWN_DEVICE, "no such device is registered")
        record = self._devices.record(index)
        if profile and (why := self._foreign(record, profile, whom)):
            return why
        if gateway >= 0 and index != gateway and self._devices.record(gateway).id not in record.gateways:
            return Rejected(QuarantineReason.FOREIGN_TOPIC, "the device belongs to another gateway")
        return index

    def _foreign(self, record: Device, profile: str, whom: Whom) -> Rejected | None:
        """Return why a device may not speak by a rule of this profile, None where it may."""
        if record.profile.partition("@")[0] == profile:
            if whom is not Whom.CARRIED:
                return None
            why = "it carries the frames of other devices: register this one with the profile of its model"
            return Rejected(QuarantineReason.FOREIGN_TOPIC, why)
        found = self._profiles.of(record)
        if found is None:
            return Rejected(QuarantineReason.NO_PROFILE, f"its profile '{record.profile}' is not loaded")
        if whom is not Whom.OWN and found.carried:
            return self._not_through(record, profile)
        return Rejected(QuarantineReason.FOREIGN_TOPIC, f"its profile is '{record.profile}', not '{profile}'")

    def _not_through(self, record: Device, profile: str) -> Rejected | None:
        """Return why a device's frames do not come in envelopes of this profile: its gateways are other servers."""
        gateways = (self._devices.find(name) for name in record.gateways)
        servers = {self._profile_of(at) for at in gateways if at >= 0}
        servers = {name for name in servers if (one := self._profiles.find(name)) and one.carries}
        if not servers or profile in servers:
            return None
        return Rejected(QuarantineReason.FOREIGN_TOPIC, f"its network server speaks as '{min(servers)}'")

    def look_up(self, name: str, rule: Rule, gateway: int) -> int | Rejected:
        """Return the index of a device named in a payload, or why it may not be taken."""
        if len(name) > NAME_MAX:
            return Rejected(QuarantineReason.UNKNOWN_DEVICE, "no device has so long a name")
        name = cased(name, rule.device_case)
        profile = "" if rule.any_profile else rule.profile
        key = (name, profile, gateway, rule.whom)
        found = self._names.get(key)
        if found is None:
            found = self._names[key] = self._find(name, profile, gateway, rule.whom)
        if isinstance(found, int) and not self._devices.enabled[found]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return found


def cased(name: str, case: str) -> str:
    """Return the name with its letters changed as the profile says."""
    return name.lower() if case == "lower" else name.upper() if case == "upper" else name


def _for_others(item: tuple[Rule, dict[str, str]]) -> bool:
    return item[0].names.gateway is not None


def _place(item: tuple[Rule, str]) -> int:
    return item[0].number


def _rank(why: Rejected) -> int:
    """Return how much a refusal says: the one that knows most of the device is told."""
    return _RANK.index(QuarantineReason(why.reason)) if why.reason in _RANK else len(_RANK)


def _wrap(rule: Rule, captured: dict[str, str]) -> str:
    return captured.get(rule.wrap.strip("{}"), "") if rule.wrap.startswith("{") else rule.wrap
