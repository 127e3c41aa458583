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
from itertools import pairwise
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

_BALANCES = (
    ("messages", {MESSAGES: 1, DECODED: -1, QUARANTINED: -1}),
    ("reprocessed messages", {REDECODED: 1, RECOVERED: -1, REREAD: -1, STILL_REFUSED: -1}),
    ("values", {VALUES: 1, ACCEPTED: -1, DUPLICATE: -1, SUPPRESSED: -1, REJECTED: -1, DOWNSAMPLED: -1}),
)
"""Balanced sums, with the sign of each kind up to its first dot."""
KINDS_MAX = 1_000
"""Most kinds of one ledger (a cell key has 10 bits for them); further removed fields are counted as `_OTHER`."""
_OTHER = f"{REMOVED}.other"
_DEVICE_BITS, _SOURCE_BITS, _KIND_BITS = 23, 10, 10
_SOURCE_SHIFT = _DEVICE_BITS
_KIND_SHIFT = _SOURCE_SHIFT + _SOURCE_BITS
_HOUR_SHIFT = _KIND_SHIFT + _KIND_BITS
_DEVICE_MASK, _SOURCE_MASK, _KIND_MASK = (1 << _DEVICE_BITS) - 1, (1 << _SOURCE_BITS) - 1, (1 << _KIND_BITS) - 1
_WITHOUT_KIND = ~(_KIND_MASK << _KIND_SHIFT)

HOURS = 1 << 20
"""Range of the hour in a cell key, in hours since 1970; hours beyond it are clamped."""
ENTRY_HOURS_MAX = 1_000
"""Most hours of a ledger on the log. A commit counts in one or two, a span of a node's backlog in a few hundred."""
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

    def __contains__(self, word: str) -> bool:
        if len(self._place) != len(self.words):
            # After `assign`: most ledgers are written or read without a look-up by name.
            self._place = {known: index for index, known in enumerate(self.words)}
        return word in self._place

    def __call__(self, word: str) -> int:
        place = self._place[word] if word in self else None
        if place is None:
            place = self._place[word] = len(self.words)
            self.words.append(word)
        return place

    def assign(self, words: Sequence[str]) -> None:
        """Number different strings in their order; the table must be empty."""
        self.words = list(words)

    def numbers_of(self, words: Sequence[str]) -> I64:
        """Return the numbers of several strings."""
        if not self.words and len(set(words)) == len(words):
            self.assign(words)
            return np.arange(len(words), dtype=np.int64)
        return np.array([self(word) for word in words], np.int64)


class _Kinds(_Table):
    """Table of kinds; it bounds the number of names of removed fields."""

    def __call__(self, word: str) -> int:
        if len(self.words) >= KINDS_MAX - 200 and word not in self and word.startswith(f"{REMOVED}."):
            word = _OTHER
        return super().__call__(word)


