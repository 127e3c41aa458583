"""Readings that a centre never received because a node was lost with its store: when, and which sequence numbers."""

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
"""Age up to which the lost store is read: a device whose last message is older was silent for a day."""
ENTRIES_MAX = 500_000
"""Most entries that are read for one gap."""
RUNS_READ_MAX = 1_000_000
"""Most runs that are read for one gap: one message of a node may hold as many as fit into it."""
AFTER_US = 600_000_000
"""Time after the join of the new node in which messages are read; later holes have another cause."""
RUNS_MAX = 10_000
"""Most runs of missing messages that are listed per device."""


class SubjectLog(Protocol):
    """The part of the centre's log that this module reads."""

    async def sequence_at(self, time: int) -> int:
        """Return the first sequence written at a time (µs UTC) or later."""
        ...

    async def fetch_of(self, subject: str, after: int) -> list[LogEntry]:
        """Return entries of a subject after a sequence, oldest first."""
        ...


class MissingMessages(msgspec.Struct, frozen=True):
    """Messages of one device that are missing at the centre."""

    device: str
    runs: list[tuple[int, int]]
    """(first, last) sequence numbers of which the centre has no reading."""
    count: int
    restarted: bool = False
    """The device restarted its numbering after the gap: how many messages are missing is not known."""


class GapReport(msgspec.Struct, frozen=True):
    """A gap, with the devices that number their messages."""

    since: int
    """Time of the last span from the lost store, µs UTC."""
    until: int
    """Time when the replacing node joined, µs UTC."""
    pending: int
    """Entries that still waited in the backlog of the lost store."""
    devices: list[MissingMessages]
    """Devices that number their messages and were heard before and after the gap."""
    missing: int
    """Missing messages of these devices."""


Runs = dict[str, list[tuple[int, int]]]
"""Device -> (first, last) sequence numbers that came."""


async def gap_reports(log: SubjectLog, member: str, gaps: Sequence[Gap]) -> list[GapReport]:
    """Return the known gaps of a node. Raises `Unavailable`."""
    reports = []
    for index, gap in enumerate(gaps):
        end, following = gap.until + AFTER_US, gaps[index + 1 : index + 2]
        # The next lost node stated the time: its last span came after it had joined.
        if following and following[0].since > gap.until:
            end = min(end, following[0].since)
        lost = {earlier.log_epoch for earlier in gaps[: index + 1]}
        before, after = await _runs_around(log, member, gap, lost, end)
        devices = missing_messages(before, after, whole=gap.pending == 0)
        reports.append(GapReport(gap.since, gap.until, gap.pending, devices, sum(device.count for device in devices)))
    return reports


async def _runs_around(log: SubjectLog, member: str, gap: Gap, lost: set[str], end: int) -> tuple[Runs, Runs]:
    """Return the numbers that came from the lost store, and those that came from its successors."""
    before: Runs = {}
    after: Runs = {}
    # The node stated the time: no time after the join of its successor, or before 1970, is that of its last span.
    at = await log.sequence_at(max(0, min(gap.since, gap.until) - LOOK_BACK_US)) - 1
    read = runs = 0
    while read < ENTRIES_MAX and runs < RUNS_READ_MAX:
        entries = await log.fetch_of(f"sequences.{member}", at)
        if not entries:
            break
        for entry in entries:
            at = entry.sequence
            if entry.time > end:
                return before, after
            numbers = read_entry(entry, "gaps", sequences.decode)
            if numbers is None:
                continue
            if numbers.epoch in lost and numbers.epoch != gap.log_epoch:
                continue
            side = before if numbers.epoch == gap.log_epoch else after
            for device, flat in numbers.devices.items():
                runs += len(flat) // 2
                side.setdefault(device, []).extend(zip(flat[::2], flat[1::2], strict=True))
        read += len(entries)
    return before, after


def missing_messages(
    before: Mapping[str, Sequence[tuple[int, int]]], after: Mapping[str, Sequence[tuple[int, int]]], *, whole: bool
) -> list[MissingMessages]:
    """Return the missing messages of each device that was heard on both sides of a gap.

    Args:
        before: device -> runs that came from the lost store.
        after: device -> runs that came from its successor.
        whole: the runs of `before` came in order, so that only later numbers can be missing.
    """
    missing = []
    for device in sorted(before.keys() & after.keys()):
        old, new = before[device], after[device]
        newest = max(last for _, last in old)
        end = max(last for _, last in new)
        if end <= newest:
            missing.append(MissingMessages(device, [], 0, restarted=max(first for first, _ in new) < newest))
            continue
        start = newest if whole else min(first for first, _ in old)
        holes = _holes([*old, *new], start, end)
        if holes:
            missing.append(MissingMessages(device, holes[:RUNS_MAX], sum(last - first + 1 for first, last in holes)))
    return [device for device in missing if device.count or device.restarted]


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
