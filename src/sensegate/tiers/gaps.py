"""What a centre did not get because a node was lost with its store: the time, and numbers where devices count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from sensegate.bus import sequences
from sensegate.bus.unreadable import read as read_entry
from sensegate.clock import DAY_US
from sensegate.model import LogEntry
from sensegate.tiers.members import Gap

LOOK_BACK_US = DAY_US
"""Of the lost store so much is read: what a device sent last is in it, or the device was silent for a day."""
ENTRIES_MAX = 500_000
AFTER_US = 600_000_000
"""What a device sends so long after the new node joined tells what is missing; later holes are another matter."""
RUNS_MAX = 10_000


class Log(Protocol):
    """What is read of the centre's log."""

    async def sequence_at(self, time: int) -> int: ...

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]: ...


class Missing(msgspec.Struct, frozen=True):
    """What of one device did not come."""

    device: str
    runs: list[tuple[int, int]]
    """(first, last) numbers of which no reading is at the centre."""
    count: int
    restarted: bool = False
    """The device began to count anew after the gap: what it sent before and did not come is not known."""


class Named(msgspec.Struct, frozen=True):
    """One gap."""

    since: int
    """µs UTC: when the last span that came of the lost store was made."""
    until: int
    """µs UTC: when the node in its place joined."""
    pending: int
    """Entries of its log that were waiting in its backlog besides."""
    devices: list[Missing]
    """Those that number their messages and were heard before and after."""
    missing: int
    """Messages of these that did not come."""


Runs = dict[str, list[tuple[int, int]]]


async def named(log: Log, division: str, gaps: Sequence[Gap]) -> list[Named]:
    """Return what is known of a node's gaps. Raises `Unavailable`."""
    found = []
    for place, gap in enumerate(gaps):
        next_since = gaps[place + 1].since if place + 1 < len(gaps) else gap.until + AFTER_US
        lost = {one.life for one in gaps[: place + 1]}
        before, after = await _heard(log, division, gap, lost, min(next_since, gap.until + AFTER_US))
        devices = missing(before, after, whole=gap.pending == 0)
        found.append(Named(gap.since, gap.until, gap.pending, devices, sum(one.count for one in devices)))
    return found


async def _heard(log: Log, division: str, gap: Gap, lost: set[str], end: int) -> tuple[Runs, Runs]:
    before: Runs = {}
    after: Runs = {}
    at = await log.sequence_at(gap.since - LOOK_BACK_US) - 1
    read = 0
    while read < ENTRIES_MAX:
        entries = await log.fetch_of(f"sequences.{division}", at)
        if not entries:
            break
        for entry in entries:
            at = entry.sequence
            if entry.time > end:
                return before, after
            one = read_entry(entry, "gaps", sequences.decode)
            if one is None:
                continue
            if one.epoch in lost and one.epoch != gap.life:
                continue
            side = before if one.epoch == gap.life else after
            for device, flat in one.devices.items():
                side.setdefault(device, []).extend(zip(flat[::2], flat[1::2], strict=True))
        read += len(entries)
    return before, after


def missing(
    before: Mapping[str, Sequence[tuple[int, int]]], after: Mapping[str, Sequence[tuple[int, int]]], *, whole: bool
) -> list[Missing]:
    """Return what is missing of each device that was heard on both sides of a gap.

    Args:
        before: device -> runs that came of the store that was lost.
        after: device -> runs that came of the one in its place.
        whole: all that `before` has came in order, so that only what lies behind it can be missing.
    """
    found = []
    for device in sorted(before.keys() & after.keys()):
        old, new = before[device], after[device]
        newest = max(last for _, last in old)
        end = max(last for _, last in new)
        if end <= newest:
            found.append(Missing(device, [], 0, restarted=max(first for first, _ in new) < newest))
            continue
        start = newest if whole else min(first for first, _ in old)
        holes = _holes([*old, *new], start, end)
        if holes:
            found.append(Missing(device, holes[:RUNS_MAX], sum(last - first + 1 for first, last in holes)))
    return [one for one in found if one.count or one.restarted]


def _holes(runs: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    holes, at = [], start
    for first, last in sorted(runs):
        if last <= at:
            continue
        if first > at + 1:
            holes.append((at + 1, min(first - 1, end)))
        at = last
        if at >= end:
            break
    return holes
