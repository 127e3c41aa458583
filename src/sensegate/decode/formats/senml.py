"""SenML JSON packs (RFC 8428), with base fields resolved, so that each record is complete.

The tree is a list of ``{"name", "bn", "n", "u", "t", "v" | "vs" | "vb" | "vd", "s"}``: ``name`` is the full name,
``bn`` and ``n`` its two parts as sent; ``t`` is Unix seconds, or seconds from the arrival if it is below 2**28 (the
time format ``senml`` handles both).
"""

from __future__ import annotations

from typing import Any

from sensegate.decode.formats import json
from sensegate.decode.frame import PayloadFrame, plain
from sensegate.errors import Rejected
from sensegate.model import QuarantineReason

_VERSION_MAX = 10
_NUMBERS = ("bt", "bv", "bs", "bver", "t", "v", "s", "ut")
_TEXTS = ("bn", "bu", "n", "u", "vs", "vd")


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
        base.update((key, record[key]) for key in base if key in record)
        name = record.get("n", "")
        entry: dict[str, Any] = {"name": base["bn"] + name, "bn": base["bn"], "n": name}
        entry["t"] = base["bt"] + record.get("t", 0)
        if unit := record.get("u", base["bu"]):
            entry["u"] = unit
        if "v" in record or not {"vs", "vb", "vd", "s"} & record.keys():
            if "v" not in record and not base["bv"]:
                continue  # a record that only sets base fields
            entry["v"] = base["bv"] + record.get("v", 0)
        for key in ("vs", "vb", "vd"):
            if key in record:
                entry[key] = record[key]
        if "s" in record:
            entry["s"] = base["bs"] + record["s"]
        records.append(entry)
    return records


def _check(record: dict[str, Any], index: int) -> None:
    for key, value in record.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        mistyped = (key in _NUMBERS and not number) or (key in _TEXTS and not isinstance(value, str))
        if mistyped or (key == "vb" and not isinstance(value, bool)):
            raise Rejected(QuarantineReason.SCHEMA, f"record {index}: '{key}' has the wrong type")
        if key.endswith("_"):
            raise Rejected(QuarantineReason.SCHEMA, f"record {index}: '{key}' must be understood and is unknown")
    if record.get("bver", _VERSION_MAX) > _VERSION_MAX:
        raise Rejected(QuarantineReason.SCHEMA, f"record {index}: SenML version {record['bver']}")


def _parse(frame: PayloadFrame) -> Any:
    return parse(frame.payload, frame.nesting_max)


FORMAT = plain(_parse)
