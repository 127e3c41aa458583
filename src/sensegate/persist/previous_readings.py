"""What the log holds already of the readings that are decoded once more: which are equal, which are revised.

Duplicates ask "was this said before?"; a redecode asks "is this still what that message says?". A message is known by
its bytes; of each identity (device, property, channel, key) the last thing that each message said is kept. Said again
it is `equal`; said otherwise it is a new revision, even where an older revision said the same. So going forward, back
and forward again ends with what the last version says, and a job that is run twice, or that was killed and goes on,
adds nothing.

Where one message says several things of one identity (elements without a time of their own), any of them stands.
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
from sensegate.persist.duplicates import Judgement
from sensegate.persist.identity import (
    ACCEPTED,
    EQUAL,
    FRAME,
    FRAME_US,
    KIND_MASK,
    LIFE_US,
    NONE,
    SEQUENCE,
    UNCHANGED,
    SpecColumns,
    bits_of,
    hashes,
)
from sensegate.persist.memtable import Recent
from sensegate.persist.watermarks import Names
from sensegate.quantities.quality import Flag

VALUES_MAX = 3_000_000
"""Most readings of one job that are held in memory (50 bytes each)."""

_DIGEST = np.uint64(0xFFFF_FFFF_FFFF_0000)
_ARRIVAL = np.uint64(0xD6E8FEB86659FD93)
_LIFE = {SEQUENCE: LIFE_US, FRAME: FRAME_US}
_SUPPRESSED = -1
"""Revision of what was seen and suppressed."""


class _Prior(msgspec.Struct, frozen=True, gc=False):
    """A reading that was kept of an identity."""

    bits: int
    digest: int
    """Of the message's bytes, high 48 bits."""
    time: int
    revision: int
    version: int


