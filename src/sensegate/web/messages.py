"""REST: the last messages of a device as received, with the outcome of each; live, if requested with `after`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec
from paho.mqtt.client import topic_matches_sub

from sensegate.authority.scope import Action
from sensegate.bus import raw
from sensegate.bus.unreadable import read
from sensegate.clock import SECOND_US
from sensegate.model import Device, LogEntry
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso, payload_text

MESSAGES_MAX = 100
DEFAULT_MESSAGES = 20
SCAN_ENTRIES = 2_000
"""Most entries of the log that one request reads."""
SCAN_S = 0.4
"""Time after which a request ends with the messages found so far."""
BACK_ENTRIES = 50
"""Entries that are read at a time from the device's last message backwards."""
COMMITTED_S = 5.0
"""A message is on the log within this time of its arrival, unless there is a backlog."""
PAGE_BYTES = 2 * 1024**2
BEFORE_MAX_S = 3_600.0
"""Longest time before the device's last message at which the first request begins."""
BEFORE_MIN_S = 60.0
_SUBJECTS = ("raw.", "quarantine.")
_DIGITS_MAX = 19
_NOBODY = "~"
"""No device can have this id."""


class DeviceMessage(msgspec.Struct, frozen=True):
    """A message of a device."""

    entry: int
    """Entry of the log that holds it."""
    received: str
    source: str
    topic: str
    payload: str
    """Text if it is UTF-8, else ``base64:`` and base64; at most 4 kB."""
    bytes: int
    state: str
    """``decoded`` or ``quarantined``."""
    reason: str = ""
    detail: str = ""


class DeviceMessages(msgspec.Struct, frozen=True):
    """Messages of a device, oldest first."""

    device: str
    rows: list[DeviceMessage]
    after: str
    """Cursor for the next request."""
    more: bool
    """True if the log has entries that were not looked at yet."""


class _Sought(msgspec.Struct, frozen=True):
    """A device whose messages are sought."""

    device: Device
    filters: Sequence[str]
    """Topic filters that name the device."""

    def is_of(self, stored: raw.StoredMessage) -> bool:
        """Return whether a message is that of the device: by its credential, by quarantine, or by its topic.

        A topic counts only where no other device published the message than a gateway of this one.
        """
        sender = stored.message.principal
        if self.device.id in {stored.device, sender}:
            return True
        if stored.device or (sender and sender not in self.device.gateways):
            return False
        return any(topic_matches_sub(topic_filter, stored.message.topic) for topic_filter in self.filters)


def _sought(call: Call, device: Device) -> _Sought:
    # Filters that hold for a device of any name as well are those of a gateway or of all devices of the profile.
    others = set(call.deps.topics(msgspec.structs.replace(device, id=_NOBODY, alias="")))
    return _Sought(device, [topic for topic in call.deps.topics(device) if topic not in others])


def _rows(entry: LogEntry, sought: _Sought) -> list[DeviceMessage]:
    device = sought.device
    stored = read(
        entry, "messages of a device", lambda payload: raw.decode_of(payload, {device.id, device.alias} - {""})
    )
    return [
        DeviceMessage(
            entry.sequence,
            iso(message.message.received),
            message.source,
            message.message.topic[:500],
            payload_text(message.message.payload),
            len(message.message.payload),
            "quarantined" if message.reason else "decoded",
            message.reason,
            message.detail[:2_000],
        )
        for message in raw.join_pieces(stored or ())
        if sought.is_of(message)
    ]


async def _period(call: Call, device: Device, limit: int) -> tuple[int, int]:
    """Return the sequences between which the last messages of a device stand, the second one exclusive."""
    devices, log = call.deps.devices, call.deps.log
    at = devices.find(device.id)
    newest = (devices.seen(at) if at >= 0 else 0) or call.deps.clock.now()
    interval_s = devices.interval_s(device.id, device.profile)
    before_s = min(max(interval_s * limit, BEFORE_MIN_S), BEFORE_MAX_S)
    first = await log.sequence_at(max(0, newest - round(before_s * SECOND_US)))
    return first, await log.sequence_at(newest + round(COMMITTED_S * SECOND_US))


async def _last(call: Call, device: Device, limit: int) -> DeviceMessages:
    """Return the last messages, read from the newest backwards: in a large city few entries hold one of a device."""
    clock, log, sought = call.deps.clock, call.deps.log, _sought(call, device)
    _, end = await log.bounds()
    first, upper = await _period(call, device, limit)
    rows: list[DeviceMessage] = []
    scanned, until = 0, clock.monotonic() + SCAN_S
    while upper > first and len(rows) < limit and scanned < SCAN_ENTRIES and clock.monotonic() < until:
        lower = max(first, upper - BACK_ENTRIES)
        position, part = lower - 1, list[DeviceMessage]()
        while position < upper - 1 and (entries := await log.fetch(position, max_bytes=PAGE_BYTES)):
            position = entries[-1].sequence
            part += await _rows_of([entry for entry in entries if entry.sequence < upper], sought)
        rows, scanned, upper = part + rows, scanned + upper - lower, lower
    return DeviceMessages(device.id, rows[-limit:], str(end), more=False)


async def _rows_of(entries: Sequence[LogEntry], sought: _Sought) -> list[DeviceMessage]:
    rows: list[DeviceMessage] = []
    for entry in entries:
        if entry.subject.startswith(_SUBJECTS):
            rows += await asyncio.to_thread(_rows, entry, sought)
    return rows


async def _since(call: Call, device: Device, limit: int, text: str) -> DeviceMessages:
    """Return the messages after a position of an earlier answer."""
    if not (text.isascii() and text.isdecimal() and len(text) < _DIGITS_MAX):
        raise BadRequest(f"query: after: '{text[:40]}' is not a position; give `after` of the previous answer")
    clock, log, sought = call.deps.clock, call.deps.log, _sought(call, device)
    rows: deque[DeviceMessage] = deque(maxlen=limit)
    position, scanned, until = int(text), 0, clock.monotonic() + SCAN_S
    more = True
    while more and scanned < SCAN_ENTRIES and clock.monotonic() < until:
        entries = await log.fetch(position, max_bytes=PAGE_BYTES)
        more = bool(entries)
        if entries:
            scanned, position = scanned + len(entries), entries[-1].sequence
            rows.extend(await _rows_of(entries, sought))
    return DeviceMessages(device.id, list(rows), str(position), more)


async def _messages(call: Call) -> DeviceMessages:
    """List the last messages of a device as received, with what became of each; `after` continues."""
    device = call.deps.devices.get(call.path("device"), call.principal)
    limit = call.integer("limit", DEFAULT_MESSAGES, MESSAGES_MAX)
    after = call.text("after")
    return await _since(call, device, limit, after) if after else await _last(call, device, limit)


ROUTES = tagged(
    "devices",
    Route(
        "GET",
        f"{API}/devices/{{device}}/messages",
        _messages,
        action=Action.READ_QUARANTINE,
        query=(
            QueryParam("after", "`after` of the previous answer: what came since"),
            QueryParam("limit", "maximum number of rows, default 20", "integer", minimum=1, maximum=MESSAGES_MAX),
        ),
        errors=(404,),
    ),
)
