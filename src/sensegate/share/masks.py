"""What a subscriber may not see as it is: applied once, on columns, before any encoder.

A mask changes neither the number nor the order of an entry's rows, so that cursors stay what they are; rows that it
hides are left out by `hidden`. Numbers of rows of an entry are looked at as a whole column, words once a table.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from sensegate.bus.columns import Batch, Origins, WordColumn
from sensegate.errors import ConfigError
from sensegate.model import BOOL, F64
from sensegate.quantities.properties import PROPERTIES, ValueKind
from sensegate.share.records import plain

PLACE, PROFILE, DEVICE = "place", "profile", "device"
GRID_MIN_M, GRID_MAX_M = 10.0, 200_000.0
TIME_MAX_S = 31 * 86_400
DIGITS = (2, 4, 6, 9)
WHOLE = "video_observation"
"""A property whose text is a record of its own: what is masked could be read inside it, so that it is left out."""
_COUNTED = frozenset({"people", "traffic"})
_SEEN = frozenset({*_COUNTED, "parking", "video"})
"""Domains of what cameras report."""
_COUNT_UNITS = frozenset({"1", "/min", "/h"})
_METRES_A_DEGREE = 111_320.0
_FLAT = 0.01
"""Least cosine of a latitude: near the poles cells of longitude grow no wider."""
_WORD, _SEAL = 20, 8
_EXACT = 2.0**52
_SEEN_MAX, _ROWS_MAX = 1_024, 500_000
"""How many masked entries are kept, and how many rows in all (at most 24 bytes each, words apart)."""


class Rounding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values of a property as multiples of a step."""

    property: str
    step: float
    """In the property's canonical unit, above 0."""


class Mask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is left out, coarsened or replaced. The empty one changes nothing."""

    drop: tuple[str, ...] = ()
    """Properties whose rows are left out; ``place`` and ``profile`` are emptied."""
    round: tuple[Rounding, ...] = ()
    hash: tuple[str, ...] = ()
    """``device`` and string properties that become pseudonyms."""
    grid_m: float = 0.0
    """Places become the middle of cells of so many metres; 0: as they are."""
    time_s: int = 0
    """Times become the beginning of periods of so many seconds; 0: as they are."""
    division_digits: int = 0
    """Divisions are cut to so many digits; 0: as they are."""
    k: int = 0
    """Counts of people and vehicles below it are left out, and so are counters, whose differences are counts."""
    key: str = ""
    """Which pseudonyms: two masks of the same key have the same ones. Set to the grant's id where it is left out."""

    def __bool__(self) -> bool:
        return msgspec.structs.replace(self, key="") != NONE

    @property
    def coarsens(self) -> bool:
        """Whether a record inside a text would tell more than the columns beside it."""
        if self.grid_m or self.time_s or self.division_digits or self.k or {DEVICE, PLACE} & {*self.hash, *self.drop}:
            return True
        # One by one stands in the text what the columns have as sums, and what was seen as it was.
        named = {*self.drop, *self.hash, *(one.property for one in self.round)} - {PROFILE}
        return any((at := PROPERTIES.find(name)) >= 0 and PROPERTIES[at].domain in _SEEN for name in named)


NONE = Mask()


