"""Injected faults, and the outcome expected of each.

Each kind is named for the word under which the gateway must count it: a kind of duplicate, a flag, a reason of
quarantine or rejection, or `refused` (published without permission: acknowledged by the broker and dropped).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sensegate.demo.fleet import KINDS, SECOND, DeviceFrame, FrameValue, SimulatedDevice, lamp
from sensegate.demo.intents import ALLOWED, FORBIDDEN, REQUIRED

DEPTH = 80
LARGE_BYTES = 300_000
LATE_FIRST_S = 900
"""Smallest age of late readings; each one of a device is a second older than the one before."""
FUTURE_S = 3600


class CountUnit(StrEnum):
    """Unit in which a kind is counted."""

    VALUES = "values"
    MESSAGES = "messages"


class ExpectedOutcome(StrEnum):
    """Outcome that the gateway must account for."""

    DUPLICATE = "duplicate"
    FLAG = "flag"
    QUARANTINE = "quarantined"
    REJECTION = "rejected"
    REFUSAL = "refused"


@dataclass(frozen=True, slots=True)
class Injection:
    """A faulty message."""

    kind: str
    device: SimulatedDevice
    topic: str
    payload: bytes
    time: int
    values: Mapping[str, FrameValue]
    """Values that must (or must not) be decoded from it."""
    requirement: str = REQUIRED
    original_rid: str = "-"
    victim: str = ""
    """Device impersonated by the sender, if any."""


@dataclass(frozen=True, slots=True)
class GoodMessage:
    """A good message just sent, from which a fault may be derived."""

    rid: str
    frame: DeviceFrame
    topic: str
    payload: bytes


Maker = Callable[[GoodMessage, "Injector"], Injection | None]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault."""

    outcome: ExpectedOutcome
    unit: CountUnit
    make: Maker
    share: float = 0.01
    """Share of the good messages that are followed by this fault."""


class Injector:
    """Chooses the next fault: each kind once in turn at first, then at random by its share."""

    def __init__(
        self, rng: random.Random, *, share: float = 1.0, peers: Mapping[str, SimulatedDevice] | None = None
    ) -> None:
        self.rng = rng
        self.share = share
        self.peers = peers or {}
        """Node -> a device for which others must not publish."""
        self.counts: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._pending_kinds = [kind for kind in FAULTS if share]
        self._kinds = list(FAULTS)
        self._weights = [FAULTS[kind].share * share for kind in self._kinds]
        self._total_weight = sum(self._weights)

    def after(self, original: GoodMessage) -> Injection | None:
        """Return the fault to send after a good message, if any."""
        if self._pending_kinds:
            for kind in list(self._pending_kinds):
                if (injection := self._build(kind, original)) is not None:
                    self._pending_kinds.remove(kind)
                    return self._count(injection)
        if self.rng.random() >= self._total_weight:
            return None
        kind = self.rng.choices(self._kinds, self._weights)[0]
        injection = self._build(kind, original)
        return None if injection is None else self._count(injection)

    def _build(self, kind: str, original: GoodMessage) -> Injection | None:
        able = kind in KINDS[original.frame.device.kind].faults
        return FAULTS[kind].make(original, self) if able else None

    def _count(self, injection: Injection) -> Injection:
        self.counts[injection.kind] = self.counts.get(injection.kind, 0) + 1
        return injection

    def late_time(self, device: str, now: int) -> int:
        """Return a past time that the device has not used yet."""
        count = self._late[device] = self._late.get(device, 0) + 1
        return now - (LATE_FIRST_S + count) * 1_000_000 - now % 1_000_000 + (count % 997) * 1000


def _duplicate_of(kind: str, original: GoodMessage, topic: str, payload: bytes) -> Injection:
    frame = original.frame
    return Injection(kind, frame.device, topic, payload, frame.time, frame.values, original_rid=original.rid)


def _from_frame(kind: str, frame: DeviceFrame, **changes: object) -> Injection:
    topic, payload = KINDS[frame.device.kind].encode(frame)
    injection = Injection(kind, frame.device, topic, payload, frame.time, frame.values)
    return replace(injection, **changes)  # type: ignore[arg-type] # fields of `Injection`, by name


