"""Previous readings on the log, with which reprocessed readings are compared: equal, or a new revision.

Deduplication asks whether a reading was received before; reprocessing asks whether a message still gives the same
reading. A message is recognised by its bytes; for each identity (device, property, channel, key) the last reading that
each message gave is held. The same value again is `equal`; another value is a new revision, even where an older
revision had that value. So switching versions forth, back and forth again ends with the readings of the last one, and
an order that is run twice, or was killed and resumes, adds nothing.

Where a message gives several readings of an identity (elements without a time of their own), any of them is a match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np

from sensegate.bus.columns import Batch
from sensegate.errors import Overloaded
from sensegate.model import BOOL, I64, U8, U32, U64, Readings
from sensegate.persist.duplicates import DedupResult
from sensegate.persist.identity import (
    ACCEPTED,
    COUNTER_EPOCH_US,
    EQUAL,
    FRAME,
    FRAME_WINDOW_US,
    KIND_MASK,
    NONE,
    SEQUENCE,
    UNCHANGED,
    SpecColumns,
    hashes,
    value_bits,
)
from sensegate.persist.memtable import Memtable
from sensegate.persist.watermarks import SeriesNames
from sensegate.quantities.quality import Flag

VALUES_MAX = 3_000_000
"""Most readings of an order that are held in memory (50 bytes each)."""

_DIGEST = np.uint64(0xFFFF_FFFF_FFFF_0000)
_ARRIVAL = np.uint64(0xD6E8FEB86659FD93)
_EPOCH_US = {SEQUENCE: COUNTER_EPOCH_US, FRAME: FRAME_WINDOW_US}
_SUPPRESSED = -1
"""Revision number that stands for a suppressed reading."""


class _PreviousReading(msgspec.Struct, frozen=True, gc=False):
    """A previous reading of an identity."""

    bits: int
    digest: int
    """Digest of the message's bytes, high 48 bits."""
    time: int
    revision: int
    version: int


