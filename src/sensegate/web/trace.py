"""REST: the way of one reading: message, batch, commit, span to the centre, deliveries.

A record is named by its id (the same on every tier), by its cursor, or by device and phenomenon time. What is not on
this log is searched for from `since` on, without it near the end of the log first; a node has the message and the
commit, its centre the span.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from sensegate.authority.scope import Action, allows
from sensegate.bus.batch import Batch
from sensegate.bus.contract import Log
from sensegate.bus.unreadable import read_rows
from sensegate.clock import DAY_US, MINUTE_US
from sensegate.config import TimeConfig
from sensegate.errors import NotFound
from sensegate.model import LogEntry
from sensegate.share import records
from sensegate.share.cursor import parse
from sensegate.share.reader import named_rows
from sensegate.web import record_query
from sensegate.web.consumers import visible_consumers
from sensegate.web.parts import PartKey
from sensegate.web.problems import BadRequest
from sensegate.web.route_tables import tagged
from sensegate.web.routing import API, Call, QueryParam, Route, iso

FORWARDED = PartKey[Callable[[int], str]]("forwarded", absent="this gateway has no centre")
"""Sequence of an entry -> where it stands on its way to the centre, in words; of a node."""
SEARCH_S = 10.0
_AHEAD_US = round(TimeConfig().future_s * 1e6)
"""A phenomenon time is first searched for from this long before it: few clocks of devices are ahead by more."""
_AGES = (*(MINUTE_US << doubled for doubled in range(11)), DAY_US)
"""Ages from which a record is searched for, one after another."""
_ABSENT = "there is no such record on this log since then; it may have expired, or give an earlier `since`"
_AROUND = 300
"""Most entries of one commit on either side of its readings."""
_ID = re.compile(r"(?P<node>.{1,80})-(?P<partition>\d{1,6})-(?P<sequence>\d{14})-(?P<index>\d{1,9})", re.ASCII)
_ROWS = ("readings.", "observations.")
Select = Callable[[Batch, LogEntry], int]
"""Returns the row of an entry that is searched for; -1: it is not there."""


class TraceStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """Step of the route of a reading."""

    step: str
    """``message``, ``batch``, ``commit``, ``reading``, ``span`` or ``delivery``."""
    at: str = ""
    sequence: int = 0
    """Entry of this gateway's log; 0: none."""
    detail: str = ""


class Trace(msgspec.Struct, frozen=True):
    """The way of a reading, as far as this gateway knows it."""

    record: str
    device: str
    property: str
    division: str
    time: str
    received: str
    steps: list[TraceStep]


class _CommitSummary(msgspec.Struct, frozen=True):
    """Fields that commit records and lane records have in common."""

    number: int = 0
    committed_at: int = 0
    batch_id: str = ""
    span_id: str = ""
    positions: dict[str, dict[str, int | str]] = {}


class _Located(msgspec.Struct, frozen=True, eq=False):
    entry: LogEntry
    batch: Batch
    row: int


async def _trace(call: Call) -> Trace:
    """Trace one reading: its message, batch, commit, span to the centre, and who is past it."""
    name = call.text("record")
    device, time = call.text("device"), record_query.instant(call, "time")
    if bool(name) == bool(device and time is not None):
        raise BadRequest("query: record: give the id or the cursor of a record, or device and time")
    located = await (_by_name(call, name) if name else _by_time(call, device, time or 0))
    batch, row = located.batch, located.row
    origin = int(batch.origin[row])
    division, department = batch.origins.division[origin], batch.origins.department[origin]
    if not allows(call.principal, Action.READ_LEDGER, division, department):
        raise NotFound(_ABSENT)
    prop = batch.properties[batch.property[row]]
    time_text, received = records.iso(np.array([batch.time[row], batch.received[row]], np.int64))
    sequence = records.sequences_of(batch, np.array([row]), located.entry.sequence)[0]
    return Trace(
        f"{batch.node}-{batch.partition}-{sequence:014d}-{batch.index[row]}",
        batch.origins.device[origin],
        records.base_name(prop),
        division,
        time_text,
        received,
        await _steps(call, located),
    )


async def _by_name(call: Call, name: str) -> _Located:
    """Return the record of an id or a cursor. Raises `NotFound`, `BadRequest`."""
    log = call.deps.log
    if name.startswith("c1."):
        cursor = parse(name)
        return await _at(log, cursor.sequence, lambda batch, _: cursor.row if cursor.row < len(batch) else -1)
    match = _ID.fullmatch(name)
    if match is None:
        raise BadRequest(f"query: record: '{name[:80]}' is no record; give `id` or `cursor` of one")
    sequence, index = int(match["sequence"]), int(match["index"])

    def select(batch: Batch, entry: LogEntry) -> int:
        if (batch.node, batch.partition) != (match["node"], int(match["partition"])):
            return -1
        stored = np.where(batch.seq == 0, entry.sequence, batch.seq)
        rows = np.flatnonzero((stored == sequence) & (batch.index == index))
        return int(rows[0]) if len(rows) else -1

    try:
        return await _at(log, sequence, select)
    except NotFound:
        # The sequence is that of another log: of the node whose record it is.
        return await _search(call, select)


async def _by_time(call: Call, device: str, time: int) -> _Located:
    wanted = call.text("property")

    def select(batch: Batch, _entry: LogEntry) -> int:
        if device not in batch.origins.device:
            return -1
        rows = np.flatnonzero((batch.origin == batch.origins.device.index(device)) & (batch.time == time))
        names = [records.base_name(batch.properties[batch.property[row]]) for row in rows]
        return next((int(row) for row, name in zip(rows, names, strict=True) if wanted in {"", name}), -1)

    return await _search(call, select, (time - _AHEAD_US, time - DAY_US))


