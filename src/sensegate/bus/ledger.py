"""The conservation ledger: counts of (hour, device, source, kind), which must balance.

messages = decoded + each quarantined; values = accepted + each duplicate + each suppressed + each rejected + thinned:
for every hour of arrival, device and source apart. `conflict`, `late`, `future` and `not_deduplicated` are parts of
`accepted`; `ignored` are values that mean nothing (sentinels). `forwarded`, `withheld.<reason>` and
`refused_by_centre.<reason>` are counted on the way to the centre: committed = their sum and what is still pending.

Messages decoded once more (`redecode`) came in before: redecoded = recovered + reread + still_refused; their values are
counted under the source ``redecode:<job>`` as any other, with `revised` and `added` as parts of `accepted`.

Form (MessagePack inside zstd, format 1): ``v``, ``rows``, tables ``devices``, ``sources``, ``kinds``, packed columns;
``places`` (a table) and ``place`` (device -> place) say where each device stood, for tiers where it is not registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.packing import FAULTS, Column, Oversized, Sealed, demand_held, pack, seal, unpack, unseal
from sensegate.errors import Unbalanced
from sensegate.model import I64

HOUR_US = 3_600_000_000
BYTES_MAX = 64 * 1024**2

MESSAGES = "messages"
DECODED = "decoded"
QUARANTINED = "quarantined"
VALUES = "values"
ACCEPTED = "accepted"
CONFLICT = "conflict"
LATE = "late"
FUTURE = "future"
NOT_DEDUPLICATED = "not_deduplicated"
IGNORED = "ignored"
DUPLICATE = "duplicate"
SUPPRESSED = "suppressed"
REJECTED = "rejected"
FORWARDED = "forwarded"
WITHHELD = "withheld"
REFUSED_BY_CENTRE = "refused_by_centre"
"""With a reason: rows that the centre did not take; they are in its quarantine and may be sent once more."""

REDECODED = "redecoded"
"""Messages that were on the log and were decoded once more: they came in before and are no `messages`."""
RECOVERED = "recovered"
"""Of these: they were in quarantine and gave readings now."""
REREAD = "reread"
"""Of these: they had given readings before."""
STILL_REFUSED = "still_refused"
"""Of these: they gave none now."""
THINNED = "thinned"
"""Observations that were left out: their tracks had said as much already (`video.thin`)."""
REMOVED = "removed"
"""``removed.<format>.<field>``: fields taken out of video metadata before it was written; no part of a balance."""
RETURNED = "returned"
"""Rows that came back from the centre; no part of a balance."""
MOVED_OUT = "moved_out"
"""``moved_out.<division>``: a device left for the gateway of another division; no part of a balance."""
MOVED_IN = "moved_in"
"""``moved_in.<division>``: a device came from there."""
MOVED_FORCED = "moved_forced"
"""``moved_forced.<division>``: it was taken from there by force: what tells its duplicates did not come along."""
REVISED = "revised"
"""Accepted values that take the place of another: revisions of it."""
ADDED = "added"
"""Accepted values of redecoded messages that were not there before."""

_SIGNS = {MESSAGES: 1, DECODED: -1, QUARANTINED: -1}
_AGAIN_SIGNS = {REDECODED: 1, RECOVERED: -1, REREAD: -1, STILL_REFUSED: -1}
_VALUE_SIGNS = {VALUES: 1, ACCEPTED: -1, DUPLICATE: -1, SUPPRESSED: -1, REJECTED: -1, THINNED: -1}
KINDS_MAX = 1_000
"""Kinds of one ledger (a cell has 10 bits for them); fields beyond it are counted as `_OTHER`."""
_OTHER = f"{REMOVED}.other"


HOURS = 1 << 20
"""Hours since 1970 of which a cell can tell; a clock that runs far ahead is counted under the last of them."""
_COUNT_MAX = 1 << 53
"""Of one cell: sums of many stay far from the end of 64 bits."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One count."""

    hour: int
    """Of the message's arrival, hours since 1970."""
    device: str
    """Device id; empty where it is not known."""
    source: str
    kind: str
    count: int


