"""REST: the quarantine, message by message, and grouped as an inbox."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache

import msgspec

from sensegate.authority.scope import Action
from sensegate.bus import raw
from sensegate.bus.names import node_of
from sensegate.bus.recovered import RecoveredMessages
from sensegate.bus.unreadable import read
from sensegate.clock import HOUR_US
from sensegate.errors import NotFound
from sensegate.model import DeviceState, LogEntry
from sensegate.web import listing, record_query
from sensegate.web.accounting import LedgerAccess, places
from sensegate.web.bodies import QuarantineRow
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso, payload_text

RECOVERED = PartKey[RecoveredMessages]("recovered", absent="this gateway reprocesses no messages")
_SCAN_ENTRIES = 20_000
_WINDOW = 4_096
"""Sequences of the log in the first window of a scan from its end."""
_ROWS_MAX = 1_000
_LAST_INDEX = 999_999_999
"""Index beyond every message of an entry."""
_GROUPS_MAX = 500
_DEVICES_SHOWN = 20
_VARIABLE = re.compile(r"[0-9A-Fa-f]{6,}|\d+")
"""Part of a topic that differs from device to device."""


class QuarantineGroup(msgspec.Struct, frozen=True):
    """Quarantined messages that are alike: one reason, one profile, one pattern of topic."""

    id: str
    reason: str
    profile: str
    """Version by which they could not be read; empty: no profile claims them."""
    pattern: str
    """Topic, with `{device}` and `*` in place of what differs."""
    detail: str
    """Detail of the newest."""
    messages: int
    devices: list[str]
    """Some of the devices."""
    first: str
    last: str
    topic: str
    """Topic of the newest."""
    payload: str
    """Payload of the newest: text, or ``base64:`` and base64; at most 4 kB."""


class QuarantinePage(listing.RowPage[QuarantineRow], frozen=True, omit_defaults=True):
    """Page of quarantined messages."""

    searched_to: str = ""
    """With `order=desc`: arrival of the oldest entry that was searched, if the search ended before `since` and the page
    is not full: older messages may match too. Absent otherwise."""


class QuarantineInbox(msgspec.Struct, frozen=True):
    """Groups of quarantined messages, the largest first."""

    rows: list[QuarantineGroup]
    messages: int
    more: bool
    """True if later messages were not counted: give a later `since`."""


class _Group(msgspec.Struct):
    """A group while its messages are counted."""

    messages: int
    devices: dict[str, None]
    first: int
    newest: raw.StoredMessage


class QuarantineScan:
    """Messages in quarantine that the caller may see and that match its filters, in the order of the log."""

    def __init__(self, call: Call, since: int) -> None:
        self._call = call
        self._access = LedgerAccess(call.principal, places(call.deps))
        self._since = since
        self._begin = _position_of(call.text("after"))
        self._received_min = since if call.text("since") or not call.text("after") else 0
        """An entry that was stored since then may hold messages that arrived before."""
        self._recovered = call.find_part(RECOVERED)
        self._reasons, self._devices = call.values("reason"), call.values("device")
        # A topic may contain a comma, and an empty profile is that of messages which none claims.
        self._profile, self._pattern = (call.request.query.get(name) for name in ("profile", "pattern"))
        self.position = 0
        """Sequence of the last entry read."""
        self.is_complete = False
        """True if the end of the log was reached; of `newest`: if the page is full or all was searched."""
        self.oldest = 0
        """Time (µs UTC) when the log stored the oldest entry that `newest` has searched; 0: none."""

    async def messages(self) -> AsyncIterator[tuple[str, raw.StoredMessage]]:
        """Yield (position, message); stop after `_SCAN_ENTRIES` entries."""
        self.position = await self._floor()
        scanned = 0
        while scanned < _SCAN_ENTRIES:
            entries = await self._call.deps.log.fetch_of("quarantine.*", self.position)
            if not entries:
                self.is_complete = True
                return
            for entry in entries:
                scanned, self.position = scanned + 1, entry.sequence
                for row in self._rows_of(entry):
                    yield row

    async def newest(self, limit: int) -> list[tuple[str, raw.StoredMessage]]:
        """Return the last (position, message), newest first, out of the last `_SCAN_ENTRIES` entries.

        The log is read forwards only: windows of it are, from its end to its begin. A window of few entries makes the
        one before it wider, one of too many is divided.
        """
        floor, (_, end) = await self._floor(), await self._call.deps.log.bounds()
        rows, scanned, width = list[tuple[str, raw.StoredMessage]](), 0, _WINDOW
        while end > floor and scanned < _SCAN_ENTRIES and len(rows) < limit:
            begin = max(floor, end - width)
            window, count, oldest = await self._window(begin, end, limit)
            if count > _SCAN_ENTRIES and width > 1:
                width = max(width // 16, 1)
                continue
            rows += reversed(window)
            scanned, end, self.oldest = scanned + count, begin, oldest or self.oldest
            if count < _WINDOW // 4:
                width *= 2
        self.is_complete = end <= floor or len(rows) >= limit
        return rows[:limit]

    async def _window(self, begin: int, end: int, limit: int) -> tuple[deque[tuple[str, raw.StoredMessage]], int, int]:
        """Return the last messages after the sequence `begin` up to `end`, with the number and the time of entries.

        Returns:
            The messages, the number of entries read for them, and the time of the first of those (µs UTC; 0: none).
        """
        rows, count, oldest = deque[tuple[str, raw.StoredMessage]](maxlen=limit), 0, 0
        while begin < end and count <= _SCAN_ENTRIES:
            entries = await self._call.deps.log.fetch_of("quarantine.*", begin)
            inside = [entry for entry in entries if entry.sequence <= end]
            oldest = oldest or (inside[0].time if inside else 0)
            for entry in inside:
                rows.extend(self._rows_of(entry))
            count += len(inside)
            if len(inside) < len(entries) or not entries:
                break
            begin = entries[-1].sequence
        return rows, count, oldest

    async def _floor(self) -> int:
        """Return the sequence after which the scan begins."""
        if self._recovered:
            await self._recovered.refresh()
        position = self._begin[0] - 1
        return position if position >= 0 else await self._call.deps.log.sequence_at(self._since) - 1

    def _rows_of(self, entry: LogEntry) -> Iterator[tuple[str, raw.StoredMessage]]:
        """Yield (position, message) of the messages of an entry that are wanted."""
        node = node_of(entry.subject)
        for index, message in enumerate(read(entry, "quarantine page", raw.decode_any) or ()):
            if entry.sequence == self._begin[0] and index <= self._begin[1]:
                continue
            if self._recovered and self._recovered.contains(entry.sequence, index + 1):
                continue
            if self._concerns(message, node):
                yield f"{entry.sequence}.{index}", message

    def _concerns(self, message: raw.StoredMessage, node: str) -> bool:
        if message.message.received < self._received_min:
            return False
        if (self._reasons and message.reason not in self._reasons) or (
            self._devices and message.device not in self._devices
        ):
            return False
        if self._profile is not None and message.profile != self._profile:
            return False
        if self._pattern is not None and _pattern(message) != self._pattern:
            return False
        return self._access.may_see_device(message.device, node) or _own_refusal(message, self._call)


def _since(call: Call) -> int:
    return call.time("since") or call.deps.clock.now() - HOUR_US


async def _quarantine(call: Call) -> QuarantinePage:
    """Return quarantined messages from `after` or `since`; a scan may end early, with `next` to continue."""
    limit, rows, scan = call.integer("limit", 100, _ROWS_MAX), list[QuarantineRow](), QuarantineScan(call, _since(call))
    if record_query.descends(call):
        newest = [_quarantine_row(*row) for row in await scan.newest(limit)]
        return QuarantinePage(newest, searched_to="" if scan.is_complete else iso(scan.oldest))
    async for position, message in scan.messages():
        rows.append(_quarantine_row(position, message))
        if len(rows) >= limit:
            return QuarantinePage(rows, position)
    return QuarantinePage(rows, "" if scan.is_complete else f"{scan.position}.{_LAST_INDEX}")


async def _inbox(call: Call) -> QuarantineInbox:
    """Return the groups of the messages in quarantine since a time."""
    scan, groups, count = QuarantineScan(call, _since(call)), dict[tuple[str, str, str], _Group](), 0
    async for _, message in scan.messages():
        count += 1
        key = (str(message.reason), message.profile, _pattern(message))
        group = groups.get(key)
        if group is None:
            if len(groups) >= _GROUPS_MAX:
                continue
            group = groups[key] = _Group(0, {}, message.message.received, message)
        group.messages += 1
        group.newest = message
        if name := message.device or message.message.principal:
            group.devices.setdefault(name, None)
    ordered = sorted(groups.items(), key=lambda item: -item[1].messages)
    return QuarantineInbox([_group_row(key, group) for key, group in ordered], count, not scan.is_complete)


def _pattern(stored: raw.StoredMessage) -> str:
    return _pattern_of(stored.message.topic[:500], stored.device or stored.message.principal)


@lru_cache(maxsize=4_096)
def _pattern_of(topic: str, device: str) -> str:
    levels = ["{device}" if device and level == device else _VARIABLE.sub("*", level) for level in topic.split("/")]
    return "/".join(levels)


def _group_row(key: tuple[str, str, str], group: _Group) -> QuarantineGroup:
    reason, profile, pattern = key
    newest = group.newest
    return QuarantineGroup(
        "|".join(key),
        reason,
        profile,
        pattern,
        newest.detail[:2_000],
        group.messages,
        list(group.devices)[:_DEVICES_SHOWN],
        iso(group.first),
        iso(newest.message.received),
        newest.message.topic[:500],
        payload_text(newest.message.payload),
    )


def _position_of(text: str) -> tuple[int, int]:
    """Return (sequence, index) of the last message of the previous page; (0, -1): none."""
    if not text:
        return 0, -1
    sequence, _, index = text.partition(".")
    if not (sequence.isdecimal() and index.isdecimal() and len(text) < 40):
        raise BadRequest(f"query: after: '{text[:40]}' is not a position; give `next` of the previous page")
    return int(sequence), int(index)


def _own_refusal(message: raw.StoredMessage, call: Call) -> bool:
    """Return whether a message of an unknown device came with the credential of a device that the caller may see."""
    if message.device or not message.message.principal:
        return False
    try:
        device = call.deps.devices.get(message.message.principal, call.principal)
    except NotFound:
        return False
    return device.state is not DeviceState.RETIRED


def _quarantine_row(entry: str, quarantined: raw.StoredMessage) -> QuarantineRow:
    message = quarantined.message
    return QuarantineRow(
        entry,
        iso(message.received),
        quarantined.source,
        message.topic[:500],
        quarantined.device,
        quarantined.profile,
        quarantined.reason,
        quarantined.detail[:2_000],
        payload_text(message.payload),
        len(message.payload),
    )


_SINCE = QueryParam("since", "start time, or how far back (30m, 1h, 7d); default 1h")
_REASON = QueryParam("reason", "filter by reason")
_DEVICE = QueryParam("device", "filter by device")
_PROFILE = QueryParam("profile", "filter by profile with its version (`acme/th10@3`); empty: messages that none claims")
_PATTERN = QueryParam("pattern", "filter by pattern of topic, as a group states it (`acme/{device}/up`)")
ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/quarantine",
        _quarantine,
        summary="List quarantined messages with the reason.",
        action=Action.READ_QUARANTINE,
        query=(
            _SINCE,
            QueryParam("after", "`next` of the previous page"),
            QueryParam("limit", "maximum number of rows, default 100", "integer", minimum=1, maximum=_ROWS_MAX),
            QueryParam(
                "order",
                f"asc (default) or desc: the newest of the last {_SCAN_ENTRIES:,} entries first, on one page; "
                "`searched_to` says how far back, where more may match",
            ),
            _REASON,
            _DEVICE,
            _PROFILE,
            _PATTERN,
        ),
    ),
    Route(
        "GET",
        f"{API}/quarantine/groups",
        _inbox,
        summary="Group quarantined messages by reason, profile and pattern of topic; recovered ones are left out.",
        action=Action.READ_QUARANTINE,
        query=(_SINCE, _REASON, _DEVICE, _PROFILE, _PATTERN),
    ),
)
