"""Downlinks: a frame for a device, in the envelope of its network server; and what the server says became of it. Pure.

A profile of a network server describes the envelope (`downlink`): to which topic it is published, its JSON with slots,
and the messages by which the server tells that the frame was transmitted, acknowledged or lost. Topics are those of the
device's uplinks with another end, because only they say under which application the server knows the device.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from sensegate.decode.grammar import DownlinkEventPart, DownlinkPart
from sensegate.decode.keys import ProfileKeys, nearest
from sensegate.decode.part import Scalar
from sensegate.errors import ConfigError

FRAME_MAX: Final = 242
"""Greatest length of a LoRaWAN frame's payload, bytes."""
PORTS: Final = range(1, 224)
"""Ports of applications in LoRaWAN."""
SLOTS: Final = (
    "device",
    "DEVICE",
    "port",
    "confirmed",
    "confirmed_digit",
    "time",
    "base64",
    "hex",
    "HEX",
    "id",
    "id16",
    "uuid",
)
_SLOT = re.compile(r"\{(\w+)\}")
_REASON_MAX: Final = 200
State = Literal["transmitted", "acknowledged", "failed"]


class DownlinkFrame(NamedTuple):
    """A frame for a device."""

    device: str
    """Its name at the network server (DevEUI), in lower case."""
    data: bytes
    port: int
    confirmed: bool
    task: str
    """Id of the task, hex digits."""
    time: int = 0
    """Time of sending, µs UTC."""


class DownlinkRoute(NamedTuple):
    """Route of a device's downlinks."""

    base: str
    """Prefix of the topics of the device's uplinks, downlinks and events."""
    uplink: str
    """End of the topic of its uplinks."""
    topic: str
    """Topic of its downlinks."""


class DownlinkOutcome(NamedTuple):
    """Outcome of a downlink, as a network server reports it."""

    state: State
    reason: str = ""


def find_route(part: DownlinkPart, uplink_topic: str, *, replace: bool = False) -> DownlinkRoute | None:
    """Return where the downlinks of a device go whose uplinks come by this topic; None: not by this server's rules."""
    ends = part.replace if replace and part.replace else part.topics
    for up, down in ends.items():
        if uplink_topic.endswith(up):
            base = uplink_topic.removesuffix(up)
            return DownlinkRoute(base, up, base + down)
    return None


def build_envelope(part: DownlinkPart, frame: DownlinkFrame) -> bytes:
    """Return the message for the network server. Raises `ConfigError` if the frame cannot be sent."""
    check_frame(frame.data, frame.port)
    slots = _slots(frame)
    return msgspec.json.encode(_filled(part.json, slots))


def check_frame(data: bytes, port: int) -> None:
    """Check size and port of a frame. Raises `ConfigError`."""
    if len(data) > FRAME_MAX:
        raise ConfigError(f"the frame has {len(data)} bytes; at most {FRAME_MAX} are sent", key="parameters")
    if port not in PORTS:
        remedy = "give `frame: {port: …}`, or have the codec script return fPort"
        raise ConfigError(f"port {port} is not from {PORTS[0]} to {PORTS[-1]}", key="port", remedy=remedy)


def _slots(frame: DownlinkFrame) -> dict[str, Scalar]:
    return {
        "device": frame.device.lower(),
        "DEVICE": frame.device.upper(),
        "port": frame.port,
        "confirmed": frame.confirmed,
        "confirmed_digit": str(int(frame.confirmed)),
        "time": _iso(frame.time),
        "base64": base64.b64encode(frame.data).decode(),
        "hex": frame.data.hex(),
        "HEX": frame.data.hex().upper(),
        "id": frame.task,
        "id16": frame.task[-16:],
        "uuid": uuid_of(frame.task),
    }


def _iso(time: int) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time // 1_000 % 1_000 * 1_000)
    return moment.isoformat(timespec="milliseconds")


def uuid_of(task: str) -> str:
    """Return a task's id as a UUID."""
    return str(uuid.UUID(task.rjust(32, "0")[-32:]))


def _filled(tree: Any, slots: Mapping[str, Scalar]) -> Any:
    if isinstance(tree, dict):
        return {key: _filled(value, slots) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, slots) for value in tree]
    if not isinstance(tree, str):
        return tree
    alone = _SLOT.fullmatch(tree)
    return slots[alone[1]] if alone else _SLOT.sub(lambda slot: str(slots[slot[1]]), tree)


# ── events ───────────────────────────────────────────────────────────────────────────────────────────


def event_topics(part: DownlinkPart, base: str) -> dict[str, list[DownlinkEventPart]]:
    """Return topic -> rules for the messages that may tell of a downlink of the device with these topics."""
    rules: dict[str, list[DownlinkEventPart]] = {}
    for event in part.events:
        rules.setdefault(base + event.topic, []).append(event)
    return rules


def read_outcome(rules: Sequence[DownlinkEventPart], payload: bytes, device: str, task: str) -> DownlinkOutcome | None:
    """Return what a message says of a downlink of a device; None if it says nothing of this one."""
    try:
        tree = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for rule in rules:
        if not all(_member(tree, path) in _accepted(wanted) for path, wanted in rule.where.items()):
            continue
        if rule.device and str(_member(tree, rule.device)).lower() != device.lower():
            continue
        if rule.id and not _names_task(_member(tree, rule.id), task):
            continue
        reason = _member(tree, rule.reason) if rule.reason else None
        return DownlinkOutcome(rule.state, str(reason)[:_REASON_MAX] if reason is not None else "")
    return None


def _names_task(member: Any, task: str) -> bool:
    names = member if isinstance(member, list) else [member]
    return not {str(name).lower() for name in names}.isdisjoint({task, task[-16:], uuid_of(task)})


def _member(tree: Any, path: str) -> Any:
    """Return the scalar or list at a dotted path; None if there is none."""
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if not isinstance(tree, dict) else None


def _accepted(wanted: Scalar | tuple[Scalar, ...] | None) -> list[Any]:
    return list(wanted) if isinstance(wanted, tuple) else [wanted]


# ── checks when a profile is loaded ──────────────────────────────────────────────────────────────────


def check_downlink(part: DownlinkPart, keys: ProfileKeys) -> None:
    """Check the envelope of a network server. Raises `ProfileError`."""
    if not part.topics:
        raise keys.error("no topic", "downlink", "topics", remedy='e.g. {"/event/up": "/command/down"}')
    for key in ("topics", "replace"):
        for up, down in getattr(part, key).items():
            if not up or not down or any(sign in up + down for sign in "+#{}"):
                remedy = 'ends of topics: {"/event/up": "/command/down"}'
                raise keys.error("is not the end of a topic", "downlink", key, remedy=remedy)
    used = {slot[1] for text in _texts(part.json) for slot in _SLOT.finditer(text)}
    for slot in sorted(used - {*SLOTS}):
        raise keys.error(f"there is no slot {{{slot}}}", "downlink", "json", remedy=nearest(slot, SLOTS))
    if not used & {"base64", "hex", "HEX"}:
        raise keys.error("the frame is missing", "downlink", "json", remedy='e.g. {data: "{base64}", fPort: "{port}"}')


def _texts(tree: Any) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    members = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [text for member in members for text in _texts(member)]
