"""What goes wrong on purpose, and what is expected of it.

Each kind is named for the word under which the gateway must count it: a kind of duplicate, a flag, a reason of
quarantine or of rejection, or `refused` (published where the device may not: acknowledged by the broker and dropped).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sensegate.demo.fleet import KINDS, SECOND, Frame, Simulated, Value, lamp
from sensegate.demo.intents import ALLOWED, FORBIDDEN, REQUIRED

DEPTH = 80
LARGE_BYTES = 300_000
LATE_FIRST_S = 900
"""Late readings are at least so old; each of a device is a second older than the one before."""
FUTURE_S = 3600
MINUTE_US = 60_000_000


class Unit(StrEnum):
    """In what a kind is counted."""

    VALUES = "values"
    MESSAGES = "messages"


class Outcome(StrEnum):
    """Where the gateway must account for it."""

    DUPLICATE = "duplicate"
    FLAG = "flag"
    QUARANTINE = "quarantined"
    REJECTION = "rejected"
    REFUSAL = "refused"


@dataclass(frozen=True, slots=True)
class Injection:
    """One message that is wrong on purpose."""

    kind: str
    device: Simulated
    topic: str
    payload: bytes
    time: int
    values: Mapping[str, Value]
    """What must (or must not) be read from it."""
    need: str = REQUIRED
    of: str = "-"
    victim: str = ""
    """Device in whose name it is, where that is not the sender."""


@dataclass(frozen=True, slots=True)
class Original:
    """A good message that was just sent, of which an injection may be made."""

    rid: str
    frame: Frame
    topic: str
    payload: bytes


Maker = Callable[[Original, "Injector"], Injection | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of injection."""

    outcome: Outcome
    unit: Unit
    make: Maker
    share: float = 0.01
    """Of the good messages, how many are followed by one of these."""


class Injector:
    """Chooses what goes wrong next: every kind once in turn at first, then at random by its share."""

    def __init__(self, rng: random.Random, *, share: float = 1.0, peers: Mapping[str, Simulated] | None = None) -> None:
        self.rng = rng
        self.share = share
        self.peers = peers or {}
        """Node -> a device that others must not publish for."""
        self.counts: dict[str, int] = {}
        self._late: dict[str, int] = {}
        self._first = [kind for kind in FAULTS if share]
        self._kinds = list(FAULTS)
        self._weights = [FAULTS[kind].share * share for kind in self._kinds]
        self._any = sum(self._weights)

    def after(self, original: Original) -> Injection | None:
        """Return what is sent after a good message, if anything."""
        if self._first:
            for kind in list(self._first):
                if (injection := self._make(kind, original)) is not None:
                    self._first.remove(kind)
                    return self._counted(injection)
        if self.rng.random() >= self._any:
            return None
        kind = self.rng.choices(self._kinds, self._weights)[0]
        injection = self._make(kind, original)
        return None if injection is None else self._counted(injection)

    def _make(self, kind: str, original: Original) -> Injection | None:
        able = kind in KINDS[original.frame.device.kind].faults
        return FAULTS[kind].make(original, self) if able else None

    def _counted(self, injection: Injection) -> Injection:
        self.counts[injection.kind] = self.counts.get(injection.kind, 0) + 1
        return injection

    def late_time(self, device: str, now: int) -> int:
        """Return a time of long ago that the device has not used yet."""
        count = self._late[device] = self._late.get(device, 0) + 1
        return now - (LATE_FIRST_S + count) * 1_000_000 - now % 1_000_000 + (count % 997) * 1000


def _same(kind: str, original: Original, topic: str, payload: bytes) -> Injection:
    frame = original.frame
    return Injection(kind, frame.device, topic, payload, frame.time, frame.values, of=original.rid)


def _new(kind: str, frame: Frame, **changes: object) -> Injection:
    topic, payload = KINDS[frame.device.kind].encode(frame)
    injection = Injection(kind, frame.device, topic, payload, frame.time, frame.values)
    return replace(injection, **changes)  # type: ignore[arg-type] # fields of `Injection`, by name