class PreviousReadings:
    """Previous readings of an order: `add` those of the log, then `finish_loading`, `add_live` and `judge`."""

    def __init__(self, is_selected: Callable[[str], bool], device_id: Callable[[int], str]) -> None:
        """`is_selected`: whether a device (by id) is one of the order's; `device_id`: registry index -> id."""
        self._is_selected = is_selected
        self._device_id = device_id
        self._names = SeriesNames()
        self._versions: dict[str, int] = {}
        self._memtable = Memtable()
        self._buffered: list[tuple[Batch, bool]] | None = []
        self._overload = ""
        """Reason why a reading that was committed meanwhile could not be added; empty: all were."""

    def __len__(self) -> int:
        """Return the number of readings held."""
        return self._memtable.count

    # ── loading ─────────────────────────────────────────────────────────────────────────────────────

    def add_live(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Add readings that are being committed; they are buffered until `finish_loading`.

        Where they are too many the order fails, not the commit: `judge` raises it then.
        """
        if self._overload:
            return
        if self._buffered is None:
            try:
                self.add(batch, suppressed=suppressed)
            except Overloaded as why:
                self._overload = str(why)
        else:
            wanted = np.array([self._is_selected(device) for device in batch.origins.device], np.bool_)
            if wanted.any():
                self._buffered.append((batch.take(wanted[batch.origin]), suppressed))

    def finish_loading(self) -> None:
        """Finish loading: the log was read up to where `add_live` began."""
        fed, self._buffered = self._buffered or [], None
        for batch, suppressed in fed:
            self.add(batch, suppressed=suppressed)

    def add(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Add readings of a log entry with its local columns; `suppressed`: they were suppressed.

        Raises:
            Overloaded: more than `VALUES_MAX` are held.
        """
        local = batch.local
        wanted = np.array([self._is_selected(device) for device in batch.origins.device], np.bool_)
        if local is None or not len(batch) or not wanted.any():
            return
        rows = np.flatnonzero(wanted[batch.origin])
        kinds = (local.identity & np.uint8(KIND_MASK))[rows]
        variables = batch.variables()
        code = (batch.origin[rows].astype(np.int64) * len(variables) + batch.property[rows]) * 16 + kinds
        different, place = np.unique(code, return_inverse=True)
        numbers = np.empty(len(different), np.uint32)
        for at, series_code in enumerate(different.tolist()):
            entry, variable = divmod(series_code >> 4, len(variables))
            numbers[at] = self._names.number(batch.origins.device[entry], variables[variable], series_code & 15)
        versions = np.array([self._version(name) for name in batch.origins.profile.tolist()], np.uint64)
        digest = local.digest[local.message[rows]]
        revision = np.full(len(rows), _SUPPRESSED, np.int32) if suppressed else batch.revision[rows].astype(np.int32)
        self._append(
            numbers[place],
            _keys(kinds, local.key[rows], digest, batch.received[rows]),
            bits=value_bits(batch.value, batch.text)[rows],
            prints=(digest & _DIGEST) | versions[batch.origin[rows]],
            time=batch.time[rows],
            revision=revision,
        )

    def _version(self, name: str) -> int:
        return self._versions.setdefault(name, len(self._versions) & 0xFFFF)

    def _append(self, number: U32, key: I64, *, bits: U64, prints: U64, time: I64, revision: np.ndarray) -> None:
        if self._memtable.count + len(number) > VALUES_MAX:
            raise Overloaded(
                f"more than {VALUES_MAX:,} readings of these devices in this period; select fewer devices or less time"
            )
        self._memtable.add(
            hashes(number, key), number, bits=bits, fingerprints=prints, time=time, bucket=revision.astype(np.int32)
        )

    # ── comparing ───────────────────────────────────────────────────────────────────────────────────

    def judge(self, readings: Readings, digest: U64, specs: SpecColumns) -> DedupResult:
        """Compare the readings of reprocessed messages with previous ones, and add them; `digest`: of each message.

        ACCEPTED: new or a revision. EQUAL: as before. UNCHANGED: it was suppressed before and remains so.

        Raises:
            Overloaded: more than `VALUES_MAX` are held.
        """
        if self._overload:
            raise Overloaded(self._overload)
        count = len(readings)
        kinds: U8 = specs.identity.take(readings.spec)
        kind, revision = np.full(count, EQUAL, np.uint8), np.zeros(count, np.uint8)
        flags = readings.flags.copy()
        if not count:
            return DedupResult(kind, revision, flags, kinds.copy())
        number = self._numbers_of(readings, kinds, specs)
        of_message = digest[readings.message]
        key = _keys(kinds, readings.key, of_message, readings.received // 1_000 * 1_000)
        hashed = hashes(number, key)
        bits = value_bits(readings.value, readings.text)
        version = np.array([self._version(name) for name in specs.profiles], np.uint64)[specs.profile[readings.spec]]
        prints = (of_message & _DIGEST) | version
        known = self._find(hashed, number)
        repeated = self._repeated_in_message(hashed, number, readings.message)
        for row, (identity, row_bits, row_print, time, row_kind) in enumerate(
            zip(
                zip(hashed.tolist(), number.tolist(), strict=True),
                bits.tolist(),
                prints.tolist(),
                readings.time.tolist(),
                kinds.tolist(),
                strict=True,
            )
        ):
            held = known.setdefault(identity, [])
            epoch_us = _EPOCH_US.get(row_kind, np.iinfo(np.int64).max)
            same_epoch = [earlier for earlier in held if abs(earlier.time - time) <= epoch_us]
            reading = _PreviousReading(row_bits, row_print >> 16, time, 0, row_print & 0xFFFF)
            kind[row] = _verdict(reading, same_epoch, several=repeated[row])
            if kind[row] == ACCEPTED:
                revision[row] = min(max((earlier.revision + 1 for earlier in same_epoch), default=0), 255)
                held.append(msgspec.structs.replace(reading, revision=int(revision[row])))
        kept = np.flatnonzero(kind == ACCEPTED)
        flags[kept] |= np.uint32(Flag.REDECODED)
        flags[kept[kinds[kept] == NONE]] |= np.uint32(Flag.UNIDENTIFIABLE)
        self._append(
            number[kept],
            key[kept],
            bits=bits[kept],
            prints=prints[kept],
            time=readings.time[kept],
            revision=revision[kept],
        )
        return DedupResult(kind, revision, flags, kinds.copy())

    def _numbers_of(self, readings: Readings, kinds: U8, specs: SpecColumns) -> U32:
        code = (readings.device.astype(np.int64) << 24 | specs.variable[readings.spec]) << 4 | kinds
        different, first, place = np.unique(code, return_index=True, return_inverse=True)
        numbers = [
            self._names.number(
                self._device_id(int(readings.device[row])), specs.variables[readings.spec[row]], int(kinds[row])
            )
            for row in first.tolist()
        ]
        return np.array(numbers, np.uint32)[place] if len(different) else np.zeros(0, np.uint32)

    def _find(self, hashed: U64, number: U32) -> dict[tuple[int, int], list[_PreviousReading]]:
        """Return the previous readings of each identity, in the order of the log."""
        identity, first = np.unique(np.stack([hashed, number.astype(np.uint64)]), axis=1, return_index=True)
        query, row = self._memtable.find_rows(hashed[first], number[first])
        order = np.argsort(row, kind="stable")
        query, row = query[order], row[order]
        kept, readings = self._memtable, dict[tuple[int, int], list[_PreviousReading]]()
        names = list(zip(*identity.tolist(), strict=True))
        columns = (kept.bits[row], kept.fingerprints[row], kept.time[row], kept.bucket[row])
        for at, bits, prints, time, revision in zip(
            query.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            prior = _PreviousReading(bits, prints >> 16, time, revision, prints & 0xFFFF)
            readings.setdefault(names[at], []).append(prior)
        return readings

    @staticmethod
    def _repeated_in_message(hashed: U64, number: U32, message: np.ndarray) -> BOOL:
        """Return which rows share their identity with another row of their message."""
        counts = Counter(zip(hashed.tolist(), number.tolist(), message.tolist(), strict=True))
        if len(counts) == len(hashed):
            return np.zeros(len(hashed), np.bool_)
        rows = zip(hashed.tolist(), number.tolist(), message.tolist(), strict=True)
        return np.array([counts[row] > 1 for row in rows], np.bool_)


def _keys(kinds: U8, key: I64, digest: U64, received: I64) -> I64:
    """Return the key of each reading; without an identity a hash of the message's bytes and arrival."""
    nameless = kinds == NONE
    if not nameless.any():
        return key
    made = key.copy()
    made[nameless] = ((digest[nameless] & _DIGEST) ^ (received[nameless].view(np.uint64) * _ARRIVAL)).view(np.int64)
    return made


def _verdict(reading: _PreviousReading, previous: list[_PreviousReading], *, several: bool) -> int:
    """Return the code of a reprocessed reading, given the previous ones of its identity in the order of the log."""
    accepted = [earlier for earlier in previous if earlier.revision != _SUPPRESSED]
    if not accepted:
        return UNCHANGED if previous else ACCEPTED
    same_message = [earlier for earlier in accepted if earlier.digest == reading.digest]
    if len({earlier.time for earlier in same_message}) > 1:
        same_message = [earlier for earlier in same_message if earlier.time == reading.time] or same_message
    # A version gives one reading of an identity, or several in succession.
    if several or any(first.version == second.version for first, second in pairwise(same_message)):
        return EQUAL if any(earlier.bits == reading.bits for earlier in same_message or accepted) else ACCEPTED
    if same_message:
        return EQUAL if same_message[-1].bits == reading.bits else ACCEPTED
    # The value was a duplicate of other messages' and was not stored for this one: compare with their last values.
    last_values = {earlier.digest: earlier.bits for earlier in accepted}
    return EQUAL if reading.bits in last_values.values() else ACCEPTED
