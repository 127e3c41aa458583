"""Texts of devices in records: what depends on the device alone, made once and kept from entry to entry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from sensegate.bus.columns import Origins
from sensegate.model import F64, I64
from sensegate.share import fixed_text

_DEVICES_MAX = 16_384
"""Most devices whose texts are remembered, and as many that were used before them; about 600 bytes each."""
_PLAIN_DEGREES = 1e-4
"""Smaller numbers are written with an exponent, which Python and msgspec write differently."""
_quote = msgspec.json.Encoder().encode

_DeviceKey = tuple[str, str, int, int, int, str]
"""Id, division, bits of longitude and latitude, grade, profile: all that the texts of a device depend on."""
_DeviceTexts = tuple[bytes, bytes]
"""Text before the property, and between quality and flags."""


class DeviceTexts:
    """Parts of the records of devices, which are the same in most entries; the oldest are forgotten."""

    def __init__(self, devices_max: int = _DEVICES_MAX) -> None:
        self._devices_max = devices_max
        self._new: dict[_DeviceKey, _DeviceTexts] = {}
        self._old: dict[_DeviceKey, _DeviceTexts] = {}
        self._table: tuple[Origins, fixed_text.Table, fixed_text.Table] | None = None
        """The last table that was asked for whole, and its texts."""

    def of(self, origins: Origins, entries: I64) -> tuple[fixed_text.Table, fixed_text.Table]:
        """Return both texts of some entries, at least one, of a table."""
        if len(entries) < len(origins):
            return self._of(origins, entries)
        if self._table is None or not _equal_texts(self._table[0], origins):
            self._table = (origins, *self._of(origins, entries))
        return self._table[1:]

    def _of(self, origins: Origins, entries: I64) -> tuple[fixed_text.Table, fixed_text.Table]:
        keys: list[_DeviceKey] = list(
            zip(
                map(origins.device.__getitem__, entries.tolist()),
                map(origins.division.table.__getitem__, origins.division.index[entries].tolist()),
                origins.lon[entries].view(np.int64).tolist(),
                origins.lat[entries].view(np.int64).tolist(),
                origins.grade[entries].tolist(),
                map(origins.profile.table.__getitem__, origins.profile.index[entries].tolist()),
                strict=True,
            )
        )
        texts = list(map(self._new.get, keys))
        if None in texts:
            self._take(keys)
            texts = list(map(self._new.get, keys))
        heads, tails = zip(*(text for text in texts if text is not None), strict=True)
        return fixed_text.table(heads), fixed_text.table(tails)

    def _take(self, keys: list[_DeviceKey]) -> None:
        """Move the texts of these devices to the recent generation; make those that neither generation holds."""
        if len(self._new) + len(keys) > self._devices_max:
            self._new, self._old = {}, self._new
        missing = [key for key in dict.fromkeys(keys) if key not in self._new]
        self._new.update((key, self._old[key]) for key in missing if key in self._old)
        fresh = [key for key in missing if key not in self._old]
        self._new.update(zip(fresh, _texts_of(fresh), strict=True))


def _equal_texts(first: Origins, second: Origins) -> bool:
    """Return whether two tables have the same devices with the same texts."""
    return (
        first.device == second.device
        and first.lon.tobytes() == second.lon.tobytes()
        and first.lat.tobytes() == second.lat.tobytes()
        and np.array_equal(first.grade, second.grade)
        and all(
            words.table == others.table and np.array_equal(words.index, others.index)
            for words, others in ((first.division, second.division), (first.profile, second.profile))
        )
    )


def _texts_of(keys: Sequence[_DeviceKey]) -> Iterator[_DeviceTexts]:
    places = np.array([key[2:4] for key in keys], np.int64).reshape(-1, 2).view(np.float64)
    quoted = {word: _quote(word) for key in keys for word in (key[1], key[5])}
    form = b'","division":%b,"lon":%b,"lat":%b,"grade":%d,"profile":%b,"flags":'
    for key, lon, lat in zip(keys, _degrees(places[:, 0]), _degrees(places[:, 1]), strict=True):
        device, division, _, _, grade, profile = key
        head = b'","device":%b,"property":' % _quote(device)
        yield head, form % (quoted[division], lon, lat, grade, quoted[profile])


def _degrees(values: F64) -> list[bytes]:
    rounded = [round(value, 7) for value in values.tolist()]
    texts = fixed_text.numbers(np.array(rounded))
    for place in np.flatnonzero(~(np.abs(values) >= _PLAIN_DEGREES)).tolist():
        texts[place] = b"null" if rounded[place] != rounded[place] else repr(rounded[place]).encode()
    for place in np.flatnonzero(np.isinf(values)).tolist():
        texts[place] = b"null"
    return texts