def redelivery(original: GoodMessage, _: Injector) -> Injection:
    """Send the same bytes again."""
    return _duplicate_of("redelivery", original, original.topic, original.payload)


def repeat(original: GoodMessage, _: Injector) -> Injection:
    """Send the same reading in other bytes."""
    topic, payload = KINDS[original.frame.device.kind].encode(replace(original.frame, compact=False))
    return _duplicate_of("repeat", original, topic, payload)


def cross_path(original: GoodMessage, _: Injector) -> Injection:
    """Deliver the same frame from another network: one network forwards it once, however many gateways received it."""
    frame = original.frame
    topic, payload = KINDS[frame.device.kind].encode(replace(frame, network=frame.network + 1))
    return _duplicate_of("cross_path", original, topic, payload)


def conflict(original: GoodMessage, _: Injector) -> Injection:
    """Send other values with the same identity."""
    frame = original.frame
    values: dict[str, FrameValue] = {
        name: round(value + 1.5, 3) if isinstance(value, float) else value for name, value in frame.values.items()
    }
    return _from_frame("conflict", replace(frame, values=values))


def late(original: GoodMessage, injector: Injector) -> Injection:
    """Send an old reading."""
    frame = original.frame
    at = injector.late_time(frame.device.id, frame.time)
    return _from_frame("late", replace(frame, time=at, counter=frame.counter + 1))


def future(original: GoodMessage, _: Injector) -> Injection:
    """Send a reading an hour ahead."""
    return _from_frame("future", replace(original.frame, time=original.frame.time + FUTURE_S * 1_000_000))


def _broken(kind: str, original: GoodMessage, payload: bytes) -> Injection:
    frame = original.frame
    return Injection(kind, frame.device, original.topic, payload, frame.time + 500, {})


