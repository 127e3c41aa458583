"""Small parts that formats of cameras share: values that may arrive as text, ids that may say too much, identities."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from sensegate.video.form import Veil

_TOKEN = re.compile(
    r"(?:(?:cam|camera|channel|ch|video|videosource|vs|source|src|analytics|vac|va|line|linedetector|region|zone|area|field"
    r"|fielddetector|lane|rule|myrule|counter|count|profile|input|output|digitalinput|relay|alarmin|sensor|temp|temperature"
    r"|spot|box|module|object|track|recording|job|token|port|preset|fence|group|default)[ _.:-]?)?\d{1,3}",
    re.IGNORECASE | re.ASCII,
)
"""What a device calls its own parts: a number, or a word of the trade with one. People give other names."""
_NUMBER_LENGTH: Final = 40
_PLATE = re.compile(r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-Z]")
_TRUE: Final = frozenset({"true", "1", "on", "yes", "active", "started", "start", "partiallyactive", "recording"})
_FALSE: Final = frozenset({"false", "0", "off", "no", "inactive", "idle", "stopped", "stop", "error", "removed"})

Node = Mapping[str, Any]
EMPTY: Final[Node] = {}


def identity(*parts: object) -> str:
    """Return the id of an observation: 32 hex digits over what makes it the same one when it is sent again."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def number(value: object, low: float = -1e12, high: float = 1e12) -> float | None:
    """Return a finite number within bounds, also one in quotes; None for anything else."""
    if isinstance(value, str):
        if len(value) > _NUMBER_LENGTH or not value.isascii() or "_" in value:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if isfinite(found) and low <= found <= high else None


def whole(value: object, low: int = 0, high: int = 2**53) -> int | None:
    """Return a whole number within bounds, also one in quotes."""
    found = number(value, low, high)
    return int(found) if found is not None and found == int(found) else None


def truth(value: object) -> bool | None:
    """Return what a state says, in any of its spellings."""
    word = str(value).strip().lower() if isinstance(value, bool | int | str) and len(str(value)) < 20 else ""
    return True if word in _TRUE else False if word in _FALSE else None


def text(value: object) -> str:
    """Return the text of a node: itself, or beside its attributes; of a repeated one the first; else empty."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("#text")
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def node(value: object) -> Node:
    """Return a node's members, of a repeated one the first's; none where it has none."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else EMPTY


def many(value: object) -> list[Any]:
    """Return all repetitions; what occurs once may stand without a list."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def named(value: object, veil: Veil) -> str:
    """Return the name of a part of a device: as it is where devices give such names, else its pseudonym."""
    word = text(value)
    return word if not word or _TOKEN.fullmatch(word) else veil.word(word)


def region(plate: str) -> str:
    """Return province and authority letter of a number plate of mainland China, else nothing."""
    found = _PLATE.match(plate.strip().upper())
    return found[0] if found else ""


def rest(where: str, members: Node, kept: frozenset[str], removed: dict[str, int]) -> None:
    """Count the members of a node that are not kept, by ``where.name``."""
    for name in members.keys() - kept:
        field = f"{where}.{name.lstrip('@')}"
        removed[field] = removed.get(field, 0) + 1


def take(field: str, removed: dict[str, int], count: int = 1) -> None:
    """Count one field that was taken out."""
    removed[field] = removed.get(field, 0) + count