async def _at(log: Log, sequence: int, select: Select) -> _Located:
    for entry in await log.fetch(sequence - 1, limit=1):
        if entry.sequence == sequence and entry.subject.startswith(_ROWS):
            batch = read_rows(entry, "trace")
            if batch is not None and (row := select(batch, entry)) >= 0:
                return _Located(entry, named_rows(batch), row)
    raise NotFound(_ABSENT)


async def _search(call: Call, select: Select, starts: Sequence[int] = ()) -> _Located:
    """Return a record that is selected, of those that arrived from `since` of the call on. Raises `NotFound`.

    Without `since` the last minute is searched, then the one before it, the two before, the four before: a day in
    all. `starts`: times of arrival to search from instead, each up to the one before.
    """
    log, now = call.deps.log, call.deps.clock.now()
    since = record_query.instant(call, "since")
    starts = [since] if since is not None else starts or [now - age for age in _AGES]
    _, end = await log.bounds()
    try:
        async with asyncio.timeout(SEARCH_S):
            for start in starts:
                begin = await log.sequence_at(max(start, 0)) - 1
                located = await _search_between(log, select, begin, end)
                if located is not None:
                    return located
                end = min(begin, end)
    except TimeoutError:
        raise BadRequest(
            f"the search takes more than {SEARCH_S:g} s; give `since`, or the cursor of the record", status=413
        ) from None
    raise NotFound(_ABSENT)


async def _search_between(log: Log, select: Select, after: int, end: int) -> _Located | None:
    """Return the first record that is selected in the entries after one up to another; None: there is none."""
    while after < end and (entries := await log.fetch(after)):
        for entry in entries:
            if entry.sequence > end:
                return None
            if entry.subject.startswith(_ROWS) and (batch := read_rows(entry, "trace")) is not None:
                if (row := select(batch, entry)) >= 0:
                    return _Located(entry, named_rows(batch), row)
                await asyncio.sleep(0)
        after = entries[-1].sequence
    return None


async def _steps(call: Call, located: _Located) -> list[TraceStep]:
    log, entry, row = call.deps.log, located.entry, located.row
    before = await log.fetch(max(0, entry.sequence - _AROUND), limit=_AROUND)
    after = await log.fetch(entry.sequence, limit=_AROUND)
    steps: list[TraceStep] = []
    # The entries of a commit follow one another; a later commit replaces the record at its end, which leaves a gap.
    expected = entry.sequence - 1
    for member in reversed([member for member in before if member.sequence < entry.sequence]):
        if member.sequence != expected or member.subject.startswith(("commit.", "ledger.")):
            break
        expected -= 1
        if member.subject.startswith("raw."):
            detail = f"{len(member.payload)} bytes of messages as received ({member.subject})"
            steps.insert(0, TraceStep("message", iso(member.time), member.sequence, detail))
    commit, expected = None, entry.sequence + 1
    for member in after:
        if member.sequence != expected or commit is not None:
            break
        expected += 1
        commit = member if member.subject.startswith("commit.") else None
    if commit is not None:
        steps += _commit_steps(commit)
    else:
        steps.append(
            TraceStep(
                "commit", iso(entry.time), detail="committed; a later commit has since replaced the commit record"
            )
        )
    batch = located.batch
    detail = (
        f"row {row} of {len(batch)} in {entry.subject}; profile {batch.origins.profile[int(batch.origin[row])]}, "
        f"revision {batch.revision[row]}"
    )
    steps.append(TraceStep("reading", iso(entry.time), entry.sequence, detail))
    forwarded = call.find_part(FORWARDED)
    if forwarded is not None:
        steps.append(TraceStep("span", detail=forwarded(entry.sequence)))
    return [*steps, *_deliveries(call, entry.sequence)]


def _commit_steps(commit: LogEntry) -> list[TraceStep]:
    """Return the batch of the source, or the span of the node, and the commit that holds it."""
    try:
        summary = msgspec.json.decode(commit.payload, type=_CommitSummary)
    except msgspec.DecodeError:
        return [TraceStep("commit", iso(commit.time), commit.sequence, commit.subject)]
    detail = f"{commit.subject}, number {summary.number}"
    steps = [TraceStep("commit", iso(summary.committed_at), commit.sequence, detail)]
    if summary.span_id:
        return [TraceStep("span", iso(commit.time), 0, f"span {summary.span_id} of the node, taken here"), *steps]
    positions = ", ".join(f"{source} up to {place.get('sequence', 0)}" for source, place in summary.positions.items())
    return [TraceStep("batch", "", 0, f"batch {summary.batch_id}; sources: {positions or 'without position'}"), *steps]


def _deliveries(call: Call, sequence: int) -> list[TraceStep]:
    """Return each active consumer visible to the caller: past the record, or not yet, as its cursor says."""
    steps = []
    for consumer in visible_consumers(call):
        if consumer.sequence < 0:
            continue
        is_past = consumer.sequence >= sequence
        state = "is past it" if is_past else f"is {sequence - consumer.sequence} entries before it"
        detail = f"{consumer.delivery} {consumer.id} of {consumer.subscriber}, feed {consumer.feed}: {state}"
        steps.append(TraceStep("delivery", iso(consumer.last), 0, detail))
    return steps


ROUTES = tagged(
    "accounting",
    Route(
        "GET",
        f"{API}/trace",
        _trace,
        action=Action.READ_LEDGER,
        query=(
            QueryParam("record", "id or cursor of the record"),
            QueryParam("device", "device, with time, instead of record"),
            QueryParam("time", "phenomenon time, with device"),
            QueryParam("property", "with device and time: which of its readings"),
            QueryParam("since", "time of arrival from which to search, default a day ago (24h)"),
        ),
        errors=(404, 413),
    ),
)
