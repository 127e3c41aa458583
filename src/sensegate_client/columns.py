"""A page of readings as columns: memory views, NumPy arrays, pandas and Arrow tables, or records.

NumPy, pandas and pyarrow are imported only by the functions that return their types.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from sensegate_client.errors import ClientError
from sensegate_client.records import Record

FORMAT = 1
"""Version of the encoding that this client reads."""
_CODES = {"<u1": "B", "<u2": "H", "<u4": "I", "<i8": "q", "<f8": "d"}
"""NumPy's name of a type -> its code in `array` and `memoryview`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Devices(msgspec.Struct, frozen=True):
    device: list[str]
    division: list[str]
    lon: list[float | None]
    lat: list[float | None]
    grade: list[int]
    profile: list[str]


class _Properties(msgspec.Struct, frozen=True):
    name: list[str]
    channel: list[str]
    unit: list[str]
    kind: list[str]


class _Words(msgspec.Struct, frozen=True):
    quality: dict[str, str]
    time_quality: dict[str, str]
    flags: dict[str, str]


class _Page(msgspec.Struct, frozen=True):
    format: int
    next: str
    count: int
    columns: dict[str, memoryview]
    types: dict[str, str]
    text: dict[str, str]
    nodes: list[str]
    origins: _Devices
    properties: _Properties
    words: _Words


_DECODER = msgspec.msgpack.Decoder(_Page)