def malformed(original: GoodMessage, _: Injector) -> Injection:
    """Truncate a payload."""
    return _broken("malformed", original, original.payload[: len(original.payload) // 2])


def not_utf8(original: GoodMessage, _: Injector) -> Injection:
    """Put invalid UTF-8 into a string."""
    return _broken("not_utf8", original, b'{"time":"\xff\xfe","values":{"air_temperature":1}}')


def too_deep(original: GoodMessage, _: Injector) -> Injection:
    """Nest arrays deeper than any device would."""
    return _broken("too_deep", original, b'{"values":' + b"[" * DEPTH + b"]" * DEPTH + b"}")


def too_large(original: GoodMessage, _: Injector) -> Injection:
    """Exceed the message size limit."""
    padding = b'{"note":"' + b"x" * LARGE_BYTES + b'",'
    return _broken("too_large", original, padding + original.payload[1:])


def no_values(original: GoodMessage, _: Injector) -> Injection:
    """Send a message without values."""
    return _broken("no_values", original, b'{"values":{}}')


def _with_bad_value(kind: str, original: GoodMessage, member: str, bad: object) -> Injection:
    """Return a message of the plain layout with one bad value among good ones."""
    frame = original.frame
    values = dict(frame.values)
    values.pop(member, None)
    # A millisecond later, so that the good values are separate readings.
    return _from_frame(kind, replace(frame, time=frame.time + 1000, values=values, raw={member: bad}))


def _first_property(original: GoodMessage) -> str:
    return next(iter(original.frame.values))


def not_finite(original: GoodMessage, _: Injector) -> Injection:
    """Send NaN, as some firmwares print floats."""
    return _with_bad_value("not_finite", original, _first_property(original), math.nan)


def wrong_type(original: GoodMessage, _: Injector) -> Injection:
    """Send a word instead of a number."""
    return _with_bad_value("wrong_type", original, _first_property(original), "warm")


def unknown_property(original: GoodMessage, _: Injector) -> Injection:
    """Send an unknown property."""
    return _with_bad_value("unknown_property", original, "flux_capacitance", 1.21)


def unknown_unit(original: GoodMessage, _: Injector) -> Injection:
    """Send a unit that is not UCUM."""
    return _with_bad_value("unknown_unit", original, _first_property(original), {"v": 1.5, "u": "furlongs"})


def dimension(original: GoodMessage, _: Injector) -> Injection:
    """Send a unit of another dimension: a temperature in volts."""
    return _with_bad_value("dimension", original, _first_property(original), {"v": 1.5, "u": "V"})


def refused(original: GoodMessage, injector: Injector) -> Injection | None:
    """Publish in another device's name."""
    frame = original.frame
    victim = injector.peers.get(frame.device.node)
    if victim is None:
        return None
    topic, payload = KINDS[victim.kind].encode(replace(frame, device=victim, values={"water_level": 9.99}))
    # The rid belongs to the attacker's connection, the reading to the victim.
    return Injection(
        "refused",
        frame.device,
        topic,
        payload,
        frame.time,
        {"water_level": 9.99},
        requirement=FORBIDDEN,
        victim=victim.id,
    )


def unchanged(original: GoodMessage, _: Injector) -> Injection:
    """Repeat the value of a gauge that reports by exception, a second later."""
    frame = replace(original.frame, time=original.frame.time + SECOND, counter=original.frame.counter + 1)
    return _from_frame("unchanged", frame, requirement=ALLOWED)


def unknown_device(original: GoodMessage, injector: Injector) -> Injection:
    """Report on an unregistered lamp through a concentrator."""
    stranger = replace(original.frame.device, alias=f"stranger-{injector.rng.randrange(1000)}")
    topic, payload = lamp(replace(original.frame, device=stranger))
    return Injection("unknown_device", original.frame.device, topic, payload, original.frame.time, {})


def foreign_topic(original: GoodMessage, injector: Injector) -> Injection | None:
    """Report on a device that is not behind this concentrator."""
    peer = injector.peers.get(original.frame.device.node)
    if peer is None:
        return None
    topic, payload = lamp(replace(original.frame, device=replace(original.frame.device, alias=peer.id)))
    return Injection("foreign_topic", original.frame.device, topic, payload, original.frame.time, {})


FAULTS: dict[str, FaultKind] = {
    "redelivery": FaultKind(ExpectedOutcome.DUPLICATE, CountUnit.VALUES, redelivery, 0.02),
    "repeat": FaultKind(ExpectedOutcome.DUPLICATE, CountUnit.VALUES, repeat, 0.01),
    "cross_path": FaultKind(ExpectedOutcome.DUPLICATE, CountUnit.VALUES, cross_path, 0.01),
    "unchanged": FaultKind(ExpectedOutcome.DUPLICATE, CountUnit.VALUES, unchanged, 0.02),
    "conflict": FaultKind(ExpectedOutcome.FLAG, CountUnit.VALUES, conflict, 0.004),
    "late": FaultKind(ExpectedOutcome.FLAG, CountUnit.VALUES, late, 0.01),
    "future": FaultKind(ExpectedOutcome.FLAG, CountUnit.VALUES, future, 0.002),
    "malformed": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, malformed, 0.003),
    "not_utf8": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, not_utf8, 0.002),
    "too_deep": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, too_deep, 0.002),
    "too_large": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, too_large, 0.0002),
    "no_values": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, no_values, 0.002),
    "unknown_device": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, unknown_device, 0.02),
    "foreign_topic": FaultKind(ExpectedOutcome.QUARANTINE, CountUnit.MESSAGES, foreign_topic, 0.02),
    "not_finite": FaultKind(ExpectedOutcome.REJECTION, CountUnit.MESSAGES, not_finite, 0.002),
    "wrong_type": FaultKind(ExpectedOutcome.REJECTION, CountUnit.MESSAGES, wrong_type, 0.002),
    "unknown_property": FaultKind(ExpectedOutcome.REJECTION, CountUnit.MESSAGES, unknown_property, 0.002),
    "unknown_unit": FaultKind(ExpectedOutcome.REJECTION, CountUnit.MESSAGES, unknown_unit, 0.002),
    "dimension": FaultKind(ExpectedOutcome.REJECTION, CountUnit.MESSAGES, dimension, 0.002),
    "refused": FaultKind(ExpectedOutcome.REFUSAL, CountUnit.MESSAGES, refused, 0.001),
}


def injected_counts(messages: Mapping[str, int], values: Mapping[str, int]) -> dict[str, int]:
    """Return kind -> injected count, each in its unit, from the judge's counts."""
    return {
        kind: (values if fault.unit is CountUnit.VALUES else messages).get(kind, 0)
        for kind, fault in FAULTS.items()
        if messages.get(kind)
    }
