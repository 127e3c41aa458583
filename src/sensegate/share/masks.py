"""Masks: what a grant hides, coarsens or pseudonymises, applied once on columns before any encoder.

A mask changes neither the number nor the order of an entry's rows, so that cursors stay valid; rows that it hides are
left out by `hidden_rows`. Numbers are processed as columns, words once for each word table.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from sensegate.bus.columns import Batch, Origins, WordColumn
from sensegate.errors import ConfigError
from sensegate.model import BOOL, F64
from sensegate.quantities.properties import PROPERTIES, Property, ValueKind
from sensegate.share.records import base_name

PLACE, PROFILE, DEVICE = "place", "profile", "device"
GRID_MIN_M, GRID_MAX_M = 10.0, 200_000.0
TIME_MAX_S = 31 * 86_400
DIGITS = (2, 4, 6, 9)
WHOLE_OBSERVATION = "video_observation"
ALARM_EVENT = "alarm_event"
"""Property whose text is a complete record: it is left out, since the text would reveal what is masked."""
_COUNT_DOMAINS = frozenset({"people", "traffic"})
_CAMERA_DOMAINS = frozenset({*_COUNT_DOMAINS, "parking", "video"})
"""Domains of properties that cameras report."""
_COUNT_UNITS = frozenset({"1", "/min", "/h"})
_METRES_A_DEGREE = 111_320.0
_COSINE_MIN = 0.01
"""Least cosine of a latitude: limits the width of cells near the poles."""
_DIGEST_DIGITS, _CHECK_DIGITS = 20, 8
_EXACT_MAX = 2.0**52
_CACHE_ENTRIES_MAX, _CACHE_ROWS_MAX = 1_024, 500_000
"""Most cached masked entries, and most rows in all of them (at most 24 bytes each, without words)."""


class Rounding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rounding of the values of a property to multiples of a step."""

    property: str
    step: float
    """Step in the canonical unit of the property, above 0."""


class Mask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields to leave out, to coarsen and to pseudonymise; the empty mask changes nothing."""

    drop: tuple[str, ...] = ()
    """Properties whose rows are left out; for ``place`` and ``profile`` the columns are emptied."""
    round: tuple[Rounding, ...] = ()
    hash: tuple[str, ...] = ()
    """``device`` and string properties that are replaced by pseudonyms."""
    grid_m: float = 0.0
    """Positions become the centres of grid cells of this size; 0: unchanged."""
    time_s: int = 0
    """Times become the starts of periods of this length; 0: unchanged."""
    division_digits: int = 0
    """Division codes are truncated to this many digits; 0: unchanged."""
    k: int = 0
    """Counts of people and vehicles below this are left out, and so are their counters; 0: none."""
    key: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Namespace of the pseudonyms: masks of the same key give the same ones. Empty: the id of the grant."""

    def __bool__(self) -> bool:
        return msgspec.structs.replace(self, key="") != NO_MASK

    @property
    def coarsens(self) -> bool:
        """Return whether a record inside a text would reveal more than the masked columns."""
        if self.grid_m or self.time_s or self.division_digits or self.k or {DEVICE, PLACE} & {*self.hash, *self.drop}:
            return True
        # The text holds single observations and exact values, the columns sums and masked ones.
        named = {*self.drop, *self.hash, *(rounding.property for rounding in self.round)} - {PROFILE}
        return any(
            (index := PROPERTIES.find(name)) >= 0 and PROPERTIES[index].domain in _CAMERA_DOMAINS for name in named
        )

    def period_start(self, time: int) -> int:
        """Return the start of the period that contains a time (µs UTC); the time where none are masked."""
        return time - time % (self.time_s * 1_000_000) if self.time_s else time

    def period_end(self, time: int) -> int:
        """Return the start of the first period at or after a time (µs UTC); the time where none are masked."""
        return time + -time % (self.time_s * 1_000_000) if self.time_s else time


NO_MASK = Mask()


