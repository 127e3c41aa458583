"""Conservation ledger: counts per (hour, device, source, kind), which must balance.

For each hour of arrival, device and source: messages = decoded + quarantined.*; values = accepted + duplicate.* +
suppressed.* + rejected.* + downsampled. `conflict`, `late`, `future`, `not_deduplicated` and `redelivered` (the device
sent the message again and nothing identifies the value) are parts of `accepted`; `ignored` counts values without
meaning (sentinels). `forwarded`, `withheld.<reason>` and `refused_by_centre.<reason>` are counted on the way to the
centre: committed = their sum and what is still pending.

Redecoded messages came in before: redecoded = recovered + reread + still_refused; their values are counted under
the source ``redecode:<order>`` as any other, with `revised` and `added` as parts of `accepted`.

Encoding (MessagePack inside zstd, format 1): ``v``, ``rows``, tables ``devices``, ``sources``, ``kinds``, packed
columns; ``places`` (a table) and ``place`` (device -> place) name the division and department of each device, for tiers
where it is not registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.packing import (
    CONTENT_ERRORS,
    Column,
    Oversized,
    VersionedMap,
    decode_map,
    encode_map,
    pack,
    require_backing_bytes,
    unpack,
)
from sensegate.errors import Unbalanced
from sensegate.model import I64

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
REDELIVERED = "redelivered"
IGNORED = "ignored"
DUPLICATE = "duplicate"
SUPPRESSED = "suppressed"
REJECTED = "rejected"
FORWARDED = "forwarded"
WITHHELD = "withheld"
REFUSED_BY_CENTRE = "refused_by_centre"
"""``refused_by_centre.<reason>``: rows that the centre refused; they are in its quarantine and may be sent again."""

REDECODED = "redecoded"
"""Recorded messages that were decoded again; they are not counted as `messages`, since they came in before."""
RECOVERED = "recovered"
"""Reprocessed messages that were in quarantine and now gave readings."""
REREAD = "reread"
"""Reprocessed messages that had given readings before."""
STILL_REFUSED = "still_refused"
"""Reprocessed messages that gave no readings now."""
DOWNSAMPLED = "downsampled"
"""Observations left out because their tracks already had similar ones (`video.downsampling`)."""
REMOVED = "removed"
"""``removed.<format>.<field>``: fields removed from video metadata before it was written; not part of a balance."""
RETURNED = "returned"
"""Rows that came back from the centre; not part of a balance."""
MOVED_OUT = "moved_out"
"""``moved_out.<division>``: devices that moved to the gateway of a division; not part of a balance."""
MOVED_IN = "moved_in"
"""``moved_in.<division>``: devices that moved here from the gateway of a division."""
MOVED_FORCED = "moved_forced"
"""``moved_forced.<division>``: devices moved here by force, without their part of the dedup index."""
REVISED = "revised"
"""Accepted values that replace another: revisions of it."""
EQUAL = "equal"
"""Values of reprocessed messages that are as before: neither values nor duplicates of traffic."""
ADDED = "added"
"""Accepted values of reprocessed messages that had no earlier revision."""

_SIGNS = {MESSAGES: 1, DECODED: -1, QUARANTINED: -1}
_REPROCESSED_SIGNS = {REDECODED: 1, RECOVERED: -1, REREAD: -1, STILL_REFUSED: -1}
_VALUE_SIGNS = {VALUES: 1, ACCEPTED: -1, DUPLICATE: -1, SUPPRESSED: -1, REJECTED: -1, DOWNSAMPLED: -1}
KINDS_MAX = 1_000
"""Most kinds of one ledger (a cell key has 10 bits for them); further removed fields are counted as `_OTHER`."""
_OTHER = f"{REMOVED}.other"


HOURS = 1 << 20
"""Range of the hour in a cell key, in hours since 1970; hours beyond it are clamped."""
_COUNT_MAX = 1 << 53
"""Greatest count of a cell: sums of many cells stay within 64 bits."""


class LedgerCount(msgspec.Struct, frozen=True, gc=False):
    """A count of the ledger."""

    hour: int
    """Hour of the message's arrival, in hours since 1970."""
    device: str
    """Device id; empty where it is unknown."""
    source: str
    kind: str
    count: int