class Priors:
    """Of one job. `take` what the log says in its order, then `begun`; from then on `feed` and `judge` keep it true."""

    def __init__(self, wanted: Callable[[str], bool], device_id: Callable[[int], str]) -> None:
        """`wanted`: whether a device (by id) is one of the job's; `device_id`: registry index -> id."""
        self._wanted = wanted
        self._device_id = device_id
        self._names = Names()
        self._versions: dict[str, int] = {}
        self._kept = Recent()
        self._fed: list[tuple[Batch, bool]] | None = []

    def __len__(self) -> int:
        """Return how many readings are held."""
        return self._kept.count

    # ── what the log says ───────────────────────────────────────────────────────────────────────────

    def feed(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Take what is being committed now; until `begun` it waits behind what the log says. Raises as `take`."""
        if self._fed is None:
            self.take(batch, suppressed=suppressed)
        else:
            wanted = np.array([self._wanted(device) for device in batch.origins.device], np.bool_)
            if wanted.any():
                self._fed.append((batch.take(wanted[batch.origin]), suppressed))

    def begun(self) -> None:
        """Say that the log was read up to where `feed` began."""
        fed, self._fed = self._fed or [], None
        for batch, suppressed in fed:
            self.take(batch, suppressed=suppressed)

    def take(self, batch: Batch, *, suppressed: bool = False) -> None:
        """Take readings of one member of the log, with its local columns; `suppressed`: seen and not kept.

        Raises:
            Overloaded: more than `VALUES_MAX` are held.
        """
        local = batch.local
        wanted = np.array([self._wanted(device) for device in batch.origins.device], np.bool_)
        if local is None or not len(batch) or not wanted.any():
            return
        rows = np.flatnonzero(wanted[batch.origin])
        kinds = (local.identity & np.uint8(KIND_MASK))[rows]
        variables = batch.variables()
        code = (batch.origin[rows].astype(np.int64) * len(variables) + batch.property[rows]) * 16 + kinds
        different, place = np.unique(code, return_inverse=True)
        numbers = np.empty(len(different), np.uint32)
        for at, one in enumerate(different.tolist()):
            entry, variable = divmod(one >> 4, len(variables))
            numbers[at] = self._names.number(batch.origins.device[entry], variables[variable], one & 15)
        versions = np.array([self._version(name) for name in batch.origins.profile.tolist()], np.uint64)
        digest = local.digest[local.message[rows]]
        revision = np.full(len(rows), _SUPPRESSED, np.int32) if suppressed else batch.revision[rows].astype(np.int32)
        self._add(
            numbers[place],
            _keys(kinds, local.key[rows], digest, batch.received[rows]),
            bits=bits_of(batch.value, batch.text)[rows],
            prints=(digest & _DIGEST) | versions[batch.origin[rows]],
            time=batch.time[rows],
            revision=revision,
        )

    def _version(self, name: str) -> int:
        return self._versions.setdefault(name, len(self._versions) & 0xFFFF)

    def _add(self, number: U32, key: I64, *, bits: U64, prints: U64, time: I64, revision: np.ndarray) -> None:
        if self._kept.count + len(number) > VALUES_MAX:
            raise Overloaded(f"more than {VALUES_MAX:,} readings of these devices in the time; narrow either")
        self._kept.add(
            hashes(number, key), number, bits=bits, prints=prints, time=time, bucket=revision.astype(np.int32)
        )

    # ── judging ─────────────────────────────────────────────────────────────────────────────────────

    def judge(self, readings: Readings, digest: U64, specs: SpecColumns) -> Judgement:
        """Return the verdict on each reading of messages decoded once more, and remember it; `digest` is per message.

        ACCEPTED is new or a revision, EQUAL what it was, UNCHANGED what was suppressed before and stays so.
        """
        count = len(readings)
        kinds: U8 = specs.identity.take(readings.spec)
        kind, revision = np.full(count, EQUAL, np.uint8), np.zeros(count, np.uint8)
        flags = readings.flags.copy()
        if not count:
            return Judgement(kind, revision, flags, kinds.copy())
        number = self._numbers_of(readings, kinds, specs)
        of_message = digest[readings.message]
        key = _keys(kinds, readings.key, of_message, readings.received // 1_000 * 1_000)
        hashed = hashes(number, key)
        bits = bits_of(readings.value, readings.text)
        version = np.array([self._version(name) for name in specs.profiles], np.uint64)[specs.profile[readings.spec]]
        prints = (of_message & _DIGEST) | version
        known = self._found(hashed, number)
        several = self._several(hashed, number, readings.message)
        for row, (which, one_bits, one_print, time, one_kind) in enumerate(
            zip(
                zip(hashed.tolist(), number.tolist(), strict=True),
                bits.tolist(),
                prints.tolist(),
                readings.time.tolist(),
                kinds.tolist(),
                strict=True,
            )
        ):
            priors = known.setdefault(which, [])
            near = [one for one in priors if abs(one.time - time) <= _LIFE.get(one_kind, np.iinfo(np.int64).max)]
            this = _Prior(one_bits, one_print >> 16, time, 0, one_print & 0xFFFF)
            kind[row] = _verdict(this, near, several=several[row])
            if kind[row] == ACCEPTED:
                revision[row] = min(max((one.revision + 1 for one in near), default=0), 255)
                priors.append(msgspec.structs.replace(this, revision=int(revision[row])))
        kept = np.flatnonzero(kind == ACCEPTED)
        flags[kept] |= np.uint32(Flag.REDECODED)
        flags[kept[kinds[kept] == NONE]] |= np.uint32(Flag.UNIDENTIFIABLE)
        self._add(
            number[kept],
            key[kept],
            bits=bits[kept],
            prints=prints[kept],
            time=readings.time[kept],
            revision=revision[kept],
        )
        return Judgement(kind, revision, flags, kinds.copy())

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

    def _found(self, hashed: U64, number: U32) -> dict[tuple[int, int], list[_Prior]]:
        """Return the kept readings of each identity that is asked for, in the order of the log."""
        identity, first = np.unique(np.stack([hashed, number.astype(np.uint64)]), axis=1, return_index=True)
        query, row = self._kept.where(hashed[first], number[first])
        order = np.argsort(row, kind="stable")
        query, row = query[order], row[order]
        kept, found = self._kept, dict[tuple[int, int], list[_Prior]]()
        names = list(zip(*identity.tolist(), strict=True))
        columns = (kept.bits[row], kept.prints[row], kept.time[row], kept.bucket[row])
        for at, bits, prints, time, revision in zip(
            query.tolist(), *(column.tolist() for column in columns), strict=True
        ):
            prior = _Prior(bits, prints >> 16, time, revision, prints & 0xFFFF)
            found.setdefault(names[at], []).append(prior)
        return found

    @staticmethod
    def _several(hashed: U64, number: U32, message: np.ndarray) -> BOOL:
        """Return which rows share their identity with another of their message."""
        counts = Counter(zip(hashed.tolist(), number.tolist(), message.tolist(), strict=True))
        if len(counts) == len(hashed):
            return np.zeros(len(hashed), np.bool_)
        rows = zip(hashed.tolist(), number.tolist(), message.tolist(), strict=True)
        return np.array([counts[row] > 1 for row in rows], np.bool_)


def _keys(kinds: U8, key: I64, digest: U64, received: I64) -> I64:
    """Return what identifies each reading; where nothing does, the stored message itself: its bytes and arrival."""
    nameless = kinds == NONE
    if not nameless.any():
        return key
    made = key.copy()
    made[nameless] = ((digest[nameless] & _DIGEST) ^ (received[nameless].view(np.uint64) * _ARRIVAL)).view(np.int64)
    return made


def _verdict(this: _Prior, near: list[_Prior], *, several: bool) -> int:
    """Return what a reading decoded once more is, given those kept of its identity in the order of the log."""
    kept = [one for one in near if one.revision != _SUPPRESSED]
    if not kept:
        return UNCHANGED if near else ACCEPTED
    mine = [one for one in kept if one.digest == this.digest]
    if len({one.time for one in mine}) > 1:
        mine = [one for one in mine if one.time == this.time] or mine
    # One version says one thing of an identity, or several at once: then they follow one another.
    if several or any(one.version == other.version for one, other in pairwise(mine)):
        return EQUAL if any(one.bits == this.bits for one in mine or kept) else ACCEPTED
    if mine:
        return EQUAL if mine[-1].bits == this.bits else ACCEPTED
    # Its value was another message's too, and was not kept twice: what those say now is what this one says.
    last = {one.digest: one.bits for one in kept}
    return EQUAL if this.bits in last.values() else ACCEPTED