def redelivery(original: Original, _: Injector) -> Injection:
    """Send the same bytes again."""
    return _same("redelivery", original, original.topic, original.payload)


def repeat(original: Original, _: Injector) -> Injection:
    """Send the same reading in other bytes."""
    topic, payload = KINDS[original.frame.device.kind].encode(replace(original.frame, compact=False))
    return _same("repeat", original, topic, payload)


def cross_path(original: Original, _: Injector) -> Injection:
    """Let another network have heard the same frame: one network hands it on once, however many gateways heard it."""
    frame = original.frame
    topic, payload = KINDS[frame.device.kind].encode(replace(frame, network=frame.network + 1))
    return _same("cross_path", original, topic, payload)


def conflict(original: Original, _: Injector) -> Injection:
    """Give the same identity other values."""
    frame = original.frame
    values: dict[str, Value] = {
        name: round(value + 1.5, 3) if isinstance(value, float) else value for name, value in frame.values.items()
    }
    return _new("conflict", replace(frame, values=values))


def late(original: Original, injector: Injector) -> Injection:
    """Send a reading of long ago."""
    frame = original.frame
    at = injector.late_time(frame.device.id, frame.time)
    return _new("late", replace(frame, time=at, counter=frame.counter + 1))


def future(original: Original, _: Injector) -> Injection:
    """Send a reading of an hour ahead."""
    return _new("future", replace(original.frame, time=original.frame.time + FUTURE_S * 1_000_000))


def _broken(kind: str, original: Original, payload: bytes) -> Injection:
    frame = original.frame
    return Injection(kind, frame.device, original.topic, payload, frame.time + 500, {})