class Columns:
    """Readings of one page; row *i* of every column belongs to the same reading."""

    def __init__(self, body: bytes) -> None:
        """Take a page as the gateway encodes it. Raises `ClientError`."""
        try:
            self._page = _DECODER.decode(body)
        except msgspec.DecodeError as error:
            raise ClientError(f"the answer is not a page of columns: {error}") from error
        if self._page.format != FORMAT:
            raise ClientError(f"format {self._page.format} of columns is unknown; install a newer sensegate-client")

    def __len__(self) -> int:
        return self._page.count

    @property
    def next(self) -> str:
        """Cursor after the last row; empty: nothing can follow."""
        return self._page.next

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that `column` returns."""
        return tuple(self._page.types)

    @property
    def devices(self) -> list[str]:
        """Device of each number in column ``origin``."""
        return self._page.origins.device

    @property
    def properties(self) -> list[str]:
        """Property of each number in column ``property``."""
        return self._page.properties.name

    @property
    def text(self) -> dict[int, str]:
        """Row -> its value, for values that are texts."""
        return {int(row): value for row, value in self._page.text.items()}

    def column(self, name: str) -> memoryview:
        """Return a column as numbers; ``numpy.asarray`` takes it without a copy. Times are µs UTC."""
        try:
            code = _CODES[self._page.types[name]]
        except KeyError:
            raise ClientError(f"there is no column '{name}'; use one of {', '.join(self.names)}") from None
        raw: Any = self._page.columns[name]
        if sys.byteorder == "little":
            view: memoryview = raw.cast(code)
            return view
        swapped = array(code, raw.tobytes())
        swapped.byteswap()
        return memoryview(swapped)

    # ── records ───────────────────────────────────────────────────────────────────────────────────────

    def records(self) -> Iterator[Record]:
        """Yield the rows as records, without cursors of their own: `next` is the cursor of the page."""
        page, text = self._page, self.text
        origins, properties, words = page.origins, page.properties, page.words
        flags = {int(bit): word for bit, word in words.flags.items()}
        columns = {name: self.column(name).tolist() for name in page.types}
        for row in range(page.count):
            origin, prop, bits = columns["origin"][row], columns["property"][row], columns["flags"][row]
            number = columns["value"][row]
            value: float | bool | str | None = number
            if row in text:
                value = text[row]
            elif number != number:  # noqa: PLR0124 - not a number
                value = None
            elif properties.kind[prop] == "boolean":
                value = bool(number)
            yield Record(
                id=f"{page.nodes[columns['node'][row]]}-{columns['sequence'][row]:014d}-{columns['index'][row]}",
                device=origins.device[origin],
                property=properties.name[prop],
                channel=properties.channel[prop],
                value=value,
                unit=properties.unit[prop],
                time=_EPOCH + timedelta(microseconds=columns["time"][row]),
                time_quality=words.time_quality.get(str(columns["time_quality"][row]), "unknown"),
                received=_EPOCH + timedelta(microseconds=columns["received"][row]),
                quality=words.quality.get(str(columns["quality"][row]), "unknown"),
                division=origins.division[origin],
                lon=origins.lon[origin],
                lat=origins.lat[origin],
                grade=origins.grade[origin],
                profile=origins.profile[origin],
                flags=tuple(word for bit, word in flags.items() if bits & bit),
                revision=columns["revision"][row],
                node=page.nodes[columns["node"][row]].rpartition("-")[0],
            )

    # ── arrays and tables ─────────────────────────────────────────────────────────────────────────────

    def numpy(self) -> dict[str, Any]:
        """Return NumPy arrays by name; times as ``datetime64[us]``, texts as objects (shared, not copied).

        ``text_value`` is present where values are texts; ``value`` is NaN there.
        """
        import numpy as np  # noqa: PLC0415 - optional

        page = self._page
        arrays: dict[str, Any] = {name: np.asarray(self.column(name)) for name in page.types}
        origin, prop = arrays.pop("origin"), arrays.pop("property")
        for name in ("time", "received"):
            arrays[name] = arrays[name].view("datetime64[us]")
        for name, words in self._dictionaries().items():
            if words.numbers == "origin":
                arrays[name] = np.array(words.texts, object)[origin]
            elif words.numbers == "property":
                arrays[name] = np.array(words.texts, object)[prop]
        for name in ("lon", "lat"):
            degrees = getattr(page.origins, name)
            arrays[name] = np.array([np.nan if value is None else value for value in degrees], np.float64)[origin]
        arrays["grade"] = np.array(page.origins.grade, np.uint8)[origin]
        if page.text:
            texts = np.full(page.count, None, object)
            for row, value in self.text.items():
                texts[row] = value
            arrays["text_value"] = texts
        return arrays

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame; texts that repeat are categories, ``time`` and ``received`` are UTC."""
        import pandas as pd  # noqa: PLC0415 - optional

        arrays = self.numpy()
        for name, words in self._dictionaries().items():
            values = list(dict.fromkeys(words.texts))
            place = {value: number for number, value in enumerate(values)}
            codes = [place[value] for value in words.texts]
            numbers = self._numpy_codes(words.numbers, codes)
            arrays[name] = pd.Categorical.from_codes(numbers, values)
        for name in ("time", "received"):
            arrays[name] = pd.to_datetime(arrays[name], utc=True)
        return pd.DataFrame(arrays)

    def to_arrow(self) -> Any:
        """Return a pyarrow Table; texts that repeat are dictionaries, ``time`` and ``received`` are UTC."""
        import pyarrow as pa  # noqa: PLC0415 - optional

        arrays = self.numpy()
        table: dict[str, Any] = {}
        for name, column in arrays.items():
            if name in {"time", "received"}:
                table[name] = pa.array(column.view("int64"), pa.timestamp("us", tz="UTC"))
            elif column.dtype != object:
                table[name] = pa.array(column)
        for name, words in self._dictionaries().items():
            numbers = self._numpy_codes(words.numbers, list(range(len(words.texts))))
            encoded = pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(words.texts, pa.string()))
            table[name] = encoded
        if "text_value" in arrays:
            table["text_value"] = pa.array(arrays["text_value"], pa.string())
        return pa.table(table)

    def _numpy_codes(self, numbers: str, codes: list[int]) -> Any:
        """Return `codes` of the numbers of a column; of one with words, the place of its word."""
        import numpy as np  # noqa: PLC0415 - optional

        return np.array(codes or [0], np.int32)[np.asarray(self.column(numbers))]

    def _dictionaries(self) -> dict[str, _Dictionary]:
        """Return the columns of texts: which column numbers them, and the text of each number."""
        page = self._page
        return {
            "device": _Dictionary("origin", page.origins.device),
            "division": _Dictionary("origin", page.origins.division),
            "profile": _Dictionary("origin", page.origins.profile),
            "property": _Dictionary("property", page.properties.name),
            "channel": _Dictionary("property", page.properties.channel),
            "unit": _Dictionary("property", page.properties.unit),
            "node": _Dictionary("node", [name.rpartition("-")[0] for name in page.nodes]),
        }


class _Dictionary(msgspec.Struct, frozen=True):
    numbers: str
    texts: list[str]
