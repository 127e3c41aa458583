"""Ledgers of all commits, summed by node and hour, stored on the stream LEDGER with their own position.

Each node and hour has one entry (several, ``hours.<node>.<hour>.<part>``, where its devices do not fit into one), which
is replaced as the hour fills. The position is part of the same atomic write, so that a crash counts nothing twice. The
most recent hours are in memory as columns, older ones encoded.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import msgspec
import structlog

from sensegate import metrics
from sensegate.bus.contract import Log
from sensegate.bus.decoding import decoder
from sensegate.bus.ledger import ENTRY_HOURS_MAX, Ledger
from sensegate.bus.names import node_of
from sensegate.bus.unreadable import read, read_ledger
from sensegate.clock import HOUR_US, Clock
from sensegate.errors import CancellableTaskGroup, Fenced, StoreFull, Unavailable
from sensegate.model import LogEntry, LogMessage
from sensegate.share.place_totals import UNREGISTERED, DevicePlaceSource, PlaceTotals
from sensegate.share.reader import LogReader

_HOUR_DIGITS = 9
_OPEN_MAX = 32
"""Most node-hours in memory as columns, the others are encoded: more than a province has cities."""

_CHANGED_MAX = 2_000
"""Most changed node-hours before they are written: one atomic write has to hold them all."""
_PREFIXES = ("ledger.", "carried.")

_SUMMED_H = 25
"""Hours whose counts are summed by place before anybody asks for them."""

_log = structlog.get_logger(__name__)


class _Position(msgspec.Struct, frozen=True):
    epoch: str
    sequence: int
    format: int = 1


_position = decoder(_Position, "position of the hourly ledgers", json=True)


class HourlyLedgers:
    """Ledgers summed by (node, hour since 1970)."""

    def __init__(
        self,
        hours: Log,
        clock: Clock,
        *,
        window_h: int = 48,
        ttl_h: int = 9_600,
        flush_s: float = 10.0,
        payload_bytes_max: int = 900_000,
        source: DevicePlaceSource = UNREGISTERED,
    ) -> None:
        """Hold `window_h` hours before and after the present one in memory.

        `hours` is the stream LEDGER, `source` knows where devices are.
        """
        self._hours = hours
        self._clock = clock
        self._window_h = window_h
        self._ttl_h = ttl_h
        self._flush_s = flush_s
        self._bytes_max = payload_bytes_max
        self._packed: dict[tuple[str, int], tuple[bytes, ...]] = {}
        self._open: OrderedDict[tuple[str, int], Ledger] = OrderedDict()
        self._totals: dict[tuple[str, int], dict[str, int]] = {}
        """(node, hour) -> count by kind, of hours that began in this process or were asked for."""
        self._stamps: dict[tuple[str, int], int] = {}
        """(node, hour) -> a number that changes with its counts; absent: as it was when this process began."""
        self._numbers = itertools.count(1)
        self.places = PlaceTotals(self, clock, source)
        """The same counts by place."""
        self._changed: set[tuple[str, int]] = set()
        self._late: set[tuple[str, int]] = set()
        """Hours that were not in memory when counts came: the stored sum is merged in before they are written."""
        self._reader: LogReader | None = None
        self._is_behind = False
        """True if entries were left out because too much had changed; they are fetched from the log after a write."""
        self._parts: dict[tuple[str, int], int] = {}
        """Number of entries of an hour on the stream."""
        self._position = _Position("", 0)
        self._fence = 0
        self.problem = ""
        """Reason why the sums cannot be written now; empty: they can."""

    async def open(self, epoch: str, end: int | None = None) -> int:
        """Load the window; return the sequence of LOG after which to continue. Raises `Unavailable`.

        `end`: last sequence of LOG when this process began. A stored position beyond it means that LOG has lost its end
        since; what follows `end` is then new.
        """
        entry = await self._hours.last("hours.position")
        stored = read(entry, "hourly ledgers", _position) if entry else None
        self._position = stored or _Position(epoch, 0)
        self._fence = entry.sequence if entry else 0
        if self._position.epoch != epoch:
            self._position = _Position(epoch, 0)
        if end is not None and self._position.sequence > end:
            _log.warning(
                "log has lost its end; hourly ledgers continue from its end", position=self._position.sequence, end=end
            )
            self._position = _Position(epoch, end)
        at = await self._hours.sequence_at(self._clock.now() - self._window_h * HOUR_US) - 1
        while entries := await self._hours.fetch(at):
            at = entries[-1].sequence
            for entry in entries:
                kind, _, place = entry.subject.partition(".")
                node, _, rest = place.partition(".")
                hour, _, part = rest.partition(".")
                # In a copied stream every entry is as old as the copy, so that the hour in the subject decides.
                if kind != "hours" or not (hour.isascii() and hour.isdigit() and len(hour) <= _HOUR_DIGITS):
                    continue
                if self._is_near(int(hour)):
                    before = self._packed.get((node, int(hour)), ())
                    self._packed[node, int(hour)] = (*before, entry.payload) if part else (entry.payload,)
                    self._parts[node, int(hour)] = len(self._packed[node, int(hour)])
        return self._position.sequence

    def attach(self, reader: LogReader) -> None:
        """Add every ledger entry that the reader passes."""
        self._reader = reader
        reader.on_ledger.append(self.add)

    def add(self, entry: LogEntry) -> None:
        """Add the ledger of one entry of LOG: ``ledger.<node>[-<partition>]`` or ``carried.<node>``.

        Where too much has changed since the last write, it is left out until `flush` fetches it.
        """
        if entry.sequence <= self._position.sequence or self._is_behind:
            return
        if self._reader is not None and len(self._changed) >= _CHANGED_MAX:
            self._is_behind = True
        else:
            self._add(entry)

    def _add(self, entry: LogEntry) -> None:
        node = node_of(entry.subject)
        counts = read_ledger(entry, "hourly ledgers")
        if counts is not None and (hours := len(counts.hours())) > ENTRY_HOURS_MAX:
            metrics.UNREADABLE.labels("hourly ledgers").inc()
            _log.error("ledger has too many hours; its counts are missing", subject=entry.subject, hours=hours)
            counts = None
        for hour, part in (counts.by_hour() if counts is not None else {}).items():
            if (node, hour) not in self:
                self._totals[node, hour] = {}
            self._ledger(node, hour).merge(part)
            if (totals := self._totals.get((node, hour))) is not None:
                _add(totals, part.totals())
            self._stamps[node, hour] = next(self._numbers)
            self._changed.add((node, hour))
        self._position = _Position(self._position.epoch, entry.sequence)

    async def _catch_up(self, reader: LogReader) -> None:
        """Add entries that were left out, as many as one write may hold. Raises `Unavailable`."""
        while len(self._changed) < _CHANGED_MAX:
            _, last = await reader.log.bounds()
            entries = await reader.log.fetch(self._position.sequence)
            if not entries and reader.end <= last:
                self._is_behind = False
                return
            for entry in entries:
                if len(self._changed) >= _CHANGED_MAX:
                    return
                if entry.subject.startswith(_PREFIXES):
                    self._add(entry)
                else:
                    self._position = _Position(self._position.epoch, entry.sequence)

    def nodes(self, since_hour: int, before_hour: int | None = None) -> list[str]:
        """Return the nodes that have counts in or after an hour, and before another one if it is given."""
        return sorted({node for node, hour in self._keys() if _is_between(hour, since_hour, before_hour)})

    def total(self, node: str, since_hour: int, before_hour: int | None = None) -> Ledger:
        """Return the sum of a node's counts in and after an hour, and before another one if it is given."""
        total = Ledger()
        for key in sorted(self._keys()):
            if key[0] == node and _is_between(key[1], since_hour, before_hour):
                total.merge(self._open.get(key) or self._unpacked(key))
        return total

    def __len__(self) -> int:
        """Return the number of hours of nodes."""
        return len(self._keys())

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Iterate over (node, hour)."""
        return iter(self._keys())

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Return whether there are counts of a (node, hour)."""
        return key in self._open or key in self._packed

    def hours(self, node: str, since_hour: int, before_hour: int | None = None) -> list[int]:
        """Return the hours with counts of a node, in and after an hour, and before another one if it is given."""
        return sorted(key[1] for key in self._keys() if key[0] == node and _is_between(key[1], since_hour, before_hour))

    def stamp(self, node: str, hour: int) -> int:
        """Return a number that changes with the counts of a node and hour."""
        return self._stamps.get((node, hour), 0)

    def reader_of(self, node: str, hour: int) -> Callable[[], Ledger]:
        """Return a function that returns the counts of a node and hour as they are now; a thread may call it."""
        if ledger := self._open.get((node, hour)):
            copy = ledger.snapshot()
            return lambda: copy
        parts = self._packed.get((node, hour), ())
        return lambda: _sum_of(parts)[0]

    def totals(self, node: str, since_hour: int, before_hour: int | None = None) -> dict[int, dict[str, int]]:
        """Return hour -> count by kind of a node, in and after an hour, and before another one if it is given."""
        totals: dict[int, dict[str, int]] = {}
        for key in sorted(self._keys()):
            if key[0] == node and _is_between(key[1], since_hour, before_hour):
                if key not in self._totals:
                    self._totals[key] = (
                        self.places.totals(*key) or (self._open.get(key) or self._unpacked(key)).totals()
                    )
                totals[key[1]] = dict(self._totals[key])
        return totals

    async def run(self) -> None:
        """Write what has changed every `flush_s`, and sum by place what is asked for, until cancelled."""
        async with CancellableTaskGroup() as group:
            # What the process has loaded is summed first: the first view of a day would wait for it.
            group.create_task(self.places.run(self._clock.now() // HOUR_US - _SUMMED_H))
            await self._flush_regularly()

    async def _flush_regularly(self) -> None:
        while True:
            await self._clock.sleep(self._flush_s)
            try:
                await self.flush()
                self.problem = ""
            except (Unavailable, StoreFull) as why:
                self.problem = f"hourly ledgers cannot be written: {why}"
                _log.warning("hourly ledgers not written; they are retried", reason=str(why))

    async def flush(self) -> None:
        """Write the changed hours and the position, all or nothing; then add and write what was left out.

        Raises:
            Unavailable, StoreFull: nothing is discarded; the next call writes it.
        """
        await self._write()
        while self._is_behind and self._reader is not None:
            await self._catch_up(self._reader)
            await self._write()

    async def _write(self) -> None:
        if not self._changed:
            return
        await self._merge_late_hours()
        keys, position = sorted(self._changed), self._position
        self._changed.clear()
        members = [member for node, hour in keys for member in self._members(node, hour)]
        members.append(LogMessage("hours.position", msgspec.json.encode(position), rollup=True, expect=self._fence))
        try:
            self._fence = await self._hours.write(members)
        except (Fenced, Unavailable, StoreFull, asyncio.CancelledError) as why:
            self._changed.update(keys)
            if not isinstance(why, Fenced):
                raise
            # An earlier write took effect although its acknowledgement was lost; the next write replaces all of it.
            entry = await self._hours.last("hours.position")
            self._fence = entry.sequence if entry else 0
            return
        hour = self._clock.now() // HOUR_US
        for key in [key for key in self._open if key[1] < hour and key not in self._changed]:
            self._packed[key] = (self._open.pop(key).encode(),)
            self.places.expect(*key)
        for key in [key for key in self._keys() if not self._is_near(key[1]) and key not in self._changed]:
            self._open.pop(key, None)
            self._packed.pop(key, None)
            self._totals.pop(key, None)
            self._stamps.pop(key, None)
            self._parts.pop(key, None)

    def _members(self, node: str, hour: int) -> Iterator[LogMessage]:
        payloads = list(self._ledger(node, hour).encode_parts(self._bytes_max))
        # Surplus parts of an earlier write are emptied: their counts are in the new ones.
        payloads += [Ledger().encode()] * (self._parts.get((node, hour), 0) - len(payloads))
        self._parts[node, hour] = len(payloads)
        for part, payload in enumerate(payloads):
            yield LogMessage(_subject(node, hour, part), payload, self._ttl_h, rollup=True)

    async def _merge_late_hours(self) -> None:
        """Merge the stored sums of hours that were not in memory, so that their new counts do not replace them."""
        while self._late:  # also those that come meanwhile, which are written, too
            node, hour = min(self._late)
            written: list[bytes] = []
            while entry := await self._hours.last(_subject(node, hour, len(written))):
                written.append(entry.payload)
            self._parts[node, hour] = len(written)
            self._ledger(node, hour).merge(_sum_of(written)[0])
            self._totals.pop((node, hour), None)
            self._stamps[node, hour] = next(self._numbers)
            self._late.discard((node, hour))

    def _is_near(self, hour: int) -> bool:
        """Return whether an hour stays in memory; a node's clock, which names its hours, may be wrong by years."""
        return abs(hour - self._clock.now() // HOUR_US) <= self._window_h

    def _keys(self) -> set[tuple[str, int]]:
        return {*self._packed, *self._open}

    def _ledger(self, node: str, hour: int) -> Ledger:
        key = (node, hour)
        ledger = self._open.get(key)
        if ledger is None:
            if key not in self._packed:
                self._late.add(key)
            ledger = self._open[key] = self._unpacked(key)
            self._shrink()
        self._open.move_to_end(key)
        return ledger

    def _unpacked(self, key: tuple[str, int]) -> Ledger:
        """Return the sum of an encoded hour; parts that cannot be read are dropped from memory."""
        packed = self._packed.get(key, ())
        total, readable = _sum_of(packed)
        if len(readable) < len(packed):
            self._packed[key] = readable
        return total

    def _shrink(self) -> None:
        while len(self._open) > _OPEN_MAX:
            key, oldest = self._open.popitem(last=False)
            self._packed[key] = (oldest.encode(),)


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for kind, count in more.items():
        totals[kind] = totals.get(kind, 0) + count


def _is_between(hour: int, first: int, end: int | None) -> bool:
    return hour >= first and (end is None or hour < end)


def _subject(node: str, hour: int, part: int) -> str:
    return f"hours.{node}.{hour}.{part}" if part else f"hours.{node}.{hour}"


def _sum_of(parts: Sequence[bytes]) -> tuple[Ledger, tuple[bytes, ...]]:
    """Return the sum of an hour's parts, and the parts that can be read."""
    total, readable = Ledger(), []
    for part in parts:
        try:
            decoded = Ledger.decode(part)
        except ValueError as why:
            metrics.UNREADABLE.labels("hourly ledgers").inc()
            _log.error("hourly ledger cannot be read; its counts are missing", bytes=len(part), reason=str(why))
        else:
            readable.append(part)
            if len(parts) == 1:
                total = decoded
            else:
                total.merge(decoded)
    return total, tuple(readable)