class _Tree(Sealed):
    rows: int
    devices: Annotated[list[str], msgspec.Meta(max_length=1 << 23)]
    sources: Annotated[list[str], msgspec.Meta(max_length=1 << 10)]
    kinds: Annotated[list[str], msgspec.Meta(max_length=1 << 10)]
    hour: Column
    kind: Column
    source: Column
    device: Column
    count: Column
    places: Annotated[list[str], msgspec.Meta(max_length=1 << 20)] = msgspec.field(default_factory=list)
    place: Column | None = None


_decoder = msgspec.msgpack.Decoder(_Tree)


class _Table:
    """Words numbered in order of appearance."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._place: dict[str, int] = {}

    def __call__(self, word: str) -> int:
        place = self._place.get(word)
        if place is None:
            place = self._place[word] = len(self.words)
            self.words.append(word)
        return place

    def many(self, words: Sequence[str]) -> I64:
        """Return the numbers of many words."""
        if not self.words and len(set(words)) == len(words):
            self.words = list(words)
            self._place = {word: index for index, word in enumerate(self.words)}
            return np.arange(len(words), dtype=np.int64)
        return np.array([self(word) for word in words], np.int64)


class _Kinds(_Table):
    """Kinds; the names of removed fields are the only ones that are many."""

    def __call__(self, word: str) -> int:
        if len(self.words) >= KINDS_MAX - 200 and word not in self._place and word.startswith(f"{REMOVED}."):
            word = _OTHER
        return super().__call__(word)


class Ledger:
    """Counts by (hour, device, source, kind)."""

    def __init__(self) -> None:
        self._devices, self._sources, self._kinds = _Table(), _Table(), _Kinds()
        self._where: dict[str, str] = {}
        self._parts: list[tuple[I64, I64]] = []
        self._cell, self._count = np.empty(0, np.int64), np.empty(0, np.int64)

    # A cell is one int64: hour (20 bits), kind (10), source (10), device (23).
    def _key(self, hour: Any, kind: int, source: int, device: Any) -> Any:
        return (((hour << 10 | kind) << 10 | source) << 23) | device

    def add(self, hour: int, device: str, source: str, kind: str, count: int = 1) -> None:
        """Count one thing."""
        cell = self._key(_counted_hour(hour), self._kinds(kind), self._sources(source), self._devices(device))
        self._parts.append((np.array([cell], np.int64), np.array([count], np.int64)))

    def places(self, devices: Sequence[str]) -> I64:
        """Return the numbers by which `add_counts` knows these devices."""
        return self._devices.many(devices)

    def locate(self, devices: Sequence[str], places: Sequence[str]) -> None:
        """Say where devices stand: ``division`` or ``division/department``."""
        self._where.update(zip(devices, places, strict=True))

    def place_of(self, device: str) -> tuple[str, str]:
        """Return (division, department) of a device as last told; empty where it was not."""
        division, _, department = self._where.get(device, "").partition("/")
        return division, department

    def add_counts(self, hour: int, source: str, kind: str, places: I64, counts: I64) -> None:
        """Count one kind for many devices (numbers of `places`), as one of bincount's answers; zeros are left out."""
        some = np.flatnonzero(counts)
        if len(some):
            cell = self._key(_counted_hour(hour), self._kinds(kind), self._sources(source), places[some])
            self._parts.append((cell, counts[some].astype(np.int64)))

    def _settle(self) -> tuple[I64, I64]:
        if self._parts:
            cells = np.concatenate([self._cell, *(cell for cell, _ in self._parts)])
            counts = np.concatenate([self._count, *(count for _, count in self._parts)])
            self._parts = []
            order = np.argsort(cells, kind="stable")
            cells, counts = cells[order], counts[order]
            first = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
            self._cell, self._count = cells[first], np.add.reduceat(counts, first)
        return self._cell, self._count

    def _columns(self) -> tuple[I64, I64, I64, I64, I64]:
        """Return (hour, kind, source, device, count)."""
        cell, count = self._settle()
        return cell >> 43, cell >> 33 & 1023, cell >> 23 & 1023, cell & ((1 << 23) - 1), count

    def __len__(self) -> int:
        return len(self._settle()[0])

    def merge(self, other: Ledger) -> None:
        """Add the counts of another ledger."""
        hour, kind, source, device, count = other._columns()
        self._where.update(other._where)
        if not len(hour):
            return
        kinds = np.array([self._kinds(word) for word in other._kinds.words], np.int64)
        sources = np.array([self._sources(word) for word in other._sources.words], np.int64)
        devices = self._devices.many(other._devices.words)
        cell = (((hour << 10 | kinds[kind]) << 10 | sources[source]) << 23) | devices[device]
        self._parts.append((cell, count))
        if len(self._parts) > 64:
            self._settle()

    def halves(self) -> tuple[Ledger, Ledger]:
        """Return the counts of the first half of the devices, and those of the others."""
        most = len(self._devices.words)
        return self._of_devices(0, most // 2), self._of_devices(most // 2, most)

    def _of_devices(self, first: int, end: int) -> Ledger:
        hour, kind, source, device, count = self._columns()
        part: Ledger = Ledger()
        words = self._devices.words[first:end]
        for table, known in ((part._devices, words), (part._sources, self._sources.words)):
            table.many(known)
        part._kinds.many(self._kinds.words)
        part._where = {word: self._where[word] for word in words if word in self._where}
        inside = (device >= first) & (device < end)
        cell = (((hour << 10 | kind) << 10 | source) << 23) | (device - first)
        part._parts.append((cell[inside], count[inside]))
        return part

    def encoded(self, bytes_max: int) -> Iterator[bytes]:
        """Yield the ledger as members of at most `bytes_max` bytes, one as a rule: whoever reads them adds them up."""
        payload = self.encode()
        if len(payload) <= bytes_max or len(self._devices.words) < 2:
            yield payload
            return
        for half in self.halves():
            yield from half.encoded(bytes_max)

    def rows(self) -> Iterator[Row]:
        """Yield every count, in the order of hour, kind, source, device."""
        hour, kind, source, device, count = self._columns()
        kinds, sources, devices = self._kinds.words, self._sources.words, self._devices.words
        columns = (column.tolist() for column in (hour, kind, source, device, count))
        for h, k, s, d, n in zip(*columns, strict=True):
            yield Row(h, devices[d], sources[s], kinds[k], n)

    def words(self) -> tuple[list[str], list[str], list[str]]:
        """Return the names of devices, sources and kinds."""
        return self._devices.words, self._sources.words, self._kinds.words

    def keep_places(self, is_kept: Callable[[str], bool]) -> int:
        """Forget where devices stand whose division is not kept; return how many: their counts are the node's alone."""
        outside = [device for device, place in self._where.items() if place and not is_kept(place.partition("/")[0])]
        for device in outside:
            del self._where[device]
        return len(outside)

    def extremes(self) -> tuple[list[str], int]:
        """Return the kinds of which a count is negative, and the greatest count of one cell."""
        _, kind, _, _, count = self._columns()
        negative = np.unique(kind[count < 0]).tolist()
        return [self._kinds.words[at] for at in negative], int(np.abs(count).max()) if len(count) else 0

    def hours(self) -> list[int]:
        """Return the hours of which there is a count, rising."""
        hours: list[int] = np.unique(self._columns()[0]).tolist()
        return hours

    def totals(self) -> dict[str, int]:
        """Return kind -> count over all hours, devices and sources."""
        _, kind, _, _, count = self._columns()
        if not len(kind):
            return {}
        sums = np.zeros(len(self._kinds.words), np.int64)
        np.add.at(sums, kind, count)
        return {word: n for word, n in zip(self._kinds.words, sums.tolist(), strict=True) if n}

    def by_source(self) -> list[tuple[str, str, int]]:
        """Return (source, ``decoded`` or ``quarantined.<reason>``, messages) over all hours and devices."""
        _, kind, source, _, count = self._columns()
        sums = np.zeros((len(self._sources.words), len(self._kinds.words)), np.int64)
        np.add.at(sums, (source, kind), count)
        wanted = [(at, word) for at, word in enumerate(self._kinds.words) if word.startswith((DECODED, QUARANTINED))]
        return [
            (name, word, int(sums[row, at]))
            for row, name in enumerate(self._sources.words)
            for at, word in wanted
            if sums[row, at]
        ]

    def check(self) -> None:
        """Return if the counts balance for each hour, source and device.

        Raises:
            Unbalanced: naming the first hour, device and source that does not.
        """
        hour, kind, source, device, count = self._columns()
        if not len(hour):
            return
        group = (hour << 33) | (source << 23) | device
        order = np.argsort(group, kind="stable")
        grouped = group[order]
        first = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
        for signs, what in ((_SIGNS, "messages"), (_AGAIN_SIGNS, "messages decoded again"), (_VALUE_SIGNS, "values")):
            sign = np.array([signs.get(word.partition(".")[0], 0) for word in self._kinds.words], np.int64)
            sums = np.add.reduceat((sign[kind] * count)[order], first)
            if wrong := np.flatnonzero(sums).tolist():
                row = order[first[wrong[0]]]
                place = f"device '{self._devices.words[device[row]]}', source '{self._sources.words[source[row]]}'"
                raise Unbalanced(f"{what} of {place}, hour {hour[row]}: {sums[wrong[0]]:+d} unaccounted for")

    def encode(self) -> bytes:
        """Return the ledger as one member of the log."""
        hour, kind, source, device, count = self._columns()
        where = [self._where.get(word, "") for word in self._devices.words]
        places = sorted(set(where))
        number = {word: at for at, word in enumerate(places)}
        tree = {
            "rows": len(hour),
            "devices": self._devices.words,
            "sources": self._sources.words,
            "kinds": self._kinds.words,
            "hour": pack(hour),
            "kind": pack(kind),
            "source": pack(source),
            "device": pack(device),
            "count": pack(count, delta=False),
            "places": places,
            "place": pack(np.array([number[word] for word in where], np.int64)),
        }
        return seal(tree)

    @classmethod
    def decode(cls, payload: bytes, *, bytes_max: int = BYTES_MAX) -> Ledger:
        """Return the ledger of a member of the log.

        Raises:
            ValueError: if it is not a ledger of a format known here, or larger than `bytes_max` when decompressed.
        """
        tree = unseal(payload, _decoder, limit=bytes_max, what="ledger")
        try:
            return cls._of(tree)
        except Oversized:
            raise
        except (*FAULTS, ValueError) as why:
            raise ValueError(f"ledger: {type(why).__name__}: {why}") from why

    @classmethod
    def _of(cls, tree: _Tree) -> Ledger:
        ledger, rows = cls(), tree.rows
        demand_held(rows, tree.hour, tree.kind, tree.source, tree.device, tree.count)
        for table, words in ((ledger._devices, tree.devices), (ledger._sources, tree.sources)):
            table.many(words)
        ledger._kinds.many(tree.kinds)
        if tree.place is not None:
            place = unpack(tree.place, len(tree.devices))
            _demand_within(place, len(tree.places))
            ledger.locate(tree.devices, [tree.places[at] for at in place.tolist()])
        hour, kind, source, device, count = (
            unpack(column, rows) for column in (tree.hour, tree.kind, tree.source, tree.device, tree.count)
        )
        for column, words in ((kind, tree.kinds), (source, tree.sources), (device, tree.devices)):
            _demand_within(column, len(words))
        _demand_within(hour + HOURS, 2 * HOURS)
        _demand_within(count + _COUNT_MAX, 2 * _COUNT_MAX)
        if rows:
            ledger._parts.append(((((hour << 10 | kind) << 10 | source) << 23) | device, count))
        return ledger


def _demand_within(column: I64, end: int) -> None:
    if len(column) and not 0 <= int(column.min()) <= int(column.max()) < end:
        raise ValueError("a number that is out of range")


def _counted_hour(hour: int) -> int:
    return max(-HOURS, min(HOURS - 1, hour))
