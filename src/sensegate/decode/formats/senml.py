"""SenML JSON packs (RFC 8428), with base fields resolved, so that each record is complete.

The tree is a list of ``{"name", "bn", "n", "u", "ucum", "t", "v" | "vs" | "vb" | "vd", "s", "device", "bases"}``:
``name`` is the full name, ``bn`` and ``n`` its two parts as sent; ``ucum`` is the UCUM code of the unit ``u`` of
SenML's registry (where ``/`` is a ratio and ``B`` a byte); ``device`` is the base name without separators at its end,
``bases`` how many base names the pack has: several are several devices. ``t`` is Unix seconds, or seconds from the
arrival if it is below 2**28 (the time format ``senml`` handles both).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final

from sensegate.decode.formats import json
from sensegate.decode.frame import PayloadFrame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

UNITS: Final = {
    "/": "1", "%RH": "%", "%EL": "%", "/100": "%", "/1000": "[ppth]", "count": "1", "beats": "1", "beat/min": "/min",
    "1/s": "/s", "1/min": "/min", "lat": "deg", "lon": "deg", "EL": "s", "l": "L", "l/s": "L/s", "ug/l": "ug/L",
    "mg/l": "mg/L", "g/l": "g/L", "pH": "[pH]", "NTU": "[NTU]", "ppm": "[ppm]", "ppb": "[ppb]", "ppt": "[pptr]",
    "dBm": "dB", "dBW": "dB[W]", "Bspl": "B[SPL]", "B": "By", "KiB": "KiBy", "GB": "GBy", "MB": "MBy", "kB": "kBy",
    "bit/s": "bit/s", "Mbit/s": "Mbit/s", "B/s": "By/s", "MB/s": "MBy/s", "VA": "V.A", "VAs": "V.A.s", "var": "V.A",
    "vars": "V.A.s", "kVA": "kV.A", "kvar": "kV.A", "Ah": "A.h", "Wh": "W.h", "kWh": "kW.h", "varh": "V.A.h",
    "kvarh": "kV.A.h", "kVAh": "kV.A.h", "VAh": "V.A.h", "Wh/km": "W.h/km",
}  # fmt: skip
"""Units of SenML's registry (RFC 8428, 12.1; RFC 8798) that are no UCUM codes, or other ones -> UCUM code."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*", re.ASCII)
_VALUES: Final = frozenset({"v", "vs", "vb", "vd"})
_REST = re.compile(r"[A-Za-z0-9:./_-]*", re.ASCII)
SEPARATORS: Final = ":/._-"
_VERSION_MAX = 10
BASE_NAME_MAX = 1_024
"""Most characters of a base name, which is repeated in each record: without a limit a message costs its square."""
_CACHED_NAME_MAX = 256
"""Most characters of a name that is cached: long ones would stay in memory by the thousand."""
_NUMBERS = ("bt", "bv", "bs", "bver", "t", "v", "s", "ut")
_TEXTS = ("bn", "bu", "n", "u", "vs", "vd")
_KINDS: Final = {
    **dict.fromkeys(_NUMBERS, frozenset({int, float})),
    **dict.fromkeys(_TEXTS, frozenset({str})),
    "vb": frozenset({bool}),
}
_BASES: Final = ("bn", "bt", "bu", "bv", "bs")


def is_name(text: str) -> bool:
    """Return whether a text is the full name of a record."""
    return _is_short_name(text) if len(text) <= _CACHED_NAME_MAX else _NAME.fullmatch(text) is not None


@lru_cache(8_192)
def _is_short_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def continues_name(text: str) -> bool:
    """Return whether a text may follow a name, as a part of it."""
    return _REST.fullmatch(text) is not None


def parse(payload: bytes, nesting_max: int) -> list[dict[str, Any]]:
    """Return the resolved records. Raises `Rejected` if the payload is not a pack."""
    return records(json.parse(payload, nesting_max))


def records(pack: Any) -> list[dict[str, Any]]:
    """Return the resolved records of a pack. Raises `Rejected` if it is not one."""
    if not isinstance(pack, list) or not pack or not all(isinstance(record, dict) for record in pack):
        raise Rejected(QuarantineReason.SCHEMA, "a SenML pack must be a list of records")
    try:
        return resolve(pack)
    except OverflowError as error:
        raise Rejected(QuarantineReason.SCHEMA, "a number is too large to be added to its base") from error


def resolve(pack: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of a pack with base name, time, unit and value applied."""
    base: dict[str, Any] = {"bn": "", "bt": 0, "bu": "", "bv": 0, "bs": 0}
    records: list[dict[str, Any]] = []
    for index, record in enumerate(pack):
        _check(record, index)
        for key in _BASES:
            if key in record:
                base[key] = record[key]
        name = record.get("n", "")
        entry: dict[str, Any] = {"name": base["bn"] + name, "bn": base["bn"], "n": name}
        entry["t"] = _finite(base["bt"] + record.get("t", 0))
        if unit := record.get("u", base["bu"]):
            entry["u"] = unit
            entry["ucum"] = UNITS.get(unit, unit)
        if "v" in record or not {"vs", "vb", "vd", "s"} & record.keys():
            if "v" not in record and not base["bv"]:
                continue  # a record that only sets base fields
            entry["v"] = _finite(base["bv"] + record.get("v", 0))
        for key in ("vs", "vb", "vd"):
            if key in record:
                entry[key] = record[key]
        if "s" in record:
            entry["s"] = _finite(base["bs"] + record["s"])
        if not is_name(entry["name"]):
            raise Rejected(
                QuarantineReason.SCHEMA,
                f"record {index}: its name is empty, or is not letters, digits and -:./_ after a letter or digit",
            )
        records.append(entry)
    bases = len({entry["bn"] for entry in records})
    for entry in records:
        entry["device"] = entry["bn"].rstrip(SEPARATORS)
        entry["bases"] = bases
    return records


def _finite(total: float) -> float:
    """Return the sum of a base and a value. Raises `OverflowError` if no number holds it."""
    if math.isinf(total):
        raise OverflowError
    return total


def _check(record: dict[str, Any], index: int) -> None:
    values = 0
    for key, value in record.items():
        kinds = _KINDS.get(key)
        if kinds is None:
            if key.endswith("_"):
                raise Rejected(QuarantineReason.SCHEMA, f"record {index}: '{key}' must be understood and is unknown")
        elif type(value) not in kinds:
            raise Rejected(QuarantineReason.SCHEMA, f"record {index}: '{key}' has the wrong type")
        elif key in _VALUES:
            values += 1
    if values > 1:
        raise Rejected(QuarantineReason.SCHEMA, f"record {index} has more than one value")
    if len(record.get("bn", "")) > BASE_NAME_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"record {index}: 'bn' has more than {BASE_NAME_MAX:,} characters")
    if record.get("bver", _VERSION_MAX) > _VERSION_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"record {index}: SenML version {record['bver']}")


def _parse(frame: PayloadFrame) -> Any:
    return parse(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