def check_mask(mask: Mask) -> None:
    """Return if a mask is valid.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    for name in mask.drop:
        if name not in {PLACE, PROFILE}:
            known_property(name, key="mask.drop", otherwise=f"give {PLACE}, {PROFILE} or a property")
    for rounding in mask.round:
        rounded = known_property(rounding.property, key="mask.round", otherwise="give a number")
        if rounded.kind is not ValueKind.NUMBER:
            raise ConfigError(f"'{rounding.property}' is not a number", key="mask.round", remedy="drop or hash it")
        if not (math.isfinite(rounding.step) and rounding.step > 0):
            raise ConfigError(f"step {rounding.step} is not allowed", key="mask.round", remedy="give a number above 0")
    if len({rounding.property for rounding in mask.round}) < len(mask.round):
        raise ConfigError("a property is given twice", key="mask.round", remedy="give one step for each property")
    for name in mask.hash:
        otherwise = f"give {DEVICE} or a string"
        if name != DEVICE and known_property(name, key="mask.hash", otherwise=otherwise).kind is not ValueKind.STRING:
            raise ConfigError(f"'{name}' is not a string", key="mask.hash", remedy="round or drop it")
    if mask.grid_m and not GRID_MIN_M <= mask.grid_m <= GRID_MAX_M:
        raise ConfigError(
            f"{mask.grid_m} m is out of range", key="mask.grid_m", remedy=f"give {GRID_MIN_M:g} to {GRID_MAX_M:g}, or 0"
        )
    if not 0 <= mask.time_s <= TIME_MAX_S:
        raise ConfigError(f"{mask.time_s} s is out of range", key="mask.time_s", remedy=f"give 0 to {TIME_MAX_S}")
    if mask.division_digits and mask.division_digits not in DIGITS:
        raise ConfigError(
            f"{mask.division_digits} is not a level", key="mask.division_digits", remedy="give 2, 4, 6, 9 or 0"
        )
    if mask.k < 0:
        raise ConfigError(f"{mask.k} is negative", key="mask.k", remedy="give 0 or more")


def known_property(name: str, *, key: str, otherwise: str) -> Property:
    """Return a property. Raises `ConfigError` with the nearest name as remedy, or with `otherwise`."""
    index = PROPERTIES.find(name)
    if index < 0:
        near = PROPERTIES.nearest(name)
        remedy = f"did you mean '{near}'?" if near else otherwise
        raise ConfigError(f"there is no property '{name[:64]}'", key=key, remedy=remedy)
    return PROPERTIES[index]


def hidden_rows(batch: Batch, mask: Mask) -> BOOL:
    """Return which rows of a batch a mask leaves out."""
    hidden: BOOL = hidden_properties(batch.properties, mask)[batch.property]
    if not mask.k:
        return hidden
    counts = np.fromiter((_is_count(base_name(name)) for name in batch.properties), np.bool_, len(batch.properties))
    # `not >=` instead of `<`, so that NaN is left out too.
    return hidden | (counts[batch.property] & ~(batch.value >= mask.k))


def hidden_properties(names: Sequence[str], mask: Mask) -> BOOL:
    """Return which properties, by their names in feeds, a mask leaves out whatever their values."""
    drop = {*mask.drop} | ({WHOLE_OBSERVATION, ALARM_EVENT} if mask.coarsens else set())
    bases = [base_name(name) for name in names]
    return np.fromiter((name in drop or (mask.k > 0 and _is_counter(name)) for name in bases), np.bool_, len(bases))


def _is_count(name: str) -> bool:
    index = PROPERTIES.find(name)
    return index >= 0 and PROPERTIES[index].domain in _COUNT_DOMAINS and PROPERTIES[index].unit in _COUNT_UNITS


def _is_counter(name: str) -> bool:
    return _is_count(name) and PROPERTIES[PROPERTIES.find(name)].counter


class Masks:
    """Applies masks; holds the secret from which pseudonyms are derived."""

    def __init__(self, secret: bytes) -> None:
        """`secret`: at least 16 bytes; pseudonyms stay the same as long as it does."""
        if len(secret) < 16:
            raise ConfigError("the secret of the masks is too short", remedy="give 32 random bytes")
        self._secret = secret
        self._masked: OrderedDict[tuple[int, Mask], Batch] = OrderedDict()
        self._rows = 0

    def derived_key(self, purpose: str) -> bytes:
        """Return a key of 32 bytes for another purpose, the same as long as the secret is."""
        return hashlib.blake2b(self._secret, key=purpose.encode(), digest_size=32).digest()

    def masked(self, batch: Batch, entry: int, mask: Mask) -> Batch:
        """Return the masked batch of an entry of the log, cached for equal masks."""
        if not mask:
            return batch
        key = (entry, mask)
        cached = self._masked.get(key)
        if cached is not None:
            self._masked.move_to_end(key)
            return cached
        masked = self._masked[key] = self.apply(batch, mask)
        self._rows += len(masked)
        while len(self._masked) > 1 and (len(self._masked) > _CACHE_ENTRIES_MAX or self._rows > _CACHE_ROWS_MAX):
            self._rows -= len(self._masked.popitem(last=False)[1])
        return masked

    def apply(self, batch: Batch, mask: Mask) -> Batch:
        """Return a masked batch: the same rows in the same order."""
        if not mask:
            return batch
        changes: dict[str, Any] = {"origins": self._origins(batch.origins, mask)}
        if mask.round:
            changes["value"] = _rounded_values(batch, mask.round)
        if mask.time_s:
            period = mask.time_s * 1_000_000
            changes["time"] = batch.time // period * period
            changes["received"] = batch.received // period * period
        if batch.text and (words := {*mask.hash} - {DEVICE}):
            names = [base_name(name) in words for name in batch.properties]
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
            changes["division"] = _map_words(origins.division, lambda code: code[:digits])
        if PROFILE in mask.drop:
            changes["profile"] = _map_words(origins.profile, lambda _: "")
        if PLACE in mask.drop:
            changes["lon"] = changes["lat"] = np.full(len(origins), np.nan)
        elif mask.grid_m:
            changes["lon"], changes["lat"] = snap_to_grid(origins.lon, origins.lat, mask.grid_m)
        return msgspec.structs.replace(origins, **changes)

    def pseudonyms(self, key: str) -> Callable[[str], str]:
        """Return a function from words to pseudonyms (``~`` and 28 hex digits); pseudonyms stay unchanged."""
        secret = hashlib.blake2b(self._secret, key=key.encode()[:64], digest_size=32).digest()

        def pseudonym(word: str) -> str:
            if (
                len(word) == 1 + _DIGEST_DIGITS + _CHECK_DIGITS
                and word[0] == "~"
                and _mac(secret, word[: 1 + _DIGEST_DIGITS]) == word[-_CHECK_DIGITS:]
            ):
                return word
            head = "~" + hashlib.blake2b(word.encode(), key=secret, digest_size=_DIGEST_DIGITS // 2).hexdigest()
            return head + _mac(secret, head)

        return pseudonym


def _mac(secret: bytes, head: str) -> str:
    return hashlib.blake2b(head.encode(), key=secret, digest_size=_CHECK_DIGITS // 2, person=b"seal").hexdigest()


def _map_words(words: WordColumn, name: Callable[[str], str]) -> WordColumn:
    """Return a column with each word replaced; words that become equal are merged."""
    named = [name(word) for word in words.table]
    table = sorted(set(named))
    numbers = {word: number for number, word in enumerate(table)}
    place = np.array([numbers[word] for word in named], np.uint16)
    return WordColumn(table, place[words.index] if len(place) else words.index)


def _rounded_values(batch: Batch, roundings: Iterable[Rounding]) -> F64:
    value = batch.value.copy()
    names = [base_name(name) for name in batch.properties]
    for rounding in roundings:
        rounded = np.fromiter((name == rounding.property for name in names), np.bool_, len(names))
        rows = np.flatnonzero(rounded[batch.property])
        if rows.size:
            value[rows] = round_to_step(value[rows], rounding.step)
    return value


def round_to_step(value: F64, step: float) -> F64:
    """Return the nearest multiples of a step; a value whose float resolution is coarser than the step is unchanged."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        inverse = float(np.rint(np.float64(1) / step))
        even = step < 1 and math.isclose(inverse * step, 1.0, rel_tol=1e-12)
        # Divide by the inverse: 3 / 10 is 0.3, while 3 * 0.1 is not.
        count = np.rint(value * inverse) if even else np.rint(value / step)
        near: F64 = count / inverse if even else count * step
    return np.where((np.abs(count) < _EXACT_MAX) & np.isfinite(near), near, value) + 0.0


def snap_to_grid(lon: F64, lat: F64, metres: float) -> tuple[F64, F64]:
    """Return the centre of the grid cell of each position, to seven decimals."""
    tall = metres / _METRES_A_DEGREE
    middle: F64 = np.clip(np.round((np.floor(lat / tall) + 0.5) * tall, 7), -90, 90)
    wide = tall / np.maximum(np.cos(np.radians(middle)), _COSINE_MIN)
    across: F64 = np.clip(np.round((np.floor(lon / wide) + 0.5) * wide, 7), -180, 180)
    return np.where(np.isnan(lat), np.nan, across), np.where(np.isnan(lon), np.nan, middle)