class _Tree(VersionedMap):
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
    """Strings numbered in order of appearance."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._place: dict[str, int] = {}

    def __call__(self, word: str) -> int:
        place = self._place.get(word)
        if place is None:
            place = self._place[word] = len(self.words)
            self.words.append(word)
        return place

    def numbers_of(self, words: Sequence[str]) -> I64:
        """Return the numbers of several strings."""
        if not self.words and len(set(words)) == len(words):
            self.words = list(words)
            self._place = {word: index for index, word in enumerate(self.words)}
            return np.arange(len(words), dtype=np.int64)
        return np.array([self(word) for word in words], np.int64)


class _Kinds(_Table):
    """Table of kinds; it bounds the number of names of removed fields."""

    def __call__(self, word: str) -> int:
        if len(self.words) >= KINDS_MAX - 200 and word not in self._place and word.startswith(f"{REMOVED}."):
            word = _OTHER
        return super().__call__(word)


class Ledger:
    """Counts per (hour, device, source, kind)."""

    def __init__(self) -> None:
        self._devices, self._sources, self._kinds = _Table(), _Table(), _Kinds()
        self._place_by_device: dict[str, str] = {}
        self._parts: list[tuple[I64, I64]] = []
        self._cell, self._count = np.empty(0, np.int64), np.empty(0, np.int64)

    # A cell is one int64: hour (20 bits), kind (10), source (10), device (23).
    def _key(self, hour: Any, kind: int, source: int, device: Any) -> Any:
        return (((hour << 10 | kind) << 10 | source) << 23) | device

    def add(self, hour: int, device: str, source: str, kind: str, count: int = 1) -> None:
        """Add to a count."""
        cell = self._key(_clamped_hour(hour), self._kinds(kind), self._sources(source), self._devices(device))
        self._parts.append((np.array([cell], np.int64), np.array([count], np.int64)))

    def device_numbers(self, devices: Sequence[str]) -> I64:
        """Return the numbers of these devices, for `add_counts`."""
        return self._devices.numbers_of(devices)

    def set_places(self, devices: Sequence[str], places: Sequence[str]) -> None:
        """Set the places of devices: ``division`` or ``division/department``."""
        self._place_by_device.update(zip(devices, places, strict=True))

    def place_of(self, device: str) -> tuple[str, str]:
        """Return (division, department) of a device as last set; empty strings where it was not."""
        division, _, department = self._place_by_device.get(device, "").partition("/")
        return division, department

    def add_counts(self, hour: int, source: str, kind: str, devices: I64, counts: I64) -> None:
        """Add the counts of one kind for several devices (numbers of `device_numbers`); zeros are skipped."""
        nonzero = np.flatnonzero(counts)
        if len(nonzero):
            cell = self._key(_clamped_hour(hour), self._kinds(kind), self._sources(source), devices[nonzero])
            self._parts.append((cell, counts[nonzero].astype(np.int64)))

    def _consolidate(self) -> tuple[I64, I64]:
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
        cell, count = self._consolidate()
        return cell >> 43, cell >> 33 & 1023, cell >> 23 & 1023, cell & ((1 << 23) - 1), count

    def __len__(self) -> int:
        return len(self._consolidate()[0])

    def merge(self, other: Ledger) -> None:
        """Add the counts of another ledger."""
        hour, kind, source, device, count = other._columns()
        self._place_by_device.update(other._place_by_device)
        if not len(hour):
            return
        kinds = np.array([self._kinds(word) for word in other._kinds.words], np.int64)
        sources = np.array([self._sources(word) for word in other._sources.words], np.int64)
        devices = self._devices.numbers_of(other._devices.words)
        cell = (((hour << 10 | kinds[kind]) << 10 | sources[source]) << 23) | devices[device]
        self._parts.append((cell, count))
        if len(self._parts) > 64:
            self._consolidate()

    def split(self) -> tuple[Ledger, Ledger]:
        """Return two ledgers: the counts of the first half of the devices, and of the other half."""
        most = len(self._devices.words)
        return self._of_devices(0, most // 2), self._of_devices(most // 2, most)

    def _of_devices(self, first: int, end: int) -> Ledger:
        hour, kind, source, device, count = self._columns()
        part: Ledger = Ledger()
        words = self._devices.words[first:end]
        for table, known in ((part._devices, words), (part._sources, self._sources.words)):
            table.numbers_of(known)
        part._kinds.numbers_of(self._kinds.words)
        part._place_by_device = {word: self._place_by_device[word] for word in words if word in self._place_by_device}
        inside = (device >= first) & (device < end)
        cell = (((hour << 10 | kind) << 10 | source) << 23) | (device - first)
        part._parts.append((cell[inside], count[inside]))
        return part

    def encode_parts(self, bytes_max: int) -> Iterator[bytes]:
        """Yield the encoded ledger in parts of at most `bytes_max` bytes, usually one; readers merge them."""
        payload = self.encode()
        if len(payload) <= bytes_max or len(self._devices.words) < 2:
            yield payload
            return
        for half in self.split():
            yield from half.encode_parts(bytes_max)

    def rows(self) -> Iterator[LedgerCount]:
        """Yield every count, in the order of hour, kind, source, device."""
        hour, kind, source, device, count = self._columns()
        kinds, sources, devices = self._kinds.words, self._sources.words, self._devices.words
        columns = (column.tolist() for column in (hour, kind, source, device, count))
        for h, k, s, d, n in zip(*columns, strict=True):
            yield LedgerCount(h, devices[d], sources[s], kinds[k], n)

    def cells(self) -> tuple[I64, I64, I64]:
        """Return columns of (number of the kind, number of the device, count), which lead into `names`."""
        _, kind, _, device, count = self._columns()
        return kind, device, count

    def snapshot(self) -> Ledger:
        """Return a copy that later changes leave alone."""
        copy = Ledger()
        copy._cell, copy._count = self._consolidate()
        for table, known in (
            (copy._devices, self._devices),
            (copy._sources, self._sources),
            (copy._kinds, self._kinds),
        ):
            table.numbers_of(known.words)
        copy._place_by_device = dict(self._place_by_device)
        return copy

    def names(self) -> tuple[list[str], list[str], list[str]]:
        """Return the names of devices, sources and kinds."""
        return self._devices.words, self._sources.words, self._kinds.words

    def retain_places(self, is_retained: Callable[[str], bool]) -> int:
        """Remove the places of devices whose division is not to be retained; return their number."""
        outside = [
            device
            for device, place in self._place_by_device.items()
            if place and not is_retained(place.partition("/")[0])
        ]
        for device in outside:
            del self._place_by_device[device]
        return len(outside)

    def extremes(self) -> tuple[list[str], int]:
        """Return the kinds that have a negative count, and the greatest absolute count of a cell."""
        _, kind, _, _, count = self._columns()
        negative = np.unique(kind[count < 0]).tolist()
        return [self._kinds.words[at] for at in negative], int(np.abs(count).max()) if len(count) else 0

    def hours(self) -> list[int]:
        """Return the hours that have a count, in ascending order."""
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
            Unbalanced: they do not; names the first hour, device and source.
        """
        hour, kind, source, device, count = self._columns()
        if not len(hour):
            return
        group = (hour << 33) | (source << 23) | device
        order = np.argsort(group, kind="stable")
        grouped = group[order]
        first = np.flatnonzero(np.concatenate([[True], grouped[1:] != grouped[:-1]]))
        for signs, subject in (
            (_SIGNS, "messages"),
            (_REPROCESSED_SIGNS, "reprocessed messages"),
            (_VALUE_SIGNS, "values"),
        ):
            sign = np.array([signs.get(word.partition(".")[0], 0) for word in self._kinds.words], np.int64)
            sums = np.add.reduceat((sign[kind] * count)[order], first)
            if wrong := np.flatnonzero(sums).tolist():
                row = order[first[wrong[0]]]
                place = f"device '{self._devices.words[device[row]]}', source '{self._sources.words[source[row]]}'"
                raise Unbalanced(f"{subject} of {place}, hour {hour[row]}: {sums[wrong[0]]:+d} unaccounted for")

    def encode(self) -> bytes:
        """Return the encoded ledger."""
        hour, kind, source, device, count = self._columns()
        where = [self._place_by_device.get(word, "") for word in self._devices.words]
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
        return encode_map(tree)

    @classmethod
    def decode(cls, payload: bytes, *, bytes_max: int = BYTES_MAX) -> Ledger:
        """Return the ledger of an encoded one.

        Raises:
            ValueError: it is not a ledger of a known format, or larger than `bytes_max` when decompressed.
        """
        tree = decode_map(payload, _decoder, limit=bytes_max, subject="ledger")
        try:
            return cls._of(tree)
        except Oversized:
            raise
        except (*CONTENT_ERRORS, ValueError) as why:
            raise ValueError(f"ledger: {type(why).__name__}: {why}") from why

    @classmethod
    def _of(cls, tree: _Tree) -> Ledger:
        ledger, rows = cls(), tree.rows
        require_backing_bytes(rows, tree.hour, tree.kind, tree.source, tree.device, tree.count)
        for table, words in ((ledger._devices, tree.devices), (ledger._sources, tree.sources)):
            table.numbers_of(words)
        ledger._kinds.numbers_of(tree.kinds)
        if tree.place is not None:
            place = unpack(tree.place, len(tree.devices))
            _require_in_range(place, len(tree.places))
            ledger.set_places(tree.devices, [tree.places[at] for at in place.tolist()])
        hour, kind, source, device, count = (
            unpack(column, rows) for column in (tree.hour, tree.kind, tree.source, tree.device, tree.count)
        )
        for column, words in ((kind, tree.kinds), (source, tree.sources), (device, tree.devices)):
            _require_in_range(column, len(words))
        _require_in_range(hour + HOURS, 2 * HOURS)
        _require_in_range(count + _COUNT_MAX, 2 * _COUNT_MAX)
        if rows:
            ledger._parts.append(((((hour << 10 | kind) << 10 | source) << 23) | device, count))
        return ledger


def _require_in_range(column: I64, end: int) -> None:
    if len(column) and not 0 <= int(column.min()) <= int(column.max()) < end:
        raise ValueError("a number is out of range")


def _clamped_hour(hour: int) -> int:
    return max(-HOURS, min(HOURS - 1, hour))
