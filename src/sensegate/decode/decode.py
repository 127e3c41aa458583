"""`Decoder`: a batch of messages to `Fields`. Routes by topic, the quick path by shape, the general path for the rest.

What is kept between batches (routes, plans, units, names) is a cache with a bound: it never changes what comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from sensegate.config import IngestConfig
from sensegate.decode.extract import Leaf, Rows, bind, digest16
from sensegate.decode.formats import FORMATS
from sensegate.decode.plan import Batch, Chunk, Plan, Shape, skeleton
from sensegate.decode.profile import Rule, Units
from sensegate.decode.profiles import ProfileSet
from sensegate.errors import Rejected
from sensegate.model import (
    BOOL,
    I32,
    I64,
    U16,
    Device,
    Fields,
    Message,
    Quarantined,
    QuarantineReason,
    RejectedValue,
)

ROUTES_MAX = 400_000
"""Topics remembered; beyond, all are forgotten and learned again."""
NAMES_MAX = 400_000
PLANS_MAX = 32
"""Plans of one rule."""
_SEEN_MAX = 4_096
_SIGHTINGS = 3
"""A shape is planned when it was seen so often."""
_TRIES = 64
"""After so many messages of one topic without a plan, only every so-manieth is looked at."""
GROUP_MIN = 5
"""Fewer messages of one plan in a batch are decoded one by one: columns would cost more."""


class DeviceNames(Protocol):
    """What decoding must know of the registry. Indices never change their meaning."""

    version: int
    """Rises with each change of the registry."""

    @property
    def enabled(self) -> BOOL:
        """Whether device *i* may send."""
        ...

    def find(self, name: str) -> int:
        """Return the index of the device with this id or alias, -1 if there is none."""
        ...

    def record(self, index: int) -> Device:
        """Return the registry entry."""
        ...


class Route:
    """What a topic means: the rules that may hold, and the device."""

    __slots__ = ("device", "gateway", "misses", "path", "profile", "refusal", "rules", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = digest16(text)
        self.rules: list[tuple[Rule, str]] = []
        """(rule, key to wrap the payload in), in the order in which they are tried."""
        self.device = -1
        self.gateway = -1
        self.profile = ""
        self.refusal: Rejected | None = None
        self.misses = 0


_RANK = (QuarantineReason.NO_PROFILE, QuarantineReason.UNKNOWN_DEVICE, QuarantineReason.FOREIGN_TOPIC)


class Decoder:
    """Decodes batches of messages with the profiles in force.

    `decode` never raises on any bytes: each message becomes rows, or is quarantined with its reason.
    """

    def __init__(self, profiles: ProfileSet, devices: DeviceNames, limits: IngestConfig | None = None) -> None:
        self._profiles = profiles
        self._devices = devices
        self._limits = limits or IngestConfig()
        self._units = Units()
        self._forget()

    @property
    def profiles(self) -> ProfileSet:
        """The profiles in force."""
        return self._profiles

    def use(self, profiles: ProfileSet) -> None:
        """Put another set of profiles in force from the next batch on."""
        self._profiles = profiles
        self._forget()

    def _forget(self) -> None:
        self._version = self._devices.version
        self._numbers: dict[str, int] = {}
        self._routes: list[Route] = []
        self._route_device: I32 = np.full(64, -1, np.int32)
        self._route_path: U16 = np.zeros(64, np.uint16)
        self._route_plan: I32 = np.full(64, -1, np.int32)
        self._names: dict[tuple[str, str, int], int | Rejected] = {}
        if getattr(self, "_plans_of", None) is not self._profiles:
            self._plans_of = self._profiles
            self._plans: list[Plan] = []
            self._by_rule: dict[tuple[Rule, str], list[int]] = {}
            self._by_shape: dict[tuple[Rule, str, Shape], int] = {}
            self._seen: dict[tuple[Rule, str, Shape], int] = {}

    # ── the batch ────────────────────────────────────────────────────────────────────────────────────

    def decode(self, messages: Sequence[Message]) -> Fields:
        """Return the rows of a batch, in the order of the messages; what was refused is listed beside them."""
        if self._version != self._devices.version or len(self._routes) > ROUTES_MAX or len(self._names) > NAMES_MAX:
            self._forget()
        rows = Rows(self._units)
        chunks: list[Chunk] = []
        if messages:
            topics = [m.topic if not m.principal else f"{m.topic}\0{m.principal}" for m in messages]
            numbers = list(map(self._numbers.get, topics))
            if None in numbers:
                numbers = [
                    self._number(topic) if number is None else number
                    for topic, number in zip(topics, numbers, strict=True)
                ]
            payloads = [m.payload for m in messages]
            self._groups(messages, payloads, np.array(numbers, np.int32), rows, chunks)
        return _fields(rows, chunks)

    def decode_slowly(self, messages: Sequence[Message]) -> Fields:
        """Return what `decode` does, every message by the general path: the yardstick of the tests."""
        rows = Rows(self._units)
        for at, message in enumerate(messages):
            topic = message.topic if not message.principal else f"{message.topic}\0{message.principal}"
            number = self._numbers.get(topic)
            number = self._number(topic) if number is None else number
            refusal = self._refusal(self._routes[number], message.payload)
            if refusal is not None:
                rows.quarantined.append(self._quarantined(at, self._routes[number], refusal))
            else:
                self._one(at, message, number, rows, learn=False)
        return _fields(rows, [])

    def _refusal(self, route: Route, payload: bytes) -> Rejected | None:
        if len(payload) > self._limits.message_bytes_max:
            return Rejected(QuarantineReason.TOO_LARGE, f"{len(payload)} bytes")
        if route.refusal is not None:
            return route.refusal
        if route.device >= 0 and not self._devices.enabled[route.device]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return None

    def _groups(
        self, messages: Sequence[Message], payloads: list[bytes], numbers: I32, rows: Rows, chunks: list[Chunk]
    ) -> None:
        """Sort the messages by plan and decode each group; the rest one by one."""
        plan_of = self._route_plan[numbers]
        device = self._route_device[numbers]
        lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
        known = device >= 0
        refused = (device == -2) | (lengths > self._limits.message_bytes_max)
        refused[known] |= ~np.asarray(self._devices.enabled)[device[known]]
        single: list[int] = []
        if refused.any():
            for at in np.flatnonzero(refused).tolist():
                route = self._routes[int(numbers[at])]
                refusal = self._refusal(route, payloads[at])
                if refusal is not None:
                    rows.quarantined.append(self._quarantined(at, route, refusal))
            plan_of = np.where(refused, -2, plan_of)
        usual = plan_of >= 0
        if usual.any():
            received = np.fromiter((m.received for m in messages), np.int64, len(messages))
            quotes = self._quotes(payloads, lengths)
            order = np.argsort(plan_of.astype(np.int16), kind="stable")
            plans, starts = np.unique(plan_of[order], return_index=True)
            again: dict[int, list[int]] = {}
            for plan, at in zip(plans.tolist(), np.split(order, starts[1:]), strict=True):
                if plan >= 0:
                    self._group(plan, at, payloads, numbers, quotes, received, chunks, single, again)
            for plan, places in again.items():
                where = np.array(sorted(places))
                self._group(plan, where, payloads, numbers, quotes, received, chunks, single, None)
        single += np.flatnonzero(plan_of == -1).tolist()
        for at in sorted(single):
            self._one(at, messages[at], int(numbers[at]), rows, learn=True)

    @staticmethod
    def _quotes(payloads: list[bytes], lengths: I64) -> I64:
        """Return the number of quotation marks in each payload."""
        marks = np.frombuffer(b"".join(payloads), np.uint8) == 34
        found = np.zeros(len(payloads), np.int64)
        there = lengths > 0
        starts = (np.cumsum(lengths) - lengths)[there]
        if len(starts):
            found[there] = np.add.reduceat(marks.view(np.uint8), starts, dtype=np.int32)
        return found

    def _group(
        self,
        number: int,
        places: I64,
        payloads: list[bytes],
        numbers: I32,
        quotes: I64,
        received: I64,
        chunks: list[Chunk],
        single: list[int],
        again: dict[int, list[int]] | None,
    ) -> None:
        """Decode messages that should be of one plan; what is not goes to `again` (another plan) or `single`."""
        if len(places) < GROUP_MIN:
            single += places.tolist()
            return
        plan = self._plans[number]
        same = quotes[places] == plan.quotes
        other = places[~same].tolist() if not same.all() else []
        places = places[same] if other else places
        objects: list[Any] = []
        wrong: list[int] = []
        source = map(plan.decode, [payloads[at] for at in places.tolist()])
        while True:
            try:
                objects.extend(source)
                break
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                wrong.append(len(objects))
                objects.append(None)
        if wrong:
            good = np.ones(len(places), np.bool_)
            good[wrong] = False
            other += places[wrong].tolist()
            places = places[good]
            objects = [item for item in objects if item is not None]
        for at in other:
            self._elsewhere(at, number, int(numbers[at]), int(quotes[at]), payloads[at], single, again)
        if not objects:
            return
        route = numbers[places]
        routes = [self._routes[int(at)] for at in route] if plan.asks_way or plan.names_devices else []
        batch = Batch(
            objects,
            places.astype(np.int32),
            received[places],
            self._route_device[route],
            self._route_path[route],
            [item.text for item in routes],
            [item.gateway for item in routes],
        )
        chunk, left = plan.columns(batch, self._units, self._look_up_index)
        if chunk is not None:
            chunks.append(chunk)
        single += [int(places[at]) for at in left]

    def _elsewhere(
        self,
        at: int,
        number: int,
        route: int,
        quotes: int,
        payload: bytes,
        single: list[int],
        again: dict[int, list[int]] | None,
    ) -> None:
        """Find another plan of the same rules for a message whose topic had the wrong one in mind."""
        if again is not None:
            for rule in self._routes[route].rules:
                for candidate in self._by_rule.get(rule, ()):
                    plan = self._plans[candidate]
                    if candidate == number or plan.quotes != quotes:
                        continue
                    try:
                        plan.decode(payload)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        continue
                    self._route_plan[route] = candidate
                    again.setdefault(candidate, []).append(at)
                    return
        single.append(at)

    # ── one message ──────────────────────────────────────────────────────────────────────────────────

    def _one(self, at: int, message: Message, number: int, rows: Rows, *, learn: bool) -> None:
        """Decode one message by the general path; remember its shape."""
        route = self._routes[number]
        try:
            self._tree(at, message, number, rows, learn=learn)
        except Rejected as why:
            rows.quarantined.append(self._quarantined(at, route, why))

    def _tree(self, at: int, message: Message, number: int, rows: Rows, *, learn: bool) -> None:
        route = self._routes[number]
        trees: dict[str, Any] = {}
        deciding: list[Leaf] = []
        held = False
        first: Rejected | None = None

        def look_up(name: str) -> int | Rejected:
            return self._look_up(name, rule, route.gateway)

        for rule, wrap in route.rules:
            if rule.ignore and not rule.where and not rule.root:
                return
            if rule.format not in trees:
                try:
                    trees[rule.format] = FORMATS[rule.format](message.payload, self._limits.nesting_max)
                except Rejected as why:
                    first = first or why
                    continue
            tree = trees[rule.format]
            bound = bind(rule, wrap, tree, deciding)
            if bound is None:
                continue
            if rule.ignore:
                return
            held = True
            taken = rows.add(
                rule,
                bound,
                message=at,
                received=message.received,
                device=route.device,
                way=(route.path, route.text),
                look_up=look_up,
            )
            if taken:
                if learn and rule.format == "json":
                    self._learn(number, (rule, wrap), tree, deciding, bound)
                return
        if first is not None:
            raise first
        if held:
            raise Rejected(QuarantineReason.NO_VALUES, "nothing that the profile describes")
        raise Rejected(QuarantineReason.SCHEMA, "not a message that the profile describes")

    def _learn(self, number: int, rule: tuple[Rule, str], tree: Any, deciding: list[Leaf], bound: Any) -> None:
        route = self._routes[number]
        route.misses += 1
        if route.misses > _TRIES and route.misses % _TRIES:
            return
        shape = skeleton(tree, deciding)
        if shape is None:
            return
        key = (*rule, shape)
        plan = self._by_shape.get(key)
        if plan is None:
            if len(self._seen) > _SEEN_MAX:
                self._seen.clear()
            self._seen[key] = self._seen.get(key, 0) + 1
            known = self._by_rule.setdefault(rule, [])
            if self._seen[key] < _SIGHTINGS or len(known) >= PLANS_MAX or len(self._plans) >= 2**15 - 1:
                return
            try:
                self._plans.append(Plan(rule[0], bound, shape))
            except (ValueError, TypeError):
                self._seen[key] = -(2**31)  # never again
                return
            plan = self._by_shape[key] = len(self._plans) - 1
            known.append(plan)
        self._route_plan[number] = plan

    def _quarantined(self, at: int, route: Route, why: Rejected) -> Quarantined:
        return Quarantined(at, QuarantineReason(why.reason), why.detail, route.device, route.profile)

    # ── routes ───────────────────────────────────────────────────────────────────────────────────────

    def _number(self, topic: str) -> int:
        """Return the number of a topic's route, made now where it is new."""
        known = self._numbers.get(topic)
        if known is not None:
            return known
        route = self.route(*topic.split("\0", 1))
        number = len(self._routes)
        if number == len(self._route_device):
            more = len(self._route_device)
            self._route_device = np.concatenate([self._route_device, np.full(more, -1, np.int32)])
            self._route_path = np.concatenate([self._route_path, np.zeros(more, np.uint16)])
            self._route_plan = np.concatenate([self._route_plan, np.full(more, -1, np.int32)])
        self._routes.append(route)
        self._numbers[topic] = number
        # -1: named in the payload; -2: refused.
        self._route_device[number] = -2 if route.refusal is not None else route.device
        self._route_path[number] = route.path
        self._route_plan[number] = -1
        return number

    def route(self, topic: str, principal: str = "") -> Route:
        """Return what a topic means: its rules and device, or the refusal of all its messages."""
        route = Route(topic)
        if topic.startswith("http/"):
            self._by_http(route, topic.removeprefix("http/"), principal)
            return route
        refusals: list[Rejected] = []
        for rule, captured in self._profiles.match(topic):
            if route.profile and rule.profile != route.profile:
                continue
            found = self._claim(rule, captured, principal)
            if isinstance(found, Rejected):
                refusals.append(found)
                continue
            route.device, route.gateway = found
            route.profile = rule.profile
            route.rules.append((rule, _wrap(rule, captured)))
        if not route.rules:
            nothing = Rejected(QuarantineReason.NO_PROFILE, "no profile claims this topic")
            route.refusal = max(refusals, key=_rank, default=nothing)
        route.rules.sort(key=lambda item: item[0].number)
        return route

    def _by_http(self, route: Route, name: str, principal: str) -> None:
        found = self._find(name, "", self._devices.find(principal) if principal else -1)
        if isinstance(found, Rejected):
            route.refusal = found
            return
        route.device = found
        profile = self._profiles.find(self._devices.record(found).profile)
        if profile is None:
            route.refusal = Rejected(QuarantineReason.NO_PROFILE, "its profile is not loaded")
            return
        route.profile = profile.id
        route.rules = [(rule, "") for rule in profile.rules if not rule.wrap]

    def _claim(self, rule: Rule, captured: dict[str, str], principal: str) -> tuple[int, int] | Rejected:
        """Return (device or -1, gateway or -1) of a topic by a rule, or why the rule does not hold."""
        gateway = -1
        if "gateway" in captured:
            gateway = self._devices.find(captured["gateway"])
            if gateway < 0:
                return Rejected(QuarantineReason.UNKNOWN_DEVICE, "the gateway is not registered")
            if not self._devices.enabled[gateway]:
                return Rejected(QuarantineReason.DISABLED_DEVICE, "the gateway is disabled")
        elif principal:
            gateway = self._devices.find(principal)
        if rule.device is not None:
            return -1, gateway
        name = principal if rule.by_credential else captured.get("device", "")
        if rule.device_case:
            name = name.lower() if rule.device_case == "lower" else name.upper()
        found = self._find(name, rule.profile, gateway)
        return found if isinstance(found, Rejected) else (found, gateway)

    def _find(self, name: str, profile: str, gateway: int) -> int | Rejected:
        """Return the index of a device that may speak by this profile (empty: any) through this gateway (-1: any)."""
        index = self._devices.find(name) if name else -1
        if index < 0:
            return Rejected(QuarantineReason.UNKNOWN_DEVICE, "no such device is registered")
        record = self._devices.record(index)
        if profile and record.profile.partition("@")[0] != profile:
            if record.profile not in self._profiles:
                return Rejected(QuarantineReason.NO_PROFILE, f"its profile '{record.profile}' is not loaded")
            return Rejected(QuarantineReason.FOREIGN_TOPIC, f"its profile is '{record.profile}', not '{profile}'")
        if gateway >= 0 and index != gateway and self._devices.record(gateway).id != record.gateway:
            return Rejected(QuarantineReason.FOREIGN_TOPIC, "the device belongs to another gateway")
        return index

    def _look_up(self, name: str, rule: Rule, gateway: int) -> int | Rejected:
        """Return the index of a device named in a payload, or why it may not be taken."""
        key = (name, rule.profile, gateway)
        found = self._names.get(key)
        if found is None:
            found = self._names[key] = self._find(name, rule.profile, gateway)
        if isinstance(found, int) and not self._devices.enabled[found]:
            return Rejected(QuarantineReason.DISABLED_DEVICE, "the device is disabled")
        return found

    def _look_up_index(self, name: str, rule: Rule, gateway: int) -> int:
        if rule.device_case:
            name = name.lower() if rule.device_case == "lower" else name.upper()
        found = self._look_up(name, rule, gateway)
        return -1 if isinstance(found, Rejected) else found