class Ledger:
    """Counts per (hour, device, source, kind)."""

    def __init__(self) -> None:
        self._devices, self._sources, self._kinds = _Table(), _Table(), _Kinds()
        self._place_by_device: dict[str, str] = {}
        self._place_column: tuple[list[str], I64] | None = None
        self._parts: list[tuple[I64, I64]] = []
        self._cell, self._count = np.empty(0, np.int64), np.empty(0, np.int64)

    @staticmethod
    def _key(hour: Any, kind: Any, source: Any, device: Any) -> Any:
        """Return the key of a cell: hour (20 bits and a sign), kind (10), source (10) and device (23) in an int64."""
        return hour << _HOUR_SHIFT | kind << _KIND_SHIFT | source << _SOURCE_SHIFT | device

    def add(self, hour: int, device: str, source: str, kind: str, count: int = 1) -> None:
        """Add to a count."""
        cell = self._key(_clamped_hour(hour), self._kinds(kind), self._sources(source), self._devices(device))
        self._parts.append((np.array([cell], np.int64), np.array([count], np.int64)))

    @classmethod
    def of_devices(cls, devices: Sequence[str], places: list[str], place: I64) -> Ledger:
        """Return an empty ledger of different devices, numbered in their order.

        `places`: different places (see `set_places`); `place`: index of the place of each device.
        """
        ledger = cls()
        ledger._devices.assign(devices)
        ledger._place_column = places, place
        return ledger

    def device_numbers(self, devices: Sequence[str]) -> I64:
        """Return the numbers of these devices, for `add_counts`."""
        return self._devices.numbers_of(devices)

    def set_places(self, devices: Sequence[str], places: Sequence[str]) -> None:
        """Set the places of devices: ``division`` or ``division/department``."""
        self._places().update(zip(devices, places, strict=True))

    def _places(self) -> dict[str, str]:
        """Return the place of each device by its id."""
        if self._place_column is not None:
            (places, place), self._place_column = self._place_column, None
            known = zip(self._devices.words, map(places.__getitem__, place.tolist()), strict=False)
            self._place_by_device = {device: word for device, word in known if word}
        return self._place_by_device

    def place_of(self, device: str) -> tuple[str, str]:
        """Return (division, department) of a device as last set; empty strings where it was not."""
        division, _, department = self._places().get(device, "").partition("/")
        return division, department

    def add_counts(self, hour: int, source: str, kind: str, devices: I64, counts: I64) -> None:
        """Add the counts of one kind for several devices (numbers of `device_numbers`); zeros are skipped."""
        nonzero = np.flatnonzero(counts)
        if len(nonzero):
            cell = self._key(_clamped_hour(hour), self._kinds(kind), self._sources(source), devices[nonzero])
            self._parts.append((cell, counts[nonzero].astype(np.int64)))

    def add_cells(self, hour: I64, source: I64, kind: I64, device: I64, count: I64) -> None:
        """Add columns of counts by number: `source_number`, `kind_number`; device as in `of_devices`."""
        self._parts.append((self._key(np.clip(hour, -HOURS, HOURS - 1), kind, source, device), count))

    def source_number(self, source: str) -> int:
        """Return the number of a source, for `add_cells`."""
        return self._sources(source)

    def kind_number(self, kind: str) -> int:
        """Return the number of a kind, for `add_cells`."""
        return self._kinds(kind)

    def _consolidate(self) -> tuple[I64, I64]:
        if self._parts:
            cells = np.concatenate([self._cell, *(cell for cell, _ in self._parts)])
            counts = np.concatenate([self._count, *(count for _, count in self._parts)])
            self._parts = []
            if bool((cells[1:] > cells[:-1]).all()):
                self._cell, self._count = cells, counts
                return cells, counts
            order = np.argsort(cells, kind="stable")
            cells, counts = cells[order], counts[order]
            first = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
            self._cell, self._count = cells[first], np.add.reduceat(counts, first)
        return self._cell, self._count

    def _columns(self) -> tuple[I64, I64, I64, I64, I64]:
        """Return (hour, kind, source, device, count)."""
        cell, count = self._consolidate()
        return (
            cell >> _HOUR_SHIFT,
            cell >> _KIND_SHIFT & _KIND_MASK,
            cell >> _SOURCE_SHIFT & _SOURCE_MASK,
            cell & _DEVICE_MASK,
            count,
        )

    def __len__(self) -> int:
        return len(self._consolidate()[0])

    def merge(self, other: Ledger) -> None:
        """Add the counts of another ledger."""
        hour, kind, source, device, count = other._columns()
        self._places().update(other._places())
        if not len(hour):
            return
        kinds = np.array([self._kinds(word) for word in other._kinds.words], np.int64)
        sources = np.array([self._sources(word) for word in other._sources.words], np.int64)
        devices = self._devices.numbers_of(other._devices.words)
        cell = self._key(hour, kinds[kind], sources[source], devices[device])
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
        places = self._places()
        part._place_by_device = {word: places[word] for word in words if word in places}
        inside = (device >= first) & (device < end)
        cell = self._key(hour, kind, source, device - first)
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
        copy._place_by_device = dict(self._places())
        return copy

    def names(self) -> tuple[list[str], list[str], list[str]]:
        """Return the names of devices, sources and kinds."""
        return self._devices.words, self._sources.words, self._kinds.words

    def retain_places(self, is_retained: Callable[[str], bool]) -> int:
        """Remove the places of devices whose division is not to be retained; return their number."""
        outside = [
            device for device, place in self._places().items() if place and not is_retained(place.partition("/")[0])
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

    def by_hour(self) -> dict[int, Ledger]:
        """Return hour -> ledger of its counts; this one, where it has a single hour."""
        hour, kind, source, device, count = self._columns()
        if not len(hour):
            return {}
        if hour[0] == hour[-1]:
            return {int(hour[0]): self}
        bounds = [0, *(np.flatnonzero(hour[1:] != hour[:-1]) + 1).tolist(), len(hour)]
        places = self._places()
        parts: dict[int, Ledger] = {}
        for first, end in pairwise(bounds):
            part = parts[int(hour[first])] = Ledger()
            kinds = _renumbered(part._kinds, self._kinds, kind[first:end])
            sources = _renumbered(part._sources, self._sources, source[first:end])
            devices = _renumbered(part._devices, self._devices, device[first:end])
            part._place_by_device = {word: places[word] for word in part._devices.words if word in places}
            part._parts.append((self._key(hour[first:end], kinds, sources, devices), count[first:end]))
        return parts

    def totals(self) -> dict[str, int]:
        """Return kind -> count over all hours, devices and sources."""
        cell, count = self._consolidate()
        sums = np.zeros(len(self._kinds.words), np.int64)
        np.add.at(sums, cell >> _KIND_SHIFT & _KIND_MASK, count)
        return {word: n for word, n in zip(self._kinds.words, sums.tolist(), strict=True) if n}

    def by_source(self) -> list[tuple[str, str, int]]:
        """Return (source, ``decoded`` or ``quarantined.<reason>``, messages) over all hours and devices."""
        if len(self._sources.words) == 1:
            source, totals = self._sources.words[0], self.totals()
            return [(source, word, n) for word, n in totals.items() if word.startswith((DECODED, QUARANTINED))]
        _, kind, number, _, count = self._columns()
        sums = np.zeros((len(self._sources.words), len(self._kinds.words)), np.int64)
        np.add.at(sums, (number, kind), count)
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
        cell, count = self._consolidate()
        if not len(cell):
            return
        # Rows of the same hour, source and device: the cell without its kind, or, where there is a single hour and
        # source, the device.
        group, groups = cell & _DEVICE_MASK, len(self._devices.words)
        if bool(((cell ^ cell[0]) & _WITHOUT_KIND > _DEVICE_MASK).any()):
            different, group = np.unique(cell & _WITHOUT_KIND, return_inverse=True)
            groups = len(different)
        kind = cell >> _KIND_SHIFT & _KIND_MASK
        families = [word.partition(".")[0] for word in self._kinds.words]
        for subject, signs in _BALANCES:
            if signs.keys().isdisjoint(families):
                continue
            sign = np.array([signs.get(family, 0) for family in families], np.int64)
            sums = np.zeros(groups, np.int64)
            np.add.at(sums, group, sign[kind] * count)
            if sums.any():
                place = int(np.flatnonzero(sums)[0])
                wrong = int(cell[np.flatnonzero(group == place)[0]])
                device = self._devices.words[wrong & _DEVICE_MASK]
                source = self._sources.words[wrong >> _SOURCE_SHIFT & _SOURCE_MASK]
                raise Unbalanced(
                    f"{subject} of device '{device}', source '{source}', hour {wrong >> _HOUR_SHIFT}:"
                    f" {int(sums[place]):+d} unaccounted for"
                )

    def encode(self) -> bytes:
        """Return the encoded ledger."""
        hour, kind, source, device, count = self._columns()
        places, place = self._packed_places()
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
            "place": pack(place),
        }
        return encode_map(tree)

    def _packed_places(self) -> tuple[list[str], I64]:
        """Return the sorted table of places, and the index of each device's place."""
        devices = self._devices.words
        if self._place_column is not None and len(self._place_column[1]) == len(devices):
            places, place = self._place_column
            table = sorted(set(places))
            return table, np.array([table.index(word) for word in places], np.int64)[place]
        known = self._places()
        where = [known.get(word, "") for word in devices]
        table = sorted(set(where))
        number = {word: at for at, word in enumerate(table)}
        return table, np.array([number[word] for word in where], np.int64)

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
            ledger._parts.append((cls._key(hour, kind, source, device), count))
        return ledger


def _renumbered(table: _Table, known: _Table, numbers: I64) -> I64:
    """Return numbers of one table as numbers of another, which takes the words."""
    used, place = np.unique(numbers, return_inverse=True)
    renumbered: I64 = table.numbers_of([known.words[at] for at in used.tolist()])[place]
    return renumbered


def _require_in_range(column: I64, end: int) -> None:
    if len(column) and not 0 <= int(column.min()) <= int(column.max()) < end:
        raise ValueError("a number is out of range")


def _clamped_hour(hour: int) -> int:
    return max(-HOURS, min(HOURS - 1, hour))