def malformed(original: Original, _: Injector) -> Injection:
    """Cut a payload in its middle."""
    return _broken("malformed", original, original.payload[: len(original.payload) // 2])


def not_utf8(original: Original, _: Injector) -> Injection:
    """Put bytes that are no UTF-8 into a string."""
    return _broken("not_utf8", original, b'{"time":"\xff\xfe","values":{"air_temperature":1}}')


def too_deep(original: Original, _: Injector) -> Injection:
    """Nest arrays deeper than any device would."""
    return _broken("too_deep", original, b'{"values":' + b"[" * DEPTH + b"]" * DEPTH + b"}")


def too_large(original: Original, _: Injector) -> Injection:
    """Send more bytes than a message may have."""
    padding = b'{"note":"' + b"x" * LARGE_BYTES + b'",'
    return _broken("too_large", original, padding + original.payload[1:])


def no_values(original: Original, _: Injector) -> Injection:
    """Send a message that says nothing."""
    return _broken("no_values", original, b'{"values":{}}')


def _one_bad(kind: str, original: Original, member: str, bad: object) -> Injection:
    """Return a message of the plain layout in which one value is bad and the others are good."""
    frame = original.frame
    values = dict(frame.values)
    values.pop(member, None)
    # A millisecond on, so that the good values are readings of their own.
    return _new(kind, replace(frame, time=frame.time + 1000, values=values, raw={member: bad}))


def _a_member(original: Original) -> str:
    return next(iter(original.frame.values))


def not_finite(original: Original, _: Injector) -> Injection:
    """Send a NaN, as firmwares do that print floats without asking."""
    return _one_bad("not_finite", original, _a_member(original), math.nan)


def wrong_type(original: Original, _: Injector) -> Injection:
    """Send a word where a number belongs."""
    return _one_bad("wrong_type", original, _a_member(original), "warm")


def unknown_property(original: Original, _: Injector) -> Injection:
    """Send a property that no table knows."""
    return _one_bad("unknown_property", original, "flux_capacitance", 1.21)


def unknown_unit(original: Original, _: Injector) -> Injection:
    """Send a unit that is no UCUM."""
    return _one_bad("unknown_unit", original, _a_member(original), {"v": 1.5, "u": "furlongs"})


def dimension(original: Original, _: Injector) -> Injection:
    """Send a unit of another dimension: a temperature in volts."""
    return _one_bad("dimension", original, _a_member(original), {"v": 1.5, "u": "V"})


def refused(original: Original, injector: Injector) -> Injection | None:
    """Publish in another device's name."""
    frame = original.frame
    victim = injector.peers.get(frame.device.node)
    if victim is None:
        return None
    topic, payload = KINDS[victim.kind].encode(replace(frame, device=victim, values={"water_level": 9.99}))
    # The rid stands on the attacker's connection, the reading in the victim's name.
    return Injection(
        "refused", frame.device, topic, payload, frame.time, {"water_level": 9.99}, need=FORBIDDEN, victim=victim.id
    )


def unchanged(original: Original, _: Injector) -> Injection:
    """Let a gauge that reports by exception say again what it just said, a second later."""
    frame = replace(original.frame, time=original.frame.time + SECOND, counter=original.frame.counter + 1)
    return _new("unchanged", frame, need=ALLOWED)


def unknown_device(original: Original, injector: Injector) -> Injection:
    """Let a concentrator report on a lamp that nobody registered."""
    stranger = replace(original.frame.device, alias=f"stranger-{injector.rng.randrange(1000)}")
    topic, payload = lamp(replace(original.frame, device=stranger))
    return Injection("unknown_device", original.frame.device, topic, payload, original.frame.time, {})


def foreign_topic(original: Original, injector: Injector) -> Injection | None:
    """Let a concentrator report on a device that is not behind it."""
    peer = injector.peers.get(original.frame.device.node)
    if peer is None:
        return None
    topic, payload = lamp(replace(original.frame, device=replace(original.frame.device, alias=peer.id)))
    return Injection("foreign_topic", original.frame.device, topic, payload, original.frame.time, {})


FAULTS: dict[str, Fault] = {
    "redelivery": Fault(Outcome.DUPLICATE, Unit.VALUES, redelivery, 0.02),
    "repeat": Fault(Outcome.DUPLICATE, Unit.VALUES, repeat, 0.01),
    "cross_path": Fault(Outcome.DUPLICATE, Unit.VALUES, cross_path, 0.01),
    "unchanged": Fault(Outcome.DUPLICATE, Unit.VALUES, unchanged, 0.02),
    "conflict": Fault(Outcome.FLAG, Unit.VALUES, conflict, 0.004),
    "late": Fault(Outcome.FLAG, Unit.VALUES, late, 0.01),
    "future": Fault(Outcome.FLAG, Unit.VALUES, future, 0.002),
    "malformed": Fault(Outcome.QUARANTINE, Unit.MESSAGES, malformed, 0.003),
    "not_utf8": Fault(Outcome.QUARANTINE, Unit.MESSAGES, not_utf8, 0.002),
    "too_deep": Fault(Outcome.QUARANTINE, Unit.MESSAGES, too_deep, 0.002),
    "too_large": Fault(Outcome.QUARANTINE, Unit.MESSAGES, too_large, 0.0002),
    "no_values": Fault(Outcome.QUARANTINE, Unit.MESSAGES, no_values, 0.002),
    "unknown_device": Fault(Outcome.QUARANTINE, Unit.MESSAGES, unknown_device, 0.02),
    "foreign_topic": Fault(Outcome.QUARANTINE, Unit.MESSAGES, foreign_topic, 0.02),
    "not_finite": Fault(Outcome.REJECTION, Unit.MESSAGES, not_finite, 0.002),
    "wrong_type": Fault(Outcome.REJECTION, Unit.MESSAGES, wrong_type, 0.002),
    "unknown_property": Fault(Outcome.REJECTION, Unit.MESSAGES, unknown_property, 0.002),
    "unknown_unit": Fault(Outcome.REJECTION, Unit.MESSAGES, unknown_unit, 0.002),
    "dimension": Fault(Outcome.REJECTION, Unit.MESSAGES, dimension, 0.002),
    "refused": Fault(Outcome.REFUSAL, Unit.MESSAGES, refused, 0.001),
}


def counted(messages: Mapping[str, int], values: Mapping[str, int]) -> dict[str, int]:
    """Return kind -> what was injected, each in its unit, from the judge's counts."""
    return {
        kind: (values if fault.unit is Unit.VALUES else messages).get(kind, 0)
        for kind, fault in FAULTS.items()
        if messages.get(kind)
    }