def _rank(why: Rejected) -> int:
    """Return how much a refusal says: the one that knows most of the device is told."""
    return _RANK.index(QuarantineReason(why.reason)) if why.reason in _RANK else len(_RANK)


def _wrap(rule: Rule, captured: dict[str, str]) -> str:
    return captured.get(rule.wrap.strip("{}"), "") if rule.wrap.startswith("{") else rule.wrap


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────


def _of_rows(rows: Rows) -> Chunk:
    return Chunk(
        np.array(rows.message, np.int32),
        np.array(rows.device, np.int32),
        np.array(rows.spec, np.int32),
        np.array(rows.value, np.float64),
        np.array(rows.time, np.int64),
        np.array(rows.time_quality, np.uint8),
        np.array(rows.key, np.int64),
        np.array(rows.path, np.uint16),
        rows.text,
        rows.scale,
        rows.rejected,
        rows.ignored,
    )


def _fields(rows: Rows, chunks: list[Chunk]) -> Fields:
    """Join the chunks in the order of the messages."""
    if rows.message or not chunks:
        chunks = [*chunks, _of_rows(rows)]
        rejected, ignored = [], 0
    else:
        rejected, ignored = list(rows.rejected), rows.ignored
    message = np.concatenate([chunk.message for chunk in chunks])
    order: I64 | None = None
    if len(chunks) > 1 or (len(message) > 1 and bool((message[1:] < message[:-1]).any())):
        small = len(message) == 0 or int(message.max()) < 2**16
        order = np.argsort(message.astype(np.uint16) if small else message, kind="stable")
    text: dict[int, str] = {}
    scale: dict[int, tuple[float, float]] = {}
    new_row = None
    if order is not None and any(chunk.text or chunk.scale for chunk in chunks):
        new_row = np.empty(len(order), np.int64)
        new_row[order] = np.arange(len(order))
    base = 0
    for chunk in chunks:
        for at, word in chunk.text.items():
            text[base + at if new_row is None else int(new_row[base + at])] = word
        for at, pair in chunk.scale.items():
            scale[base + at if new_row is None else int(new_row[base + at])] = pair
        base += len(chunk.message)
        rejected += chunk.rejected
        ignored += chunk.ignored

    def join(at: int) -> Any:
        column = np.concatenate([chunk[at] for chunk in chunks]) if len(chunks) > 1 else chunks[0][at]
        return column if order is None else column[order]

    rejected.sort(key=_message)
    quarantined = sorted(rows.quarantined, key=_message)
    return Fields(
        message=message if order is None else message[order],
        device=join(1),
        spec=join(2),
        value=join(3),
        text=text,
        time=join(4),
        time_quality=join(5),
        key=join(6),
        path=join(7),
        override_scale=scale,
        quarantined=quarantined,
        rejected=rejected,
        ignored=ignored,
    )


def _message(item: Quarantined | RejectedValue) -> int:
    return item.message