def check(mask: Mask) -> None:
    """Return if the mask can be applied.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    for name in mask.drop:
        if name not in {PLACE, PROFILE}:
            _known(name, "mask.drop", f"{PLACE}, {PROFILE} or a property")
    for rounding in mask.round:
        if _known(rounding.property, "mask.round", "a number") is not ValueKind.NUMBER:
            raise ConfigError(f"'{rounding.property}' is no number", key="mask.round", remedy="drop or hash it")
        if not (math.isfinite(rounding.step) and rounding.step > 0):
            raise ConfigError(f"step {rounding.step}", key="mask.round", remedy="a number above 0")
    if len({rounding.property for rounding in mask.round}) < len(mask.round):
        raise ConfigError("a property stands twice", key="mask.round", remedy="one step each")
    for name in mask.hash:
        if name != DEVICE and _known(name, "mask.hash", f"{DEVICE} or a string") is not ValueKind.STRING:
            raise ConfigError(f"'{name}' is no string", key="mask.hash", remedy="round or drop it")
    if mask.grid_m and not GRID_MIN_M <= mask.grid_m <= GRID_MAX_M:
        raise ConfigError(f"{mask.grid_m} m", key="mask.grid_m", remedy=f"{GRID_MIN_M:g} to {GRID_MAX_M:g}, or 0")
    if not 0 <= mask.time_s <= TIME_MAX_S:
        raise ConfigError(f"{mask.time_s} s", key="mask.time_s", remedy=f"0 to {TIME_MAX_S}")
    if mask.division_digits and mask.division_digits not in DIGITS:
        raise ConfigError(str(mask.division_digits), key="mask.division_digits", remedy="2, 4, 6 or 9, or 0")
    if mask.k < 0:
        raise ConfigError(str(mask.k), key="mask.k", remedy="0 or more")


def _known(name: str, key: str, remedy: str) -> ValueKind:
    index = PROPERTIES.find(name)
    if index < 0:
        near = PROPERTIES.nearest(name)
        raise ConfigError(f"no property '{name[:64]}'", key=key, remedy=f"did you mean '{near}'?" if near else remedy)
    return PROPERTIES[index].kind


def hidden(batch: Batch, mask: Mask) -> BOOL:
    """Return which rows of a batch a mask leaves out."""
    drop = {*mask.drop} | ({WHOLE} if mask.coarsens else set())
    names = [plain(name) for name in batch.properties]
    gone = np.fromiter((name in drop for name in names), np.bool_, len(names))
    if not mask.k:
        return gone[batch.property]
    count, counter = (np.fromiter(map(test, names), np.bool_, len(names)) for test in (_is_count, _is_counter))
    few: BOOL = (gone | counter)[batch.property]
    # `not >=` and not `<`: what is no number is left out too.
    return few | (count[batch.property] & ~(batch.value >= mask.k))


def _is_count(name: str) -> bool:
    index = PROPERTIES.find(name)
    return index >= 0 and PROPERTIES[index].domain in _COUNTED and PROPERTIES[index].unit in _COUNT_UNITS


def _is_counter(name: str) -> bool:
    return _is_count(name) and PROPERTIES[PROPERTIES.find(name)].counter


class Masks:
    """Applies masks; holds the secret of which all pseudonyms are made."""

    def __init__(self, secret: bytes) -> None:
        """Take a secret of at least 16 bytes that stays the same over restarts: pseudonyms do then."""
        if len(secret) < 16:
            raise ConfigError("the secret of the masks is too short", remedy="32 random bytes")
        self._secret = secret
        self._seen: OrderedDict[tuple[int, Mask], Batch] = OrderedDict()
        self._rows = 0

    def seen(self, batch: Batch, entry: int, mask: Mask) -> Batch:
        """Return `apply` of an entry of the log; equal masks share it."""
        if not mask:
            return batch
        key = (entry, mask)
        known = self._seen.get(key)
        if known is not None:
            self._seen.move_to_end(key)
            return known
        made = self._seen[key] = self.apply(batch, mask)
        self._rows += len(made)
        while len(self._seen) > 1 and (len(self._seen) > _SEEN_MAX or self._rows > _ROWS_MAX):
            self._rows -= len(self._seen.popitem(last=False)[1])
        return made

    def apply(self, batch: Batch, mask: Mask) -> Batch:
        """Return the batch as the mask shows it: the same rows in the same order."""
        if not mask:
            return batch
        changes: dict[str, Any] = {"origins": self._origins(batch.origins, mask)}
        if mask.round:
            changes["value"] = _rounded(batch, mask.round)
        if mask.time_s:
            period = mask.time_s * 1_000_000
            changes["time"] = batch.time // period * period
            changes["received"] = batch.received // period * period
        if batch.text and (words := {*mask.hash} - {DEVICE}):
            names = [plain(name) in words for name in batch.properties]
            pseudonym = self.pseudonyms(mask.key)
            changes["text"] = {
                row: pseudonym(word) if names[batch.property[row]] else word for row, word in batch.text.items()
            }
        return msgspec.structs.replace(batch, **changes)

    def _origins(self, origins: Origins, mask: Mask) -> Origins:
        changes: dict[str, Any] = {}
        if DEVICE in mask.hash:
            changes["device"] = list(map(self.pseudonyms(mask.key), origins.device))
        if digits := mask.division_digits:
            changes["division"] = _renamed(origins.division, lambda code: code[:digits])
        if PROFILE in mask.drop:
            changes["profile"] = _renamed(origins.profile, lambda _: "")
        if PLACE in mask.drop:
            changes["lon"] = changes["lat"] = np.full(len(origins), np.nan)
        elif mask.grid_m:
            changes["lon"], changes["lat"] = gridded(origins.lon, origins.lat, mask.grid_m)
        return msgspec.structs.replace(origins, **changes)

    def pseudonyms(self, key: str) -> Callable[[str], str]:
        """Return what makes pseudonyms of words: ``~`` and 28 hex digits; one of its own stays what it is."""
        secret = hashlib.blake2b(self._secret, key=key.encode()[:64], digest_size=32).digest()

        def made(word: str) -> str:
            if len(word) == 1 + _WORD + _SEAL and word[0] == "~" and _mac(secret, word[: 1 + _WORD]) == word[-_SEAL:]:
                return word
            head = "~" + hashlib.blake2b(word.encode(), key=secret, digest_size=_WORD // 2).hexdigest()
            return head + _mac(secret, head)

        return made


def _mac(secret: bytes, head: str) -> str:
    return hashlib.blake2b(head.encode(), key=secret, digest_size=_SEAL // 2, person=b"seal").hexdigest()


def _renamed(words: WordColumn, name: Callable[[str], str]) -> WordColumn:
    """Return a column with each word replaced; words that become alike are one."""
    table = sorted({name(word) for word in words.table})
    place = np.array([table.index(name(word)) for word in words.table], np.uint16)
    return WordColumn(table, place[words.index] if len(place) else words.index)


def _rounded(batch: Batch, roundings: Iterable[Rounding]) -> F64:
    value = batch.value.copy()
    names = [plain(name) for name in batch.properties]
    for one in roundings:
        which = np.fromiter((name == one.property for name in names), np.bool_, len(names))
        rows = np.flatnonzero(which[batch.property])
        if rows.size:
            value[rows] = stepped(value[rows], one.step)
    return value


def stepped(value: F64, step: float) -> F64:
    """Return values as the nearest multiples of a step; where a float is coarser than the step it stays."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inverse = float(np.rint(np.float64(1) / step))
        even = step < 1 and math.isclose(inverse * step, 1.0, rel_tol=1e-12)
        # Multiples of 0.1 are tenths of a whole number: 0.3, and not 0.1 three times.
        count = np.rint(value * inverse) if even else np.rint(value / step)
        near: F64 = count / inverse if even else count * step
    return np.where((np.abs(count) < _EXACT) & np.isfinite(near), near, value) + 0.0


def gridded(lon: F64, lat: F64, metres: float) -> tuple[F64, F64]:
    """Return the middle of each place's cell, to seven decimals; every place of a cell has the same."""
    tall = metres / _METRES_A_DEGREE
    middle: F64 = np.clip(np.round((np.floor(lat / tall) + 0.5) * tall, 7), -90, 90)
    wide = tall / np.maximum(np.cos(np.radians(middle)), _FLAT)
    across: F64 = np.clip(np.round((np.floor(lon / wide) + 0.5) * wide, 7), -180, 180)
    return np.where(np.isnan(lat), np.nan, across), np.where(np.isnan(lon), np.nan, middle)
